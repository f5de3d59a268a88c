//! Runs of task files: steps side by side, failures that don't matter, containers that are lost with their agent.

use cooper_engine::run::{Effect, Policy, Run, RunEvent, RunStatus, StepState, StepStatus};
use std::collections::BTreeMap;

use cooper_engine::schedule::{self, AgentView, Decision};
use cooper_types::{PoolName, RunId};

use super::fixture::{
    Shape, agent, at, build, carefree, command, does, fails, live, plan, push, run_of, succeeds, taken,
};

fn statuses(run: &Run) -> Vec<StepStatus> {
    run.steps.iter().map(|step| step.state.status()).collect()
}

#[test]
fn steps_that_wait_for_nothing_begin_together_and_a_diamond_joins() {
    let mut run = run_of(plan(1, &[command(0, &[]), command(0, &[0]), command(0, &[0]), command(0, &[1, 2])]));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    assert_eq!(statuses(&run), [StepStatus::Succeeded, StepStatus::Running, StepStatus::Running, StepStatus::Waiting]);
    succeeds(&mut run, 3, 2);
    assert_eq!(run.steps[3].state, StepState::Waiting, "one of two is not both");
    let effects = succeeds(&mut run, 4, 1);
    let starts = effects.iter().filter(|effect| matches!(effect, Effect::SendStart { step: 3, .. })).count();
    assert_eq!(starts, 1, "a step with two parents begins once");
    succeeds(&mut run, 5, 3);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_run_without_steps_is_offered_and_done_when_it_is_taken() {
    let mut run = run_of(plan(1, &[]));
    assert!(run.pending_reason().is_some());
    assert_eq!(schedule::waiting([&run], at(1), &Policy::DEFAULT).len(), 1);
    taken(&mut run, 1, 0, &agent("a", 1));
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.slots().count(), 0);
}

#[test]
fn a_failure_stops_the_steps_beside_it_and_they_are_recorded_as_cancelled() {
    let mut run = run_of(plan(1, &[command(0, &[]), command(0, &[]), command(0, &[1])]));
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let effects = fails(&mut run, 2, 0);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendStop { .. })));
    assert_eq!(statuses(&run), [StepStatus::Failed, StepStatus::Running, StepStatus::Skipped]);
    does(&mut run, 3, RunEvent::Stopped { fence });
    assert_eq!(statuses(&run), [StepStatus::Failed, StepStatus::Canceled, StepStatus::Skipped]);
    assert_eq!(run.status(), RunStatus::Failed);
    assert_eq!(run.error_message().as_deref(), Some("failed to run step ID: s0: exit code 3"));
}

#[test]
fn a_failure_that_is_ignored_lets_its_children_run() {
    let mut run = run_of(plan(1, &[carefree(0, &[]), command(0, &[0])]));
    taken(&mut run, 1, 0, &agent("a", 1));
    let effects = fails(&mut run, 2, 0);
    let line = "Step ID: s0 encountered an error: exit code 3, but is set to ignore errors. Continuing...";
    assert!(effects.contains(&Effect::LogLine(line.to_owned())), "{effects:?}");
    assert_eq!(statuses(&run), [StepStatus::Succeeded, StepStatus::Running]);
    succeeds(&mut run, 3, 1);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_lost_placement_does_its_containers_again_and_its_pushes_not() {
    let carefree = Shape { runs: Some(0), ..carefree(0, &[1]) };
    let steps = [build(0, &[]), push(0, 0), carefree, command(0, &[2])];
    let mut run = run_of(plan(1, &steps));
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    let pushed = live(&run, 1);
    succeeds(&mut run, 3, 1);
    fails(&mut run, 4, 2);
    does(&mut run, 5, RunEvent::AgentReplaced { agent: agent("a", 2) });
    assert_eq!(
        statuses(&run),
        [StepStatus::Waiting, StepStatus::Succeeded, StepStatus::Waiting, StepStatus::Waiting],
        "the workspace is gone with the agent, and so is what was done in it"
    );
    taken(&mut run, 60, 0, &agent("a", 2));
    succeeds(&mut run, 61, 0);
    succeeds(&mut run, 62, 2);
    succeeds(&mut run, 63, 3);
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert!(matches!(run.steps[1].state, StepState::Succeeded { attempt, .. } if attempt == pushed));
}

#[test]
fn placements_that_wait_for_each_other_share_one_slot() {
    // Each of the two platforms waits for the other in turn, and two such runs compete.
    let steps = [build(0, &[]), build(1, &[0]), command(0, &[1]), command(1, &[2]), command(0, &[3])];
    let mut runs = [1, 2].map(|number| Run { id: RunId::from_number(number), ..run_of(plan(2, &steps)) });
    let platforms = runs[0].plan.placements.iter().map(|placement| placement.platform.clone()).collect();
    let only = AgentView {
        agent: agent("a", 1),
        pool: PoolName::default_pool(),
        native: platforms,
        emulated: Vec::new(),
        slots: 1,
        draining: false,
        unavailable: false,
        takes_images: true,
        allows: [].into(),
    };
    for second in 1..20 {
        let waiting = schedule::waiting(&runs, at(second), &Policy::DEFAULT);
        assert!(waiting.iter().all(|view| runs.iter().any(|run| run.id == view.run && run.has_work(view.placement))));
        for decision in
            schedule::schedule(waiting, std::slice::from_ref(&only), &schedule::load(&runs), |_| None, &BTreeMap::new())
        {
            let Decision::Offer { run, placement, agent } = decision else { continue };
            let run = runs.iter_mut().find(|other| other.id == run).expect("one of them");
            taken(run, second, placement, &agent);
        }
        for run in &mut runs {
            let running: Vec<usize> =
                (0..steps.len()).filter(|step| run.steps[*step].state.live_attempt().is_some()).collect();
            running.into_iter().for_each(|step| drop(succeeds(run, second, step)));
        }
        if runs.iter().all(|run| run.status() == RunStatus::Succeeded) {
            return;
        }
    }
    panic!("{:?}", runs.map(|run| statuses(&run)));
}

#[test]
fn steps_speak_beside_each_other_that_wait_for_neither() {
    // 0 and 1 go side by side, 2 waits for both, 3 for 2, 4 for 3; 5 waits for nothing.
    let steps = [build(0, &[]), build(0, &[]), build(0, &[0, 1]), command(0, &[2]), build(0, &[3]), command(0, &[])];
    let beside = |steps: &[Shape]| {
        let plan = plan(1, steps);
        (0..steps.len()).map(|step| plan.speaks_beside(step)).collect::<Vec<_>>()
    };
    assert_eq!(beside(&steps[..5]), [true, true, false, false, false]);
    assert_eq!(beside(&steps), [true; 6]);
    assert_eq!(beside(&[build(0, &[]), push(0, 0), build(0, &[0])]), [false, true, true]);
    assert_eq!(beside(&[command(0, &[]), command(0, &[0]), command(0, &[1])]), [false; 3]);
}
