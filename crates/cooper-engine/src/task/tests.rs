//! What a change makes of a task, what a run of it asks for, and what becomes of a timer's instants.

use cooper_types::Scope;

use super::*;
use crate::timer::{Expression, Schedule, Zone};
use crate::trigger::name::{CommitId, RefName};
use crate::trigger::provider::Provider;
use crate::trigger::{Definition, Firing, FiringKind};

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().expect("RFC 3339");
    Timestamp::from_micros(time.as_microsecond())
}

fn source(text: &str) -> RemoteSource {
    RemoteSource::parse(text).expect("a source")
}

fn timer(expression: &str) -> Timer {
    let expression = Expression::parse(expression).expect("an expression");
    Timer { schedule: Schedule { expression, zone: Zone::utc() }, catch_up: CatchUp::Skip, enabled: true }
}

fn argument(name: &str, value: ArgumentValue) -> BuildArgument {
    BuildArgument { name: name.to_owned(), value }
}

fn docker() -> TaskChange {
    let step = DockerChange {
        image_names: Some(vec!["app:{{.Run.ID}}".to_owned()]),
        arguments: Some(vec![
            argument("A", ArgumentValue::Plain("1".to_owned())),
            argument("TOKEN", ArgumentValue::Secret),
        ]),
        ..DockerChange::default()
    };
    TaskChange {
        step: Some(StepChange::Docker(step)),
        source: Some(Some(source("https://git.example/app.git#main"))),
        ..TaskChange::default()
    }
}

fn encoded(text: &str) -> TaskChange {
    let step = EncodedChange { text: Some(text.to_owned()), ..EncodedChange::default() };
    TaskChange { step: Some(StepChange::Encoded(step)), ..TaskChange::default() }
}

fn made(change: TaskChange) -> Result<Task, TaskFault> {
    let name = TaskName::parse("nightly").expect("valid");
    let principal = PrincipalName::parse("ann").expect("valid");
    Task::new(name, principal, Scopes(vec![Scope::Run]), change, at("2026-01-01T00:00:00Z"))
}

#[test]
fn a_new_task_has_acrs_defaults() {
    let task = made(docker()).expect("a task");
    assert!(task.enabled && task.generation == 1 && task.concurrency == 0 && task.priority == 0);
    assert_eq!((task.timeout.as_secs(), task.cpu), (3600, 2));
    assert_eq!(task.platforms, [Platform::LINUX_AMD64]);
    assert_eq!(task.retention, Retention { runs: 30, logs: 30 });
    let TaskAsked::Build { build, source: from } = task.asked(&Overrides::default()).expect("asked") else { panic!() };
    assert!(build.push && build.dockerfile == "Dockerfile" && build.platforms.is_empty());
    assert_eq!(from, source("https://git.example/app.git#main"));
    let text = serde_json::to_string(&task).expect("json");
    assert_eq!(serde_json::from_str::<Task>(&text).expect("a task"), task, "{text}");
}

#[test]
fn a_change_touches_what_it_names_and_nothing_else() {
    let now = at("2026-02-01T00:00:00Z");
    let task = made(TaskChange {
        timers: BTreeMap::from([(TimerName::parse("t1").expect("valid"), Some(timer("0 2 * * *")))]),
        ..docker()
    })
    .expect("a task");
    let step = DockerChange { no_cache: Some(true), target: Some("test".to_owned()), ..DockerChange::default() };
    let change = TaskChange { step: Some(StepChange::Docker(step)), priority: Some(5), ..TaskChange::default() };
    let changed = task.changed(change, now).expect("changed");
    let (TaskStep::Docker(before), TaskStep::Docker(after)) = (&task.step, &changed.step) else { panic!() };
    assert!(after.no_cache && after.target.as_deref() == Some("test") && changed.priority == 5);
    assert_eq!((&after.image_names, &after.arguments), (&before.image_names, &before.arguments));
    assert_eq!((&changed.source, &changed.timers, changed.generation), (&task.source, &task.timers, 2));
    assert_eq!((changed.created, changed.updated), (task.created, now));

    let none = DockerChange { target: Some(String::new()), ..DockerChange::default() };
    let change = TaskChange { step: Some(StepChange::Docker(none)), ..TaskChange::default() };
    let TaskStep::Docker(step) = changed.changed(change, now).expect("changed").step else { panic!() };
    assert_eq!(step.target, None, "an empty text takes it away");

    let file = FileChange { file: Some("acr-task.yaml".to_owned()), ..FileChange::default() };
    let change = TaskChange { step: Some(StepChange::File(file)), ..TaskChange::default() };
    let other = task.changed(change, now).expect("changed");
    assert!(matches!(&other.step, TaskStep::File(step) if step.set.is_empty()), "a step of another type begins anew");
    assert_eq!(other.source, task.source);
    assert!(other.secrets().is_empty() && !other.is_build());
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let check = |change: TaskChange, expect: &str| {
        let fault = made(change).expect_err(expect).to_string();
        assert!(fault.contains(expect), "{fault}");
    };
    let name = |text: &str| TimerName::parse(text).expect("valid");
    let timers = |all: &[(&str, &str)]| {
        let all = all.iter().map(|(timer_name, expression)| (name(timer_name), Some(timer(expression))));
        TaskChange { timers: all.collect(), ..docker() }
    };
    check(TaskChange::default(), "has no step");
    check(TaskChange { source: None, ..docker() }, "has no context");
    check(encoded("  \n"), "content is empty");
    check(TaskChange { cpu: Some(0), ..docker() }, "cpu is 0; it must be 1 to");
    check(TaskChange { priority: Some(101), ..docker() }, "priority is 101");
    check(TaskChange { timeout: Some(Duration::from_secs(28_801)), ..docker() }, "timeout is 28801");
    check(TaskChange { run_days: Some(0), ..docker() }, "runRetentionDays");
    check(TaskChange { platforms: Some(vec![Platform::LINUX_AMD64; 2]), ..encoded("steps: []") }, "one platform");
    check(timers(&[("a", "0 2 * * *"), ("b", "0  2 * * *")]), "timers `a` and `b` have the same schedule");
    check(timers(&[("a", "0 0 30 2 *")]), "never fires");
    check(TaskChange { timers: BTreeMap::from([(name("gone"), None)]), ..docker() }, "no timer `gone`");
    let twice = vec![argument("A", ArgumentValue::Secret), argument("A", ArgumentValue::Plain(String::new()))];
    let step = DockerChange { arguments: Some(twice), ..DockerChange::default() };
    check(TaskChange { step: Some(StepChange::Docker(step)), ..docker() }, "build argument `A` is given twice");
}

#[test]
fn a_step_of_which_no_run_could_ever_be_is_refused() {
    let docker = |step: DockerChange| TaskChange { step: Some(StepChange::Docker(step)), ..docker() };
    let image =
        |name: &str| docker(DockerChange { image_names: Some(vec![name.to_owned()]), ..DockerChange::default() });
    let file = |file: &str| {
        let step = FileChange { file: Some(file.to_owned()), ..FileChange::default() };
        TaskChange { step: Some(StepChange::File(step)), ..docker(DockerChange::default()) }
    };
    let dockerfile = |path: &str| docker(DockerChange { dockerfile: Some(path.to_owned()), ..DockerChange::default() });
    for (change, expect) in [
        (image("UPPER:x"), "`UPPER:x`"),
        (image("a:{{.Run.ID"), "image name"),
        (image("a:{{.Run.Nothing}}"), "image name"),
        (dockerfile("/etc/passwd"), "Dockerfile path `/etc/passwd`"),
        (file("../../etc/x.yaml"), "task file path `../../etc/x.yaml`"),
        (file("/etc/x.yaml"), "task file path"),
    ] {
        let fault = made(change.clone()).expect_err(expect).to_string();
        assert!(fault.contains(expect), "{fault}");
        let task = made(super::tests::docker()).expect("a task");
        assert!(task.changed(change, task.created).is_err(), "{expect}");
    }
    for name in [
        "other.example/a:1",
        "a:{{.Run.Branch}}",
        "{{.Run.Registry}}/a",
        "a:{{.Run.Date}}",
        "a:{{.Run.TaskName}}-{{.Run.ID}}",
    ] {
        made(image(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    made(file("ci/acr-task.yaml")).expect("a task");
    // One that an earlier release took can be changed, and disabled, all the same.
    let mut old = made(super::tests::docker()).expect("a task");
    let TaskStep::Docker(step) = &mut old.step else { panic!() };
    step.image_names = vec!["UPPER".to_owned()];
    let disabled = old.changed(TaskChange { enabled: Some(false), ..TaskChange::default() }, old.created);
    assert!(!disabled.expect("changed").enabled);
}

#[test]
fn an_empty_list_of_platforms_is_the_usual_one() {
    let arm = Platform::parse("linux/arm64").expect("valid");
    let task = made(TaskChange { platforms: Some(vec![arm.clone()]), ..docker() }).expect("a task");
    assert_eq!(task.platforms, [arm]);
    let change = TaskChange { platforms: Some(Vec::new()), ..TaskChange::default() };
    assert_eq!(task.changed(change, task.updated).expect("a task").platforms, [Platform::LINUX_AMD64]);
}

#[test]
fn a_run_may_differ_in_what_fits_its_step() {
    let build = made(docker()).expect("a task");
    let mut overrides = Overrides {
        source: Some(source("https://git.example/app.git#topic")),
        file: Some("other/Dockerfile".to_owned()),
        arguments: vec![argument("A", ArgumentValue::Plain("2".to_owned()))],
        ..Overrides::default()
    };
    let TaskAsked::Build { build: asked, source: from } = build.asked(&overrides).expect("asked") else { panic!() };
    assert_eq!(from, source("https://git.example/app.git#topic"));
    assert_eq!(asked.dockerfile, "other/Dockerfile");
    let names: Vec<&str> = asked.arguments.iter().map(|argument| argument.name.as_str()).collect();
    assert_eq!(names, ["TOKEN", "A"]);
    overrides.set = vec![RequestedValue { name: "a".to_owned(), value: None }];
    assert!(build.asked(&overrides).expect_err("values").to_string().contains("builds a Dockerfile"));

    overrides.set.clear();
    overrides.arguments.push(argument("A", ArgumentValue::Secret));
    assert_eq!(build.asked(&overrides).expect_err("twice").to_string(), "build argument `A` is given twice");
    overrides.set = vec![RequestedValue { name: "a".to_owned(), value: None }];
    overrides.arguments.clear();

    let file = made(encoded("steps: []")).expect("a task");
    let both = Overrides { set: [overrides.set.clone(), overrides.set.clone()].concat(), ..Overrides::default() };
    assert_eq!(file.asked(&both).expect_err("twice").to_string(), "value `a` is given twice");
    let set = Overrides { set: overrides.set, ..Overrides::default() };
    let TaskAsked::Task { request, source: None } = file.asked(&set).expect("asked") else { panic!() };
    assert!(request.is_whole() && request.set.len() == 1);
    let target = Overrides { target: Some("x".to_owned()), ..Overrides::default() };
    assert!(file.asked(&target).expect_err("target").to_string().contains("runs a task file"));
}

#[test]
fn secrets_are_known_by_their_names() {
    let task = made(docker()).expect("a task");
    assert_eq!(task.secrets(), BTreeSet::from([TaskSecret::Argument("TOKEN".to_owned())]));
}

#[test]
fn an_instant_fires_unless_nobody_was_there() {
    let (skip, once) = (timer("*/10 * * * *"), Timer { catch_up: CatchUp::Once, ..timer("*/10 * * * *") });
    let watched = at("2026-01-01T12:00:30Z");
    let check = |timer: &Timer, instant: &str, now: &str, fires: bool, missed: bool, next: &str| {
        let passed = timer.passed(at(instant), watched, at(now));
        assert_eq!(passed, Passed { fires, missed, next: Some(at(next)) }, "{instant} at {now}");
    };
    let soon = "2026-01-01T12:00:31Z";
    // In time, or late by less than the grace when the server came.
    check(&skip, "2026-01-01T12:10:00Z", "2026-01-01T12:10:00Z", true, false, "2026-01-01T12:20:00Z");
    check(&skip, "2026-01-01T12:00:00Z", soon, true, false, "2026-01-01T12:10:00Z");
    // Late because there is much to do: nothing is left out.
    check(&skip, "2026-01-01T12:10:00Z", "2026-01-01T12:35:00Z", true, false, "2026-01-01T12:20:00Z");
    // Missed: the first instant that was not is next, be it due already.
    check(&skip, "2026-01-01T11:50:00Z", soon, false, true, "2026-01-01T12:00:00Z");
    check(&skip, "2026-01-01T09:00:00Z", soon, false, true, "2026-01-01T12:00:00Z");
    // One run stands for all of them, those of the grace included.
    check(&once, "2026-01-01T09:00:00Z", soon, true, true, "2026-01-01T12:10:00Z");
}

#[test]
fn a_disabled_timer_has_no_next_instant() {
    let on = timer("0 2 * * *");
    assert_eq!(on.next_after(at("2026-01-01T03:00:00Z")), Some(at("2026-01-02T02:00:00Z")));
    assert_eq!(Timer { enabled: false, ..on }.next_after(at("2026-01-01T03:00:00Z")), None);
}

fn reference(text: &str) -> RefName {
    RefName::parse(text).expect("valid")
}

fn pull_request() -> FiringKind {
    FiringKind::PullRequest { number: 7, head: reference("topic"), base: reference("main"), fork: None }
}

fn source_cause(kind: FiringKind) -> Cause {
    let commit = CommitId::parse(&"a".repeat(40)).expect("valid");
    let firing =
        Firing { kind, commit, before: None, definition: Definition::Commit, untrusted: true, notes: Vec::new() };
    Cause::Source(Box::new(SourceCause {
        trigger: cooper_types::TriggerName::parse("t").expect("valid"),
        provider: Provider::GitHub,
        repository: "https://git.example/app.git".to_owned(),
        delivery: None,
        cancel_superseded: false,
        firing,
    }))
}

#[test]
fn whoever_was_not_asked_for_by_hand_leaves_a_tag_to_a_newer_run_of_its_line() {
    let timer = TimerName::parse("t").expect("valid");
    let timer = |missed: bool| Cause::Timer { timer: timer.clone(), occurrence: at("2026-01-01T00:00:00Z"), missed };
    let wave = Cause::BaseImage { wave: cooper_types::WaveId::from_number(1), images: Vec::new() };
    let task = made(docker()).expect("a task").of_run();
    let all = "";
    for (cause, without_branch, on_topic, yields) in [
        (Cause::Manual, all, "refs/heads/topic", false),
        (Cause::For { by: PrincipalName::parse("ben").expect("valid") }, all, "refs/heads/topic", false),
        (timer(false), all, "refs/heads/topic", true),
        (timer(true), all, "refs/heads/topic", true),
        (wave, all, "refs/heads/topic", true),
        // The event says it, whatever the source was found to be on.
        (source_cause(FiringKind::Commit { branch: reference("a/b") }), "refs/heads/a/b", "refs/heads/a/b", true),
        (source_cause(FiringKind::Tag { tag: reference("v1") }), "refs/tags/v1", "refs/tags/v1", true),
        (source_cause(pull_request()), "pull-request/7", "pull-request/7", true),
    ] {
        let origin = Origin { cause, task: Some(task.clone()), ..Origin::default() };
        for (branch, line) in [(None, without_branch), (Some("topic"), on_topic)] {
            let expect = TagOrder { task: task.name.clone(), line: line.to_owned(), yields };
            assert_eq!(origin.tag_order(branch), Some(expect), "{:?} on {branch:?}", origin.cause);
        }
        assert_eq!(Origin { task: None, ..origin }.tag_order(Some("topic")), None, "a quick run has no order");
    }
}

#[test]
fn a_rerun_has_the_branch_and_the_tag_of_the_event_that_it_repeats() {
    use cooper_spec::template::RunVariables;
    use cooper_types::{RegistryName, RunId};

    for (kind, branch, tag) in [
        (FiringKind::Commit { branch: reference("main") }, "main", ""),
        (FiringKind::Tag { tag: reference("v1") }, "", "v1"),
        (pull_request(), "main", ""),
    ] {
        let task = made(docker()).expect("a task").of_run();
        let is_pull = |kind: &FiringKind| matches!(kind, FiringKind::PullRequest { .. });
        let first = Origin { cause: source_cause(kind), task: Some(task), untrusted: true, ..Origin::default() };
        let registry = RegistryName::parse("localhost:5000").expect("valid");
        let of = |origin: &Origin| {
            let now = at("2026-01-01T00:00:00Z");
            let plain = RunVariables::quick_build(RunId::from_number(1), &registry, &Platform::LINUX_AMD64, now);
            let all = origin.variables(origin.of_event(plain));
            (all.branch, all.git_tag, all.triggered_by)
        };
        // A rerun of a rerun is no less one.
        let (again, and_again) = (first.repeated(), first.repeated().repeated());
        for rerun in [&again, &and_again] {
            assert_eq!(of(rerun), (branch.to_owned(), tag.to_owned(), "Manual".to_owned()));
            assert!(rerun.untrusted && rerun.task.as_ref().is_some_and(|task| task.differs));
            let order = rerun.tag_order(None).expect("it has a task");
            assert!(!order.yields && order.line.is_empty());
            let base = (branch == "main" && tag.is_empty() && first.event_kind().is_some_and(is_pull))
                .then(|| "refs/heads/main".to_owned());
            assert_eq!(rerun.definition, base, "the branch anew");
        }
        assert_eq!((of(&first).0, of(&first).1), (branch.to_owned(), tag.to_owned()));
    }
}

#[test]
fn strangers_come_last_and_count_apart() {
    let task = Task { priority: 5, concurrency: 2, ..made(docker()).expect("a task") };
    let of =
        |untrusted: bool, cause: Cause| Origin { task: Some(task.of_run()), untrusted, cause, ..Origin::default() };
    let wave = Cause::BaseImage { wave: cooper_types::WaveId::from_number(1), images: Vec::new() };
    let (own, wave, stranger) = (of(false, Cause::Manual), of(false, wave), of(true, Cause::Manual));
    assert!(own.priority() == 5 && wave.priority() < -100 && stranger.priority() < wave.priority() - 100);
    assert_eq!((own.limit(), wave.limit()), (Some(("nightly".to_owned(), 2)), Some(("nightly".to_owned(), 2))));
    let (key, limit) = stranger.limit().expect("a limit of their own");
    assert!(key != "nightly" && TaskName::parse(&key).is_err() && limit == 2, "{key} is no task's");
    assert_eq!(Origin::default().limit(), None);
}
