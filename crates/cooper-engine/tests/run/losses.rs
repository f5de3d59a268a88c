//! Losses of the machinery: never the user's failure, told as what they are, three of them at most.

use cooper_engine::message::{StepOutput, StepResult};
use cooper_engine::run::{Effect, Placement, Policy, Refusal, Run, RunEvent, RunStatus, StepState};
use cooper_engine::schedule;
use cooper_types::ImageRef;

use super::fixture::{
    SHARED, Shape, agent, at, build, command, consumer, does, fails, index_of, live, manifest_of, plan, push, pushed,
    refuses, run_of, stage, succeeds, taken, test,
};

#[test]
fn the_log_says_when_the_agents_stream_is_gone_and_back() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let life = agent("a", 1);
    taken(&mut run, 1, 0, &life);
    let before = run.clone();
    let line = |effects: &[Effect]| match effects {
        [Effect::LogLine(line)] => line.clone(),
        other => panic!("{other:?}"),
    };
    let effects = does(&mut run, 5, RunEvent::Stream { agent: life.clone(), open: false });
    assert_eq!(line(&effects), "The connection to agent 'a' is gone; waiting 16 s for it");
    let effects = does(&mut run, 6, RunEvent::Stream { agent: life, open: true });
    assert_eq!(line(&effects), "Agent 'a' is connected again");
    assert_eq!(run, before, "the lease decides");
    let refusal = refuses(&mut run, 7, RunEvent::Stream { agent: agent("a", 2), open: false });
    assert_eq!(refusal, Refusal::NothingToDo);
}

#[test]
fn the_third_loss_ends_the_run_with_the_story() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    taken(&mut run, 1, 0, &agent("a", 1));
    let effects = does(&mut run, 21, RunEvent::Tick);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::LogGap(text) if text.contains("loss 1 of 3"))));
    assert_eq!(run.status(), RunStatus::Running);
    taken(&mut run, 22, 0, &agent("a", 2));
    does(&mut run, 23, RunEvent::AgentReplaced { agent: agent("a", 3) });
    let fence = taken(&mut run, 24, 0, &agent("b", 1));
    let attempt = live(&run, 0);
    let result = StepResult::Lost { reason: "the engine is gone".to_owned() };
    does(&mut run, 25, RunEvent::StepEnded { fence, attempt, result });
    assert_eq!(run.status(), RunStatus::Error);
    let message = run.error_message().expect("it says why");
    assert_eq!(
        message,
        "lost 3 times: the agent was silent for 20 s on a at 1970-01-01T00:00:21.000000Z; the agent was restarted on a \
         at 1970-01-01T00:00:23.000000Z; the engine is gone on b at 1970-01-01T00:00:25.000000Z"
    );
}

#[test]
fn a_removed_agent_loses_what_any_life_of_it_holds() {
    let mut run = run_of(plan(2, &[build(0, &[]), build(1, &[])]));
    taken(&mut run, 1, 0, &agent("a", 1));
    taken(&mut run, 1, 1, &agent("b", 1));
    let other = run.placements[1].clone();
    let effects = does(&mut run, 2, RunEvent::AgentRemoved { name: agent("a", 7).name });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendStop { .. })));
    assert!(matches!(run.placements[0], Placement::Waiting { .. }));
    assert_eq!((run.losses.len(), run.losses[0].reason.as_str()), (1, "the agent was removed"));
    assert_eq!(run.placements[1], other);
    let refusal = refuses(&mut run, 3, RunEvent::AgentRemoved { name: agent("a", 7).name });
    assert_eq!(refusal, Refusal::NothingToDo);
}

#[test]
fn one_restart_is_one_loss_however_many_placements_the_agent_held() {
    let mut run = run_of(plan(3, &[build(0, &[]), build(1, &[]), build(2, &[])]));
    for life in 1..=2 {
        for placement in 0..3 {
            taken(&mut run, life, placement, &agent("a", life));
        }
        does(&mut run, life, RunEvent::AgentReplaced { agent: agent("a", life + 1) });
        assert!(run.placements.iter().all(|placement| matches!(placement, Placement::Waiting { .. })));
    }
    taken(&mut run, 3, 1, &agent("a", 3));
    does(&mut run, 3, RunEvent::AgentReplaced { agent: agent("a", 4) });
    assert_eq!(run.status(), RunStatus::Error);
}

#[test]
fn a_lost_placement_builds_again_and_does_not_push_again() {
    let mut run = run_of(plan(1, &[build(0, &[]), push(0, 0), push(0, 0)]));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    succeeds(&mut run, 3, 1);
    let late = (run.last_fence, live(&run, 2));
    let effects = does(&mut run, 21, RunEvent::Tick);
    assert!(effects.contains(&Effect::AttemptEnded { step: 2, attempt: late.1 }));
    assert_eq!(run.steps[0].state, StepState::Waiting);
    assert!(matches!(run.steps[1].state, StepState::Succeeded { .. }));
    let result = pushed(&run, 2, late.1);
    let event = RunEvent::StepEnded { fence: late.0, attempt: late.1, result };
    assert_eq!(refuses(&mut run, 22, event), Refusal::StaleFence(late.0));
    taken(&mut run, 23, 0, &agent("b", 1));
    succeeds(&mut run, 24, 0);
    assert!(run.steps[1].state.live_attempt().is_none());
    succeeds(&mut run, 25, 2);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn what_a_stage_left_is_taken_by_others_after_its_placement_is_lost() {
    let steps = [build(0, &[]), build(1, &[]), stage(0, 0), stage(1, 1), index_of(0, &[2, 3]), command(1, &[3])];
    let mut run = run_of(plan(2, &steps));
    taken(&mut run, 1, 0, &agent("a", 1));
    taken(&mut run, 1, 1, &agent("b", 1));
    for (seconds, step) in [(2, 0), (3, 1)] {
        succeeds(&mut run, seconds, step);
    }
    let attempt = live(&run, 3);
    let effects = succeeds(&mut run, 4, 3);
    let kept = effects.iter().any(|effect| matches!(effect, Effect::KeepStaged { step: 3, .. }));
    assert!(kept && run.keeps_staged(3, attempt), "{effects:?}");
    // The agent of the second placement is gone. Nobody needs its image any more: what it staged stands.
    does(&mut run, 5, RunEvent::AgentReplaced { agent: agent("b", 2) });
    assert!([1, 3].iter().all(|step| matches!(run.steps[*step].state, StepState::Succeeded { .. })));
    assert_eq!(run.steps[5].state, StepState::Waiting);
    let effects = succeeds(&mut run, 6, 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendStart { step: 4, .. })), "{effects:?}");
    let effects = succeeds(&mut run, 7, 4);
    let published =
        |effect: &Effect| matches!(effect, Effect::PublishTags { targets, .. } if targets[0].tags.len() == 2);
    assert!(effects.iter().any(published), "{effects:?}");
    taken(&mut run, 8, 1, &agent("c", 1));
    succeeds(&mut run, 9, 5);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn what_is_pushed_is_what_was_tested_after_a_loss_too() {
    let push = Shape { after: vec![1, 2, 3], ..index_of(1, &[2, 3]) };
    let steps = [build(0, &[]), build(1, &[]), stage(0, 0), stage(1, 1), test(0, 0), push];
    let mut steps = steps.to_vec();
    steps[5].after.push(4);
    let mut run = run_of(plan(2, &steps));
    taken(&mut run, 1, 0, &agent("a", 1));
    taken(&mut run, 1, 1, &agent("b", 1));
    for step in 0..4 {
        succeeds(&mut run, 2, step);
    }
    let before = run.staged_image(2, &ImageRef::parse(SHARED).expect("valid"));
    // The agent dies during the test: another image is built, tested and staged.
    does(&mut run, 3, RunEvent::AgentReplaced { agent: agent("a", 2) });
    assert!([0, 2, 4].iter().all(|step| run.steps[*step].state == StepState::Waiting));
    taken(&mut run, 4, 0, &agent("c", 1));
    succeeds(&mut run, 5, 0);
    succeeds(&mut run, 6, 4);
    assert!(run.steps[5].state.live_attempt().is_none(), "not before the new image is staged");
    succeeds(&mut run, 7, 2);
    let staged = run.staged_image(2, &ImageRef::parse(SHARED).expect("valid"));
    assert_ne!(staged, before);
    assert_eq!(staged.and_then(|image| image.digest), manifest_of(&run, 0));
    succeeds(&mut run, 8, 5);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_stage_that_all_have_taken_from_is_not_set_back() {
    let mut run = run_of(plan(2, &[build(0, &[]), stage(0, 0), consumer(1, 1), test(0, 0)]));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    succeeds(&mut run, 3, 1);
    taken(&mut run, 3, 1, &agent("b", 1));
    assert!(run.steps[2].state.live_attempt().is_some());
    does(&mut run, 4, RunEvent::AgentReplaced { agent: agent("a", 2) });
    assert!([0, 3].iter().all(|step| run.steps[*step].state == StepState::Waiting));
    assert!(matches!(run.steps[1].state, StepState::Succeeded { .. }));
}

#[test]
fn a_quick_builds_image_is_not_built_again_once_it_is_staged() {
    let steps = [build(0, &[]), build(1, &[]), stage(0, 0), stage(1, 1), index_of(0, &[2, 3])];
    let mut run = run_of(plan(2, &steps));
    taken(&mut run, 1, 0, &agent("a", 1));
    taken(&mut run, 1, 1, &agent("b", 1));
    succeeds(&mut run, 2, 0);
    succeeds(&mut run, 3, 2);
    does(&mut run, 4, RunEvent::AgentReplaced { agent: agent("a", 2) });
    succeeds(&mut run, 5, 1);
    succeeds(&mut run, 6, 3);
    let effects = {
        taken(&mut run, 7, 0, &agent("a", 2));
        live(&run, 4);
        assert!(run.steps[0].state.live_attempt().is_none(), "a build that nobody needs could only fail");
        succeeds(&mut run, 8, 4)
    };
    assert!(effects.contains(&Effect::Finished), "{effects:?}");
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_stage_whose_failure_was_ignored_is_done_again_with_its_build() {
    let ignored = |shape| Shape { ignores_errors: true, ..shape };
    let steps = [ignored(build(0, &[])), ignored(stage(0, 0)), command(0, &[1]), consumer(1, 1)];
    let mut steps = steps.to_vec();
    steps[3].after.push(2);
    let mut run = run_of(plan(2, &steps));
    taken(&mut run, 1, 0, &agent("a", 1));
    fails(&mut run, 2, 0);
    fails(&mut run, 3, 1);
    live(&run, 2);
    does(&mut run, 4, RunEvent::AgentReplaced { agent: agent("a", 2) });
    assert!([0, 1, 2].iter().all(|step| run.steps[*step].state == StepState::Waiting));
    taken(&mut run, 5, 0, &agent("a", 2));
    for step in 0..3 {
        succeeds(&mut run, 6, step);
    }
    assert!(run.staged_image(1, &ImageRef::parse(SHARED).expect("valid")).is_some());
}

#[test]
fn a_stage_that_does_not_say_what_it_left_is_a_loss() {
    let mut run = run_of(plan(1, &[build(0, &[]), stage(0, 0), index_of(0, &[1])]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    let result = StepResult::Succeeded { output: StepOutput::Pushed { manifests: Vec::new() } };
    let attempt = live(&run, 1);
    let effects = does(&mut run, 3, RunEvent::StepEnded { fence, attempt, result });
    assert!(!run.keeps_staged(1, attempt) && run.losses.len() == 1, "{effects:?}");
}

#[test]
fn who_takes_from_a_stage_gets_what_it_was_told_to_leave() {
    let mut run = run_of(plan(2, &[build(0, &[]), stage(0, 0), consumer(1, 1)]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    let attempt = live(&run, 1);
    let StepResult::Succeeded { output: StepOutput::Pushed { manifests } } = pushed(&run, 1, attempt) else { panic!() };
    let mut other = manifests[0].clone();
    other.staging_tag = cooper_types::Tag::parse("v1").expect("valid");
    other.digest = cooper_types::Digest::sha256(b"somebody's");
    let result = StepResult::Succeeded { output: StepOutput::Pushed { manifests: vec![other, manifests[0].clone()] } };
    let effects = does(&mut run, 3, RunEvent::StepEnded { fence, attempt, result });
    let digest = Some(manifests[0].digest.clone());
    let checked = |effect: &Effect| matches!(effect, Effect::KeepStaged { targets, .. } if targets[0].digest == digest);
    assert!(effects.iter().any(checked), "{effects:?}");
    let image = run.staged_image(1, &ImageRef::parse(SHARED).expect("valid"));
    assert_eq!(image.and_then(|image| image.digest), digest);
}

#[test]
fn an_offer_that_has_nothing_to_do_any_more_is_withdrawn_when_it_is_taken() {
    let mut run = run_of(plan(2, &[build(0, &[]), command(1, &[0]), test(0, 0)]));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    let other = agent("b", 1);
    does(&mut run, 3, RunEvent::Offer { placement: 1, agent: other.clone() });
    let fence = run.last_fence;
    // The image is gone before the answer to the offer is here.
    does(&mut run, 4, RunEvent::AgentReplaced { agent: agent("a", 2) });
    let effects = does(&mut run, 5, RunEvent::Accepted { fence, host: None });
    assert!(matches!(&effects[..], [Effect::SendStop { agent, key }] if *agent == other && key.fence == fence));
    assert!(matches!(run.placements[1], Placement::Waiting { .. }));
    taken(&mut run, 6, 0, &agent("a", 2));
    succeeds(&mut run, 7, 0);
    taken(&mut run, 8, 1, &other);
    succeeds(&mut run, 9, 1);
    succeeds(&mut run, 10, 2);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_step_that_never_began_is_a_loss_and_no_timeout() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    let fence = taken(&mut run, 0, 0, &agent("a", 1));
    for seconds in (15..=625).step_by(10) {
        does(&mut run, seconds, RunEvent::Renewed { fence });
    }
    // The agent lives and says nothing of the step: that is no failure of the user's.
    does(&mut run, 630, RunEvent::Tick);
    assert_eq!(run.status(), RunStatus::Running);
    assert_eq!(run.losses[0].reason, "the agent did not begin step s0");
    assert!(matches!(run.placements[0], Placement::Waiting { .. }));
}

#[test]
fn a_run_whose_time_passes_while_it_waits_for_an_agent_is_an_error() {
    let mut run = run_of(plan(1, &[build(0, &[])]));
    taken(&mut run, 0, 0, &agent("a", 1));
    does(&mut run, 20, RunEvent::Tick);
    assert_eq!(refuses(&mut run, 3599, RunEvent::Tick), Refusal::NothingToDo);
    does(&mut run, 3600, RunEvent::Tick);
    assert_eq!(run.status(), RunStatus::Error, "the user's steps did not take the time");
    let message = run.error_message().expect("it says why");
    assert_eq!(
        message,
        "the run's timeout of 3600 s passed without an agent for all of it: lost on agent a (the agent was silent for \
         20 s); waiting for an agent to start again"
    );
    assert_eq!(run.finished(), Some(at(3600)));
}

#[test]
fn a_lost_placement_pauses_longer_each_time() {
    let mut run = run_of(plan(2, &[build(0, &[]), build(1, &[])]));
    let offered = |run: &Run, seconds| {
        let waiting = schedule::waiting([run], at(seconds), &Policy::DEFAULT);
        waiting.iter().map(|view| view.placement).collect::<Vec<_>>()
    };
    assert_eq!(offered(&run, 0), [0, 1]);
    taken(&mut run, 1, 0, &agent("a", 1));
    does(&mut run, 10, RunEvent::AgentReplaced { agent: agent("a", 2) });
    assert_eq!(offered(&run, 11), [1], "another placement of the run does not wait for it");
    assert_eq!(offered(&run, 12), [0, 1]);
    taken(&mut run, 12, 0, &agent("a", 2));
    does(&mut run, 20, RunEvent::AgentReplaced { agent: agent("a", 3) });
    assert_eq!(offered(&run, 27), [1]);
    assert_eq!(offered(&run, 28), [0, 1]);
}
