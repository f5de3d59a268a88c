//! Cancelling stops the work, not only the record.

use std::time::Duration;

use cooper_e2e::{Context, Pause, Running, TestServer, wait_until};

#[test]
fn cancelling_a_long_build_ends_it_and_its_process() {
    let server = TestServer::start();
    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {}\n", pause.command()));
    let build = server.cooper_running(&["build", "-t", "long:1", &context.display()]);
    pause.begins();
    assert_eq!(server.run("ca2")["status"], "Running");

    server.cooper(&["runs", "cancel", "ca2"]).ok();
    pause.is_ended();
    build.end(Duration::from_secs(10)).expect(3);
    assert_eq!(server.run("ca2")["status"], "Canceled");

    // Cancelling what has ended changes nothing, and the next build works.
    server.cooper(&["runs", "cancel", "ca2"]);
    assert_eq!(server.run("ca2")["status"], "Canceled");
    server.build(&["-t", "short:1"], &Context::new(&format!("FROM {base}\nRUN true\n")));
}

#[test]
fn a_run_ends_when_its_time_is_up() {
    let server = TestServer::start();
    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {}\n", pause.command()));
    server.cooper(&["build", "-t", "slow:1", "--timeout", "3", &context.display()]).expect(4);
    assert_eq!(server.run("ca2")["status"], "Timeout");
    pause.is_ended();

    // A stored task's: what it says when it is run counts, for its command as well.
    let pause = Pause::new();
    let command = format!("{base} {}", pause.command());
    server.cooper(&["task", "create", "slow1", "-c", "/dev/null", "--cmd", &command, "--timeout", "3"]).ok();
    server.cooper(&["task", "update", "slow1", "--timeout", "5"]).ok();
    let log = server.cooper(&["task", "run", "slow1"]).expect(4).stdout;
    assert!(log.contains("Timeout(sec): 28800"), "the step has no limit of its own: {log}");
    let run = server.run("ca3");
    assert_eq!((&run["status"], &run["timeout"], &run["task"]), (&"Timeout".into(), &5.into(), &"slow1".into()));
    pause.is_ended();
}

#[test]
fn ctrl_c_on_a_terminal_asks_once() {
    let server = TestServer::start();
    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {}\n", pause.command()));
    let mut build = Running::on_terminal(&server.command(&["build", "-t", "asked:1", &context.display()]));
    pause.begins();
    build.type_text("\u{3}");
    wait_until("the question", Duration::from_secs(10), || build.output().0.contains("Cancel run ca2?"));
    assert!(pause.is_on(), "the question alone ends nothing");
    build.type_text("y\n");
    build.end(Duration::from_secs(20)).expect(3);
    assert_eq!(server.run("ca2")["status"], "Canceled");
    pause.is_ended();
}

#[test]
fn ctrl_c_elsewhere_leaves_the_run_and_says_how_to_follow_it() {
    let server = TestServer::start();
    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {}\n", pause.command()));
    let build = server.cooper_running(&["build", "-t", "left:1", &context.display()]);
    pause.begins();
    build.signal(rustix::process::Signal::INT);
    let left = build.end(Duration::from_secs(20));
    assert!(left.stderr.contains("cooper logs ca2"), "{left}");
    assert_eq!(server.run("ca2")["status"], "Running");
    server.cooper(&["runs", "cancel", "ca2"]).ok();
    pause.is_ended();
}
