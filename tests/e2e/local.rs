//! `cooper run --local`: a run without a server, and nothing left of it whatever ends it.

use std::process::Command;
use std::time::Duration;

use cooper_e2e::{Context, Engine, Running, TestServer, cooper_binary, hermetic, run_to_end, unique, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(180);

/// A user without a server, whose temporary files are in a folder of the test's own.
struct User {
    folder: TempDir,
}

impl User {
    fn new() -> Self {
        let folder = TempDir::with_prefix("cooper-e2e-").unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    fn cooper(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic(cooper_binary(), self.folder.path(), None);
        command.args(arguments).env("TMPDIR", self.folder.path().join("tmp"));
        command
    }

    fn expect_nothing_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.folder.path().join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The operator's name for the image that the task builds.
const ALIAS: [&str; 2] = ["--image-alias", "tool=base:1"];

/// A folder whose task builds the image of busybox and runs a script in it, in a step of this name.
fn task(step: &str, script: &str) -> Context {
    let task = format!(
        "version: v1.1.0\nsteps:\n  - id: image\n    build: -t base:1 .\n  - push: [base:1]\n    id: pushed\n  - id: {step}\n    cmd: tool sh -c '{script}'\n"
    );
    Context::busybox().file("acr-task.yaml", task)
}

/// What the engine has of this owner: containers, networks, volumes.
fn left_of(engine: &Engine, owner: &str) -> String {
    let filter = format!("label=dev.cooperage.owner={owner}");
    let lists: [&[&str]; 3] = [&["ps", "-aq"], &["network", "ls", "-q"], &["volume", "ls", "-q"]];
    lists.iter().map(|list| engine.docker(&[list, &["--filter", filter.as_str()][..]].concat()).ok().stdout).collect()
}

/// Whose the container of a step is that runs.
fn owner_of(engine: &Engine, step: &str) -> Option<String> {
    let filter = format!("label=dev.cooperage.step={step}");
    let format = "{{.Label \"dev.cooperage.owner\"}}";
    let found = engine.docker(&["ps", "--filter", &filter, "--format", format]).ok().stdout;
    Some(found.trim().to_owned()).filter(|owner| !owner.is_empty())
}

#[test]
fn a_task_runs_without_a_server_and_ends_with_its_verdict() {
    let user = User::new();
    let good = task("greet", "echo it works");
    let finished = run_to_end(&mut user.cooper(&["run", "--local", ALIAS[0], ALIAS[1], &good.display()]), LIMIT).ok();
    assert!(finished.stdout.contains("\nit works\n"), "{finished}");
    assert!(finished.stderr.contains("goes now") && !finished.stderr.contains("WARN"), "{finished}");
    assert!(!finished.stderr.contains("no agent is connected"), "{finished}");
    user.expect_nothing_left();

    let bad = task("fail", "exit 7");
    let finished = run_to_end(
        &mut user.cooper(&["run", "--local", ALIAS[0], ALIAS[1], "--no-logs", "-o", "json", &bad.display()]),
        LIMIT,
    )
    .expect(1);
    finished.error_names(&["failed to run step ID: fail", "code 7"]);
    assert_eq!(finished.json()["steps"][2]["exitCode"], 7);
    user.expect_nothing_left();
}

#[test]
fn a_step_that_takes_more_memory_than_it_may_is_told_so() {
    let user = User::new();
    let eats = task("eats", "tail /dev/zero");
    let arguments = ["run", "--local", ALIAS[0], ALIAS[1], "--step-memory", "32MiB", "--no-logs", &eats.display()];
    let finished = run_to_end(&mut user.cooper(&arguments), LIMIT).expect(1);
    finished.error_names(&["step ID: eats", "code 137", "its memory of 32 MiB ran out (OOMKilled)", "--step-memory"]);
    user.expect_nothing_left();
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let (user, engine) = (User::new(), Engine::new());
    let runs = [Signal::INT, Signal::TERM].map(|signal| {
        let step = unique();
        let context = task(&step, "sleep 39575");
        let run =
            Running::start(&mut user.cooper(&["run", "--local", ALIAS[0], ALIAS[1], "--no-logs", &context.display()]));
        (signal, step, run, context)
    });
    let begun = runs.map(|(signal, step, run, context)| {
        wait_until("the step runs", LIMIT, || owner_of(&engine, &step).is_some());
        (signal, owner_of(&engine, &step).unwrap(), run, context)
    });
    let owners = begun.map(|(signal, owner, run, _context)| {
        run.signal(signal);
        run.end(Duration::from_secs(30)).expect(3).error_names(&["was cancelled"]);
        assert_eq!(left_of(&engine, &owner), "", "nothing is left when the command has ended");
        owner
    });
    assert_ne!(owners[0], owners[1], "two of them never take each other's things for their own");
    user.expect_nothing_left();
}

#[test]
fn what_a_killed_one_left_goes_with_the_next() {
    let (user, engine) = (User::new(), Engine::new());
    let step = unique();
    let context = task(&step, "sleep 39575");
    let run =
        Running::start(&mut user.cooper(&["run", "--local", ALIAS[0], ALIAS[1], "--no-logs", &context.display()]));
    wait_until("the step runs", LIMIT, || owner_of(&engine, &step).is_some());
    let owner = owner_of(&engine, &step).unwrap();
    run.signal(Signal::KILL);
    run.end(Duration::from_secs(30));
    assert!(!left_of(&engine, &owner).is_empty(), "nobody could clean up");
    // It needs no more than to begin.
    let context =
        Context::empty().file("acr-task.yaml", "version: v1.1.0\nsteps:\n  - cmd: a\n    platform: windows/amd64\n");
    let finished = run_to_end(&mut user.cooper(&["run", "--local", &context.display()]), LIMIT);
    finished.expect(2).error_names(&["step acb_step_0 is for windows/amd64", "linux/amd64"]);
    assert_eq!(left_of(&engine, &owner), "");
    user.expect_nothing_left();
}

#[test]
fn what_it_can_not_do_is_told_at_once() {
    let user = User::new();
    let run = |arguments: &[&str]| run_to_end(&mut user.cooper(arguments), LIMIT);
    let none = ["run", "--local", "--engine", "/nonexistent/engine.sock", "--cmd", "busybox true", "/dev/null"];
    run(&none).expect(6).error_names(&["/nonexistent/engine.sock", "does not answer"]);
    run(&["run", "--local", "--no-wait", "--cmd", "busybox true", "/dev/null"]).expect(2);
    run(&["build", "--local", "--server", "http://localhost:1", "."]).expect(2);
    run(&["run", "--allow-ports", "--cmd", "busybox true", "/dev/null"]).expect(2);
    user.expect_nothing_left();
}

/// Both a quick build and a task push to a registry that wants a login, and take a base from there: with what the Docker client has
/// in its file, and with what a helper keeps for it.
#[test]
fn logins_of_the_docker_client_open_other_registries() {
    use std::os::unix::fs::PermissionsExt as _;
    let (other, user) = (TestServer::start(), User::new());
    let base = other.base_image();
    let (host, token) = (base.split('/').next().unwrap().to_owned(), other.token());
    let folder = |name: &str| user.folder.path().join(name);
    for name in ["file", "helper", "bin"] {
        std::fs::create_dir(folder(name)).unwrap();
    }
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("robot:{token}"));
    std::fs::write(folder("file/config.json"), format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#)).unwrap();
    std::fs::write(folder("helper/config.json"), format!(r#"{{"credHelpers": {{"{host}": "e2e"}}}}"#)).unwrap();
    let answer = format!(r#"{{"ServerURL": "{host}", "Username": "robot", "Secret": "{token}"}}"#);
    let script = format!("#!/bin/sh\nread -r asked\n[ \"$1 $asked\" = \"get {host}\" ] && echo '{answer}'\n");
    std::fs::write(folder("bin/docker-credential-e2e"), script).unwrap();
    let runnable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder("bin/docker-credential-e2e"), runnable).unwrap();

    let context = Context::new(&format!("FROM {base}\nRUN echo built > /built\n")).file(
        "acr-task.yaml",
        format!("version: v1.1.0\nsteps:\n  - build: -t {host}/out/app:2 .\n  - push: [{host}/out/app:2]\n"),
    );
    let run = |arguments: &[&str], config: &str| {
        let mut command = user.cooper(&[arguments, &["--local", "--no-format", &context.display()]].concat());
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", folder("bin").display());
        command.env("PATH", path).env("DOCKER_CONFIG", folder(config));
        run_to_end(&mut command, LIMIT)
    };
    let first = format!("{host}/out/app:1");
    let build = ["build", "-t", &first];
    run(&build, "nothing").expect(1).error_names(&[host.as_str()]);
    for (finished, tag) in [(run(&build, "file").ok(), "1"), (run(&["run"], "helper").ok(), "2")] {
        assert_eq!(other.registry(&format!("/v2/out/app/manifests/{tag}")).status, 200, "{finished}");
        assert!(!finished.to_string().contains(&token), "{finished}");
    }
    user.expect_nothing_left();
    Engine::new().docker(&["image", "rm", "--force", &base]).ok();
}
