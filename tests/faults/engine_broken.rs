//! The container engine stops, is killed, or stops answering: the attempt ends with the reason, the agent recovers by
//! itself.

use std::time::Duration;

use cooper_e2e::wait_until;
use rustix::process::Signal;

use crate::machine::Machine;

/// How long the agent may take to see that its engine is gone.
const SEEN: Duration = Duration::from_secs(180);

#[test]
fn an_engine_that_stops_and_starts() {
    let mut machine = Machine::start();
    let (mut submission, mut pause) = machine.pausing();
    machine.engine.stop();
    machine.says(&mut submission, "loss 1 of 3", SEEN);
    // Without an engine the agent takes nothing, and the run says what it waits for.
    let run = submission.run().unwrap().to_owned();
    wait_until("the run says why it waits", SEEN, || {
        machine.server.run(&run)["pendingReason"].as_str().is_some_and(|reason| reason.contains("engine"))
    });
    machine.engine.launch();
    pause.end();
    let (record, log) = machine.ends_well(submission);
    assert_eq!(log.matches("loss ").count(), 1, "{record:#}\n{log}");
}

#[test]
fn an_engine_that_is_killed() {
    let mut machine = Machine::start();
    let (mut submission, mut pause) = machine.pausing();
    machine.engine.kill();
    machine.says(&mut submission, "loss 1 of 3", SEEN);
    machine.engine.launch();
    pause.end();
    machine.ends_well(submission);
}

#[test]
fn an_engine_that_stops_answering() {
    let mut machine = Machine::start();
    let (mut submission, mut pause) = machine.pausing();
    machine.engine.process().signal(Signal::STOP);
    machine.says(&mut submission, "loss 1 of 3", SEEN);
    machine.engine.process().signal(Signal::CONT);
    pause.end();
    machine.ends_well(submission);
}
