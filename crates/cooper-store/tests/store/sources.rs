//! Sources that agents fetch: snapshots are taken from live attempts alone, and planning is one with the result.

use std::time::Duration;

use cooper_engine::message::{PreparedSource, StepOutput, StepResult};
use cooper_engine::run::{RunEvent, RunStatus};
use cooper_ports::contexts::{ContextState, ContextStore, SnapshotError};
use cooper_ports::credentials::{HostCredential, NewSourceCredential, SourceCredentialStore, UsableBy};
use cooper_ports::runs::{AcceptRun, ApplyError, AttemptError, RunStore};
use cooper_spec::plan::{BuildContext, Work};
use cooper_spec::quick_build::BuildSource;
use cooper_spec::source::GitSource;
use cooper_types::{AttemptNumber, Digest, SourceHost};

use crate::fixture::{Fixture, Started, build_of, context, principal, quick_build};

/// A request whose source is to be fetched.
fn from_git(owner: &str) -> AcceptRun {
    let mut request = quick_build(owner, "none");
    *build_of(&mut request).1 =
        BuildSource::Remote(GitSource::parse("https://git.example/app.git#main").unwrap().into());
    request
}

fn prepared(started: Started, id: &str) -> RunEvent {
    prepared_as(started, id, Digest::sha256(b"archive"), 7)
}

fn prepared_as(started: Started, id: &str, digest: Digest, size: u64) -> RunEvent {
    let found = PreparedSource {
        commit: Some("a".repeat(40)),
        branch: Some("main".to_owned()),
        tag: None,
        context: context(id),
        digest,
        size,
        dockerfile: None,
        pinned: None,
        definition: None,
        files: Vec::new(),
    };
    let result = StepResult::Succeeded { output: StepOutput::Prepared(found) };
    RunEvent::StepEnded { fence: started.fence, attempt: started.attempt, result }
}

async fn uploaded(fixture: &Fixture, started: Started, id: &str) {
    let (store, digest) = (&fixture.store, Digest::sha256(b"archive"));
    store.create_snapshot(context(id), started.run, started.attempt).await.unwrap();
    store.mark_snapshot(&context(id), started.run, started.attempt, 7, &digest).await.unwrap();
}

#[tokio::test]
async fn planning_is_one_with_the_result_and_survives_a_crash() {
    let mut fixture = Fixture::new().await;
    let started = fixture.start_of(from_git("alice")).await;
    // Only what this attempt uploaded will do.
    let refused = fixture.apply(started.run, prepared(started, "snapshot")).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUploaded { .. }), "{refused}");
    fixture.store.create_snapshot(context("snapshot"), started.run, started.attempt).await.unwrap();
    let refused = fixture.apply(started.run, prepared(started, "snapshot")).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUploaded { .. }), "its bytes are not there");
    let other = fixture.start_of(from_git("alice")).await;
    uploaded(&fixture, other, "others").await;
    let refused = fixture.apply(started.run, prepared(started, "others")).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUploaded { .. }), "it is another run's");

    // Nothing is left of the refusals, after a crash either: the result can be said again.
    fixture.reopen().await;
    let record = fixture.store.find_run(started.run).await.unwrap().unwrap();
    assert_eq!((record.run.plan.steps.len(), record.run.losses.len()), (1, 0));
    uploaded(&fixture, started, "again").await;
    for (digest, size) in [(Digest::sha256(b"other"), 7), (Digest::sha256(b"archive"), u64::MAX)] {
        let refused = fixture.apply(started.run, prepared_as(started, "again", digest, size)).await.unwrap_err();
        assert!(matches!(refused, ApplyError::NotUploaded { .. }), "what was uploaded is something else: {refused}");
    }
    fixture.apply(started.run, prepared(started, "again")).await.unwrap();
    fixture.reopen().await;
    let record = fixture.store.find_run(started.run).await.unwrap().unwrap();
    assert_eq!(record.run.plan.steps.len(), 3);
    assert!(
        matches!(&record.run.plan.steps[1].work, Work::Build(build) if build.context == BuildContext::Uploaded(context("again")))
    );
    let of_run = fixture.store.context_of_run(started.run).await.unwrap().unwrap();
    assert_eq!((of_run.id, of_run.principal), (context("again"), principal("alice")));
    assert_eq!(of_run.state, ContextState::Uploaded { size: 7, digest: Digest::sha256(b"archive") });
    // Said once more, it changes nothing.
    assert!(matches!(fixture.apply(started.run, prepared(started, "again")).await, Err(ApplyError::Refused { .. })));
}

#[tokio::test]
async fn snapshots_are_kept_for_live_attempts_and_unfinished_runs() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let started = fixture.start_of(from_git("alice")).await;
    store.create_snapshot(context("first"), started.run, started.attempt).await.unwrap();
    assert!(store.expire_contexts(Duration::ZERO, 10).await.unwrap().is_empty(), "the attempt is live");
    let waits = async |id: &str| store.snapshot_waits(&context(id), started.run, started.attempt).await.unwrap();
    assert!(waits("first").await);
    uploaded(&fixture, started, "second").await;
    assert!(!waits("first").await, "it was given up");
    assert!(!waits("second").await, "it has its bytes");
    let gone = store.expire_contexts(Duration::ZERO, 10).await.unwrap();
    assert_eq!(gone, [context("first")], "an attempt has one");
    store.forget_contexts(&gone).await.unwrap();
    let digest = Digest::sha256(b"archive");
    let refused = store.mark_snapshot(&context("first"), started.run, started.attempt, 7, &digest).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::Replaced(_)));

    // Nobody starts another run from it, nor uploads another in its place.
    assert!(store.find_context(&context("second"), &principal("alice")).await.unwrap().is_none());
    let mut request = quick_build("alice", "second");
    *build_of(&mut request).1 = BuildSource::Context(context("second"));
    assert!(store.accept_run(request).await.is_err());

    fixture.apply(started.run, prepared(started, "second")).await.unwrap();
    fixture.clock.advance(Duration::from_secs(3600));
    assert!(store.expire_contexts(Duration::ZERO, 10).await.unwrap().is_empty(), "the run needs it");
    let refused = store.create_snapshot(context("late"), started.run, started.attempt).await.unwrap_err();
    assert!(matches!(refused, SnapshotError::NotLive { .. }));
    fixture.apply(started.run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let record = store.find_run(started.run).await.unwrap().unwrap();
    assert_eq!(record.run.status(), RunStatus::Canceled);
    assert_eq!(store.expire_contexts(Duration::ZERO, 10).await.unwrap(), [context("second")]);
}

#[tokio::test]
async fn what_a_lost_attempt_uploaded_is_removed() {
    let fixture = Fixture::new().await;
    let started = fixture.start_of(from_git("alice")).await;
    uploaded(&fixture, started, "lost").await;
    fixture.store.create_snapshot(context("next"), started.run, started.attempt).await.unwrap();
    let waits = async || fixture.store.snapshot_waits(&context("next"), started.run, started.attempt).await.unwrap();
    assert!(waits().await);
    let lost = StepResult::Lost { reason: "r".to_owned() };
    let event = RunEvent::StepEnded { fence: started.fence, attempt: started.attempt, result: lost };
    fixture.apply(started.run, event).await.unwrap();
    assert!(!waits().await);
    let gone = fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap();
    assert!(gone.len() == 2 && gone.contains(&context("lost")), "{gone:?}");
}

#[tokio::test]
async fn credentials_are_for_live_attempts_of_whom_they_are_for() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let host = |text: &str| SourceHost::parse(text).unwrap();
    let new = |text: &str, sealed: &[u8], usable_by| NewSourceCredential {
        host: host(text),
        username: "bot".to_owned(),
        sealed: sealed.to_vec(),
        usable_by,
        set_by: principal("admin"),
    };
    let alices = || UsableBy::Principals([principal("alice")].into());
    store.put_credential(new("git.example", b"old", UsableBy::Everybody)).await.unwrap();
    store.put_credential(new("git.example", b"one", alices())).await.unwrap();
    store.put_credential(new("other.example:8443", b"two", UsableBy::Everybody)).await.unwrap();
    let listed = store.list_credentials().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|one| (one.host, one.usable_by)).collect();
    assert_eq!(
        listed,
        [(host("git.example"), alices()), (host("other.example:8443"), UsableBy::Everybody)],
        "the newer one is in the older one's place"
    );

    let kept = async |of: &str, text: &str| {
        let found = store.credential_of(&principal(of), &host(text)).await.unwrap();
        found.map(|found| (String::from_utf8(found.sealed).unwrap(), found.username))
    };
    let of = |sealed: &str| Some((sealed.to_owned(), "bot".to_owned()));
    assert_eq!((kept("alice", "git.example").await, kept("bob", "git.example").await), (of("one"), None));
    assert_eq!(kept("bob", "other.example:8443").await, of("two"));

    let (alice, bob) = (fixture.start_of(from_git("alice")).await, fixture.start_of(from_git("bob")).await);
    let given = async |of: Started, text: &str| {
        let found = store.credential_for(of.run, of.attempt, &host(text)).await.unwrap();
        match found {
            HostCredential::Usable(found) => String::from_utf8(found.sealed).unwrap(),
            HostCredential::ForOthers => "for others".to_owned(),
            HostCredential::Nothing => "nothing".to_owned(),
        }
    };
    assert_eq!(given(alice, "git.example").await, "one");
    assert_eq!(given(bob, "git.example").await, "for others");
    assert_eq!(given(bob, "other.example:8443").await, "two");
    assert_eq!(given(alice, "other.example").await, "nothing", "another port is another host");
    let over = store.credential_for(alice.run, AttemptNumber(99), &host("git.example")).await.unwrap_err();
    assert!(matches!(over, AttemptError::NotLive { .. }));

    assert!(store.delete_credential(&host("git.example")).await.unwrap());
    assert!(!store.delete_credential(&host("git.example")).await.unwrap());
    assert_eq!(given(alice, "git.example").await, "nothing");
}
