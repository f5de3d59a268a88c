//! Tasks that are written by one server and applied to another one.

use std::time::Duration;

use cooper_e2e::{Context, Running, ServerOptions, TestServer, repository_path, wait_until};
use serde_json::Value;

/// How long a command may take.
const LONG: Duration = Duration::from_secs(60);

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

#[test]
fn what_is_applied_is_asked_for_before() {
    let server = server();
    let text =
        "name: asked1\nstep:\n  type: EncodedTask\n  taskContent: |\n    steps:\n      - cmd: busybox true\ncpu: 1\n";
    let folder = Context::empty().file("tasks.yaml", text);
    let file = folder.join("tasks.yaml").display().to_string();
    let (apply, export) = (["task", "apply", "-f", &file], || server.cooper(&["task", "export"]).ok().stdout);

    // A script that has not agreed is told so, and the same holds where the standard input is the file.
    let unasked = server.cooper(&apply).expect(2);
    unasked.error_names(&["no terminal to ask at"]);
    assert!(unasked.stderr.contains("hint: agree with --yes"), "{unasked}");
    assert!(unasked.stdout.contains("Task asked1 is new:"), "what it is about is shown: {unasked}");
    let mut piped = server.command(&["task", "apply", "-f", "-"]);
    piped.stdin(std::fs::File::open(&file).unwrap());
    cooper_e2e::run_to_end(&mut piped, LONG).expect(2).error_names(&["no terminal to ask at"]);
    assert_eq!(export(), "", "nothing is made");

    // At a terminal it is the answer that counts.
    let answered = |answer: &str| {
        let mut apply = Running::on_terminal(&server.command(&apply));
        wait_until("the question", LONG, || apply.output().0.contains("Apply? (y/N)"));
        apply.type_text(answer);
        apply.end(LONG).ok().stdout
    };
    let no = answered("\n");
    assert!(no.contains("Nothing is changed."), "{no}");
    assert_eq!(export(), "", "nothing is made");
    let yes = answered("y\n");
    assert!(yes.contains("Task asked1 is applied."), "{yes}");
    let made = export();
    assert!(made.contains("name: asked1"), "{made}");

    // What nobody has to agree to is no question; a change is one again.
    let same = server.cooper(&apply).ok();
    assert!(same.stderr.contains("The task is as the file says."), "{same}");
    let folder = Context::empty().file("tasks.yaml", text.replace("cpu: 1", "cpu: 2"));
    let file = folder.join("tasks.yaml").display().to_string();
    let change = server.cooper(&["task", "apply", "-f", &file]).expect(2);
    assert!(change.stdout.contains("- cpu: 1") && change.stdout.contains("+ cpu: 2"), "{change}");
    assert_eq!(export(), made, "nothing is changed");
}
