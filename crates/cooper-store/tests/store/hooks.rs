//! Hooks and what comes to them: kept once, within bounds, worked off in order, and forgotten in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::run::RunEvent;
use cooper_engine::task::{DockerChange, SourceSettings, StepChange, Task, TaskChange};
use cooper_engine::trigger::event::{SourceChange, SourceEvent};
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::{Refusal, Rule};
use cooper_ports::hooks::{EventOutcome, HookStore as _, KeptDelivery, NewHook, Outcome, RunOfEvent, SourceFiring};
use cooper_ports::registrations::RegistrationStore as _;
use cooper_ports::runs::{Expired, RunStore as _};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{PutTask, TaskStore as _};
use cooper_spec::source::RemoteSource;
use cooper_types::{HookId, RunId, Scope, Scopes, TaskName, Timestamp, TriggerName};

use crate::fixture::{Fixture, principal, quick_build, upload};

fn hook(digit: char) -> HookId {
    HookId::parse(&digit.to_string().repeat(32)).unwrap()
}

fn name(text: &str) -> TaskName {
    TaskName::parse(text).unwrap()
}

fn events(size: usize) -> Vec<SourceEvent> {
    vec![SourceEvent { repository: None, change: SourceChange::Other { name: "x".repeat(size) } }]
}

fn ended(outcome: Outcome) -> Vec<EventOutcome> {
    vec![EventOutcome { what: "push".to_owned(), outcome }]
}

fn task(fixture: &Fixture, text: &str) -> Task {
    let settings = SourceSettings {
        provider: Provider::Generic,
        enabled: true,
        commits: true,
        pull_requests: false,
        tags: false,
        branches: Vec::new(),
        tag_names: Vec::new(),
        paths: Vec::new(),
        exclude_paths: Vec::new(),
        drafts: false,
        skip_ci: true,
        fork_pool: None,
        cancel_superseded: false,
    };
    let step = DockerChange { image_names: Some(vec!["app:1".to_owned()]), ..DockerChange::default() };
    let change = TaskChange {
        step: Some(StepChange::Docker(step)),
        source: Some(Some(RemoteSource::parse("https://git.example/app.git").unwrap())),
        sources: BTreeMap::from([(TriggerName::parse("t").unwrap(), Some(settings))]),
        ..TaskChange::default()
    };
    let now = fixture.store.clock().now();
    Task::new(name(text), principal("alice"), Scopes(vec![Scope::Run]), change, now).unwrap()
}

/// A task with a hook whose id has this digit.
async fn put(fixture: &Fixture, text: &str, digit: char) -> Task {
    let task = task(fixture, text);
    let hooks = vec![NewHook { id: hook(digit), provider: Provider::Generic, sealed: vec![1] }];
    let put = PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: BTreeSet::new(),
        replaces: None,
        hooks,
        registrations: Vec::new(),
    };
    fixture.store.put_task(put).await.unwrap().task
}

async fn keep(fixture: &Fixture, digit: char, delivery: &str, size: usize) -> KeptDelivery {
    fixture.store.keep_delivery(&hook(digit), delivery, events(size)).await.unwrap()
}

pub(crate) async fn edit(fixture: &Fixture, sql: &'static str) {
    let edited = fixture.store.write(async move |mut tx| {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        Ok::<_, StoreError>(())
    });
    edited.await.unwrap();
}

async fn waiting(fixture: &Fixture, task: &str) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), 0);
    while let Some(next) = fixture.store.next_delivery(&name(task), after).await.unwrap() {
        after = next.number;
        all.push(next.delivery);
    }
    all
}

#[tokio::test]
async fn each_task_has_its_own_line() {
    let fixture = Fixture::new().await;
    put(&fixture, "first", 'b').await;
    put(&fixture, "second", 'a').await;
    assert_eq!(fixture.store.waiting_tasks().await.unwrap(), []);
    for (digit, delivery) in [('b', "1"), ('b', "2"), ('a', "3"), ('b', "4")] {
        assert_eq!(keep(&fixture, digit, delivery, 1).await, KeptDelivery::New);
    }
    assert_eq!(keep(&fixture, 'b', "2", 1).await, KeptDelivery::Repeated);
    assert_eq!(keep(&fixture, 'c', "5", 1).await, KeptDelivery::Gone);
    let all = fixture.store.waiting_tasks().await.unwrap();
    assert!(all.iter().all(|(_, whose)| *whose == principal("alice")));
    let mut tasks: Vec<TaskName> = all.into_iter().map(|(task, _)| task).collect();
    tasks.sort();
    assert_eq!(tasks, [name("first"), name("second")]);
    assert_eq!(
        (waiting(&fixture, "first").await, waiting(&fixture, "second").await),
        (vec!["1".to_owned(), "2".into(), "4".into()], vec!["3".to_owned()])
    );
    let next = fixture.store.next_delivery(&name("second"), 0).await.unwrap().unwrap();
    fixture.store.finish_delivery(next.number, ended(Outcome::Started(RunId::from_number(1)))).await.unwrap();
    assert_eq!(fixture.store.waiting_tasks().await.unwrap(), [(name("first"), principal("alice"))]);
    let listed = fixture.store.list_deliveries(&name("first"), 2).await.unwrap();
    assert_eq!(listed.iter().map(|one| one.delivery.as_str()).collect::<Vec<_>>(), ["4", "2"]);
}

#[tokio::test]
async fn what_came_to_nothing_may_come_again_and_what_led_to_a_run_not() {
    let fixture = Fixture::new().await;
    put(&fixture, "nightly", 'a').await;
    let run = RunId::from_number(1);
    let refusal = Refusal::new(Rule::Paths, "no file counts".to_owned());
    let mut partly = ended(Outcome::Started(run));
    partly.extend(ended(Outcome::Failed("no token".to_owned())));
    for (delivery, outcomes, expect) in [
        ("started", ended(Outcome::Started(run)), KeptDelivery::Repeated),
        ("known", ended(Outcome::Known(run)), KeptDelivery::Repeated),
        ("failed", ended(Outcome::Failed("no token".to_owned())), KeptDelivery::New),
        ("refused", ended(Outcome::Refused(refusal)), KeptDelivery::New),
        ("partly", partly, KeptDelivery::New),
    ] {
        assert_eq!(keep(&fixture, 'a', delivery, 1).await, KeptDelivery::New);
        let first = fixture.store.next_delivery(&name("nightly"), 0).await.unwrap().unwrap();
        assert_eq!(keep(&fixture, 'a', delivery, 1).await, KeptDelivery::Repeated, "it waits");
        fixture.store.finish_delivery(first.number, outcomes.clone()).await.unwrap();
        assert_eq!(keep(&fixture, 'a', delivery, 1).await, expect, "{delivery}");
        let again = fixture.store.next_delivery(&name("nightly"), first.number).await.unwrap();
        assert_eq!(again.is_some(), expect == KeptDelivery::New, "{delivery}");
        if let Some(again) = again {
            // A row for it, behind what came since.
            assert!(again.number > first.number && (again.first, first.first) == (first.number, first.number));
            fixture.store.finish_delivery(again.number, outcomes).await.unwrap();
        }
    }
    assert_eq!(fixture.store.list_deliveries(&name("nightly"), 100).await.unwrap().len(), 5);
    assert_eq!(fixture.count("SELECT waiting FROM hooks").await, 0);
}

#[tokio::test]
async fn a_hook_has_room_for_so_many_that_wait_and_for_few_large_ones() {
    let fixture = Fixture::new().await;
    put(&fixture, "first", 'a').await;
    put(&fixture, "second", 'b').await;
    assert_eq!(keep(&fixture, 'a', "failed", 1).await, KeptDelivery::New);
    let first = fixture.store.next_delivery(&name("first"), 0).await.unwrap().unwrap();
    fixture.store.finish_delivery(first.number, ended(Outcome::Failed("no token".to_owned()))).await.unwrap();
    assert_eq!(keep(&fixture, 'a', "waits", 1).await, KeptDelivery::New);
    assert_eq!(fixture.count("SELECT waiting FROM hooks WHERE task = 'first'").await, 1);
    // As if that many waited.
    edit(&fixture, "UPDATE hooks SET waiting = 500 WHERE task = 'first'").await;
    assert_eq!(keep(&fixture, 'a', "large", 100_000).await, KeptDelivery::Full);
    assert_eq!(keep(&fixture, 'b', "large", 100_000).await, KeptDelivery::New);
    assert_eq!(keep(&fixture, 'a', "small", 1).await, KeptDelivery::New);
    edit(&fixture, "UPDATE hooks SET waiting = 10000 WHERE task = 'first'").await;
    assert_eq!(keep(&fixture, 'a', "too many", 1).await, KeptDelivery::Full);
    assert_eq!(keep(&fixture, 'a', "waits", 1).await, KeptDelivery::Repeated);
    // What it led to can be seen as before.
    assert_eq!(keep(&fixture, 'a', "failed", 1).await, KeptDelivery::Full);
    let listed = fixture.store.list_deliveries(&name("first"), 100).await.unwrap();
    assert!(listed.iter().any(|one| one.delivery == "failed" && one.outcomes.is_some()), "{listed:?}");
    let next = fixture.store.next_delivery(&name("first"), 0).await.unwrap().unwrap();
    fixture.store.finish_delivery(next.number, ended(Outcome::Known(RunId::from_number(1)))).await.unwrap();
    assert_eq!(keep(&fixture, 'a', "failed", 1).await, KeptDelivery::New);
}

#[tokio::test]
async fn deliveries_are_forgotten_when_they_are_old_or_too_many() {
    let fixture = Fixture::new().await;
    put(&fixture, "first", 'a').await;
    put(&fixture, "second", 'b').await;
    keep(&fixture, 'a', "waits", 1).await;
    keep(&fixture, 'b', "old", 1).await;
    let old = fixture.store.next_delivery(&name("second"), 0).await.unwrap().unwrap();
    fixture.store.finish_delivery(old.number, ended(Outcome::Known(RunId::from_number(1)))).await.unwrap();
    // As if so many had come and been worked off.
    edit(
        &fixture,
        "INSERT INTO deliveries (registry_id, hook, delivery, received, outcomes)
         WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 700)
         SELECT registry_id, hook, 'd' || n, received, '[]' FROM deliveries, many WHERE delivery = 'waits'",
    )
    .await;
    let left = async || fixture.count("SELECT count(*) FROM deliveries").await;
    assert_eq!(fixture.store.prune_hooks(150).await.unwrap(), 150, "a part at a time");
    assert_eq!((fixture.store.prune_hooks(150).await.unwrap(), left().await), (50, 502));
    assert_eq!(fixture.store.prune_hooks(150).await.unwrap(), 0);
    let newest = fixture.store.list_deliveries(&name("first"), 500).await.unwrap();
    assert_eq!((newest[0].delivery.as_str(), newest[499].delivery.as_str()), ("d700", "d201"));
    fixture.clock.advance(Duration::from_secs(30 * 24 * 3600 + 1));
    while fixture.store.prune_hooks(150).await.unwrap() > 0 {}
    assert_eq!((left().await, waiting(&fixture, "first").await), (1, vec!["waits".to_owned()]));
}

#[tokio::test]
async fn an_event_is_known_for_a_month_longer_than_its_run() {
    let mut fixture = Fixture::new().await;
    let mut task = put(&fixture, "nightly", 'a').await;
    task.retention.runs = 10;
    let accept = async |fixture: &Fixture, key: &str| {
        upload(&fixture.store, "alice", "source").await;
        let mut request = quick_build("alice", "source");
        request.run.origin.task = Some(task.of_run());
        let firing = SourceFiring { task: task.name.clone(), key: key.to_owned(), also: Vec::new(), delivery: None };
        let run = fixture.store.accept_event(request, firing).await.unwrap().record.run.id;
        fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
        run
    };
    let (old, _) = (accept(&fixture, "pull-request:1:main:a").await, accept(&fixture, "pull-request:10:main:b").await);
    upload(&fixture.store, "alice", "source").await;
    let mut request = quick_build("alice", "source");
    request.run.origin.task = Some(task.of_run());
    let key = "pull-request:1:main:c".to_owned();
    let firing = SourceFiring { task: task.name.clone(), key, also: Vec::new(), delivery: None };
    let goes_on = fixture.store.accept_event(request, firing).await.unwrap().record.run.id;
    let of_pull = fixture.store.runs_of_events(&task.name, "pull-request:1:").await.unwrap();
    let expect = [
        RunOfEvent { run: old, delivery: 0, unfinished: false },
        RunOfEvent { run: goes_on, delivery: 0, unfinished: true },
    ];
    assert_eq!(of_pull, expect);
    let known = async |fixture: &Fixture| {
        fixture.store.run_of_event(&task.name, &["pull-request:1:main:a".to_owned()]).await.unwrap()
    };
    let day = Duration::from_secs(24 * 3600);
    fixture.clock.advance(day * 11);
    assert_eq!(fixture.store.expire_runs(1).await.unwrap(), Expired { runs: 1, logs: 0 });
    fixture.reopen().await;
    for (days, expect) in [(29, (0, Some(old))), (2, (1, None))] {
        fixture.clock.advance(day * days);
        assert_eq!((fixture.store.prune_hooks(100).await.unwrap(), known(&fixture).await), expect);
    }
    assert_eq!(fixture.count("SELECT count(*) FROM source_events").await, 2, "those of runs that are kept");
}

#[tokio::test]
async fn a_registration_that_this_release_can_not_read_keeps_no_other_waiting() {
    let fixture = Fixture::new().await;
    edit(
        &fixture,
        "INSERT INTO hook_registrations (registry_id, hook, repository, task, provider, host, events, want, due, tries)
         VALUES (1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'https://x.example/a/b', 'first', 'newforge', 'x.example', '', 1, 1, 0),
                (1, 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'https://y.example/a/b', 'first', 'gitea', 'y.example', '', 1, 2, 0)",
    )
    .await;
    let now = fixture.store.clock().now();
    let due = fixture.store.due_registrations(now, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.host.as_str()).collect::<Vec<_>>(), ["y.example"]);
    assert_eq!(fixture.store.next_registration().await.unwrap(), Some(Timestamp::from_micros(2)), "nobody spins on it");
    let all = fixture.store.registrations_of(&name("first")).await.unwrap();
    assert!(all[0].fault.as_deref().is_some_and(|fault| fault.contains("this release")), "{all:?}");
}

#[tokio::test]
async fn a_token_for_a_removal_that_can_not_be_read_is_not_kept() {
    let fixture = Fixture::new().await;
    edit(
        &fixture,
        "INSERT INTO hook_registrations (registry_id, hook, repository, task, provider, host, events, removing, username, sealed, want, due, tries)
         VALUES (1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'https://x.example/a/b', 'first', 'newforge', 'x.example', '', 1, 'git', x'01', 1, 1, 0)",
    )
    .await;
    assert!(fixture.store.due_registrations(fixture.store.clock().now(), 10).await.unwrap().is_empty());
    let kept = "SELECT count(*) FROM hook_registrations WHERE sealed IS NULL AND username IS NULL AND due IS NULL";
    assert_eq!(fixture.count(kept).await, 1);
}

#[tokio::test]
async fn a_delivery_that_this_release_can_not_read_keeps_no_other_waiting() {
    let fixture = Fixture::new().await;
    put(&fixture, "first", 'a').await;
    put(&fixture, "second", 'b').await;
    for (digit, delivery) in [('a', "1"), ('a', "2"), ('a', "3"), ('b', "4")] {
        assert_eq!(keep(&fixture, digit, delivery, 1).await, KeptDelivery::New);
    }
    edit(&fixture, "UPDATE deliveries SET delivery = CAST(x'ff' AS TEXT) WHERE delivery = '1'").await;
    assert_eq!(waiting(&fixture, "first").await, ["2", "3"]);
    edit(&fixture, "UPDATE deliveries SET delivery = '1' WHERE delivery NOT IN ('2', '3', '4')").await;
    let listed = fixture.store.list_deliveries(&name("first"), 10).await.unwrap();
    let [.., first] = &listed[..] else { panic!("{listed:?}") };
    let outcomes = first.outcomes.as_ref().expect("it is set aside");
    assert!(matches!(&outcomes[0].outcome, Outcome::Failed(why) if why.contains("this release")), "{outcomes:?}");
    assert_eq!(keep(&fixture, 'a', "1", 1).await, KeptDelivery::New, "it may be sent again");
    // So may one whose outcomes can't be read.
    edit(&fixture, "UPDATE deliveries SET outcomes = '[{}]', events = NULL, waits = 0 WHERE delivery = '2'").await;
    assert_eq!(keep(&fixture, 'a', "2", 1).await, KeptDelivery::New);
    let mut tasks: Vec<TaskName> =
        fixture.store.waiting_tasks().await.unwrap().into_iter().map(|(task, _)| task).collect();
    tasks.sort();
    assert_eq!(tasks, [name("first"), name("second")]);
}

#[tokio::test]
async fn a_hook_that_is_needed_no_more_is_gone_at_once_and_goes_in_parts() {
    let fixture = Fixture::new().await;
    let task = put(&fixture, "first", 'a').await;
    for number in 0..100 {
        keep(&fixture, 'a', &number.to_string(), 1).await;
    }
    let change = |provider: Provider, digit: char, task: &Task| {
        let mut task = task.clone();
        task.sources.values_mut().for_each(|settings| settings.provider = provider);
        let replaces = Some(task.generation);
        task.generation += 1;
        PutTask {
            task,
            secrets: Vec::new(),
            all_secrets: BTreeSet::new(),
            replaces,
            hooks: vec![NewHook { id: hook(digit), provider, sealed: vec![1] }],
            registrations: Vec::new(),
        }
    };
    let changed = fixture.store.put_task(change(Provider::Gitea, 'b', &task)).await.unwrap();
    let ids = |hooks: &[cooper_ports::hooks::HookRecord]| hooks.iter().map(|hook| hook.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&changed.hooks), [hook('b')]);
    assert!(fixture.store.find_hook(&hook('a')).await.unwrap().is_none());
    assert_eq!(keep(&fixture, 'a', "more", 1).await, KeptDelivery::Gone);
    assert!(!fixture.store.rotate_hook(&hook('a'), vec![2], None).await.unwrap());
    assert_eq!((fixture.store.waiting_tasks().await.unwrap(), waiting(&fixture, "first").await), (vec![], vec![]));
    assert!(fixture.store.list_deliveries(&name("first"), 10).await.unwrap().is_empty());
    // Another one of the kind, while the first is still there.
    let changed = fixture.store.put_task(change(Provider::Generic, 'c', &changed.task)).await.unwrap();
    assert_eq!(ids(&changed.hooks), [hook('c')]);
    let mut parts = 0;
    while fixture.store.prune_hooks(50).await.unwrap() > 0 {
        parts += 1;
    }
    assert!(parts > 3, "{parts}");
    let left = "SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM hooks)";
    assert_eq!(fixture.count(left).await, 1);
}
