//! Runs that repeat others: what counts as done, and what is forgotten of a run that is over.

use cooper_engine::message::{StepOutput, StepResult};
use cooper_engine::run::{
    Asked, AskedTask, Effect, KeptRequest, KeptSource, KnownVariables, NewReplay, NewRun, PlannedRun, Replay, Run,
    RunEvent, RunStatus, TaskSource,
};
use cooper_spec::plan::{CommandImage, ContextPins, Pins, Plan, Work};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::{Fetched, KeptTexts, TaskRequest, TaskText};
use cooper_types::{ContextId, Digest, Platform, PoolName, RegistryName, RunId, Scope, Scopes, StepId};

use super::fixture::{RUN_TIMEOUT, agent, at, by, does, fails, live, prepared, run_of, succeeds, taken, wanted};

const BY_ID: &str = "version: v1.1.0
steps:
  - id: build
    build: -t $Registry/app:{{.Run.ID}} .
  - id: push
    push: [\"$Registry/app:{{.Run.ID}}\"]
  - id: test
    cmd: busybox false
";

fn id(text: &str) -> StepId {
    StepId::parse(text).expect("valid")
}

fn task(text: &str, source: TaskSource, replay: Option<Replay>) -> NewRun {
    let request = TaskRequest {
        file: TaskText::Given { name: "acr-task.yaml".to_owned(), text: text.to_owned() },
        fallbacks: Vec::new(),
        values: None,
        set: Vec::new(),
        alias_files: Default::default(),
        platform: Platform::LINUX_AMD64,
        working_directory: None,
    };
    let mut new = NewRun {
        origin: Default::default(),
        principal: by(),
        scopes: Scopes(vec![Scope::Admin]),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: PoolName::default_pool(),
        asked: Asked::Task(Box::new(AskedTask { request, source })),
        timeout: RUN_TIMEOUT,
        replay: None,
    };
    let request = new.kept_request();
    new.replay = replay.map(|replay| Box::new(NewReplay { request, replay, kept: None, texts: KeptTexts::default() }));
    new
}

fn here() -> TaskSource {
    TaskSource::Here { context: Some(ContextId::parse("c").expect("valid")), fetched: Fetched::default() }
}

#[test]
fn a_run_is_for_the_platform_that_was_asked_for_whatever_its_first_step_has() {
    let file = "version: v1.1.0\nsteps:\n  - build: -t app .\n    platform: linux/386\n";
    let run = task(file, here(), None).accept(RunId::from_number(1), at(5)).expect("it can be accepted").run;
    assert_eq!(run.plan.placements[0].platform.to_string(), "linux/386");
    assert_eq!(run.platform, Some(Platform::LINUX_AMD64));
}

fn replay_of(run: &Run) -> Replay {
    let (done, pushed) = run.done_steps();
    let source = None;
    Replay {
        of: run.id,
        fresh: false,
        pins: Pins::default(),
        contexts: ContextPins::default(),
        done: Some(done),
        pushed,
        source,
        secrets: Vec::new(),
        alias_urls: Default::default(),
    }
}

fn ids(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.id.as_str()).collect()
}

/// The steps of a rerun of what failed in a task whose last step did.
fn repeated(text: &str, fresh: bool) -> Vec<String> {
    let mut run = task(text, here(), None).accept(RunId::from_number(1), at(0)).expect("planned").run;
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    succeeds(&mut run, 3, 1);
    fails(&mut run, 4, 2);
    assert_eq!(run.status(), RunStatus::Failed);
    let replay = Replay { fresh, ..replay_of(&run) };
    let again = task(text, here(), Some(replay)).accept(RunId::from_number(2), at(5)).expect("planned").run;
    assert_eq!(again.rerun_of(), Some(run.id));
    ids(&again.plan).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_push_is_done_where_it_would_push_the_same_names() {
    // The test shares the workspace with the build.
    assert_eq!(repeated(&BY_ID.replace("{{.Run.ID}}", "v1"), false), ["build", "test"]);
    assert_eq!(repeated(BY_ID, false), ["build", "push", "test"]);
    // On other bases it is another image.
    assert_eq!(repeated(&BY_ID.replace("{{.Run.ID}}", "v1"), true), ["build", "push", "test"]);
}

#[test]
fn the_step_that_fetches_a_source_is_nobodys_step() {
    let mut run = wanted("app", &["run", "repository:*:push"]).expect("accepted");
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    taken(&mut run, 3, 1, &agent("a", 1));
    succeeds(&mut run, 4, 1);
    fails(&mut run, 5, 2);
    assert_eq!(run.done_steps().0, [id("build")].into());

    // A step of the user's may have its id.
    let text = "steps:\n  - id: prepare\n    cmd: busybox true\n  - id: test\n    cmd: busybox false\n";
    let mut run = task(text, here(), None).accept(RunId::from_number(1), at(0)).expect("planned").run;
    taken(&mut run, 1, 0, &agent("a", 1));
    succeeds(&mut run, 2, 0);
    assert_eq!(run.done_steps().0, [id("prepare")].into());

    // From a repository, too: then the step that fetched it gets another one, and the log says so.
    let source = TaskSource::Remote(RemoteSource::parse("https://git.example/app.git#main").expect("valid"));
    let mut run = task(text, source, None).accept(RunId::from_number(1), at(0)).expect("accepted").run;
    assert_eq!(ids(&run.plan), ["prepare"]);
    let fence = taken(&mut run, 1, 0, &agent("a", 1));
    let StepResult::Succeeded { output: StepOutput::Prepared(found) } = prepared("main") else { unreachable!() };
    let planned = run.plan_task(&found, &Fetched::default()).expect("a task").expect("planned");
    let planned = PlannedRun {
        plan: planned.plan,
        secrets: Vec::new(),
        notes: Vec::new(),
        texts: KeptTexts::default(),
        used_secrets: Vec::new(),
    };
    let event = RunEvent::SourcePlanned {
        fence,
        attempt: live(&run, 0),
        found: Box::new(found),
        planned: Box::new(Ok(planned)),
    };
    let effects = does(&mut run, 2, event);
    assert_eq!(ids(&run.plan), ["prepare-source", "prepare", "test"]);
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::LogLine(line) => Some(line.as_str()),
        _ => None,
    });
    let lines: Vec<&str> = lines.collect();
    assert!(lines.iter().any(|line| line.contains("is `prepare-source` from here on: the file has a step `prepare`")));
    assert!(lines.iter().any(|line| line.starts_with("Step ID: prepare-source marked as successful")), "{lines:?}");
    taken(&mut run, 3, 1, &agent("a", 1));
    succeeds(&mut run, 4, 1);
    assert_eq!(run.done_steps().0, [id("prepare")].into());
}

#[test]
fn what_was_done_before_the_last_rerun_stays_done() {
    let text = "steps:\n  - {id: one, cmd: busybox true, when: ['-']}\n  - {id: two, cmd: busybox true, when: ['-']}\n";
    let accept =
        |number, replay| task(text, here(), replay).accept(RunId::from_number(number), at(0)).expect("planned").run;
    let mut first = accept(1, None);
    taken(&mut first, 1, 0, &agent("a", 1));
    succeeds(&mut first, 2, 0);
    fails(&mut first, 3, 1);
    let mut second = accept(2, Some(replay_of(&first)));
    assert_eq!(ids(&second.plan), ["two"]);
    does(&mut second, 1, RunEvent::CancelRequested { by: by() });
    assert_eq!(second.done_steps().0, [id("one")].into());
    assert_eq!(ids(&accept(3, Some(replay_of(&second))).plan), ["two"]);
}

#[test]
fn images_of_containers_are_what_they_were() {
    let text = "steps:\n  - {id: one, cmd: busybox true}\n";
    let run = run_of(Plan { placements: Vec::new(), steps: Vec::new() });
    let mut replay = Replay { done: None, ..replay_of(&run) };
    let digest = Digest::sha256(b"busybox");
    replay.pins.add(&id("one"), "busybox:latest", &digest);
    let image = |replay: Replay| {
        let run = task(text, here(), Some(replay)).accept(RunId::from_number(2), at(0)).expect("planned").run;
        let Work::Command(command) = &run.plan.steps[0].work else { panic!("{:?}", run.plan) };
        command.image.clone()
    };
    let name = || "busybox:latest".to_owned();
    assert_eq!(image(replay.clone()), CommandImage::Pinned { name: name(), digest });
    assert_eq!(image(Replay { fresh: true, ..replay }), CommandImage::Named(name()));
}

#[test]
fn texts_of_a_task_that_was_never_planned_go_with_the_run() {
    let text = "alias:\n  src: ['https://files.example/alias.yaml?sig=hunter2']\nsteps:\n  - cmd: busybox true\n";
    let source = RemoteSource::parse("https://git.example/app.git#main").expect("valid");
    let mut run =
        task(text, TaskSource::Remote(source), None).accept(RunId::from_number(1), at(0)).expect("accepted").run;
    assert!(serde_json::to_string(&run).expect("json").contains("hunter2"), "it is still to be planned");
    does(&mut run, 1, RunEvent::CancelRequested { by: by() });
    let json = serde_json::to_string(&run).expect("json");
    assert!(!json.contains("hunter2") && !json.contains("busybox"), "{json}");
    assert_eq!(serde_json::from_str::<Run>(&json).expect("its own form"), run);
}

#[test]
fn no_query_of_a_url_is_kept() {
    let source = || RemoteSource::parse("https://files.example/a.tgz?sig=hunter2#:sub").expect("valid");
    let new = task(BY_ID, TaskSource::Remote(source()), None);
    let kept: KeptRequest = new.kept_request();
    assert!(matches!(kept.source(), KeptSource::WithoutQuery(_)), "{kept:?}");
    let json = serde_json::to_string(&kept).expect("json");
    assert!(!json.contains("hunter2") && !json.contains("busybox"), "{json}");
    assert_eq!(serde_json::from_str::<KeptRequest>(&json).expect("its own form"), kept);

    let mut run = new.accept(RunId::from_number(1), at(0)).expect("accepted").run;
    assert!(serde_json::to_string(&run).expect("json").contains("hunter2"), "an agent has to fetch it");
    does(&mut run, 1, RunEvent::CancelRequested { by: by() });
    assert_eq!(run.status(), RunStatus::Canceled);
    let json = serde_json::to_string(&run).expect("json");
    assert!(!json.contains("hunter2") && json.contains("https://files.example/a.tgz?#:sub"), "{json}");
    assert_eq!(serde_json::from_str::<Run>(&json).expect("its own form"), run);

    let other = RemoteSource::parse("https://git.example/app.git#main").expect("valid");
    let asked = task(BY_ID, TaskSource::Remote(other.clone()), None).kept_request();
    assert_eq!(*asked.source(), KeptSource::Remote(other));
}

#[test]
fn what_a_source_is_called_is_known_before_it_is_fetched_again() {
    let text = "steps:\n  - id: one\n    cmd: busybox true\n";
    let source = || TaskSource::Remote(RemoteSource::parse("https://git.example/app.git#main").expect("valid"));
    let first = task(text, source(), None).accept(RunId::from_number(1), at(0)).expect("accepted").run;
    assert_eq!(first.known_variables(), KnownVariables::default(), "the agent finds the branch");
    let StepResult::Succeeded { output: StepOutput::Prepared(found) } = prepared("main") else { unreachable!() };
    let replay = Replay { source: Some(found), done: None, ..replay_of(&first) };
    let again = task(text, source(), Some(replay)).accept(RunId::from_number(2), at(5)).expect("accepted").run;
    let known = again.known_variables();
    assert_eq!((known.branch.as_deref(), known.git_tag.as_deref()), (Some("main"), Some("")));
}
