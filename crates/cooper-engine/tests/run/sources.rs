//! Runs whose source an agent fetches: planned once, when it is there, and never in vain.

use cooper_engine::message::{StepOutput, StepResult};
use cooper_engine::run::{Effect, Placement, Refusal, RunEvent, RunSource, RunStatus, StepState};
use cooper_spec::plan::Work;

use super::fixture::{agent, by, does, live, prepared, refuses, succeeds, taken, wanted};

const ALL: &[&str] = &["run", "repository:*:push"];

#[test]
fn a_run_is_planned_when_its_source_is_there() {
    let mut run = wanted("app:{{.Run.Branch}}-{{.Run.Commit}}", ALL).expect("accepted");
    assert_eq!((run.steps.len(), run.plan.steps[0].id.as_str(), run.plan.pushed_images().count()), (1, "prepare", 0));
    taken(&mut run, 1, 0, &agent("a", 1));
    let effects = succeeds(&mut run, 2, 0);
    let position = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).expect("the effect is there");
    assert!(
        position(|effect| matches!(effect, Effect::Planned { .. }))
            < position(|effect| matches!(effect, Effect::AttemptEnded { .. }))
    );
    let line = |text: &str| effects.iter().any(|effect| matches!(effect, Effect::LogLine(line) if line == text));
    assert!(line(
        "Source: https://git.example/app.git at commit 0123456789abcdef0123456789abcdef01234567 on branch main"
    ));
    let ids: Vec<_> = run.plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["prepare", "build", "push"]);
    let images: Vec<String> = run.plan.pushed_images().map(ToString::to_string).collect();
    assert_eq!(images, ["localhost:5000/app:main-0123456789abcdef0123456789abcdef01234567"]);
    let Work::Build(build) = &run.plan.steps[1].work else { panic!("{:?}", run.plan.steps[1]) };
    assert_eq!(build.labels[0].1, "https://git.example/app.git@0123456789abcdef0123456789abcdef01234567");
    assert_eq!((&run.placements[0], run.status()), (&Placement::Done, RunStatus::Running));
    assert_eq!(run.source.as_ref().and_then(RunSource::found).and_then(|found| found.branch.as_deref()), Some("main"));

    taken(&mut run, 3, 1, &agent("b", 1));
    succeeds(&mut run, 4, 1);
    succeeds(&mut run, 5, 2);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_dockerfile_that_is_a_link_is_built_under_its_own_name() {
    let mut run = wanted("app", ALL).expect("accepted");
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    let StepResult::Succeeded { output: StepOutput::Prepared(mut found) } = prepared("main") else { unreachable!() };
    found.dockerfile = Some("docker/Dockerfile".to_owned());
    let result = StepResult::Succeeded { output: StepOutput::Prepared(found) };
    does(&mut run, 2, RunEvent::StepEnded { fence, attempt, result });
    assert!(matches!(&run.plan.steps[1].work, Work::Build(build) if build.dockerfile == "docker/Dockerfile"));
}

#[test]
fn a_lost_fetch_is_repeated_and_a_lost_build_is_not_fetched_again() {
    let mut run = wanted("app", ALL).expect("accepted");
    let first = taken(&mut run, 1, 0, &agent("a", 1));
    let late = live(&run, 0);
    does(&mut run, 2, RunEvent::AgentReplaced { agent: agent("a", 2) });
    let event = RunEvent::StepEnded { fence: first, attempt: late, result: prepared("main") };
    assert_eq!(refuses(&mut run, 3, event), Refusal::StaleFence(first));
    assert_eq!(run.plan.steps.len(), 1, "a late result plans nothing");

    taken(&mut run, 5, 0, &agent("a", 2));
    succeeds(&mut run, 6, 0);
    taken(&mut run, 7, 1, &agent("a", 2));
    does(&mut run, 8, RunEvent::AgentReplaced { agent: agent("a", 3) });
    assert!(matches!(run.steps[0].state, StepState::Succeeded { .. }));
    assert_eq!((&run.placements[0], run.steps.len()), (&Placement::Done, 3));
    taken(&mut run, 11, 1, &agent("b", 1));
    succeeds(&mut run, 12, 1);
    succeeds(&mut run, 13, 2);
    assert_eq!((run.status(), run.losses.len()), (RunStatus::Succeeded, 2));
    let agents: Vec<_> = run.steps.iter().filter_map(|step| step.agent.as_ref()).map(|agent| agent.as_str()).collect();
    assert_eq!(agents, ["a", "b", "b"], "a finished run still says who did what");
}

#[test]
fn a_build_waits_for_an_agent_from_its_planning_on() {
    let day = 24 * 3600;
    let mut run = wanted("app", ALL).expect("accepted");
    taken(&mut run, day - 60, 0, &agent("a", 1));
    succeeds(&mut run, day - 50, 0);
    assert_eq!(refuses(&mut run, day + 1, RunEvent::Tick), Refusal::NothingToDo);
    assert_eq!(run.status(), RunStatus::Running);
}

#[test]
fn a_cancelled_fetch_plans_nothing() {
    let mut run = wanted("app", ALL).expect("accepted");
    taken(&mut run, 1, 0, &agent("a", 1));
    does(&mut run, 2, RunEvent::CancelRequested { by: by() });
    let effects = succeeds(&mut run, 3, 0);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Planned { .. })), "{effects:?}");
    let fence = run.last_fence;
    does(&mut run, 4, RunEvent::Stopped { fence });
    assert_eq!((run.status(), run.steps.len()), (RunStatus::Canceled, 1));
}

#[test]
fn what_only_the_source_shows_to_be_wrong_fails_the_run() {
    let mut run = wanted("app:{{.Run.Branch}}", ALL).expect("accepted");
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    let effects = does(&mut run, 2, RunEvent::StepEnded { fence, attempt, result: prepared("feature/x") });
    assert!(effects.contains(&Effect::AttemptEnded { step: 0, attempt }));
    assert_eq!(run.status(), RunStatus::Failed);
    let message = run.error_message().expect("it says why");
    assert!(message.starts_with("the run can't be planned: image name `app:feature/x` can't be used: "), "{message}");
    assert!(matches!(run.steps[0].state, StepState::Succeeded { .. }));

    let mut run = wanted("app:{{.Run.Branch}}\n\u{1b}[2Jdone", ALL).expect("accepted");
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    let message = run.error_message().expect("it says why");
    assert!(message.contains("app:main  [2Jdone") && !message.contains(char::is_control), "{message:?}");

    let mut run = wanted("{{.Run.Branch}}/app", &["run", "repository:main/*:push"]).expect("accepted");
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    does(&mut run, 2, RunEvent::StepEnded { fence, attempt, result: prepared("other") });
    assert_eq!(
        run.error_message().as_deref(),
        Some("the run can't be planned: ann may not push to repository `other/app`: the token has no such scope")
    );
}

#[test]
fn what_is_certain_is_checked_before_anything_is_fetched() {
    let refused = |image: &str, scopes: &[&str]| match wanted(image, scopes) {
        Ok(_) => panic!("{image} must be refused"),
        Err(error) => error.to_string(),
    };
    let denied = "ann may not push to repository `app`: the token has no such scope";
    assert_eq!(refused("app", &["run"]), denied);
    assert_eq!(refused("app:{{.Run.Commit}}", &["run", "repository:*:pull"]), denied);
    assert_eq!(refused("App", ALL), "image name `App` can't be used");
    assert_eq!(refused("app:{{.Run.Comit}}", ALL), "image name `app:{{.Run.Comit}}` can't be rendered");
    assert!(refused("docker.io/app:{{.Run.Commit}}", ALL).contains("pushes to `localhost:5000` only"));
    assert!(wanted("{{.Run.Branch}}/app", &["run"]).is_ok(), "the repository is not known yet");
}

#[test]
fn a_result_of_another_kind_is_a_loss() {
    let mut run = wanted("app", ALL).expect("accepted");
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let attempt = live(&run, 0);
    let result = StepResult::Succeeded { output: StepOutput::Pushed { manifests: Vec::new() } };
    does(&mut run, 2, RunEvent::StepEnded { fence, attempt, result });
    assert_eq!((run.losses.len(), run.steps.len()), (1, 1));
}
