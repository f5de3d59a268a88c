//! Conformance of the port for uploaded contexts.

use std::time::Duration;

use cooper_engine::run::RunEvent;
use cooper_ports::clock::Clock;
use cooper_ports::contexts::{ContextState, ContextStore, UploadContextError};
use cooper_ports::runs::{AcceptError, AcceptRun, RunStore};
use cooper_types::{Digest, RunId};

use crate::fixture::{Fixture, context, principal, quick_build, upload};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_context_is_its_principals_alone() {
    let fixture = Fixture::new().await;
    let (store, id, alice, bob) = (&fixture.store, context("c1"), principal("alice"), principal("bob"));
    let made = store.create_context(id.clone(), alice.clone(), fixture.clock.now().after(HOUR)).await.unwrap();
    assert_eq!(made.state, ContextState::Created);
    assert_eq!(store.find_context(&id, &alice).await.unwrap(), Some(made));
    assert_eq!(store.find_context(&id, &bob).await.unwrap(), None);
    let digest = Digest::sha256(b"bytes");
    let refused = store.mark_uploaded(&id, &bob, 5, &digest).await.unwrap_err();
    assert!(matches!(refused, UploadContextError::Unknown(_)));
    let uploaded = store.mark_uploaded(&id, &alice, 5, &digest).await.unwrap();
    assert_eq!(uploaded.state, ContextState::Uploaded { size: 5, digest: digest.clone() });
    assert_eq!(store.find_context(&id, &alice).await.unwrap(), Some(uploaded.clone()));
    // A repeat is not an error; another content is.
    assert_eq!(store.mark_uploaded(&id, &alice, 5, &digest).await.unwrap(), uploaded);
    let refused = store.mark_uploaded(&id, &alice, 6, &Digest::sha256(b"other")).await.unwrap_err();
    assert!(matches!(refused, UploadContextError::Uploaded(_)));
}

#[tokio::test]
async fn an_expired_context_takes_no_bytes() {
    let fixture = Fixture::new().await;
    let (id, alice) = (context("c1"), principal("alice"));
    fixture.store.create_context(id.clone(), alice.clone(), fixture.clock.now().after(HOUR)).await.unwrap();
    fixture.clock.advance(HOUR);
    let refused = fixture.store.mark_uploaded(&id, &alice, 5, &Digest::sha256(b"")).await.unwrap_err();
    assert!(matches!(refused, UploadContextError::Expired(_)));
}

#[tokio::test]
async fn expiry_spares_what_an_unfinished_run_needs_and_survives_a_crash() {
    let mut fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "used").await;
    upload(&fixture.store, "alice", "unused").await;
    let run = fixture.store.accept_run(quick_build("alice", "used")).await.unwrap().record.run.id;
    assert!(fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap().is_empty());
    fixture.clock.advance(2 * HOUR);
    let needed = fixture.store.context_of_run(run).await.unwrap().unwrap();
    assert_eq!(needed.id, context("used"));
    assert_eq!(fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap(), [context("unused")]);
    assert_eq!(fixture.store.find_context(&context("unused"), &principal("alice")).await.unwrap(), None);

    // Who finds bytes of a context asks whether anybody knows of it.
    let asked = ["used", "unused", "never"].map(context).to_vec();
    assert_eq!(fixture.store.unknown_contexts(asked).await.unwrap(), [context("never")]);

    // The bytes were not removed before the crash: the id comes back until it is forgotten.
    fixture.reopen().await;
    assert_eq!(fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap(), [context("unused")]);
    fixture.store.forget_contexts(&[context("unused"), context("used")]).await.unwrap();
    assert!(fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap().is_empty());

    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    assert_eq!(fixture.store.context_of_run(run).await.unwrap(), None);
    assert_eq!(fixture.store.expire_contexts(Duration::ZERO, 10).await.unwrap(), [context("used")]);
}

#[tokio::test]
async fn contexts_outlive_their_runs_for_whoever_repeats_those() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "used").await;
    let run = fixture.store.accept_run(quick_build("alice", "used")).await.unwrap().record.run.id;
    fixture.clock.advance(2 * HOUR);
    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    assert!(fixture.store.expire_contexts(HOUR, 10).await.unwrap().is_empty());
    let stored = fixture.store.find_request(run).await.unwrap().unwrap();
    assert_eq!(stored.context, Some(context("used")));

    // It has expired, so it is there for this run's principal alone, who says which run it is of.
    let plain = quick_build("alice", "used");
    fixture.store.accept_run(plain.clone()).await.unwrap_err();
    let again = AcceptRun { context_of: Some(run), ..plain };
    let other = AcceptRun { context_of: Some(RunId::from_number(99)), ..again.clone() };
    let bobs = AcceptRun { context_of: Some(run), ..quick_build("bob", "used") };
    for refused in [other, bobs] {
        assert!(matches!(fixture.store.accept_run(refused).await.unwrap_err(), AcceptError::UnknownContext(_)));
    }
    let again = fixture.store.accept_run(again).await.unwrap().record.run.id;
    fixture.clock.advance(2 * HOUR);
    assert!(fixture.store.expire_contexts(HOUR, 10).await.unwrap().is_empty(), "an unfinished run needs it");
    fixture.apply(again, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    fixture.clock.advance(HOUR);
    assert_eq!(fixture.store.expire_contexts(HOUR, 10).await.unwrap(), [context("used")]);
    let stored = fixture.store.find_request(again).await.unwrap().unwrap();
    assert_eq!((stored.context, stored.uploaded.is_some()), (None, true), "what it was is still known");
}

#[tokio::test]
async fn contexts_of_ended_runs_have_a_bound_in_bytes() {
    let mut fixture = Fixture::new().await;
    // Ten bytes each; the last one waits for its run.
    let mut runs = Vec::new();
    for name in ["c0", "c1", "c2", "c3"] {
        upload(&fixture.store, "alice", name).await;
        runs.push(fixture.store.accept_run(quick_build("alice", name)).await.unwrap().record.run.id);
    }
    upload(&fixture.store, "alice", "for-nobody").await;
    for run in [runs[1], runs[0], runs[2], runs[3]] {
        fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1));
    }
    let again = AcceptRun { context_of: Some(runs[3]), ..quick_build("alice", "c3") };
    fixture.store.accept_run(again).await.unwrap();

    assert!(fixture.store.cut_contexts(30, 10).await.unwrap().is_empty(), "there is room for all");
    assert_eq!(fixture.store.cut_contexts(29, 10).await.unwrap(), [context("c1")], "its run ended first");
    assert!(fixture.store.cut_contexts(20, 10).await.unwrap().is_empty(), "what is marked counts no more");
    assert_eq!(fixture.store.find_context(&context("c1"), &principal("alice")).await.unwrap(), None);
    assert_eq!(fixture.store.cut_contexts(0, 1).await.unwrap(), [context("c0")], "one at a time");
    assert_eq!(fixture.store.cut_contexts(0, 10).await.unwrap(), [context("c2")], "a rerun waits with the last");

    // A crash leaves no bytes behind, though the time of keeping is not over.
    fixture.reopen().await;
    let mut left = fixture.store.expire_contexts(HOUR, 10).await.unwrap();
    left.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(left, [context("c0"), context("c1"), context("c2")]);
}

#[tokio::test]
async fn expiry_is_limited() {
    let fixture = Fixture::new().await;
    for n in 0..5 {
        upload(&fixture.store, "alice", &format!("c{n}")).await;
    }
    fixture.clock.advance(2 * HOUR);
    let first = fixture.store.expire_contexts(Duration::ZERO, 3).await.unwrap();
    assert_eq!(first.len(), 3);
    fixture.store.forget_contexts(&first).await.unwrap();
    assert_eq!(fixture.store.expire_contexts(Duration::ZERO, 3).await.unwrap().len(), 2);
}
