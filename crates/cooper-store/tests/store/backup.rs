//! A snapshot beside an open store, and the database that is made of it.

use cooper_engine::run::{Policy, RunEvent};
use cooper_ports::runs::RunStore;
use cooper_store::{Snapshot, SnapshotError};
use cooper_types::ContextId;

use crate::fixture::{Fixture, agent, open_with};

#[tokio::test]
async fn a_snapshot_is_one_moment_of_an_open_store() {
    let fixture = Fixture::new().await;
    let started = fixture.start().await;
    let into = tempfile::tempdir().unwrap();
    let file = into.path().join("copy's.db");
    let mut snapshot = Snapshot::take(fixture.directory.path(), &file).await.unwrap();
    // What happens later is not in it.
    fixture.accept().await;
    assert_eq!(snapshot.unfinished_runs().await.unwrap(), 1);
    let contexts: Vec<ContextId> = snapshot.contexts().await.unwrap().into_iter().map(|it| it.key).collect();
    assert_eq!(contexts, [ContextId::parse("source").unwrap()]);
    assert_eq!(snapshot.blobs(None, 10).await.unwrap(), []);
    assert!(snapshot.schema().await.unwrap() >= 3);
    snapshot.close().await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Served again, no number comes twice.
    let mut snapshot = Snapshot::open(&file).await.unwrap();
    snapshot.skip_numbers().await.unwrap();
    snapshot.close().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::rename(&file, home.path().join("cooper.db")).unwrap();
    let restored = open_with(home.path(), Some(fixture.clock.clone())).await.unwrap();
    let run = restored.find_run(started.run).await.unwrap().unwrap().run;
    assert!(run.last_fence > started.fence && run.last_attempt > started.attempt, "{run:?}");
    // The agent that held the placement lives, and does no more: what it says of its log would not fit this one.
    let replaced = RunEvent::AgentReplaced { agent: agent() };
    let run = restored.apply_event(started.run, replaced, &Policy::DEFAULT).await.unwrap().run;
    assert_eq!(run.losses.len(), 1, "{run:?}");
    restored.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    let taken = Snapshot::take(folder.path(), &file).await;
    assert!(matches!(taken, Err(SnapshotError::Absent(_))));
    std::fs::write(&file, "not a database, and long enough to be looked at as if it were one of them").unwrap();
    assert!(Snapshot::open(&file).await.is_err());

    let fixture = Fixture::new().await;
    std::fs::remove_file(&file).unwrap();
    Snapshot::take(fixture.directory.path(), &file).await.unwrap().close().await.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2 / 4096 * 4096);
    std::fs::write(&file, &bytes).unwrap();
    assert!(Snapshot::open(&file).await.is_err(), "half a database");
}
