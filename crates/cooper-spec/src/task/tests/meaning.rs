//! What a file without faults means: what is merged, defaults, and what is wanted from outside.

use super::faults::check;
use super::*;

#[test]
fn environments_merge() {
    let env = |task_env: &str, step_env: &str, run: &[&str]| -> Vec<String> {
        let mut inputs = inputs(&format!("env: {task_env}\nsteps:\n- cmd: a\n  env: {step_env}\n"));
        inputs.environment = run.iter().map(|text| (*text).to_owned()).collect();
        let task = load(&inputs).unwrap_or_else(|faults| panic!("{faults}")).task;
        task.steps[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(env("[A=task, B=task]", "[A=step, C=x=y]", &["B=run", "D=run"]), ["A=step", "C=x=y", "B=task", "D=run"]);
    assert_eq!(
        env("['A=1,B=2', 'OPTS=a,b']", "['X=a,b']", &["R=1,S=2"]),
        ["X=a,b", "A=1", "B=2", "OPTS=a,b", "R=1", "S=2"]
    );
    assert_eq!(env("[]", "[\"A='x y'\", 'B=x y', 'C=1', 'C=2', 'D=']", &[]), ["A=x y", "B=x y", "C=2", "D="]);
    // What stands before the image wins over everything.
    let step = &task("env: [A=task, D=task]\nsteps:\n- cmd: -e A=flag --env B=flag -e A=last img -e A=word\n  env: [A=step, C=step]\n").steps[0];
    let pairs: Vec<String> = step.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        (pairs, cmd(step).as_str()),
        (["C=step", "D=task", "B=flag", "A=last"].map(str::to_owned).into(), "img:latest -e|A=word")
    );
    check("env: [FOO]\nsteps: []\n", "task.yaml:1:7: entry `FOO` of env is not NAME=VALUE");
    let mut inputs = inputs("steps: []\n");
    inputs.environment = vec!["FOO".to_owned()];
    assert!(load(&inputs).expect_err("a fault").to_string().contains("environment `FOO` of the run is not NAME=VALUE"));
}

#[test]
fn networks_and_directories_have_their_defaults() {
    let network = |text: &str| task(text).steps[0].network.clone();
    let named = |name: &str| StepNetwork::Named(name.to_owned());
    assert_eq!(network("steps: [{cmd: a}]"), StepNetwork::Run);
    assert_eq!(network("steps: [{cmd: a, network: acb_default_network}]"), StepNetwork::Run);
    assert_eq!(network("networks: [{name: n}]\nsteps: [{cmd: a}]"), StepNetwork::Bridge);
    assert_eq!(
        network("networks: [{name: n, isDefault: yes}, {name: m, isDefault: on}]\nsteps: [{cmd: a}]"),
        named("m")
    );
    assert_eq!(network("networks: [{name: n}]\nsteps: [{cmd: a, network: n}]"), named("n"));
    let directory = |text: &str| task(text).steps[0].working_directory.clone();
    assert_eq!(directory("workingDirectory: src\nsteps: [{cmd: a}]"), "/workspace/src");
    assert_eq!(directory("workingDirectory: src\nsteps: [{cmd: a, workingDirectory: /x}]"), "/x");
    assert_eq!(directory("steps: [{cmd: -w /y a, workingDirectory: /x}]"), "/y");
    assert_eq!(directory("steps: [{cmd: a, platform: windows/amd64, workingDirectory: s}]"), r"c:\workspace\s");
    let timeout = |text: &str| task(text).steps[0].timeout.as_secs();
    assert_eq!(timeout("stepTimeout: 5\nsteps: [{cmd: a}]"), 5);
    assert_eq!(timeout("stepTimeout: -5\nsteps: [{cmd: a, timeout: 0}]"), 600);
    assert_eq!(timeout("stepTimeout: 5\nsteps: [{cmd: a, timeout: 7}]"), 7);
}

#[test]
fn wanted_secrets_are_found_without_values() {
    let inputs = inputs(
        "secrets:\n- id: a\n  keyvault: https://{{.Values.v}}.example/secrets/A\nsteps:\n- cmd: x {{.Secrets.a}}\n- zzz: [broken\n",
    );
    assert!(wanted_secrets(&inputs).is_err());
    let mut inputs = self::inputs(
        "secrets:\n- id: a\n  keyvault: https://{{.Values.v}}.example/secrets/A\nsteps:\n- cmd: x {{.Secrets.a}}\n- zzz: broken\n",
    );
    inputs.set.push(SetValue::parse("v=vault", false).expect("a value"));
    let wanted = wanted_secrets(&inputs).expect("secrets");
    assert_eq!((wanted.len(), wanted[0].keyvault.to_string().as_str()), (1, "https://vault.example/secrets/a"));
    assert_eq!(wanted_secrets(&self::inputs("steps: {}\n")).expect("none"), []);
}

#[test]
fn a_fault_in_secrets_is_told_with_all_others() {
    // What is made of a secret is no fault, whether it can be had or not.
    let text = "secrets:\n- id: a\n  keyvault: ftp://x\n- id: b\n  keyvault: cooper://b\nvolumes:\n- name: v\n  secret: {f: '{{.Secrets.a}}'}\n\
                steps:\n- cmd: img{{if not .Secrets.a}} \"{{end}}{{if not .Secrets.b}} \"{{end}}\n  timeout: x\n  when: [nope]\n";
    let faults = wanted_secrets(&inputs(text)).expect_err("four faults").to_string();
    let told: Vec<&str> = faults.lines().map(|line| line.split("; ").next().unwrap_or(line)).collect();
    assert_eq!(
        told,
        [
            "task.yaml:3:13: keyvault of secret `a` is not one",
            "task.yaml:11:12: `timeout` of a step is `x`, which is no number",
            "task.yaml:12:10: step `acb_step_0` waits for `nope`, which there is not",
        ]
    );
}

#[test]
fn the_templates_of_alias_sources_share_what_one_may_use() {
    let with = |text: &str, count: usize| {
        let mut inputs = inputs("version: v1.1.0\nalias:\n  src: [a.yaml]\nsteps: []\n");
        let source: String = (0..count).map(|n| format!("a{n}: '{text}'\n")).collect();
        inputs.alias_sources.insert("a.yaml".to_owned(), source);
        load(&inputs).map(|loaded| loaded.task.steps.len()).map_err(|faults| faults.to_string())
    };
    assert_eq!(with("{{.Run.ID}}", 300), Ok(0));
    let told = with("{{range until 9999}}{{end}}", 9_000).expect_err("too much");
    assert!(told.contains("more steps than it may"), "{told}");
}

proptest::proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "(version: v1.1.0\n)?(alias: [a-z{}: ]*\n)?steps:\n(- (cmd|build|push|id|when|env): [a-z$|'\"\\[\\]{}., -]*\n){0,4}\\PC{0,20}") {
        let _ = load(&inputs(&text));
        let _ = alias_sources(&inputs(&text));
        let _ = wanted_secrets(&inputs(&text));
    }
}

#[test]
fn values_from_the_command_line_and_from_a_file() {
    let refused = |text: &str| SetValue::parse(text, false).expect_err(text).to_string();
    assert_eq!(refused("a"), "a value has no `=`; write NAME=VALUE");
    assert_eq!(refused(""), "a value has no `=`; write NAME=VALUE");
    assert_eq!(refused("=secret"), "a value has no name; write NAME=VALUE");
    // ACR's documents tell of a comma form, which its parser doesn't have.
    assert_eq!(SetValue::parse("a=1,b=2", false).map(|set| set.value), Ok("1,b=2".to_owned()));
    let with_values = |text: &str| {
        let mut inputs = inputs("steps:\n- cmd: a {{ .Values.a }}\n");
        inputs.values = Some(NamedText { name: "values.yaml".to_owned(), text: text.to_owned() });
        load(&inputs).map(|loaded| cmd(&loaded.task.steps[0])).map_err(|faults| faults.to_string())
    };
    assert_eq!(with_values("a: {b: c}\n").as_deref(), Ok("a:latest map[b:c]"));
    for (text, expected) in [
        ("text\n", "values.yaml:1:1: the values are a text; a values file is a YAML map: `NAME: VALUE` in each line"),
        ("a: b: c\n", "values.yaml:1:"),
        ("a: *x\n", "values.yaml:1:"),
    ] {
        let told = with_values(text).expect_err(text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn a_cache_that_can_have_no_name_is_told_of() {
    let long = "s".repeat(120);
    let told = warnings(&format!("steps:\n- id: {long}\n  build: -t a .\n  cache: enabled\n"));
    assert!(told[0].contains("the cache's tag `cache_quickrun_ss"), "{told:?}");
    assert!(told[0].contains("the build goes on without; give the step a shorter id"), "{told:?}");
}
