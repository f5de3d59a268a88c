//! Opening: the lock, permissions, schema versions and the clock's start.

use std::os::unix::fs::PermissionsExt;

use cooper_ports::store_error::StoreError;
use cooper_store::{LockError, MigrationError, OpenError};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::fixture::{Fixture, chain, open};

#[tokio::test]
async fn the_directory_is_private_and_taken_once() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let store = open(&directory).await.unwrap();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let refused = open(&directory).await.err().unwrap();
    assert!(matches!(&refused, OpenError::Lock(LockError::InUse(path)) if *path == directory), "{refused}");
    assert!(refused.to_string().contains(directory.to_str().unwrap()));
    store.close().await.unwrap();
    open(&directory).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_directory_of_others_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let (shared, empty) = (parent.path().join("shared"), parent.path().join("empty"));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for directory in [&shared, &empty] {
        std::fs::create_dir(directory).unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(shared.join("theirs"), "").unwrap();
    let refused = open(&shared).await.err().unwrap();
    assert!(matches!(&refused, OpenError::Lock(LockError::Shared(path)) if *path == shared), "{refused}");
    assert_eq!(mode(&shared), 0o755);

    open(&empty).await.unwrap().close().await.unwrap();
    assert_eq!(mode(&empty), 0o700);
    assert_eq!(mode(&empty.join("cooper.db")), 0o600);
    // Opened up later, it is still ours, and is closed again.
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o755)).unwrap();
    open(&empty).await.unwrap().close().await.unwrap();
    assert_eq!(mode(&empty), 0o700);
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("file");
    std::fs::write(&path, "").unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(chain(&refused).contains(path.to_str().unwrap()), "{}", chain(&refused));
}

#[tokio::test]
async fn a_newer_or_changed_schema_is_refused() {
    let fixture = Fixture::new().await;
    fixture.store.close().await.unwrap();
    let path = fixture.directory.path();
    let edit = async |sql: &'static str| {
        let database = SqliteConnectOptions::new().filename(path.join("cooper.db"));
        sqlx::raw_sql(sql).execute(&mut database.connect().await.unwrap()).await.unwrap();
    };

    edit("INSERT INTO schema_migrations VALUES (9999, 'from the future', '', 0)").await;
    let refused = open(path).await.err().unwrap();
    assert!(
        matches!(refused, OpenError::Migration { source: MigrationError::Newer { found: 9999, .. }, .. }),
        "{}",
        chain(&refused)
    );

    edit("DELETE FROM schema_migrations WHERE version = 9999; UPDATE schema_migrations SET checksum = 'other'").await;
    let refused = open(path).await.err().unwrap();
    assert!(matches!(refused, OpenError::Migration { source: MigrationError::Changed { version: 1 }, .. }));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cooper.db"), "x".repeat(8192)).unwrap();
    let refused = open(directory.path()).await.err().unwrap();
    assert!(chain(&refused).contains("cooper.db"), "{}", chain(&refused));
}

#[tokio::test]
async fn the_clock_never_starts_before_a_commit() {
    let fixture = Fixture::new().await;
    let ahead = std::time::Duration::from_secs(100 * 365 * 24 * 3600);
    fixture.clock.advance(ahead);
    let newest = fixture.store.clock().now();
    fixture.store.write(async |_tx| Ok::<_, StoreError>(())).await.unwrap();
    fixture.store.close().await.unwrap();
    let store = open(fixture.directory.path()).await.unwrap();
    assert!(store.clock().now() >= newest);
    store.close().await.unwrap();
}

#[tokio::test]
async fn commits_are_synced_and_references_are_checked() {
    let fixture = Fixture::new().await;
    let pragmas = fixture.store.write(async |mut tx| {
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *tx).await.unwrap();
        let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *tx).await.unwrap();
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *tx).await.unwrap();
        Ok::<_, StoreError>((synchronous, foreign_keys, journal))
    });
    // 2 is FULL: without it a commit is in the log of the operating system only.
    assert_eq!(pragmas.await.unwrap(), (2, 1, "wal".to_owned()));
}

#[tokio::test]
async fn readers_cannot_write() {
    let fixture = Fixture::new().await;
    let written = sqlx::query("UPDATE registries SET run_counter = 7").execute(fixture.store.readers()).await;
    assert!(written.unwrap_err().to_string().contains("readonly"));
}
