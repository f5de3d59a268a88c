//! Conformance of the port for runs: accepting, applying events, reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::message::{BaseImage, StepOutput, StepResult};
use cooper_engine::run::{
    Asked, AskedTask, Effect, PendingReason, Phase, Policy, Refusal, RunEvent, RunStatus, TaskSource,
};
use cooper_ports::blobs::UploadId;
use cooper_ports::clock::Clock;
use cooper_ports::contexts::ContextStore;
use cooper_ports::registry::{AttemptRef, RegistryStore, Upload, Writer};
use cooper_ports::runs::{
    AcceptError, AcceptRun, ApplyError, AttemptError, Explanation, RunQuery, RunStore, RunType, SealedSecret,
    SecretKind,
};
use cooper_spec::task_request::{Fetched, TaskRequest, TaskText};
use cooper_types::{AgentName, AttemptNumber, Digest, Fence, IdempotencyKey, Platform, RunId, StepId};

use crate::fixture::{Fixture, Started, agent, build_of, context, principal, quick_build, upload};
use crate::hooks::edit;
use crate::pushes::app;

fn keyed(key: &str, content: &str) -> AcceptRun {
    let key = IdempotencyKey::parse(key).unwrap();
    AcceptRun { idempotency: Some((key, Digest::sha256(content.as_bytes()))), ..quick_build("alice", "source") }
}

fn secret(kind: SecretKind, name: &str) -> SealedSecret {
    SealedSecret { kind, name: name.to_owned(), sealed: vec![1, 2, 3] }
}

pub(crate) fn query() -> RunQuery {
    RunQuery::newest(100)
}

pub(crate) fn built() -> StepResult {
    let base = |reference: &str, runtime| BaseImage {
        reference: reference.to_owned(),
        digest: Some(Digest::sha256(reference.as_bytes())),
        runtime,
    };
    let bases = vec![base("localhost:5000/base/busybox:1", true), base("alpine", false), base("a b", false)];
    StepResult::Succeeded {
        output: StepOutput::Built { image: Digest::sha256(b"image"), bases, frontend: None, context: None },
    }
}

#[tokio::test]
async fn an_accepted_run_is_whole_after_a_restart() {
    let mut fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    let secrets = vec![secret(SecretKind::Build, "npm"), secret(SecretKind::Argument, "npm")];
    let accepted = fixture.store.accept_run(AcceptRun { secrets, ..keyed("k1", "a") }).await.unwrap();
    assert!(!accepted.repeated);
    let record = accepted.record;
    assert_eq!(record.run.id, RunId::from_number(1));
    assert_eq!(record.run.created, fixture.clock.now());
    assert_eq!(record.run.status(), RunStatus::Queued);
    fixture.reopen().await;
    assert_eq!(fixture.store.find_run(record.run.id).await.unwrap(), Some(record.clone()));
    assert_eq!(fixture.unfinished_runs().await, [record.run]);
    assert_eq!(fixture.count("SELECT count(*) FROM run_secrets").await, 2);
    assert_eq!(fixture.store.find_run(RunId::from_number(2)).await.unwrap(), None);
    assert_eq!(fixture.store.find_run(RunId::from_number(u64::MAX)).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_makes_one_run() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    upload(&fixture.store, "bob", "bobs").await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.accept_run(keyed("k1", "a")).await.unwrap() })
        })
        .collect();
    let mut made = BTreeSet::new();
    let mut first = 0;
    for task in tasks {
        let accepted = task.await.unwrap();
        made.insert(accepted.record.run.id);
        first += u32::from(!accepted.repeated);
    }
    assert_eq!((made.len(), first), (1, 1));
    let conflict = fixture.store.accept_run(keyed("k1", "b")).await.unwrap_err();
    assert!(matches!(conflict, AcceptError::KeyReused { run, .. } if Some(&run) == made.first()), "{conflict}");
    let (key, request) = keyed("k1", "a").idempotency.unwrap();
    let found = fixture.store.run_of_request(&principal("alice"), &key, &request).await.unwrap();
    assert_eq!(found.map(|record| record.run.id).as_ref(), made.first());
    let other = keyed("k1", "b").idempotency.unwrap().1;
    let conflict = fixture.store.run_of_request(&principal("alice"), &key, &other).await.unwrap_err();
    assert!(matches!(conflict, AcceptError::KeyReused { .. }), "{conflict}");
    assert_eq!(fixture.store.run_of_request(&principal("bob"), &key, &request).await.unwrap(), None);
    // The key is its principal's: another's is another request.
    let bobs = AcceptRun { idempotency: keyed("k1", "b").idempotency, ..quick_build("bob", "bobs") };
    assert!(!fixture.store.accept_run(bobs).await.unwrap().repeated);
}

#[tokio::test]
async fn a_refused_run_leaves_nothing() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    upload(store, "alice", "source").await;
    upload(store, "bob", "bobs").await;
    let expires = fixture.clock.now().after(Duration::from_secs(3600));
    store.create_context(context("empty"), principal("alice"), expires).await.unwrap();

    let refused = store.accept_run(quick_build("alice", "none")).await.unwrap_err();
    assert!(matches!(refused, AcceptError::UnknownContext(_)));
    let refused = store.accept_run(quick_build("alice", "bobs")).await.unwrap_err();
    assert!(matches!(refused, AcceptError::UnknownContext(_)));
    let refused = store.accept_run(quick_build("alice", "empty")).await.unwrap_err();
    assert!(matches!(refused, AcceptError::ContextNotUploaded(_)));
    let secrets = vec![secret(SecretKind::Build, "twice"), secret(SecretKind::Build, "twice")];
    let refused = store.accept_run(AcceptRun { secrets, ..keyed("k1", "a") }).await.unwrap_err();
    assert!(matches!(refused, AcceptError::SecretTwice(name) if name == "twice"));
    let mut unplannable = keyed("k1", "a");
    build_of(&mut unplannable).0.image_names = vec!["Not An Image".to_owned()];
    assert!(matches!(store.accept_run(unplannable).await.unwrap_err(), AcceptError::Plan(_)));

    for table in ["SELECT count(*) FROM runs", "SELECT count(*) FROM run_secrets", "SELECT count(*) FROM events"] {
        assert_eq!(fixture.count(table).await, 0, "{table}");
    }
    // Neither the number nor the key was spent.
    assert_eq!(store.accept_run(keyed("k1", "c")).await.unwrap().record.run.id, RunId::from_number(1));
    fixture.clock.advance(Duration::from_secs(3600));
    let refused = store.accept_run(quick_build("alice", "source")).await.unwrap_err();
    assert!(matches!(refused, AcceptError::UnknownContext(_)));
}

#[tokio::test]
async fn concurrent_requests_get_distinct_numbers() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.accept_run(quick_build("alice", "source")).await.unwrap().record.run.id })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap().number());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_event_changes_nothing() {
    let fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    let before = fixture.store.find_run(run).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let stale = RunEvent::StepStarted { fence: Fence(fence.0 + 1), attempt };
    let refused = fixture.apply(run, stale).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Refused { refusal: Refusal::StaleFence(_), .. }), "{refused}");
    assert_eq!(fixture.store.find_run(run).await.unwrap(), before);
    let unknown = fixture.apply(RunId::from_number(99), RunEvent::Tick).await.unwrap_err();
    assert!(matches!(unknown, ApplyError::Unknown(_)));
}

#[tokio::test]
async fn a_built_step_leaves_its_bases_and_the_next_attempt() {
    let mut fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    assert_eq!(fixture.count("SELECT attempt FROM live_attempts WHERE step_id = 'build'").await, 1);
    fixture.clock.advance(Duration::from_secs(2));
    let applied = fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap();
    let [Effect::SendStart { attempt: next, .. }] = applied.send[..] else { panic!("{:?}", applied.send) };
    assert_eq!(next, AttemptNumber(2));
    fixture.reopen().await;
    assert_eq!(fixture.count("SELECT count(*) FROM live_attempts").await, 1);
    assert_eq!(fixture.count("SELECT attempt FROM live_attempts WHERE step_id = 'push'").await, 2);
    let record = fixture.store.find_run(run).await.unwrap().unwrap();
    assert_eq!(record.run, applied.run);
    assert_eq!(record.updated, fixture.clock.now());
    assert_eq!(Some(record.log), applied.log_end);
    let bases: Vec<(&str, bool)> =
        record.base_images.iter().map(|base| (base.base.reference.as_str(), base.base.runtime)).collect();
    assert_eq!(bases, [("localhost:5000/base/busybox:1", true), ("alpine", false), ("a b", false)]);
    let named = "SELECT count(*) FROM base_images WHERE registry = 'localhost:5000' AND repository = 'base/busybox' \
                 AND tag = '1' AND kind = 'runtime'";
    assert_eq!(fixture.count(named).await, 1);

    // The result is repeated because its acknowledgement was lost: it has no effect.
    let again = fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap_err();
    assert!(matches!(again, ApplyError::Refused { refusal: Refusal::StaleAttempt(_), .. }));
}

#[tokio::test]
async fn a_lost_attempt_is_not_live_and_its_bases_are_resolved_anew() {
    let fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap();
    let lost = StepResult::Lost { reason: "engine went away".to_owned() };
    let push = AttemptNumber(2);
    fixture.apply(run, RunEvent::StepEnded { fence, attempt: push, result: lost }).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM live_attempts").await, 0);
    let offered = fixture.apply(run, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap();
    let fence = offered.run.last_fence;
    let accepted = fixture.apply(run, RunEvent::Accepted { fence, host: None }).await.unwrap();
    let attempt = accepted.run.last_attempt;
    assert_eq!(attempt, AttemptNumber(3));
    fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap();
    assert_eq!(fixture.store.find_run(run).await.unwrap().unwrap().base_images.len(), 3);
}

#[tokio::test]
async fn the_end_takes_secrets_and_attempts_with_it() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    let secrets = vec![secret(SecretKind::Build, "npm"), secret(SecretKind::Value, "npm")];
    let request = AcceptRun { secrets: secrets.clone(), ..quick_build("alice", "source") };
    let run = fixture.store.accept_run(request).await.unwrap().record.run.id;
    let fence = fixture.apply(run, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap().run.last_fence;
    let none_yet = fixture.store.run_secrets(run, AttemptNumber(1)).await.unwrap_err();
    assert!(matches!(none_yet, AttemptError::NotLive { .. }));
    let attempt = fixture.apply(run, RunEvent::Accepted { fence, host: None }).await.unwrap().run.last_attempt;
    assert_eq!(fixture.store.run_secrets(run, attempt).await.unwrap(), secrets);
    assert_eq!(format!("{:?}", secrets[0]), "SealedSecret(build npm)");

    let result = StepResult::Failed { exit_code: Some(2), reason: "make: no rule".to_owned() };
    let applied = fixture.apply(run, RunEvent::StepEnded { fence, attempt, result }).await.unwrap();
    assert!(matches!(applied.run.phase, Phase::Finished { .. }), "{:?}", applied.run.phase);
    assert!(matches!(fixture.store.run_secrets(run, attempt).await.unwrap_err(), AttemptError::NotLive { .. }));
    for table in [
        "SELECT count(*) FROM run_secrets",
        "SELECT count(*) FROM live_attempts",
        "SELECT count(*) FROM log_cursors",
        "SELECT count(*) FROM runs WHERE finished IS NULL",
    ] {
        assert_eq!(fixture.count(table).await, 0, "{table}");
    }
    assert!(fixture.unfinished_runs().await.is_empty());
    assert_eq!(fixture.count("SELECT count(*) FROM events WHERE kind = 'run.finished'").await, 1);
    let again = fixture.apply(run, RunEvent::Tick).await.unwrap_err();
    assert!(matches!(again, ApplyError::Refused { refusal: Refusal::Over, .. }));
}

#[tokio::test]
async fn runs_are_listed_newest_first_by_page_and_filter() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    upload(&fixture.store, "bob", "bobs").await;
    for n in 1..=9_u64 {
        let request = if n.is_multiple_of(3) { quick_build("bob", "bobs") } else { quick_build("alice", "source") };
        let run_type = if n == 5 { RunType::AutoRun } else { RunType::QuickBuild };
        fixture.store.accept_run(AcceptRun { run_type, ..request }).await.unwrap();
    }
    fixture.apply(RunId::from_number(2), RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let list = async |query: RunQuery| {
        let records = fixture.store.list_runs(&query).await.unwrap();
        records.iter().map(|record| record.run.id.number()).collect::<Vec<_>>()
    };
    assert_eq!(list(query()).await, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(list(RunQuery { limit: 2, ..query() }).await, [9, 8]);
    let before = Some(RunId::from_number(8));
    assert_eq!(list(RunQuery { limit: 2, before, ..query() }).await, [7, 6]);
    assert_eq!(list(RunQuery { principal: Some(principal("bob")), ..query() }).await, [9, 6, 3]);
    assert_eq!(list(RunQuery { run_type: Some(RunType::AutoRun), ..query() }).await, [5]);
    assert_eq!(list(RunQuery { statuses: vec![RunStatus::Canceled], ..query() }).await, [2]);
    let statuses = vec![RunStatus::Canceled, RunStatus::Queued];
    assert_eq!(list(RunQuery { statuses, ..query() }).await.len(), 9);
    assert_eq!(list(RunQuery { statuses: vec![RunStatus::Failed], ..query() }).await, [0; 0]);
}

#[tokio::test]
async fn the_end_of_an_attempt_is_the_end_of_its_uploads() {
    let fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    let attempt =
        fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap().run.last_attempt;
    let reference = AttemptRef { run, step: StepId::parse("push").unwrap(), attempt };
    for (id, attempt) in [(1, Some(reference)), (2, None)] {
        let writer = Writer { principal: principal("alice"), attempt };
        let upload = Upload { id: UploadId::from_bits(id), repository: app(), writer };
        fixture.store.begin_upload(&upload).await.unwrap();
    }
    let expired = async || fixture.store.expired_uploads(fixture.clock.now(), 10).await.unwrap();
    assert_eq!(expired().await, []);
    let result = StepResult::Lost { reason: "engine went away".to_owned() };
    fixture.apply(run, RunEvent::StepEnded { fence, attempt, result }).await.unwrap();
    assert_eq!(expired().await, [UploadId::from_bits(1)], "the person's upload goes on");
}

#[tokio::test]
async fn an_agent_is_shown_what_it_holds_and_nothing_else() {
    let fixture = Fixture::new().await;
    let waiting = fixture.accept().await.run.id;
    let started = fixture.start().await;
    let other = AgentName::parse("agent-2").unwrap();
    let held = async || {
        let runs = fixture.store.runs_of_agent(&agent().name).await.unwrap();
        assert!(fixture.store.runs_of_agent(&other).await.unwrap().is_empty());
        runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(held().await, [started.run]);
    // The migration of older databases finds the same in the states.
    let found = "SELECT count(*) FROM runs r, json_each(r.state, '$.placements') p
                 WHERE r.finished IS NULL AND json_extract(p.value, '$.agent.name') = 'agent-1'";
    assert_eq!(fixture.count(found).await, 1);
    fixture.apply(waiting, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap();
    assert_eq!(held().await, [waiting, started.run], "what is on offer counts");
    let counts = fixture.store.count_unfinished().await.unwrap();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 2);

    let fence = fixture.store.find_run(waiting).await.unwrap().unwrap().run.last_fence;
    fixture.apply(waiting, RunEvent::Declined { fence, why: "busy".to_owned() }).await.unwrap();
    assert_eq!(held().await, [started.run]);
    fixture.apply(started.run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    assert_eq!(held().await, [started.run], "it is still to be stopped");
    fixture.apply(started.run, RunEvent::Stopped { fence: started.fence }).await.unwrap();
    assert_eq!(held().await, []);
    assert_eq!(fixture.store.count_unfinished().await.unwrap(), [(RunStatus::Queued, 1)]);
    fixture.store.ping().await.unwrap();
}

#[tokio::test]
async fn why_many_runs_wait_is_written_in_one_change() {
    let fixture = Fixture::new().await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(fixture.accept().await.run.id);
    }
    fixture.apply(runs[1], RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    fixture.apply(runs[2], RunEvent::Explained { placement: 0, reason: PendingReason::NoAgent }).await.unwrap();
    edit(&fixture, "UPDATE runs SET state = '{}' WHERE number = 4").await;
    let (before, nobody) = (fixture.store.writer_counts().changes, RunId::from_number(99));
    let told = |run: RunId| Explanation { run, placement: 0, reason: PendingReason::NoAgent };
    let reasons = runs.iter().copied().chain([nobody]).map(told).collect();
    let explained = fixture.store.explain_runs(reasons, &Policy::DEFAULT).await.unwrap();
    let explained: Vec<_> = explained.into_iter().map(|(generation, run)| (run.id, generation)).collect();
    // One has ended, one has been told, one can't be read, and one is nobody's.
    assert_eq!(explained, [(runs[0], 2)]);
    assert_eq!(fixture.store.writer_counts().changes, before + 1);
    let found = fixture.store.unfinished_changes(&BTreeMap::new()).await.unwrap();
    let first = found.changed.iter().find(|(_, run)| run.id == runs[0]).unwrap();
    assert_eq!((first.0, first.1.pending_reason()), (2, Some(&PendingReason::NoAgent)));
    let again = fixture.store.explain_runs(vec![told(runs[0])], &Policy::DEFAULT).await.unwrap();
    assert!(again.is_empty(), "it has been told");
}

#[tokio::test]
async fn only_what_has_changed_is_read_again_and_one_bad_row_stops_nothing() {
    let fixture = Fixture::new().await;
    let first = fixture.accept().await.run.id;
    let second = fixture.accept().await.run.id;
    let mut known = BTreeMap::new();
    let found = fixture.store.unfinished_changes(&known).await.unwrap();
    known.extend(found.changed.iter().map(|(generation, run)| (run.id, *generation)));
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [first, second]);
    let found = fixture.store.unfinished_changes(&known).await.unwrap();
    assert!(found.changed.is_empty() && found.gone.is_empty() && found.unreadable.is_empty());

    fixture.apply(first, RunEvent::Explained { placement: 0, reason: PendingReason::NoAgent }).await.unwrap();
    let third = fixture.accept().await.run.id;
    let found = fixture.store.unfinished_changes(&known).await.unwrap();
    let changed: Vec<_> = found.changed.iter().map(|(generation, run)| (run.id, *generation)).collect();
    assert_eq!(changed, [(first, known[&first] + 1), (third, 1)]);
    assert_eq!(found.changed[0].1.pending_reason(), Some(&PendingReason::NoAgent));

    known.extend(changed);
    let by = principal("alice");
    fixture.apply(second, RunEvent::CancelRequested { by }).await.unwrap();
    fixture
        .store
        .write(async move |mut tx| {
            let sql = "UPDATE runs SET state = '{}', generation = generation + 1 WHERE number = ?1";
            let done = sqlx::query(sql).bind(third.number().cast_signed()).execute(&mut *tx).await;
            assert_eq!(done.unwrap().rows_affected(), 1);
            Ok::<_, cooper_ports::store_error::StoreError>(())
        })
        .await
        .unwrap();
    let found = fixture.store.unfinished_changes(&known).await.unwrap();
    assert_eq!(found.gone, [second]);
    let unreadable: Vec<_> = found.unreadable.iter().map(|(run, generation, _)| (*run, *generation)).collect();
    assert_eq!(unreadable, [(third, 2)]);
    assert!(found.changed.is_empty());
}

#[tokio::test]
async fn a_bad_row_keeps_no_agent_from_its_other_runs() {
    let fixture = Fixture::new().await;
    let good = fixture.accept().await.run.id;
    let bad = fixture.accept().await.run.id;
    for run in [good, bad] {
        fixture.apply(run, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap();
    }
    fixture
        .store
        .write(async move |mut tx| {
            let sql = "UPDATE runs SET state = '{}' WHERE number = ?1";
            sqlx::query(sql).bind(bad.number().cast_signed()).execute(&mut *tx).await.unwrap();
            Ok::<_, cooper_ports::store_error::StoreError>(())
        })
        .await
        .unwrap();
    let runs = fixture.store.runs_of_agent(&agent().name).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [good]);
}

#[tokio::test]
async fn texts_of_requests_are_dropped_when_their_time_is_over() {
    const HOUR: Duration = Duration::from_secs(3600);
    let fixture = Fixture::new().await;
    let text = "steps:\n  - {id: one, cmd: busybox true}\n";
    let accept = async || {
        let request = TaskRequest {
            file: TaskText::Given { name: "acr-task.yaml".to_owned(), text: text.to_owned() },
            fallbacks: Vec::new(),
            values: None,
            set: Vec::new(),
            alias_files: BTreeMap::new(),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        };
        let source = TaskSource::Here { context: None, fetched: Fetched::default() };
        let mut new = quick_build("alice", "none");
        new.run.asked = Asked::Task(Box::new(AskedTask { request, source }));
        fixture.store.accept_run(new).await.unwrap().record.run.id
    };
    let (one, two) = (accept().await, accept().await);
    let cancel = async |run| fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    cancel(one).await;
    fixture.clock.advance(HOUR);
    let texts = async |run| {
        let stored = fixture.store.find_request(run).await.unwrap().unwrap();
        // What it was is known as long as the run is.
        assert_eq!(stored.digests[0].digest, Digest::sha256(text.as_bytes()));
        assert!(!serde_json::to_string(&stored.request).unwrap().contains("busybox"));
        assert_eq!(stored.has_texts(), stored.texts.0.len() == 1);
        stored.texts.0.len()
    };
    let dropped = async |kept| fixture.store.drop_request_texts(kept, 10).await.unwrap();
    assert_eq!((dropped(2 * HOUR).await, texts(one).await), (0, 1), "it is kept for as long as that");
    assert_eq!((dropped(HOUR).await, texts(one).await), (1, 0));
    assert_eq!((dropped(Duration::ZERO).await, texts(two).await), (0, 1), "its run has not ended");
    cancel(two).await;
    assert_eq!((dropped(Duration::MAX).await, texts(two).await), (0, 1));
    assert_eq!((dropped(Duration::ZERO).await, texts(two).await), (1, 0));
}

#[tokio::test]
async fn a_run_has_a_generation_until_it_ends() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    let generation = async |run| fixture.store.unfinished_generation(run).await.unwrap();
    assert_eq!(generation(RunId::from_number(1)).await, None);
    let run = fixture.store.accept_run(quick_build("alice", "source")).await.unwrap().record.run.id;
    assert_eq!(generation(run).await, Some(1));
    fixture.apply(run, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap();
    assert_eq!(generation(run).await, Some(2));
    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    assert_eq!(generation(run).await, None);
}
