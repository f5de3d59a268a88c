//! Task files as their users run them: steps, failures, sources, secrets, and nothing left behind.

use std::time::Duration;

use cooper_e2e::{Context, Engine, GitRepository, GitServer, ServerOptions, TestServer, unique, wait_until};
use serde_json::Value;

/// A server whose registry has the image that steps run in.
fn server() -> TestServer {
    let server = TestServer::start();
    server.base_image();
    server
}

fn sh(script: &str) -> String {
    format!("$Registry/base/busybox:1 sh -c '{script}'")
}

fn states(run: &Value) -> Vec<(String, String)> {
    let text = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    run["steps"].as_array().unwrap().iter().map(|step| (text(step, "id"), text(step, "status"))).collect()
}

/// What the engine has of a run of the server's own agent. Other servers share the engine, and run ids.
fn left_of(engine: &Engine, server: &TestServer, run: &str) -> Vec<String> {
    engine.held(&[&format!("dev.cooperage.owner={}", server.agent_owner()), &format!("dev.cooperage.run={run}")])
}

#[test]
fn a_failure_stops_the_run_and_is_told_step_by_step() {
    let (server, engine) = (server(), Engine::new());
    let task = format!(
        "version: v1.1.0\nsteps:\n  - id: beside\n    cmd: {}\n    when: ['-']\n  - id: wrong\n    cmd: {}\n    when: ['-']\n    retries: \
         1\n    retryDelay: 1\n  - id: after\n    cmd: {}\n",
        sh("sleep 3600"),
        sh("sleep 1; exit 7"),
        sh("true")
    );
    let context = Context::empty().file("acr-task.yaml", &task);
    // The step beside it is stopped: by itself it would end long after the client's patience.
    let finished = server.cooper(&["run", "--no-logs", "--output", "json", &context.display()]).expect(1);
    finished.error_names(&["failed to run step ID: wrong", "code 7"]);
    let run = finished.json();
    let id = run["runId"].as_str().unwrap();
    let state = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    assert_eq!(states(&run), [state("beside", "Canceled"), state("wrong", "Failed"), state("after", "Skipped")]);
    assert_eq!((&run["steps"][1]["exitCode"], &run["steps"][1]["tries"]), (&7.into(), &2.into()), "{run:#}");
    assert!(run["steps"][0]["tries"].is_null(), "{run:#}");
    let shown = server.cooper(&["runs", "show", id]).ok().stdout;
    for part in ["beside", "wrong", "after", "in 2 tries", "exit code 7", "Canceled", "Skipped"] {
        assert!(shown.contains(part), "{shown}");
    }
    wait_until("nothing is left of the run", Duration::from_secs(30), || left_of(&engine, &server, id).is_empty());
}

#[test]
fn a_file_without_steps_does_nothing_and_succeeds() {
    let server = TestServer::start();
    let file = Context::empty().file("empty.yaml", "version: v1.1.0\nsteps: []\n");
    let file = file.path().join("empty.yaml").display().to_string();
    let finished = server.cooper(&["run", "-f", &file, "--output", "json", "/dev/null"]).ok();
    assert_eq!((&finished.json()["status"], &finished.json()["steps"]), (&"Succeeded".into(), &Value::Array(vec![])));
    server.cooper(&["task", "create", "--name", "empty", "-f", &file, "-c", "/dev/null"]).ok();
    server.cooper(&["task", "run", "empty"]).ok();
    // Only what a timer sets off has a step in this one.
    let some =
        format!("version: v1.1.0\nsteps:\n{{{{if eq .Run.TriggeredBy \"Timer\"}}}}- cmd: {}\n{{{{end}}}}", sh("false"));
    let context = Context::empty().file("acr-task.yaml", &some);
    server.cooper(&["run", &context.display()]).ok();
}

#[test]
fn a_cancel_and_a_timeout_really_stop_the_container() {
    let (server, engine) = (server(), Engine::new());
    let slow = format!("steps:\n  - id: slow\n    cmd: {}\n    timeout: 2\n", sh("echo begun; sleep 3600"));
    let slow = format!("version: v1.1.0\n{slow}");
    let context = Context::empty().file("slow.yaml", &slow);
    let finished =
        server.cooper(&["run", "-f", "slow.yaml", "--no-logs", "--output", "json", &context.display()]).expect(1);
    finished.error_names(&["slow", "timed out after 2 s"]);
    let id = finished.json()["runId"].as_str().unwrap().to_owned();
    wait_until("the container is gone", Duration::from_secs(30), || left_of(&engine, &server, &id).is_empty());

    // The time of the whole run.
    let forever = format!("version: v1.1.0\nsteps:\n  - cmd: {}\n", sh("echo begun; sleep 3600"));
    let context = Context::empty().file("acr-task.yaml", &forever);
    let timed = server.cooper(&["run", "--timeout", "5", "--no-logs", "-o", "json", &context.display()]).expect(4);
    let run = timed.json();
    let id = run["runId"].as_str().unwrap();
    timed.error_names(&[&format!("run {id} timed out")]);
    let why = "the run took longer than its timeout of 5 s";
    assert_eq!((&run["status"], &run["runErrorMessage"]), (&"Timeout".into(), &why.into()), "{run:#}");
    // A busy machine may not have begun it.
    assert!(["Canceled", "Skipped"].contains(&states(&run)[0].1.as_str()), "{run:#}");
    let log = server.cooper(&["logs", id]).ok().stdout;
    assert!(log.contains(&format!("Run ID: {id} timed out after ")) && log.contains(why), "{log}");
    wait_until("the container is gone", Duration::from_secs(30), || left_of(&engine, &server, id).is_empty());

    let cmd = "$Registry/base/busybox:1 sleep 3600";
    let id = server.cooper(&["run", "--no-wait", "--cmd", cmd, "/dev/null"]).ok().stdout.trim().to_owned();
    let running = || server.run(&id)["steps"][0]["status"] == "Running" && !left_of(&engine, &server, &id).is_empty();
    wait_until("the command runs", Duration::from_secs(60), running);
    server.cooper(&["runs", "cancel", &id]).ok();
    wait_until("the run is over", Duration::from_secs(15), || server.run(&id)["status"] == "Canceled");
    wait_until("the container is gone", Duration::from_secs(30), || left_of(&engine, &server, &id).is_empty());
}

#[test]
fn a_task_in_a_repository_is_planned_from_what_is_there() {
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let arguments = ["--allow-source", "127.0.0.1/32"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    let task = format!(
        "version: v1.1.0\nalias:\n  src: ['aliases/{{{{.Run.Branch}}}}.yaml']\nsteps:\n  - id: show\n    cmd: {}\n",
        sh(
            "echo $Greeting; echo commit={{.Run.Commit}} branch={{.Run.Branch}} who={{.Values.who}} key={{.Values.key}}; cat note"
        )
    );
    let commit = repository.commit_files(&[
        ("acr-task.yaml", &task),
        ("v.yaml", "who: world\n"),
        ("note", "from the source\n"),
        ("aliases/main.yaml", "Greeting: from-the-alias\n"),
    ]);
    let source = git.url("app.git");
    let run =
        |more: &[&str]| server.cooper(&[&["run", "--set-secret", "key=hunter22"], more, &[source.as_str()]].concat());
    let log = run(&["--values", "v.yaml"]).ok().stdout;
    assert!(log.contains(&format!("commit={commit} branch=main who=world key=***\n")), "{log}");
    assert!(log.contains("\nfrom-the-alias\n"), "aliases come from the source: {log}");
    assert!(log.contains("from the source\n"), "the workspace holds the source: {log}");
    assert!(!log.contains("hunter22"), "{log}");
    // An id of the user's is the user's, wherever the source is from.
    let own = format!("steps:\n  - id: prepare\n    cmd: {}\n", sh("echo prepared by me"));
    repository.commit_files(&[("own.yaml", &format!("version: v1.1.0\n{own}"))]);
    let log = run(&["-f", "own.yaml"]).ok().stdout;
    assert!(log.contains("\nprepared by me\n") && log.contains("Step ID: prepare marked as successful"), "{log}");
    assert!(log.contains("Step ID: prepare-source marked as successful"), "{log}");
    run(&["-f", "missing.yaml"]).expect(1).error_names(&["`missing.yaml`"]);

    let missing = "version: v1.1.0\nalias:\n  src: [../outside.yaml]\nsteps:\n  - cmd: busybox\n";
    repository.commit_files(&[("acr-task.yaml", missing)]);
    run(&[]).expect(1).error_names(&["acr-task.yaml:3:", "alias source `../outside.yaml` is not there"]);

    repository.commit_files(&[("acr-task.yaml", "version: v1.1.0\nsteps:\n  - id: a b\n    cmd: busybox\n")]);
    run(&[]).expect(1).error_names(&["acr-task.yaml:3:", "can't be planned"]);
}

#[test]
fn two_runs_of_one_file_at_once_never_meet() {
    let (server, engine) = (server(), Engine::new());
    let dockerfile = "ARG BASE\nFROM $BASE\nARG WHO\nRUN echo $WHO > /who\n";
    let task = "version: v1.1.0\nsteps:\n  - id: image\n    build: -t $Registry/same:1 --build-arg \
                BASE=$Registry/base/busybox:1 --build-arg WHO={{.Values.who}} .\n  - id: service\n    cmd: $Registry/same:1 \
                sh -c 'mkdir /w && cp /who /w/ && httpd -f -p 80 -h /w'\n    detach: true\n  - id: ask\n    cmd: \
                $Registry/base/busybox:1 sh -c 'sleep 1; wget -q -O - http://service/who'\n    retries: 60\n    retryDelay: 1\n";
    let context = Context::new(dockerfile).file("acr-task.yaml", task);
    let begin = |who: &str| {
        let value = format!("who={who}");
        server.cooper_running(&["run", "--set", &value, &context.display()])
    };
    let runs = [("ann", begin("ann-was-here")), ("bob", begin("bob-was-here"))];
    for (who, run) in runs {
        let log = run.end(Duration::from_secs(120)).ok().stdout;
        let other = if who == "ann" { "bob" } else { "ann" };
        assert!(
            log.contains(&format!("\n{who}-was-here\n")) && !log.contains(&format!("\n{other}-was-here\n")),
            "{log}"
        );
    }
    let owner = format!("dev.cooperage.owner={}", server.agent_owner());
    let services = || engine.held(&[&owner, "dev.cooperage.step=service"]);
    wait_until("the services are gone", Duration::from_secs(30), || services().is_empty());
}

#[test]
fn a_cache_is_kept_beside_the_image_and_the_log_says_which() {
    let server = server();
    let word = unique();
    let task = "version: v1.1.0\nsteps:\n  - id: image\n    build: -t $Registry/cached:1 --build-arg \
                BASE=$Registry/base/busybox:1 .\n    cache: enabled\n  - push: [$Registry/cached:1]\n";
    let context = Context::new(&format!("ARG BASE\nFROM $BASE\nRUN echo {word}\n")).file("acr-task.yaml", task);
    let host = server.authority().replace("127.0.0.1", "localhost");
    let own = format!("{host}/cached:cache_quickrun_image");
    for is_first in [true, false] {
        let log = server.cooper(&["run", &context.display()]).ok().stdout;
        let line = log.lines().find(|line| line.starts_with("cache: ")).unwrap_or_else(|| panic!("{log}"));
        let written = format!("cache: kept in the registry as {own}, all stages of it; ");
        let inline = format!("cache: inline in the image, and read from {own}, {host}/cached:1; ");
        assert!(line.starts_with(&written) || line.starts_with(&inline), "{log}");
        // The second one finds what the first one has pushed, and does nothing again.
        assert!(log.contains(&format!("importing cache manifest from {host}/cached:1\n")), "{log}");
        assert_eq!(log.contains(&format!("{host}/cached:1: not found")), is_first, "{log}");
        let is_done = log.lines().any(|line| line.ends_with(&word) && !line.contains("RUN"));
        assert_eq!(is_done, is_first, "{log}");
        let kept = server.registry("/v2/cached/manifests/cache_quickrun_image").status;
        assert_eq!(kept == 200, line.starts_with(&written), "{kept}: {log}");
    }
}

#[test]
fn what_is_wrong_is_told_before_anything_is_sent() {
    let server = TestServer::start();
    let context = Context::empty().file("acr-task.yaml", "steps:\n  - id: a\n    cmd: busybox\n    retries: -1\n");
    let finished = server.cooper(&["run", &context.display()]).expect(2);
    finished.error_names(&["acr-task.yaml:4:", "retries"]);
    assert!(!finished.stderr.contains("Sending"), "{}", finished.stderr);
    server.cooper(&["run", "-f", "nothing.yaml", "/dev/null"]).expect(2).error_names(&["`nothing.yaml`"]);
    server.cooper(&["run", "/dev/null"]).expect(2).error_names(&["no task file is named"]);
    server.cooper(&["run", "--cmd", "-v /:/host busybox", "/dev/null"]).expect(2).error_names(&["volumeMounts"]);
}
