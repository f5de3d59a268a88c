//! Rules of a run's life that are worth a story of their own.

use cooper_engine::message::{Held, PlacementKey, StepResult};
use cooper_engine::run::{
    Effect, PendingReason, Phase, Placement, Policy, Refusal, RunEvent, RunStatus, StepState, Verdict,
};
use cooper_spec::plan::Work;
use cooper_types::{ImageRef, RunId, Scope, Scopes};

use super::fixture::{
    agent, at, build, by, carefree, command, does, live, plan, push, refuses, run_of, succeeds, taken,
};

#[test]
fn a_quick_build_goes_from_its_offer_to_its_tags() {
    let mut run = run_of(plan(1, &[build(0, &[]), push(0, 0)]));
    assert_eq!(run.status(), RunStatus::Queued);
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    assert_eq!(run.status(), RunStatus::Started);
    let attempt = live(&run, 0);
    does(&mut run, 2, RunEvent::StepStarted { fence, attempt });
    assert_eq!(run.status(), RunStatus::Running);
    let effects = succeeds(&mut run, 3, 0);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::PublishTags { .. })));
    let effects = succeeds(&mut run, 4, 1);
    let position = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).expect("the effect is there");
    let published =
        position(|effect| matches!(effect, Effect::PublishTags { targets, .. } if targets[0].tags.len() == 2));
    assert!(published < position(|effect| matches!(effect, Effect::AttemptEnded { .. })));
    assert_eq!(effects.last(), Some(&Effect::Finished));
    assert_eq!((run.status(), run.finished()), (RunStatus::Succeeded, Some(at(4))));
}

#[test]
fn a_builds_cache_becomes_real_with_it_where_the_run_may_write() {
    let cache = |text: &str| ImageRef::parse(text).expect("valid");
    for (name, is_kept) in [("localhost:5000/app:cache_quickrun_b", true), ("r.io/app:cache_quickrun_b", false)] {
        let mut plan = plan(1, &[build(0, &[])]);
        let Work::Build(work) = &mut plan.steps[0].work else { panic!("it is a build") };
        work.cache = Some(cache(name));
        let mut run = run_of(plan);
        run.scopes = Scopes(vec![Scope::Admin]);
        taken(&mut run, 1, 0, &agent("a", 1));
        let kept = |effects: &[Effect]| {
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::KeepCache { tag, .. } if tag.as_str() == "cache_quickrun_b"))
        };
        assert_eq!(kept(&succeeds(&mut run, 2, 0)), is_kept, "{name}");
        run.scopes = Scopes::default();
        assert_eq!(run.own_cache(0), None, "its token may not push there");
    }
}

#[test]
fn a_status_never_goes_from_running_back_to_started() {
    let mut run = run_of(plan(2, &[build(0, &[]), build(1, &[])]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    assert_eq!(run.status(), RunStatus::Started, "one placement was taken and no step has begun");
    let attempt = live(&run, 0);
    does(&mut run, 2, RunEvent::StepStarted { fence, attempt });
    assert_eq!(run.status(), RunStatus::Running);
    taken(&mut run, 3, 1, &agent("b", 1));
    assert_eq!(run.status(), RunStatus::Running);

    // The message that the first step began was lost; its end shows it.
    let mut run = run_of(plan(1, &[build(0, &[]), push(0, 0)]));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    assert_eq!(run.status(), RunStatus::Running);
}

#[test]
fn placements_without_steps_hold_nothing_up() {
    let mut run = run_of(plan(3, &[build(1, &[])]));
    taken(&mut run, 1, 0, &agent("a", 1));
    assert_eq!(run.placements[0], Placement::Done, "there is nothing to do on it");
    taken(&mut run, 1, 1, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    assert_eq!(run.status(), RunStatus::Succeeded, "the third was never taken, and needs not be");
}

#[test]
fn a_late_answer_to_an_offer_does_not_undo_a_newer_one() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let why = "all 1 slots are in use".to_owned();
    // An agent that is told to stop on this answer would lose a live placement.
    assert_eq!(refuses(&mut run, 2, RunEvent::Declined { fence, why }), Refusal::NothingToDo);
    assert_eq!(refuses(&mut run, 2, RunEvent::Accepted { fence, host: None }), Refusal::NothingToDo);
}

#[test]
fn a_cancelled_run_takes_no_result_and_ends_with_its_lease() {
    let mut run = run_of(plan(1, &[build(0, &[]), push(0, 0)]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    does(&mut run, 3, RunEvent::CancelRequested { by: by() });
    assert_eq!(refuses(&mut run, 4, RunEvent::Renewed { fence }), Refusal::NothingToDo);
    assert_eq!(refuses(&mut run, 4, RunEvent::CancelRequested { by: by() }), Refusal::Over);
    assert_eq!(refuses(&mut run, 4, RunEvent::ServerStarted), Refusal::NothingToDo);
    let effects = succeeds(&mut run, 5, 1);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::PublishTags { .. })), "{effects:?}");
    assert_eq!(refuses(&mut run, 22, RunEvent::Tick), Refusal::NothingToDo);
    does(&mut run, 23, RunEvent::Tick);
    assert_eq!(run.phase, Phase::Finished { verdict: Verdict::Canceled { by: by() }, at: at(23) });
}

#[test]
fn a_superseded_run_is_cancelled_and_names_the_newer_one() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let newer = RunId::from_number(7);
    does(&mut run, 3, RunEvent::Superseded { by: newer });
    assert_eq!(refuses(&mut run, 4, RunEvent::Superseded { by: newer }), Refusal::Over);
    assert_eq!((run.status(), run.error_message()), (RunStatus::Canceled, Some("superseded by run ca7".to_owned())));
}

#[test]
fn a_step_that_its_agent_never_ends_has_timed_out() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let fence = taken(&mut run, 0, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    does(&mut run, 10, RunEvent::StepStarted { fence, attempt });
    for seconds in (15..=635).step_by(10) {
        does(&mut run, seconds, RunEvent::Renewed { fence });
    }
    // The step's 600 s begin when the agent begins it; 30 s are for the agent to say that they are over.
    assert_eq!(refuses(&mut run, 639, RunEvent::Tick), Refusal::NothingToDo);
    does(&mut run, 640, RunEvent::Tick);
    does(&mut run, 641, RunEvent::Stopped { fence });
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.error_message().as_deref(), Some("step s0 timed out after 600 s"));
}

#[test]
fn a_step_that_its_agent_never_ends_fails_alone_where_its_errors_do_not_matter() {
    let mut run = run_of(plan(1, &[carefree(0, &[]), command(0, &[0])]));
    let agent = agent("a", 1);
    let fence = taken(&mut run, 0, 0, &agent);
    let attempt = live(&run, 0);
    does(&mut run, 10, RunEvent::StepStarted { fence, attempt });
    for seconds in (15..=635).step_by(10) {
        does(&mut run, seconds, RunEvent::Renewed { fence });
    }
    assert!(!run.is_due(at(639), &Policy::DEFAULT) && run.is_due(at(640), &Policy::DEFAULT));
    let effects = does(&mut run, 640, RunEvent::Tick);
    let line = "Step ID: s0 encountered an error: timed out after 600 s, but is set to ignore errors. Continuing...";
    assert!(effects.contains(&Effect::LogLine(line.to_owned())), "{effects:?}");
    assert!(matches!(run.steps[0].state, StepState::Failed { ignored: true, .. }), "{:?}", run.steps[0]);

    // What its container still does is over before the next one's begins, and so is what the agent says of it.
    let key = PlacementKey { run: run.id, fence };
    let stopped = Effect::SendResultStored { agent: agent.clone(), key, attempt };
    let told = effects.iter().position(|effect| *effect == stopped).expect("the agent is told");
    let next = effects.iter().position(|effect| matches!(effect, Effect::SendStart { step: 1, .. }));
    assert!(next.is_some_and(|next| told < next), "{effects:?}");
    let late = RunEvent::StepEnded { fence, attempt, result: StepResult::TimedOut };
    assert_eq!(refuses(&mut run, 641, late), Refusal::StaleAttempt(attempt));
    let held = [Held { key, attempts: vec![attempt, live(&run, 1)] }];
    assert_eq!(run.remind(&agent, &held), [stopped], "the message may have been lost");
    succeeds(&mut run, 642, 1);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_result_that_waited_for_the_server_to_come_back_counts() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let fence = taken(&mut run, 0, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    does(&mut run, 1, RunEvent::StepStarted { fence, attempt });
    // The server is away for longer than the step may take, and the step ended in time.
    does(&mut run, 2000, RunEvent::ServerStarted);
    assert_eq!(refuses(&mut run, 2001, RunEvent::Tick), Refusal::NothingToDo);
    succeeds(&mut run, 2002, 0);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_failed_step_stops_its_neighbours() {
    let mut run = run_of(plan(2, &[build(0, &[]), build(1, &[]), build(1, &[0])]));
    let first = taken(&mut run, 1, 0, &agent("a", 1));
    let second = taken(&mut run, 1, 1, &agent("b", 1));
    let result = StepResult::Failed { exit_code: Some(2), reason: "exit code 2".to_owned() };
    let attempt = live(&run, 0);
    does(&mut run, 2, RunEvent::StepEnded { fence: first, attempt, result });
    assert_eq!(run.placements[0], Placement::Done, "nothing runs on it any more");
    assert!(matches!(run.placements[1], Placement::Stopping(_)));
    assert_eq!(run.steps[2].state, StepState::Skipped);
    does(&mut run, 3, RunEvent::Stopped { fence: second });
    assert!(matches!(run.steps[1].state, StepState::Cancelled { .. }));
    assert_eq!(run.error_message().as_deref(), Some("failed to run step ID: s0: exit code 2"));
}

#[test]
fn a_run_that_nobody_takes_ends_with_the_reason() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    does(&mut run, 1, RunEvent::Explained { placement: 0, reason: PendingReason::NoAgent });
    let day = 24 * 3600;
    assert_eq!(refuses(&mut run, day - 1, RunEvent::Tick), Refusal::NothingToDo);
    does(&mut run, day, RunEvent::Tick);
    assert_eq!(run.status(), RunStatus::Error);
    let message = run.error_message().expect("it says why");
    assert!(message.starts_with("no agent took the run within 24 hours: no agent is connected"), "{message}");
}
