//! Where `cooper run` takes its files, its task and its values from.

use cooper_e2e::{Context, GitRepository, GitServer, ServerOptions, TestServer};
use serde_json::Value;

/// A server that may fetch from this machine, with an image for steps.
fn server() -> TestServer {
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    server
}

/// A run that succeeds: its record, and what its log says.
fn run(server: &TestServer, arguments: &[&str]) -> (Value, String) {
    let run = server.cooper(&[&["run", "--no-logs", "--output", "json"], arguments].concat()).ok().json();
    let log = server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    (run, log)
}

/// A task that says this, in a line of its own.
fn saying(words: &str) -> String {
    format!("version: v1.1.0\nsteps:\n  - cmd: $Registry/base/busybox:1 echo {words}\n")
}

#[test]
fn a_task_file_has_its_usual_names_in_every_source() {
    let server = server();
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let source = git.url("app.git");
    let nothing = repository.commit_files(&[("data", "")]);
    let names = ["`acr-task.yaml`", "`acb.yaml`"];
    server.cooper(&["run", &format!("{source}#{nothing}")]).expect(1).error_names(&names);

    repository.commit_files(&[("acb.yaml", &saying("this is acb"))]);
    let (first, log) = run(&server, &[&source]);
    assert!(log.contains("\nthis is acb\n"), "{log}");
    let id = first["runId"].as_str().unwrap();
    assert_eq!(server.cooper(&["runs", "lock", id]).ok().json()["taskFile"]["name"], "acb.yaml");
    repository.commit_files(&[("acr-task.yaml", &saying("this is acr-task"))]);
    let (both, log) = run(&server, &[&source]);
    assert!(log.contains("\nthis is acr-task\n"), "{log}");
    let lock = server.cooper(&["runs", "lock", both["runId"].as_str().unwrap()]).ok().json();
    assert_eq!((&lock["taskFile"]["name"], &lock["aliasFiles"]), (&"acr-task.yaml".into(), &Value::Null));
    // The one has the file of its commit again, the other what there is now.
    for (flags, words) in [(&[id][..], "this is acb"), (&[id, "--fresh"], "this is acr-task")] {
        let log = server.cooper(&[&["runs", "rerun"], flags].concat()).ok().stdout;
        assert!(log.contains(&format!("\n{words}\n")), "{log}");
    }

    let folder = Context::empty().file("acb.yaml", saying("this is acb"));
    assert!(run(&server, &[&folder.display()]).1.contains("\nthis is acb\n"));
    let folder = folder.file("acr-task.yaml", saying("this is acr-task"));
    assert!(run(&server, &[&folder.display()]).1.contains("\nthis is acr-task\n"));
    server.expect_quiet_log();
}
