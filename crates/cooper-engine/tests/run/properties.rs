//! What holds for every plan and every sequence of events.

use std::time::Duration;

use cooper_engine::run::{Refusal, RunEvent, RunStatus};
use cooper_types::Timestamp;
use proptest::prelude::*;

use super::fixture::{agent, at, build, by, live, plan, push, run_of, taken};
use super::generate::{Kind, Move, Pick, any_moves, any_plan, any_run, event_of};
use super::watch::Watched;

const HOUR: Duration = Duration::from_secs(3600);

fn play(watched: &mut Watched, moves: &[Move]) -> Timestamp {
    let mut now = at(0);
    for step in moves {
        now = now.after(step.later);
        let event = event_of(&watched.run, *step);
        // Whether it is taken does not matter here: what it does is watched.
        let _ = watched.apply(event, now);
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_if_time_passes(run in any_run(), moves in any_moves()) {
        let mut watched = Watched::new(run);
        let mut now = play(&mut watched, &moves);
        // One look for the leases, one for the run's or the queue's time, one for what is being stopped.
        for _ in 0..3 {
            now = now.after(25 * HOUR);
            let _ = watched.apply(RunEvent::Tick, now);
        }
        prop_assert!(watched.run.finished().is_some(), "{:?}", watched.run);
    }

    #[test]
    fn a_finished_run_refuses_everything(run in any_run(), moves in any_moves(), more in any_moves()) {
        let mut watched = Watched::new(run);
        let mut now = play(&mut watched, &moves);
        while watched.run.finished().is_none() {
            now = now.after(25 * HOUR);
            let _ = watched.apply(RunEvent::Tick, now);
        }
        for step in more {
            let event = event_of(&watched.run, step);
            prop_assert_eq!(watched.apply(event, now), Err(Refusal::Over));
        }
    }

    #[test]
    fn an_agent_that_does_its_work_finishes_every_plan(plan in any_plan(), tells in any::<bool>()) {
        let mut watched = Watched::new(run_of(plan));
        let steps = watched.run.steps.len() as u64;
        for placement in 0..watched.run.placements.len() {
            // One that no step needs is let go at once, or with the last step.
            if watched.apply(RunEvent::Offer { placement, agent: agent("a", 1) }, at(1)).is_ok() {
                let fence = watched.run.last_fence;
                prop_assert_eq!(watched.apply(RunEvent::Accepted { fence, host: None }, at(1)), Ok(()));
            }
        }
        for seconds in 2..2 + steps {
            let step = watched.run.steps.iter().position(|step| step.state.live_attempt().is_some());
            let step = step.expect("something runs until all is done");
            let attempt = live(&watched.run, step);
            let fence = watched.run.placements[watched.run.plan.steps[step].placement].lease().expect("held").fence;
            if tells {
                prop_assert_eq!(watched.apply(RunEvent::StepStarted { fence, attempt }, at(seconds)), Ok(()));
            }
            let pick = Pick::Back(0, watched.run.last_attempt.0 - attempt.0);
            let RunEvent::StepEnded { result, .. } =
                event_of(&watched.run, Move { kind: Kind::Succeeded, pick, later: Duration::ZERO }) else { unreachable!() };
            prop_assert_eq!(watched.apply(RunEvent::StepEnded { fence, attempt, result }, at(seconds)), Ok(()));
        }
        prop_assert_eq!(watched.run.status(), RunStatus::Succeeded);
        prop_assert_eq!(watched.run.last_attempt.0, steps);
    }
}

/// The watch itself can fail: this run was moved on behind its back.
#[test]
#[should_panic(expected = "effects and state disagree")]
fn the_watch_sees_an_attempt_that_nobody_announced() {
    let mut watched = Watched::new(run_of(plan(1, &[build(0, &[]), push(0, 0)])));
    taken(&mut watched.run, 1, 0, &agent("a", 1));
    let _ = watched.apply(RunEvent::CancelRequested { by: by() }, at(2));
}
