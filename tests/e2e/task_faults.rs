//! What is wrong with a step and only its agent can find: each is told with the object and the way out, and is the user's.

use cooper_e2e::{Context, TestServer};

/// A step that fails, whatever else the run does, and what is said of it.
struct Case {
    id: &'static str,
    /// The step but for its id; `IMAGE` is one that has a shell.
    step: &'static str,
    says: &'static [&'static str],
}

const fn case(id: &'static str, step: &'static str, says: &'static [&'static str]) -> Case {
    Case { id, step, says }
}

const CASES: &[Case] = &[
    case(
        "image",
        "cmd: $Registry/no/such:1",
        &["image `localhost:", "/no/such:1` is not in its registry", "check its name and tag"],
    ),
    case("command", "cmd: IMAGE nope -x", &["command `nope` is not in the image, or not in its PATH"]),
    case("entry", "{cmd: IMAGE -x, entryPoint: /no/entry}", &["command `/no/entry` is not in the image"]),
    case("folder", "cmd: IMAGE /bin", &["command `/bin` can't be executed: permission denied"]),
    case(
        "user",
        "{cmd: IMAGE true, user: ann}",
        &["user `ann` is not in the image's /etc/passwd", "use a number, or another user"],
    ),
    case(
        "directory",
        "{cmd: IMAGE true, workingDirectory: /bin/busybox}",
        &["container can't be started", "/bin/busybox is not a directory"],
    ),
    case("cpus", "{cmd: IMAGE true, cpus: 4096}", &["container can't be started: ", "CPUs"]),
    case("privileged", "{cmd: IMAGE true, privileged: true}", &["asks for `privileged`", "--allow-privileged"]),
    case(
        "host",
        "{cmd: IMAGE true, network: host}",
        &["network `host` is the agent's machine's own", "--allow-network host"],
    ),
    case(
        "other",
        "{cmd: IMAGE true, network: elsewhere}",
        &["network `elsewhere` is none of the task's: declare it under `networks`"],
    ),
    case(
        "code",
        "{cmd: \"IMAGE sh -c 'echo fatal; exit 7'\", retries: 1, retryDelay: 1}",
        &["container exited with code 7"],
    ),
    case("time", "{cmd: IMAGE sleep 60, timeout: 1, retries: 3}", &["timed out after 1 s"]),
    case("detached", "{cmd: IMAGE nope, detach: true}", &["command `nope` is not in the image"]),
    case("dockerfile", "build: -t a -f nope/Dockerfile .", &["nope/Dockerfile"]),
    case("target", "build: -t b --target nope .", &["nope"]),
    case("context", "build: -t c nowhere", &["nowhere"]),
    case(
        "pull",
        "{cmd: $Registry/no/other:1, pull: true, cmdDownloadRetries: 1}",
        &["/no/other:1` is not in its registry"],
    ),
];

#[test]
fn each_is_told_with_the_way_out() {
    let server = TestServer::start();
    let base = server.base_image();
    let steps: String = CASES
        .iter()
        .map(|Case { id, step, .. }| {
            let step = step.replace("IMAGE", "$Registry/base/busybox:1");
            let step = step.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(&step).to_owned();
            format!("- {{id: {id}, when: ['-'], ignoreErrors: true, {step}}}\n")
        })
        .collect();
    let task = format!("version: v1.1.0\nsteps:\n{steps}");
    let context = Context::new(&format!("FROM {base}\n")).file("acr-task.yaml", task);
    let log = server.cooper(&["run", &context.display()]).ok().stdout;
    for Case { id, says, .. } in CASES {
        let begin = format!("Step ID: {id} encountered an error: ");
        let told = log.lines().find(|line| line.contains(&begin) && line.contains("is set to ignore errors"));
        let told = told.unwrap_or_else(|| panic!("nothing is said of {id}:\n{log}"));
        for part in *says {
            assert!(told.contains(part), "{id}: {part}\n{told}\n{log}");
        }
        assert!(!told.contains("loss "), "{told}");
    }
    // What all steps share ends the run, as the user's failure.
    let shared = [
        ("{name: corp, skipCreation: true}", "network `corp` is the agent's machine's own", "--allow-network corp"),
        ("{name: corp, driver: macvlan}", "network `corp` has driver `macvlan`", "leave `driver` out"),
    ];
    for (network, object, way_out) in shared {
        let task =
            format!("version: v1.1.0\nnetworks: [{network}]\nsteps: [{{cmd: '$Registry/base/busybox:1 true'}}]\n");
        let context = Context::empty().file("acr-task.yaml", task);
        server.cooper(&["run", "--no-logs", &context.display()]).expect(1).error_names(&[object, way_out]);
    }
    // And these are told before there is a run.
    let early = [
        ("steps: [{id: a, cmd: a, isolation: hyperv}]", &["`isolation` of a step is `hyperv`", "leave it out"][..]),
        ("steps: [{push: ['$Registry/a:1']}]", &["no step before it builds", "with `-t localhost:"][..]),
        ("steps: [{id: a, build: '-t a ../..'}]", &["step a: `../..` is outside the workspace", "below /workspace"]),
        (
            "steps: [{id: a, build: '-t a --secret id=s,src=/run/s .'}]",
            &["build secret `s` is file `/run/s`", "secret volumes"],
        ),
        (
            "secrets: [{id: s, keyvault: 'cooper://nothing'}]\nsteps: [{cmd: 'a {{.Secrets.s}}'}]",
            &["secret `s`", "cooper://nothing"],
        ),
        (
            "secrets: [{id: s, keyvault: 'https://v.example/secrets/a'}]\nsteps: [{cmd: 'a {{.Secrets.s}}'}]",
            &["is in vault `v.example`, which this server does not know", "--secret-vault v.example"],
        ),
        (
            "secrets: [{id: s, keyvault: 'env://HOME'}]\nsteps: [{cmd: 'a {{.Secrets.s}}'}]",
            &["secret `s`", "env://HOME"],
        ),
        (
            "alias: {src: ['http://127.0.0.1:1/a.yaml']}\nsteps: []",
            &["alias source `http://127.0.0.1:1/a.yaml` can't be fetched"],
        ),
    ];
    for (text, says) in early {
        let context = Context::empty().file("acr-task.yaml", format!("version: v1.1.0\n{text}\n"));
        let finished = server.cooper(&["run", &context.display()]);
        assert!(finished.code.is_some_and(|code| matches!(code, 2 | 5)), "{text}: {finished}");
        finished.error_names(says);
    }
}
