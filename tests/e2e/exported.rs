//! Tasks that are written by one server and applied to another one.

use cooper_e2e::{Context, ServerOptions, TestServer, repository_path};
use serde_json::Value;

fn server() -> TestServer {
    TestServer::with(ServerOptions { arguments: vec!["--no-agent".to_owned()], ..ServerOptions::default() })
}

/// A task as it is shown, without what is each server's own.
fn shown(server: &TestServer, name: &str) -> Value {
    let mut task = server.cooper(&["task", "show", name, "--output", "json"]).ok().json();
    for own in ["creationDate", "lastUpdatedTime", "generation"] {
        assert!(task.as_object_mut().unwrap().remove(own).is_some(), "{own}: {task}");
    }
    task.as_object_mut().unwrap().remove("hooks");
    task
}

#[test]
fn what_one_server_exports_is_the_same_task_on_another() {
    let (one, other) = (server(), server());
    let file = repository_path("examples/stored-tasks.yaml").display().to_string();
    one.cooper(&["task", "apply", "-f", &file, "--yes"]).ok();
    let text =
        Context::empty().file("t.yaml", "version: v1.1.0\nsteps:\n  - cmd: 'busybox echo \"{{.Values.a}}\" # b'\n");
    let text = text.join("t.yaml").display().to_string();
    let own = ["task", "create", "of-its-own", "-c", "/dev/null", "-f", &text, "--set", "a=b: c", "--priority", "-3"];
    let more = ["--schedule", "night:0 2 * * *", "--run-retention", "7", "--base-image-trigger-enabled", "False"];
    one.cooper(&[&own[..], &more].concat()).ok();
    let exported = one.cooper(&["task", "export"]).ok().stdout;
    let folder = Context::empty().file("tasks.yaml", &exported);
    let file = folder.join("tasks.yaml").display().to_string();
    other.cooper(&["task", "apply", "-f", &file, "--yes"]).ok();
    for name in ["app-build", "app-check", "nightly-purge", "of-its-own"] {
        assert_eq!(shown(&one, name), shown(&other, name), "{name}");
    }
    assert_eq!(other.cooper(&["task", "export"]).ok().stdout, exported);
    let again = other.cooper(&["task", "apply", "-f", &file, "--dry-run"]).ok();
    assert!(again.stderr.contains("All 4 tasks are as the file says"), "{again}");

    // The value of a secret goes in a file, and comes out of none.
    let secret = exported.replace("value: \"b: c\"", "value: s3cret-value\n      isSecret: true");
    assert_ne!(secret, exported, "{exported}");
    let folder = Context::empty().file("tasks.yaml", &secret);
    let file = folder.join("tasks.yaml").display().to_string();
    let set = other.cooper(&["task", "apply", "-f", &file, "--yes"]).ok();
    assert!(set.stdout.contains("values of secrets are set") && !set.stdout.contains("s3cret-value"), "{set}");
    let again = other.cooper(&["task", "apply", "-f", &file, "--yes"]).ok();
    assert!(again.stderr.contains("All 4 tasks are as the file says"), "{again}");
    let folder = Context::empty().file("tasks.yaml", secret.replace("s3cret-value", "another-value"));
    let file = folder.join("tasks.yaml").display().to_string();
    let other_value = other.cooper(&["task", "apply", "-f", &file, "--dry-run"]).ok();
    assert!(other_value.stdout.contains("values of secrets are set"), "{other_value}");
    assert!(!other.cooper(&["task", "export"]).ok().stdout.contains("s3cret-value"));

    // What is wrong with one task keeps nobody from being told of the others; and nothing is changed.
    let wrong = exported.replace("cpu: 2", "cpu: 0");
    let wrongs = wrong.matches("cpu: 0").count();
    let folder = Context::empty().file("tasks.yaml", wrong);
    let file = folder.join("tasks.yaml").display().to_string();
    let refused = other.cooper(&["task", "apply", "-f", &file, "--yes"]);
    assert_eq!((refused.stderr.matches("cpu is 0").count(), wrongs > 1), (wrongs, true), "{refused}");
}
