mod platforms;

use cooper_types::{RunId, Scope, Timestamp};

use super::*;
use crate::plan::{ArgumentValue, BuildContext, BuildWork, CommandImage, CommandWork, PushedFrom, Work};
use crate::task::{NamedText, SetValue};
use crate::template::RunVariables;

fn inputs(text: &str) -> TaskInputs {
    let registry = RegistryName::parse("localhost:5000").expect("valid");
    let created = Timestamp::from_micros(0);
    let run = RunVariables::quick_build(RunId::from_number(1), &registry, &Platform::LINUX_AMD64, created);
    TaskInputs::new(NamedText { name: "acr-task.yaml".to_owned(), text: text.to_owned() }, run)
}

fn plan_of(inputs: &TaskInputs) -> Result<PlannedTask, TaskPlanError> {
    plan_with(inputs, &["admin"])
}

fn plan_with(inputs: &TaskInputs, scopes: &[&str]) -> Result<PlannedTask, TaskPlanError> {
    let scopes = Scopes(scopes.iter().map(|scope| Scope::parse(scope).expect("valid")).collect());
    let registry = RegistryName::parse("localhost:5000").expect("valid");
    let context = ContextId::parse("c1").expect("valid");
    let platform = &Platform::LINUX_AMD64;
    plan(&TaskPlanRequest { inputs, platform, registry: &registry, context: Some(&context), scopes: &scopes })
}

fn planned(text: &str) -> PlannedTask {
    plan_of(&inputs(text)).unwrap_or_else(|error| panic!("{error}"))
}

fn command(planned: &PlannedTask, index: usize) -> &CommandWork {
    match &planned.plan.steps[index].work {
        Work::Command(command) => command,
        other => panic!("{other:?}"),
    }
}

fn build(planned: &PlannedTask, index: usize) -> &BuildWork {
    match &planned.plan.steps[index].work {
        Work::Build(build) => build,
        other => panic!("{other:?}"),
    }
}

fn networks(planned: &PlannedTask) -> Vec<&str> {
    let environment = planned.plan.placements[0].environment.as_ref().expect("a task's");
    environment.networks.iter().map(|network| network.name.as_str()).collect()
}

#[test]
fn what_a_command_says_reaches_the_agent() {
    let text = "steps:\n- cmd: -t img\n  cmdDownloadRetries: 3\n  cmdDownloadRetryDelay: 7\n  pull: true\n  keep: true\n  expose: ['81']\n  ports: \
                ['82:83']\n  user: nobody\n  entryPoint: sh\n  privileged: true\n  startDelay: 4\n  retries: 2\n  retryDelay: 6\n  repeat: 1\n  \
                retryOnErrors: [again]\n  disableWorkingDirectoryOverride: true\n- cmd: img\n";
    let planned = planned(text);
    let work = command(&planned, 0);
    assert!(work.terminal && work.pull && work.keep && work.privileged && !work.detach);
    assert_eq!((work.pull_retries, work.pull_retry_delay.as_secs()), (3, 7));
    assert_eq!(
        (work.expose.as_slice(), work.ports.as_slice()),
        (["81".to_owned()].as_slice(), ["82:83".to_owned()].as_slice())
    );
    assert_eq!((work.user.as_deref(), work.entry_point.as_deref()), (Some("nobody"), Some("sh")));
    assert_eq!(work.working_directory, None);
    let other = command(&planned, 1);
    assert!(!other.terminal && !other.pull && !other.keep && !other.privileged);
    assert_eq!(other.working_directory.as_deref(), Some("/workspace"));
    let tries = &planned.plan.steps[0].tries;
    assert_eq!((tries.retries, tries.retry_delay.as_secs(), tries.repeat), (2, 6, 1));
    assert_eq!(tries.retry_on_errors, ["again"]);
    assert_eq!(tries.start_delay.as_secs(), 4);
}

#[test]
fn what_an_operator_has_to_allow_is_told_for_each_placement() {
    let leave = |text: &str| planned(text).plan.leave(0).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(leave("steps:\n- cmd: img\n- build: .\n"), [""; 0]);
    assert_eq!(
        leave("steps:\n- cmd: img\n  privileged: true\n- cmd: img\n  network: host\n"),
        ["`privileged`", "network `host`"]
    );
    let networks = "networks:\n- name: lan\n  skipCreation: true\n- name: own\nsteps:\n- cmd: img\n  network: own\n";
    assert_eq!(leave(networks), ["network `lan`"]);
    assert_eq!(
        leave("networks:\n- name: host\nsteps:\n- cmd: img\n  network: host\n"),
        [""; 0],
        "the run's own of that name"
    );
}

#[test]
fn steps_share_a_namespace_where_nobody_can_tell() {
    let alone = "steps:\n  - cmd: busybox true\n  - build: -t a .\n  - cmd: busybox true\n";
    let planned_alone = planned(alone);
    assert_eq!(networks(&planned_alone), [""; 0]);
    assert_eq!(command(&planned_alone, 0).network, None);
    for text in [
        "steps:\n  - cmd: busybox true\n  - cmd: busybox true\n    when: ['-']\n",
        "steps:\n  - cmd: busybox true\n    detach: true\n",
        "steps:\n  - cmd: busybox true\n    ports: ['8080:80']\n",
        "steps:\n  - cmd: busybox true\n    expose: ['80']\n",
        "steps:\n  - cmd: busybox true\n    privileged: true\n",
    ] {
        let planned = planned(text);
        assert_eq!(networks(&planned), ["acb_default_network"], "{text}");
        assert_eq!(command(&planned, 0).network.as_deref(), Some("acb_default_network"), "{text}");
    }
    let declared =
        planned("networks:\n  - name: back\nsteps:\n  - cmd: busybox true\n    network: back\n  - cmd: busybox true\n");
    assert_eq!(networks(&declared), ["back"]);
    assert_eq!(command(&declared, 0).network.as_deref(), Some("back"));
    assert_eq!(command(&declared, 1).network, None, "declared networks without a default one: the engine's own");
}

#[test]
fn names_that_the_run_builds_are_its_own() {
    let planned = planned(
        "steps:\n  - id: one\n    build: -t localhost:5000/app:v1 -t tool .\n  - cmd: tool --version\n  - cmd: busybox true\n  \
         - build: -t app:v2 sub\n  - push: ['localhost:5000/app:v1', 'tool', 'app:v2', 'tool:latest']\n",
    );
    assert_eq!(command(&planned, 1).image, CommandImage::Built { step: 0 });
    assert_eq!(command(&planned, 2).image, CommandImage::Named("busybox:latest".to_owned()));
    let known: Vec<(&str, usize)> =
        build(&planned, 3).own_bases.iter().map(|(name, step)| (name.as_str(), *step)).collect();
    assert_eq!(known, [("localhost:5000/app:v1", 0), ("localhost:5000/tool:latest", 0), ("tool:latest", 0)]);
    let Work::Push(push) = &planned.plan.steps[4].work else { panic!("no push") };
    let pushed: Vec<(String, PushedFrom)> =
        push.names.iter().map(|name| (name.image.to_string(), name.from.clone())).collect();
    let name = |name: &str, step| (format!("localhost:5000/{name}"), PushedFrom::Built(step));
    assert_eq!(pushed, [name("app:v1", 0), name("tool:latest", 0), name("app:v2", 3)]);
}

#[test]
fn a_base_is_the_runs_own_by_either_name_and_of_its_last_build() {
    let planned = planned(
        "steps:\n  - build: -t app .\n  - build: -t localhost:5000/app:latest --build-arg V=2 .\n  - push: [app]\n  - build: -t next .\n",
    );
    let known = &build(&planned, 3).own_bases;
    assert_eq!(known, &[("localhost:5000/app:latest".to_owned(), 1), ("app:latest".to_owned(), 1)]);
    // Docker Hub's image of that name is another one where the run never built it without a registry.
    let planned = self::planned("steps:\n  - build: -t localhost:5000/node:1 .\n  - build: -t next .\n");
    assert_eq!(build(&planned, 1).own_bases, [("localhost:5000/node:1".to_owned(), 0)]);
}

#[test]
fn only_what_has_been_built_for_sure_counts() {
    let beside =
        "steps:\n  - id: one\n    build: -t app .\n    when: ['-']\n  - id: two\n    cmd: app run\n    when: ['-']\n";
    assert_eq!(command(&planned(beside), 1).image, CommandImage::Named("app:latest".to_owned()));
    let error = plan_of(&inputs("steps:\n  - push: ['app:v1']\n")).expect_err("nothing builds it");
    assert!(error.to_string().contains("no step before it builds `app:v1`"), "{error}");
}

#[test]
fn all_that_can_t_be_planned_is_told_at_its_place() {
    let text = "steps:\n- push: ['nothere:1']\n- id: b\n  build: >\n    -t a\n    ../..\n  platforms: [linux/amd64, linux/arm64]\n\
                - push:\n  - a\n  - elsewhere\n- cmd: a true\n  platform: linux/arm/v7\n\
                - build: -t c --secret id=s,src=/keys/s .\n";
    let told = plan_of(&inputs(text)).expect_err("five").to_string();
    let told: Vec<&str> = told.lines().map(|line| line.split("; ").next().unwrap_or(line)).collect();
    let expected = [
        "acr-task.yaml:2:10: step acb_step_0: no step before it builds `nothere:1`",
        "acr-task.yaml:5:5: step b: `../..` is outside the workspace",
        "acr-task.yaml:8:3: step acb_step_2: no step before it builds `elsewhere:latest`",
        "acr-task.yaml:11:8: step acb_step_3 for linux/arm/v7 runs `a:latest`, which step b builds for linux/amd64 and linux/arm64",
        "acr-task.yaml:13:10: step acb_step_4: build secret `s` is file `/keys/s`, which is in none of the step's volumeMounts",
    ];
    assert_eq!(told, expected);
    // A line that a template made is told as it reads without secrets.
    let mut secret = inputs("steps:\n{{range $i := list 1 2}}- push: ['n{{$i}}:1'] # {{$.Secrets.s}}\n{{end}}");
    secret.secrets.insert("s".to_owned(), SecretString::new("hunter22".to_owned()));
    let TaskPlanError::File(faults) = plan_of(&secret).expect_err("two") else { panic!("no faults") };
    assert_eq!(faults.faults.len(), 2);
    assert!(!format!("{faults:?}").contains("hunter22"), "{faults:?}");
}

#[test]
fn contexts_are_folders_of_the_workspace_and_dockerfiles_are_found_from_them() {
    let table = [
        ("-t a .", "", "Dockerfile"),
        ("-t a src", "src", "Dockerfile"),
        ("-t a -f src/D src", "src", "D"),
        ("-t a -f D src", "src", "/D"),
        ("-t a -f docker/D .", "", "docker/D"),
        ("-t a /workspace/src/./x/..", "src", "Dockerfile"),
    ];
    for (line, folder, dockerfile) in table {
        let planned = planned(&format!("steps:\n  - build: {line}\n"));
        let work = build(&planned, 0);
        assert_eq!(work.context, BuildContext::Workspace { folder: folder.to_owned() }, "{line}");
        assert_eq!(work.dockerfile, dockerfile, "{line}");
    }
    let below = planned("steps:\n  - build: -t a -f D .\n    workingDirectory: sub\n");
    assert_eq!(build(&below, 0).context, BuildContext::Workspace { folder: "sub".to_owned() });
    assert_eq!(build(&below, 0).dockerfile, "D");
    for line in ["-t a ..", "-t a /etc", "-t a -f ../../D ."] {
        let error = plan_of(&inputs(&format!("steps:\n  - build: {line}\n"))).expect_err(line).to_string();
        let begins = error.starts_with("acr-task.yaml:2:12: step acb_step_0: `");
        assert!(begins && error.contains("is outside the workspace; use a path below"), "{line}: {error}");
    }
}

#[test]
fn what_holds_a_secret_stands_in_the_plan_by_name_alone() {
    let text = "steps:\n  - id: login\n    cmd: busybox echo user {{.Secrets.password}} {{.Values.user}}\n    env:\n      - \
                TOKEN={{.Secrets.password | b64enc}}\n      - PLAIN=1\n  - id: image\n    build: -t app --build-arg \
                KEY={{.Values.key}} --build-arg V=1 .\nvolumes:\n  - name: keys\n    secret:\n      id: c2VjcmV0LWZpbGU=\n";
    let mut inputs = inputs(text);
    inputs.secrets.insert("password".to_owned(), SecretString::new("hunter22".to_owned()));
    let set = |name: &str, value: &str, secret| SetValue { name: name.to_owned(), value: value.to_owned(), secret };
    inputs.set = vec![set("user", "ann", false), set("key", "k3y-value", true)];
    let planned = plan_of(&inputs).unwrap_or_else(|error| panic!("{error}"));
    let json = serde_json::to_string(&planned.plan).expect("json");
    for secret in ["hunter22", "aHVudGVyMjI", "k3y-value", "c2VjcmV0"] {
        assert!(!json.contains(secret), "{json}");
    }
    let arguments = &command(&planned, 0).arguments;
    assert_eq!(arguments[..2], [Text::Plain("echo".to_owned()), Text::Plain("user".to_owned())]);
    assert_eq!(arguments[3], Text::Plain("ann".to_owned()), "what is no secret stays to be seen");
    let kept = |name: &str| planned.texts.get(name).map(|text| text.expose().to_owned());
    let Text::Secret(name) = &arguments[2] else { panic!("{arguments:?}") };
    assert_eq!(kept(name).as_deref(), Some("hunter22"));
    let environment = &command(&planned, 0).environment;
    assert!(matches!(&environment[0].1, Text::Secret(name) if kept(name).as_deref() == Some("aHVudGVyMjI=")));
    assert!(matches!(&environment[1].1, Text::Plain(text) if text == "1"));
    let arguments = &build(&planned, 1).arguments;
    assert!(matches!(&arguments[0].value, ArgumentValue::Kept(name) if kept(name).as_deref() == Some("k3y-value")));
    assert_eq!(arguments[1].value, ArgumentValue::Plain("1".to_owned()));
    assert!(planned.texts.values().any(|text| text.expose() == "secret-file"), "a file's text is masked");
}

#[test]
fn secrets_where_everybody_sees_them_are_refused_without_showing_them() {
    let table = [
        ("steps:\n  - id: a{{.Secrets.s}}\n    cmd: busybox true\n", "depend on the values of secrets"),
        (
            "steps:\n  - id: a\n    cmd: busybox:{{.Secrets.s}} true\n",
            "step a: property `cmd (its image)` holds a secret",
        ),
        ("steps:\n  - id: a\n    build: -t app:{{.Secrets.s}} .\n", "step a: property `build"),
        (
            "steps:\n  - id: a\n    cmd: busybox true\n    user: u{{.Secrets.s}}\n",
            "acr-task.yaml:3:10: step a: property `user` holds a secret",
        ),
        (
            "steps:\n  - id: a\n    cmd: busybox true\n    retryOnErrors: [x, '{{.Secrets.s}}']\n",
            "step a: property `retryOnErrors` holds a secret",
        ),
        (
            "steps:\n  - id: a\n    build: -t app .\n    outputs: ['{{.Secrets.s}}']\n",
            "step a: property `outputs` holds",
        ),
        (
            "steps:\n  - id: a\n    build: -t app .\n    workingDirectory: '{{.Secrets.s}}'\n",
            "step a: property `workingDirectory` holds",
        ),
        (
            "steps:\n  - id: a\n    cmd: busybox true\n{{if eq .Secrets.s \"hunter22\"}}  - cmd: busybox\n{{end}}",
            "depend",
        ),
    ];
    for (text, message) in table {
        let mut inputs = inputs(text);
        inputs.secrets.insert("s".to_owned(), SecretString::new("hunter22".to_owned()));
        let error = plan_of(&inputs).expect_err(text).to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("hunter22"), "{error}");
    }
    let mut broken = inputs("steps:\n  - id: a\n    cmd: \"busybox echo {{.Secrets.s}}\"\n");
    broken.secrets.insert("s".to_owned(), SecretString::new("hunter\"22".to_owned()));
    let error = plan_of(&broken).expect_err("no YAML with it").to_string();
    assert!(error.contains("with its secrets filled in") && !error.contains("hunter"), "{error}");
}

#[test]
fn what_all_steps_share_is_named_without_secrets() {
    let plan_with = |text: &str| {
        let mut inputs = inputs(text);
        inputs.secrets.insert("s".to_owned(), SecretString::new("hunter22".to_owned()));
        plan_of(&inputs)
    };
    for text in [
        "volumes:\n  - name: v{{.Secrets.s}}\n    secret:\n      f: YQ==\nsteps: []\n",
        "volumes:\n  - name: v\n    secret:\n      f{{.Secrets.s}}: YQ==\nsteps: []\n",
        "networks:\n  - name: n{{.Secrets.s}}\nsteps: []\n",
        "networks:\n  - name: n\n    driver: d{{.Secrets.s}}\nsteps: []\n",
    ] {
        let error = plan_with(text).expect_err(text);
        assert!(matches!(error, TaskPlanError::SecretInFile { .. }), "{error}");
    }
    let told = plan_with("steps:\n  - cmd: busybox true\n    k{{.Secrets.s | b64enc}}: 1\n").expect("a warning");
    let told: Vec<String> = told.warnings.iter().map(Fault::to_string).collect();
    assert!(told.len() == 1 && !told[0].contains("aHVudGVy"), "{told:?}");
}

#[test]
fn what_is_fetched_for_a_file_depends_on_no_secret_and_no_fault_shows_one() {
    let with = |text: &str| {
        let mut inputs = inputs(text);
        inputs.set = vec![SetValue { name: "key".to_owned(), value: "hunter22".to_owned(), secret: true }];
        inputs
    };
    let source = with("version: v1.1.0\nalias:\n  src: ['https://x.example/{{.Values.key}}']\nsteps: []\n");
    assert_eq!(alias_sources(&source), Err(TaskPlanError::SecretInFile { property: "alias.src" }));
    let place = with("secrets:\n  - id: a\n    keyvault: cooper://{{.Values.key}}\nsteps: []\n");
    assert_eq!(wanted_secrets(&place), Err(TaskPlanError::SecretInFile { property: "secrets" }));
    let fails = "version: v1.1.0\nalias:\n  values:\n    a: {{fail (b64enc .Values.key)}}\nsecrets: []\nsteps: []\n";
    for error in [alias_sources(&with(fails)).expect_err("fails"), wanted_secrets(&with(fails)).expect_err("fails")] {
        assert!(!error.to_string().contains("aHVudGVy"), "{error}");
    }
    let plain = with("secrets:\n  - id: a\n    keyvault: cooper://name\nsteps:\n  - cmd: a {{.Values.key}}\n");
    assert_eq!(wanted_secrets(&plain).expect("one").len(), 1);
}

#[test]
fn each_platform_is_a_placement() {
    let text =
        "steps:\n  - cmd: busybox true\n  - cmd: busybox true\n    platform: linux/arm64\n  - cmd: busybox true\n";
    let planned = planned(text);
    let platforms: Vec<String> =
        planned.plan.placements.iter().map(|placement| placement.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let placements: Vec<usize> = planned.plan.steps.iter().map(|step| step.placement).collect();
    assert_eq!(placements, [0, 1, 0]);
}

#[test]
fn a_step_that_asks_for_its_own_name_has_one() {
    let network = |text: &str| command(&planned(text), 0).network.clone();
    for words in ["wget http://web:8080/", "nc-all web:80", "curl ann@web/x"] {
        let text = format!("steps:\n- id: web\n  cmd: img {words}\n");
        assert_eq!(network(&text).as_deref(), Some("acb_default_network"), "{words}");
    }
    for words in ["npm web", "wget http://webs:80/", "sh -c 'web'", "curl http://a.web:80/", "x web:y"] {
        assert_eq!(network(&format!("steps:\n- id: web\n  cmd: img {words}\n")), None, "{words}");
    }
}

#[test]
fn windows_has_its_own_paths_networks_and_isolation() {
    let windows = Platform::parse("windows/amd64").expect("valid");
    let registry = RegistryName::parse("localhost:5000").expect("valid");
    let context = ContextId::parse("c1").expect("valid");
    let plan_of = |text: &str| {
        let mut inputs = inputs(text);
        inputs.run.platform = windows.clone();
        let (context, scopes) = (Some(&context), &Scopes::default());
        plan(&TaskPlanRequest { inputs: &inputs, platform: &windows, registry: &registry, context, scopes })
    };
    let text = "steps:\n- cmd: 'tool c:\\data\\x'\n  workingDirectory: src\n- cmd: tool\n  isolation: process\n  cpus: 1.5\n- \
                build: -t app -f docker\\D src\n- build: -t app C:\\Workspace\\lib\n";
    let planned = plan_of(text).unwrap_or_else(|error| panic!("{error}"));
    let first = command(&planned, 0);
    assert_eq!(first.arguments, [Text::Plain(r"c:\data\x".to_owned())], "a backslash is a part of a path");
    assert_eq!(first.working_directory.as_deref(), Some(r"c:\workspace\src"));
    assert_eq!(first.isolation.as_deref(), Some("hyperv"));
    assert_eq!(first.network.as_deref(), Some("acb_default_network"), "no namespace can be shared there");
    let second = command(&planned, 1);
    assert_eq!((second.isolation.as_deref(), second.cpus.as_deref()), (Some("process"), Some("1.5")));
    assert_eq!(second.working_directory.as_deref(), Some(r"c:\workspace"));
    let environment = planned.plan.placements[0].environment.as_ref().expect("a task's");
    assert_eq!(environment.networks[0].driver.as_deref(), Some("nat"));
    let work = build(&planned, 2);
    assert_eq!(work.context, BuildContext::Workspace { folder: "src".to_owned() });
    assert_eq!(work.dockerfile, "/docker/D");
    assert_eq!(build(&planned, 3).context, BuildContext::Workspace { folder: "lib".to_owned() });
    for line in [r"-t app ..", r"-t app d:\workspace", r"-t app c:\windows"] {
        let error = plan_of(&format!("steps:\n- build: '{line}'\n")).expect_err(line).to_string();
        assert!(error.contains("is outside the workspace"), "{line}: {error}");
    }
    // Its engines have no volumes in memory; those of other platforms' steps are made there alone.
    let mounts = |platform: &str| {
        let step = format!("- cmd: tool\n  platform: {platform}\n  volumeMounts: [{{name: v, mountPath: /keys}}]\n");
        plan_of(&format!("volumes: [{{name: v, secret: {{f: YQ==}}}}]\nsteps:\n- cmd: tool\n{step}"))
    };
    let error = mounts("windows/amd64").expect_err("refused").to_string();
    assert!(error.contains("a step on windows/amd64 has `volumeMounts`") && error.contains("by `env`"), "{error}");
    let planned = mounts("linux/amd64").unwrap_or_else(|error| panic!("{error}"));
    let environments =
        planned.plan.placements.iter().map(|placement| placement.environment.as_ref().expect("a task's"));
    assert_eq!(environments.map(|environment| environment.volumes.len()).collect::<Vec<_>>(), [0, 1]);
    // A task of both has each one's own.
    let both = "steps:\n- cmd: tool\n- cmd: tool\n  platform: linux/amd64\n  when: ['-']\n";
    let planned = plan_of(both).unwrap_or_else(|error| panic!("{error}"));
    let drivers: Vec<Option<&str>> = planned
        .plan
        .placements
        .iter()
        .map(|placement| placement.environment.as_ref().expect("a task's").networks[0].driver.as_deref())
        .collect();
    assert_eq!(drivers, [Some("nat"), None]);
    assert_eq!(command(&planned, 1).isolation, None);
    assert_eq!(command(&planned, 1).working_directory.as_deref(), Some("/workspace"));
}
