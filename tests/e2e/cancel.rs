//! Cancelling stops the work, not only the record.

use std::time::{Duration, Instant};

use cooper_e2e::{Context, Running, TestServer, wait_until};

/// Whether a process with this word in its command line runs on this machine, in a container or not.
pub(crate) fn runs_somewhere(words: &[&str]) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
        arguments.len() == words.len() && arguments.iter().zip(words).all(|(have, want)| *have == want.as_bytes())
    })
}

#[test]
fn cancelling_a_long_build_ends_it_and_its_process() {
    let server = TestServer::start();
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN sleep 39571\n"));
    let build = server.cooper_running(&["build", "-t", "long:1", &context.display()]);
    wait_until("the step runs", Duration::from_secs(60), || runs_somewhere(&["sleep", "39571"]));
    assert_eq!(server.run("ca2")["status"], "Running");

    let asked = Instant::now();
    server.cooper(&["runs", "cancel", "ca2"]).ok();
    wait_until("the process is gone", Duration::from_secs(10), || !runs_somewhere(&["sleep", "39571"]));
    let finished = build.end(Duration::from_secs(10)).expect(3);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "cancelling took {took:?}: {finished}");
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
    let context = Context::new(&format!("FROM {base}\nRUN sleep 39572\n"));
    server.cooper(&["build", "-t", "slow:1", "--timeout", "3", &context.display()]).expect(4);
    assert_eq!(server.run("ca2")["status"], "Timeout");
    wait_until("the process is gone", Duration::from_secs(10), || !runs_somewhere(&["sleep", "39572"]));
}

#[test]
fn ctrl_c_on_a_terminal_asks_once() {
    let server = TestServer::start();
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN sleep 39573\n"));
    let mut build = Running::on_terminal(&server.command(&["build", "-t", "asked:1", &context.display()]));
    wait_until("the step runs", Duration::from_secs(60), || runs_somewhere(&["sleep", "39573"]));
    build.type_text("\u{3}");
    wait_until("the question", Duration::from_secs(10), || build.output().0.contains("Cancel run ca2?"));
    assert!(runs_somewhere(&["sleep", "39573"]), "the question alone ends nothing");
    build.type_text("y\n");
    build.end(Duration::from_secs(20)).expect(3);
    assert_eq!(server.run("ca2")["status"], "Canceled");
    wait_until("the process is gone", Duration::from_secs(10), || !runs_somewhere(&["sleep", "39573"]));
}

#[test]
fn ctrl_c_elsewhere_leaves_the_run_and_says_how_to_follow_it() {
    let server = TestServer::start();
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN sleep 39574\n"));
    let build = server.cooper_running(&["build", "-t", "left:1", &context.display()]);
    wait_until("the step runs", Duration::from_secs(60), || runs_somewhere(&["sleep", "39574"]));
    build.signal(rustix::process::Signal::INT);
    let left = build.end(Duration::from_secs(20));
    assert!(left.stderr.contains("cooper logs ca2"), "{left}");
    assert_eq!(server.run("ca2")["status"], "Running");
    server.cooper(&["runs", "cancel", "ca2"]).ok();
    wait_until("the process is gone", Duration::from_secs(10), || !runs_somewhere(&["sleep", "39574"]));
}
