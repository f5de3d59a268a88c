//! Pull requests and priorities where an agent is at work: what a new commit ends, and who goes first.

use std::time::Duration;

use cooper_e2e::{GitRepository, GitServer, ServerOptions, TestServer, request, wait_until};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// Tells a hook of a commit of the repository's own pull request, as Gitea does.
fn tell(server: &TestServer, hook: &Value, url: &str, commit: &str) {
    let repository = json!({"id": 5, "full_name": "team/app", "clone_url": url});
    let side = |name: &str, commit: &str| json!({"ref": name, "sha": commit, "repo_id": 5, "repo": repository});
    let body = json!({
        "action": "synchronized", "number": 7, "repository": repository, "sender": {"login": "bob"},
        "pull_request": {"number": 7, "title": "Faster", "state": "open", "draft": false,
            "base": side("main", &"0".repeat(40)), "head": side("faster", commit)},
    });
    let body = body.to_string().into_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(hook["secret"].as_str().unwrap().as_bytes()).unwrap();
    mac.update(&body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let (delivery, signature) = (format!("X-Gitea-Delivery: {commit}"), format!("X-Gitea-Signature: {digits}"));
    let headers = ["Content-Type: application/json", "X-Gitea-Event: pull_request", &delivery, &signature];
    let answer = request(server.authority(), "POST", hook["path"].as_str().unwrap(), &headers, &body).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// The run of a commit.
fn run_of(server: &TestServer, task: &str, commit: &str) -> String {
    let find = || {
        let runs = server.cooper(&["task", "list-runs", task, "--output", "json"]).ok().json();
        let is_of = |run: &&Value| run["sourceTrigger"]["commitId"] == commit;
        runs.as_array().unwrap().iter().find(is_of).map(|run| run["runId"].as_str().unwrap().to_owned())
    };
    wait_until("the commit has set off a run", PATIENCE, || find().is_some());
    find().unwrap()
}

#[test]
fn a_new_commit_of_a_pull_request_ends_the_run_that_goes_on_of_the_earlier_one() {
    let root = TempDir::new().unwrap();
    let team = root.path().join("team");
    std::fs::create_dir(&team).unwrap();
    let repository = GitRepository::new(&team, "app.git");
    let git = GitServer::start(root.path());
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let base = server.base_image();
    let file = |command: &str| {
        let text = format!("version: v1.1.0\nsteps:\n  - cmd: {base} {command}\n");
        repository.commit_files(&[("task.yaml", &text)])
    };
    let (older, newer) = (file("sh -c \"echo begun; sleep 86400\""), file("echo newer"));
    let url = git.url("team/app.git");
    let context = format!("{url}#main");
    let create = ["task", "create", "pulls", "--output", "json", "-c", &context, "-f", "task.yaml", "--forge", "gitea"];
    let events = ["--commit-trigger-enabled", "False", "--pull-request-trigger-enabled", "True", "--cancel-superseded"];
    let hook = server.cooper(&[&create[..], &events].concat()).ok().json()["hooks"][0].clone();
    tell(&server, &hook, &url, &older);
    let first = run_of(&server, "pulls", &older);
    let begun = || server.cooper(&["logs", &first]).ok().stdout.lines().any(|line| line.ends_with("begun"));
    wait_until("its step goes on", PATIENCE, begun);
    tell(&server, &hook, &url, &newer);
    let second = run_of(&server, "pulls", &newer);
    for (id, status) in [(&first, "Canceled"), (&second, "Succeeded")] {
        wait_until("both have ended", PATIENCE, || !server.run(id)["finishTime"].is_null());
        assert_eq!(server.run(id)["status"], status, "{}", server.run(id));
    }
    let log = server.cooper(&["logs", &first]).ok().stdout;
    assert!(log.contains(&second), "it says which run took its place: {log}");
    server.expect_quiet_log();
}

#[test]
fn of_two_runs_that_wait_the_one_of_the_higher_priority_goes_first() {
    let arguments = ["--slots", "1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let base = server.base_image();
    let is_connected = || server.cooper(&["agent", "list", "--output", "json"]).ok().json()[0]["state"] == "connected";
    wait_until("the agent is connected", PATIENCE, is_connected);
    server.cooper(&["agent", "drain", "local"]).ok();
    let queue = |name: &str, priority: &str| {
        let command = format!("{base} true");
        let create = ["task", "create", name, "-c", "/dev/null", "--cmd", &command, "--priority", priority];
        server.cooper(&create).ok();
        let run = server.cooper(&["task", "run", name, "--no-wait", "--output", "json"]).ok().json();
        run["runId"].as_str().unwrap().to_owned()
    };
    let (low, usual, high) = (queue("lower", "-5"), queue("usual", "0"), queue("higher", "5"));
    server.cooper(&["agent", "drain", "local", "--undo"]).ok();
    let started = |id: &String| {
        wait_until("it has ended", PATIENCE, || !server.run(id)["finishTime"].is_null());
        let run = server.run(id);
        assert_eq!(run["status"], "Succeeded", "{run}");
        run["startTime"].as_str().unwrap().to_owned()
    };
    let (low, usual, high) = (started(&low), started(&usual), started(&high));
    assert!(high < usual && usual < low, "{high} {usual} {low}");
}
