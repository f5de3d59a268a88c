//! Stored tasks as their users handle them: made, run, changed, started by a timer, deleted.

use std::time::Duration;

use cooper_e2e::{GitBehaviour, GitRepository, GitServer, Pause, ServerOptions, TestServer, expect_sealed, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// A server that may fetch from this machine, and a Git server on it.
struct World {
    server: TestServer,
    git: GitServer,
    repository: GitRepository,
    base: String,
    _root: TempDir,
}

impl World {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let repository = GitRepository::new(root.path(), "app.git");
        let git = GitServer::start(root.path());
        let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
        let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
        let base = server.base_image();
        Self { server, git, repository, base, _root: root }
    }

    fn source(&self) -> String {
        self.git.url("app.git")
    }

    fn task(&self, arguments: &[&str]) -> cooper_e2e::Finished {
        self.server.cooper(&[&["task"], arguments].concat())
    }

    /// Runs a task to its end; the record.
    fn run(&self, arguments: &[&str]) -> Value {
        self.task(&[&["run", "--no-logs", "--output", "json"], arguments].concat()).ok().json()
    }

    fn runs(&self, name: &str) -> Vec<Value> {
        let list = self.task(&["list-runs", name, "--output", "json"]).ok().json();
        list.as_array().unwrap().clone()
    }
}

#[test]
fn a_task_is_made_run_changed_and_started_by_a_timer() {
    let world = World::new();
    let dockerfile =
        "ARG BASE\nFROM $BASE\nARG KIND\nARG TOKEN\nRUN test \"$KIND\" = plain && test \"$TOKEN\" = hunter22\n";
    world.repository.commit_files(&[("Dockerfile", dockerfile), ("other", "FROM scratch\n")]);
    let (source, base) = (world.source(), format!("BASE={}", world.base));
    let make = |name: &str| {
        let arguments = ["--arg", &base, "--arg", "KIND=plain", "--secret-arg", "TOKEN=hunter22"];
        let what = ["create", "-n", name, "-c", &source, "-f", "Dockerfile", "-t", "app:{{.Run.TaskName}}-{{.Run.ID}}"];
        world.task(&[&what[..], &arguments, &["--output", "json", "--commit-trigger-enabled", "false"]].concat())
    };
    let made = make("Nightly").ok().json();
    assert_eq!(
        (&made["name"], &made["status"], &made["timeout"]),
        (&"Nightly".into(), &"Enabled".into(), &3600.into())
    );
    make("nightLY").expect(5).error_names(&["task `nightLY` exists"]);

    // Each minute, while the rest goes on.
    let clock = ["create", "-n", "ticks", "-c", "/dev/null", "--schedule", "tick:* * * * *", "--cmd"];
    world.task(&[&clock[..], &[&format!("{} echo ticked", world.base)]].concat()).ok();
    let next = world.task(&["timer", "next", "ticks", "-n", "3"]).ok().stdout;
    assert_eq!(next.lines().filter(|line| line.ends_with("tick")).count(), 3, "{next}");

    let run = world.run(&["Nightly"]);
    assert_eq!(
        (&run["runType"], &run["task"], &run["status"]),
        (&"AutoBuild".into(), &"Nightly".into(), &"Succeeded".into())
    );
    let id = run["runId"].as_str().unwrap();
    assert_eq!(run["outputImages"][0]["tag"], format!("Nightly-{id}"));
    let log = world.task(&["logs", "nightly"]).ok().stdout;
    assert!(log.contains("was successful") && !log.contains("hunter22"), "{log}");
    let shown = world.task(&["show", "NIGHTLY"]).ok().stdout;
    assert!(shown.contains("TOKEN=***") && !shown.contains("hunter22"), "{shown}");

    // Overrides are for one run; a change is for all that follow.
    let other = world.run(&["nightly", "-f", "other", "--arg", "KIND=other"]);
    assert_eq!(other["status"], "Succeeded");
    world.task(&["update", "nightly", "--arg", "KIND=wrong", "--arg", &base, "--secret-arg", "TOKEN=hunter22"]).ok();
    world.task(&["run", "nightly", "--no-logs"]).expect(1);
    world.task(&["update", "nightly", "-f", "other", "--no-push"]).ok();
    let unpushed = world.run(&["nightly"]);
    assert_eq!(unpushed["outputImages"].as_array().unwrap().len(), 0);
    let shown = world.task(&["show", "nightly", "--output", "json"]).ok().json();
    assert_eq!((&shown["step"]["dockerFilePath"], &shown["generation"]), (&"other".into(), &3.into()));

    assert_eq!(world.runs("nightly").len(), 4);
    let failed = world.task(&["list-runs", "-n", "nightly", "--run-status", "Failed", "--output", "json"]).ok().json();
    assert_eq!(failed.as_array().unwrap().len(), 1);
    let table = world.task(&["list-runs"]).ok().stdout;
    assert!(table.lines().next().unwrap().contains("TRIGGER") && table.contains("Manual"), "{table}");
    let shown = world.task(&["show-run", "--run-id", id]).ok().stdout;
    assert!(shown.contains(id) && shown.contains(&format!("app:Nightly-{id}")), "{shown}");
    assert_eq!(world.task(&["show-run", id, "--output", "json"]).ok().json(), world.server.run(id));
    let wrote = world.task(&["logs", "-t", &format!("app:Nightly-{id}")]).ok();
    assert!(wrote.stderr.contains(&format!("Run {id} is the newest.")) && wrote.stdout == log, "{wrote}");
    world.task(&["logs", "-t", "app:nobodys"]).expect(2).error_names(&["no run that wrote `app:nobodys`"]);
    let archived = world.task(&["update-run", "--run-id", id, "--no-archive", "false", "--output", "json"]).ok().json();
    assert_eq!(archived["isArchiveEnabled"], true);
    assert_eq!(world.server.run(id)["isArchiveEnabled"], true);

    // The timer has fired by now, or does within its minute.
    wait_until("the timer has set off a run", Duration::from_secs(70), || !world.runs("ticks").is_empty());
    let ticked = world.runs("ticks").pop().unwrap();
    assert_eq!(ticked["timerTrigger"]["timerTriggerName"], "tick");
    assert!(ticked["timerTrigger"]["scheduleOccurrence"].as_str().unwrap().contains(":00.000000Z"), "{ticked}");
    let ticked = ticked["runId"].as_str().unwrap().to_owned();
    wait_until("its run has succeeded", Duration::from_secs(60), || world.server.run(&ticked)["status"] == "Succeeded");
    world.task(&["disable", "ticks"]).ok();
    let next = world.task(&["timer", "list", "ticks", "--output", "json"]).ok().json();
    assert_eq!(next[0]["next"].as_array().unwrap().len(), 0, "{next}");
    assert_eq!(next[0]["last"][0]["runId"].as_str().unwrap(), world.runs("ticks")[0]["runId"].as_str().unwrap());

    world.task(&["delete", "nightly", "--yes"]).ok();
    world.task(&["show", "nightly"]).expect(5).error_names(&["task `nightly` does not exist"]);
    assert_eq!(world.runs("nightly").len(), 4, "its runs stay");
    world.server.expect_quiet_log();
}

#[test]
fn a_task_file_a_credential_and_a_limit() {
    let world = World::new();
    world.git.behave("app.git", &[GitBehaviour::Password("git", "g1t-t0ken")]);
    let task = "version: v1.1.0\nsteps:\n  - cmd: $Registry/base/busybox:1 sh -c 'echo who={{.Values.who}} key={{.Values.key}}; {{.Values.pause}}'\n";
    world.repository.commit_files(&[("ci/acr-task.yaml", task)]);
    let source = format!("{}#main:ci", world.source());
    let what = ["create", "limited", "-c", &source, "-f", "acr-task.yaml", "--concurrency-limit", "1"];
    let values =
        ["--set", "who=world", "--set", "pause=true", "--set-secret", "key=hunter22", "--git-access-token", "wr0ng"];
    world.task(&[&what[..], &values].concat()).ok();
    world.task(&["run", "limited", "--no-logs"]).expect(1).error_names(&["credential"]);
    let host = world.git.host();
    let add = |verb: &str| world.task(&["credential", verb, "limited", "--login-server", &host, "-p", "g1t-t0ken"]);
    add("add").expect(2).error_names(&["has a credential for"]);
    add("update").ok();
    let listed = world.task(&["credential", "list", "limited"]).ok().stdout;
    assert!(listed.contains(&host) && !listed.contains("g1t-t0ken"), "{listed}");
    // What is not named stays as it is.
    let update = |more: &[&str]| {
        let update = ["credential", "update", "limited", "--login-server", &host, "-p", "g1t-t0ken"];
        world.task(&[&update[..], more].concat()).ok();
        world.task(&["credential", "list", "limited"]).ok().stdout
    };
    assert!(update(&["-u", "robot"]).contains(" robot "));
    assert!(update(&[]).contains(" robot "));
    assert!(update(&["-u", "git"]).contains(" git "), "the only user that the repository's host knows");
    // Neither the database nor anything else that is written down tells them to whoever copies it.
    let secrets = ["g1t-t0ken", "wr0ng", "hunter22"];
    expect_sealed(world.server.data(), &host, &secrets);

    let mut pause = Pause::new();
    let script = format!("pause={}", pause.script());
    let run = ["run", "limited", "--no-wait", "--set", "who=you", "--set", &script];
    let ids: Vec<String> = (0..2).map(|_| world.task(&run).ok().stdout.trim().to_owned()).collect();
    let reason = || world.server.run(&ids[1])["pendingReason"].as_str().unwrap_or_default().to_owned();
    wait_until("the second waits for the first", Duration::from_secs(30), || reason().contains("a run of its task"));
    let shown = world.server.cooper(&["runs", "show", &ids[1]]).ok().stdout;
    assert!(shown.contains("no more may be at a time"), "{shown}");
    pause.end();
    for id in &ids {
        wait_until("it has ended", Duration::from_secs(60), || !world.server.run(id)["finishTime"].is_null());
        let run = world.server.run(id);
        assert_eq!((&run["status"], &run["runType"]), (&"Succeeded".into(), &"AutoRun".into()), "{run}");
        let log = world.task(&["logs", "--run-id", id]).ok().stdout;
        assert!(log.contains("who=you key=***"), "{log}");
    }
    let began = |id: &String| world.server.run(id)["startTime"].as_str().unwrap().to_owned();
    let ended = |id: &String| world.server.run(id)["finishTime"].as_str().unwrap().to_owned();
    assert!(ended(&ids[0]) <= began(&ids[1]), "one after the other");
    expect_sealed(world.server.data(), &host, &secrets);

    // What is forgotten is shown to nobody any more.
    let remove = || world.task(&["credential", "remove", "limited", "--login-server", &host]);
    remove().ok();
    assert_eq!(world.task(&["credential", "list", "limited", "--output", "json"]).ok().json(), serde_json::json!([]));
    world.task(&["run", "limited", "--no-logs"]).expect(1).error_names(&["credential"]);
    remove().expect(5).error_names(&[&host]);
}

#[test]
fn what_is_said_of_a_task_is_in_its_list_its_runs_and_its_timers() {
    let server =
        TestServer::with(ServerOptions { arguments: vec!["--no-agent".to_owned()], ..ServerOptions::default() });
    let task = |arguments: &[&str]| server.cooper(&[&["task"], arguments].concat());
    let source = "https://git.example.org/team/app.git#main";
    let create =
        ["create", "quick", "-c", "/dev/null", "--cmd", "busybox true", "--base-image-trigger-enabled", "false"];
    task(&[&create[..], &["--platform", "linux/arm64", "--timeout", "900", "--cpu", "4"]].concat()).ok();
    task(&["create", "hooked", "-c", source, "-f", "Dockerfile", "-t", "app:1", "--schedule", "0 2 29 2 *"]).ok();
    let arm = || {
        let run = task(&["run", "quick", "--no-wait", "--output", "json"]).ok().json();
        let platform = format!("{}/{}", run["platform"]["os"], run["platform"]["architecture"]).replace('"', "");
        (platform, run["timeout"].as_u64().unwrap(), run["agentConfiguration"]["cpu"].as_u64().unwrap())
    };
    assert_eq!(arm(), ("linux/arm64".to_owned(), 900, 4));
    task(&["update", "quick", "--platform", "linux/amd64", "--timeout", "1200", "--cpu", "1"]).ok();
    assert_eq!(arm(), ("linux/amd64".to_owned(), 1200, 1));

    let listed = |name: &str| -> Vec<String> {
        let table = task(&["list"]).ok().stdout;
        assert!(table.starts_with("NAME"), "{table}");
        let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(listed("quick"), ["quick", "linux/amd64", "Enabled"]);
    assert_eq!(listed("hooked"), ["hooked", "linux/amd64", "Enabled", source, "BASE_IMAGE,SOURCE,TIMER"]);

    // The year does not matter, and no other day does either: it is never that day's time while this runs.
    let timer = |verb: &str, name: &str, more: &[&str]| {
        task(&[&["timer", verb, "-n", "quick", "--timer-name", name], more].concat())
    };
    let noon = ["--schedule", "30 12 29 2 *", "--time-zone", "Asia/Kolkata", "--catch-up", "once"];
    timer("add", "noon", &noon).ok();
    timer("add", "noon", &noon).expect(2).error_names(&["`quick` has a timer `noon`"]);
    timer("add", "still", &["--schedule", "0 3 29 2 *", "--enabled", "false"]).ok();
    let next = |more: &[&str]| task(&[&["timer", "next", "quick", "-n", "2", "--output", "json"], more].concat());
    let instants = || -> Vec<String> {
        let next = next(&[]).ok().json();
        let one = |one: &Value| format!("{} {}", one["timer"], &one["scheduleOccurrence"].as_str().unwrap()[4..19]);
        next.as_array().unwrap().iter().map(one).collect()
    };
    assert_eq!(instants(), [r#""noon" -02-29T07:00:00"#; 2], "half past twelve in India, in UTC");
    let settings = |name: &str| {
        let timers = task(&["timer", "list", "quick", "--output", "json"]).ok().json();
        let timer = timers.as_array().unwrap().iter().find(|timer| timer["name"] == name).unwrap().clone();
        ["status", "timeZone", "catchUp"].map(|key| timer[key].as_str().unwrap().to_owned())
    };
    assert_eq!(settings("noon"), ["Enabled", "Asia/Kolkata", "Once"]);
    assert_eq!(settings("still"), ["Disabled", "UTC", "Skip"]);
    timer("update", "noon", &["--catch-up", "skip"]).ok();
    assert_eq!(settings("noon"), ["Enabled", "Asia/Kolkata", "Skip"], "what is not named stays");
    timer("update", "still", &["--enabled"]).ok();
    assert_eq!(instants(), [r#""still" -02-29T03:00:00"#, r#""noon" -02-29T07:00:00"#]);
    assert_eq!(listed("quick"), ["quick", "linux/amd64", "Enabled", "TIMER"]);

    // No trigger starts a disabled task, until it is enabled.
    task(&["disable", "quick"]).ok();
    assert_eq!(listed("quick")[2], "Disabled");
    let none = task(&["timer", "next", "quick"]).ok();
    assert!(none.stdout.is_empty() && none.stderr.contains("`cooper task enable quick`"), "{none}");
    let enabled = task(&["enable", "-n", "quick"]).ok();
    assert!(enabled.stderr.contains("Task quick is enabled."), "{enabled}");
    assert_eq!(listed("quick")[2], "Enabled");
    assert_eq!(instants().len(), 2);

    timer("remove", "still", &[]).ok();
    assert_eq!(instants(), [r#""noon" -02-29T07:00:00"#; 2]);
    next(&["--timer-name", "still"]).expect(2).error_names(&["`quick` has no timer `still`"]);
    timer("update", "still", &["--enabled", "true"]).expect(2).error_names(&["`quick` has no timer `still`"]);
    server.expect_quiet_log();
}
