//! Stored tasks: kept under one name, changed from what they are, with their secrets; and an instant of a timer that sets
//! off one run at most, whoever asks how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::run::RunEvent;
use cooper_engine::task::{CatchUp, Cause, EncodedChange, Origin, StepChange, Task, TaskChange, Timer};
use cooper_engine::timer::{Expression, Schedule, Zone};
use cooper_ports::clock::ManualClock;
use cooper_ports::credentials::{HostCredential, SourceCredentialStore as _};
use cooper_ports::logs::LogStore as _;
use cooper_ports::runs::{AcceptError, AcceptRun, Expired, RunStore as _, SealedSecret, SecretKind};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Firing, Instant, MAX_TASKS, PutTask, PutTaskError, TaskStore as _};
use cooper_store::Store;
use cooper_types::{Scope, Scopes, SourceHost, TaskName, TimerName, Timestamp};

use crate::fixture::{Fixture, principal, quick_build, upload};

fn name(text: &str) -> TaskName {
    TaskName::parse(text).unwrap()
}

fn timer_name() -> TimerName {
    TimerName::parse("t1").unwrap()
}

fn timer() -> Timer {
    let expression = Expression::parse("* * * * *").unwrap();
    Timer { schedule: Schedule { expression, zone: Zone::utc() }, catch_up: CatchUp::Skip, enabled: true }
}

fn task(text: &str, now: Timestamp) -> Task {
    let step = EncodedChange { text: Some("steps: []".to_owned()), ..EncodedChange::default() };
    let timers = BTreeMap::from([(timer_name(), Some(timer()))]);
    let change = TaskChange { step: Some(StepChange::Encoded(step)), timers, ..TaskChange::default() };
    Task::new(name(text), principal("alice"), Scopes(vec![Scope::Run]), change, now).unwrap()
}

fn put(task: Task, replaces: Option<u64>) -> PutTask {
    PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: BTreeSet::new(),
        replaces,
        hooks: Vec::new(),
        registrations: Vec::new(),
    }
}

fn secret(name: &str, sealed: &[u8]) -> SealedSecret {
    SealedSecret { kind: SecretKind::Value, name: name.to_owned(), sealed: sealed.to_vec() }
}

#[tokio::test]
async fn a_name_is_there_once_whatever_its_case() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let now = store.clock().now();
    let kept = store.put_task(put(task("Nightly", now), None)).await.unwrap();
    assert_eq!(kept.task.name.as_str(), "Nightly");
    let error = store.put_task(put(task("nightLY", now), None)).await.unwrap_err();
    assert!(matches!(error, PutTaskError::Exists(_)), "{error}");
    assert_eq!(store.find_task(&name("NIGHTLY")).await.unwrap(), Some(kept.clone()));
    let changed = kept.task.changed(TaskChange { priority: Some(3), ..TaskChange::default() }, now).unwrap();
    store.put_task(put(changed.clone(), Some(1))).await.unwrap();
    let error = store.put_task(put(changed, Some(1))).await.unwrap_err();
    assert!(matches!(error, PutTaskError::Changed(_)), "a change of what it was before: {error}");
    assert_eq!(store.list_tasks(None, 10).await.unwrap().len(), 1);
    assert!(store.delete_task(&kept.task).await.unwrap());
    assert!(!store.delete_task(&kept.task).await.unwrap());
    assert_eq!(fixture.count("SELECT count(*) FROM task_timers").await, 0);
    let error = store.put_task(put(task("Nightly", now), Some(2))).await.unwrap_err();
    assert!(matches!(error, PutTaskError::Changed(_)), "it is gone: {error}");
}

#[tokio::test]
async fn secrets_are_those_that_the_task_names() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = task("nightly", store.clock().now());
    let names = |names: &[&str]| names.iter().map(|name| (SecretKind::Value, (*name).to_owned())).collect();
    let with = |secrets: Vec<SealedSecret>, all: &[&str], replaces: Option<u64>| PutTask {
        task: Task { generation: replaces.unwrap_or(0) + 1, ..made.clone() },
        secrets,
        all_secrets: names(all),
        replaces,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    let error = store.put_task(with(vec![secret("a", b"1")], &["a", "b"], None)).await.unwrap_err();
    assert!(matches!(&error, PutTaskError::NoValue(name) if name == "b"), "{error}");
    assert_eq!(store.list_tasks(None, 10).await.unwrap(), [], "nothing is left of it");
    store.put_task(with(vec![secret("a", b"1"), secret("b", b"2")], &["a", "b"], None)).await.unwrap();
    store.put_task(with(vec![secret("b", b"3")], &["b"], Some(1))).await.unwrap();
    assert_eq!(store.task_secrets(&made).await.unwrap(), [secret("b", b"3")]);
    store.delete_task(&made).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM task_secrets").await, 0);
}

fn request(instant: &Instant) -> AcceptRun {
    let mut request = quick_build("alice", "source");
    let made = task(instant.task.as_str(), instant.at);
    let cause = Cause::Timer { timer: instant.timer.clone(), occurrence: instant.at, missed: false };
    request.run.origin = Origin { cause, task: Some(made.of_run()), ..Origin::default() };
    request
}

/// The first instant of the task's timer, with the one after it.
async fn due(store: &Store, clock: &ManualClock) -> Firing {
    clock.advance(Duration::from_secs(60));
    let mut due = store.due_timers(store.clock().now(), 10).await.unwrap();
    let instant = due.pop().unwrap();
    Firing { next: timer().next_after(instant.at), instant }
}

#[tokio::test]
async fn an_instant_sets_off_one_run_however_many_ask_and_however_often() {
    let mut fixture = Fixture::new().await;
    let clock = fixture.clock.clone();
    let store = fixture.store.clone();
    upload(&store, "alice", "source").await;
    store.put_task(put(task("nightly", store.clock().now()), None)).await.unwrap();
    let firing = due(&store, &clock).await;
    assert_eq!(firing.instant.task.as_str(), "nightly");
    // As two servers would, or one that was killed between two looks.
    let all = (0..8).map(|_| {
        let (store, firing) = (store.clone(), firing.clone());
        tokio::spawn(async move { store.accept_firing(request(&firing.instant), firing.clone()).await })
    });
    let (mut accepted, mut moved) = (0, 0);
    for one in all.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(AcceptError::TimerMoved { .. }) => moved += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((accepted, moved), (1, 7));
    assert_eq!(fixture.count("SELECT count(*) FROM runs").await, 1);
    assert_eq!(store.next_timer(Timestamp::from_micros(0)).await.unwrap(), firing.next);
    assert!(!store.pass_instant(&firing, "no").await.unwrap());
    drop(store);
    fixture.reopen().await;
    let store = &fixture.store;
    let error = store.accept_firing(request(&firing.instant), firing.clone()).await.unwrap_err();
    assert!(matches!(error, AcceptError::TimerMoved { .. }), "{error}");
    assert_eq!(fixture.count("SELECT run_counter FROM registries").await, 1, "nothing is left of those that lost");

    let second = due(store, &clock).await;
    assert!(store.pass_instant(&second, "because").await.unwrap());
    let fired = store.list_fired(&name("nightly"), 10).await.unwrap();
    let outcomes: Vec<_> = fired.iter().map(|fired| fired.outcome.clone()).collect();
    assert!(matches!(&outcomes[..], [Err(why), Ok(run)] if why == "because" && run.number() == 1), "{outcomes:?}");
}

#[tokio::test]
async fn a_task_that_can_not_be_read_keeps_no_other_timer_from_being_due() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for name in ["Sound", "Broken", "nameless", "oddly"] {
        store.put_task(put(task(name, store.clock().now()), None)).await.unwrap();
    }
    fixture
        .store
        .write(async move |mut tx| {
            let states = [("broken", "{}"), ("nameless", r#"{"name": 7}"#), ("oddly", r#"{"name": "a b"}"#)];
            for (task, state) in states {
                let write = sqlx::query("UPDATE tasks SET state = ?2 WHERE task = ?1").bind(task).bind(state);
                write.execute(&mut *tx).await.unwrap();
            }
            Ok::<_, cooper_ports::store_error::StoreError>(())
        })
        .await
        .unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    let due = store.due_timers(store.clock().now(), 10).await.unwrap();
    let mut tasks: Vec<_> = due.iter().map(|instant| instant.task.as_str()).collect();
    tasks.sort_unstable();
    assert_eq!(
        tasks,
        ["Sound", "broken", "nameless", "oddly"],
        "by what it is known as, where it does not say its name"
    );
    // Whoever waits for what comes next is not told of what has come.
    assert!(store.next_timer(store.clock().now()).await.unwrap().is_none_or(|next| next > store.clock().now()));
    assert_eq!(store.next_timer(Timestamp::from_micros(0)).await.unwrap(), Some(due[0].at));
}

#[tokio::test]
async fn a_refused_run_leaves_its_instant_due() {
    let fixture = Fixture::new().await;
    let clock = fixture.clock.clone();
    let store = &fixture.store;
    store.put_task(put(task("nightly", store.clock().now()), None)).await.unwrap();
    let firing = due(store, &clock).await;
    // Its context does not exist.
    let error = store.accept_firing(request(&firing.instant), firing.clone()).await.unwrap_err();
    assert!(matches!(error, AcceptError::UnknownContext(_)), "{error}");
    assert_eq!(store.next_timer(Timestamp::from_micros(0)).await.unwrap(), Some(firing.instant.at));
}

#[tokio::test]
async fn runs_of_tasks_are_removed_when_they_are_old_and_not_archived() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let day = Duration::from_secs(24 * 3600);
    let cancelled = async |of_task: bool| {
        upload(store, "alice", "source").await;
        let mut request = quick_build("alice", "source");
        if of_task {
            let mut made = task("nightly", store.clock().now());
            made.retention.logs = 10;
            request.run.origin.task = Some(made.of_run());
        }
        let run = store.accept_run(request).await.unwrap().record.run.id;
        fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
        run
    };
    let (quick, old, kept) = (cancelled(false).await, cancelled(true).await, cancelled(true).await);
    assert!(store.archive_run(kept, true).await.unwrap());
    let text = async |run| store.read_text(run, 0, 10_000).await.unwrap();
    let before = text(old).await;
    assert!(String::from_utf8_lossy(&before.data).contains("canceled"), "{before:?}");
    fixture.clock.advance(day * 9);
    assert_eq!(store.expire_runs(10).await.unwrap(), Expired::default());
    fixture.clock.advance(day * 2);
    assert_eq!(store.expire_runs(10).await.unwrap(), Expired { runs: 0, logs: 1 });
    assert_eq!(store.expire_runs(10).await.unwrap(), Expired::default());
    let after = text(old).await;
    assert!(String::from_utf8_lossy(&after.data).contains("was removed"), "{after:?}");
    assert!(after.end.complete && store.find_run(old).await.unwrap().unwrap().log == after.end);
    fixture.clock.advance(day * 20);
    assert_eq!(store.expire_runs(10).await.unwrap(), Expired { runs: 1, logs: 0 });
    assert_eq!(store.find_run(old).await.unwrap(), None);
    assert!(store.find_run(quick).await.unwrap().is_some() && store.find_run(kept).await.unwrap().is_some());
    assert!(store.archive_run(kept, false).await.unwrap());
    assert_eq!(store.expire_runs(10).await.unwrap(), Expired { runs: 1, logs: 0 });
}

#[tokio::test]
async fn a_tasks_credential_is_for_runs_of_its_principal_alone() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let host = SourceHost::parse("git.example").unwrap();
    let made = task("nightly", store.clock().now());
    assert!(!store.put_task_credential(&made, &host, "git".to_owned(), vec![1]).await.unwrap());
    store.put_task(put(made.clone(), None)).await.unwrap();
    assert!(store.put_task_credential(&made, &host, "git".to_owned(), vec![1]).await.unwrap());
    let found = async |owner: &str| {
        upload(store, owner, &format!("source-{owner}")).await;
        let mut request = quick_build(owner, &format!("source-{owner}"));
        request.run.origin.task = Some(made.of_run());
        let started = fixture.start_of(request).await;
        store.credential_for(started.run, started.attempt, &host).await.unwrap()
    };
    let HostCredential::Usable(sealed) = found("alice").await else { panic!("none is found") };
    assert_eq!((sealed.sealed, sealed.task.as_deref()), (vec![1], Some("nightly")));
    assert_eq!(found("bob").await, HostCredential::Nothing);
    assert!(store.delete_task_credential(&made, &host).await.unwrap());
    assert_eq!(found("alice").await, HostCredential::Nothing);
}

#[tokio::test]
async fn another_task_of_the_same_name_is_another_task() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let host = SourceHost::parse("git.example").unwrap();
    let first = store.put_task(put(task("nightly", store.clock().now()), None)).await.unwrap().task;
    assert!(store.delete_task(&first).await.unwrap());
    fixture.clock.advance(Duration::from_secs(1));
    let names = BTreeSet::from([(SecretKind::Value, "a".to_owned())]);
    let second = PutTask {
        secrets: vec![secret("a", b"1")],
        all_secrets: names,
        ..put(task("nightly", store.clock().now()), None)
    };
    let second = store.put_task(second).await.unwrap().task;
    assert!(store.put_task_credential(&second, &host, "git".to_owned(), vec![1]).await.unwrap());

    // Whoever looked at the first one has nothing to do with the second, though both are at their first generation.
    let error = store.put_task(put(Task { generation: 2, ..first.clone() }, Some(1))).await.unwrap_err();
    assert!(matches!(error, PutTaskError::Changed(_)), "{error}");
    assert!(!store.put_task_credential(&first, &host, "git".to_owned(), vec![2]).await.unwrap());
    assert!(!store.delete_task_credential(&first, &host).await.unwrap());
    assert_eq!(store.task_secrets(&first).await.unwrap(), []);
    assert!(!store.delete_task(&first).await.unwrap());
    assert_eq!(store.find_task(&second.name).await.unwrap().unwrap().credentials.len(), 1);
    assert_eq!(store.task_secrets(&second).await.unwrap(), [secret("a", b"1")]);
}

#[tokio::test]
async fn a_trial_keeps_nothing_and_finds_what_is_wrong() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = task("nightly", store.clock().now());
    let tried = store.try_task(put(made.clone(), None)).await.unwrap();
    assert_eq!((&tried.task, tried.next.len()), (&made, 1));
    assert_eq!(store.find_task(&made.name).await.unwrap(), None);
    let elsewhere = Task { pool: cooper_types::PoolName::parse("gpu").unwrap(), ..made.clone() };
    let error = store.try_task(put(elsewhere, None)).await.unwrap_err();
    assert!(matches!(error, PutTaskError::UnknownPool(_)), "{error}");
    store.put_task(put(made.clone(), None)).await.unwrap();
    let error = store.try_task(put(made, None)).await.unwrap_err();
    assert!(matches!(error, PutTaskError::Exists(_)), "{error}");
}

/// A task with a text of so many bytes.
fn large(text: &str, bytes: usize, now: Timestamp) -> Task {
    let step = EncodedChange { text: Some("x".repeat(bytes)), ..EncodedChange::default() };
    let change = TaskChange { step: Some(StepChange::Encoded(step)), ..TaskChange::default() };
    Task::new(name(text), principal("alice"), Scopes(vec![Scope::Run]), change, now).unwrap()
}

#[tokio::test]
async fn many_and_large_tasks_come_in_pages() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let now = store.clock().now();
    for n in 0..10 {
        store.put_task(put(large(&format!("large{n}"), 1_000_000, now), None)).await.unwrap();
    }
    store.put_task(put(task("small", now), None)).await.unwrap();
    let page = async |after: Option<&str>, limit: u32| {
        let found = store.list_tasks(after.map(name).as_ref(), limit).await.unwrap();
        found.iter().map(|record| record.task.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2).await, ["large0", "large1"]);
    let first = page(None, 100).await;
    assert!((1..10).contains(&first.len()), "{first:?}");
    let rest = page(first.last().map(String::as_str), 100).await;
    assert_eq!((first.len() + rest.len(), rest.last().unwrap().as_str()), (11, "small"));
    assert_eq!(page(Some("small"), 100).await, [""; 0]);

    // Texts that are not limited by themselves are, together.
    let mut heavy = task("heavy", now);
    heavy.platforms = vec![cooper_types::Platform::LINUX_AMD64; 400_000];
    let error = store.put_task(put(heavy, None)).await.unwrap_err();
    assert!(matches!(error, PutTaskError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_principal_has_so_many_tasks() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    store.put_task(put(task("first", store.clock().now()), None)).await.unwrap();
    let filled = store.write(async move |mut tx| {
        sqlx::query(
            "INSERT INTO tasks (registry_id, task, state, generation, principal)
             WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             SELECT 1, 'more' || n, '{}', 1, 'alice' FROM n",
        )
        .bind(MAX_TASKS)
        .execute(&mut *tx)
        .await
        .unwrap();
        Ok::<_, StoreError>(())
    });
    filled.await.unwrap();
    let error = store.put_task(put(task("another", store.clock().now()), None)).await.unwrap_err();
    assert!(matches!(error, PutTaskError::TooMany { .. }), "{error}");
    let bobs = Task { principal: principal("bob"), ..task("another", store.clock().now()) };
    store.put_task(put(bobs, None)).await.unwrap();
}
