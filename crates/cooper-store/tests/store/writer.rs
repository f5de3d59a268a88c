//! The writer: groups, savepoints, callers that go away, and a disk that is full.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cooper_ports::store_error::StoreError;
use cooper_store::Store;
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::fixture::{Fixture, open};

/// A refusal of the change itself, beside failures of the store.
#[derive(Debug, PartialEq)]
enum Refused {
    ByChange,
    ByStore(String),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::ByStore(error.to_string())
    }
}

async fn insert(store: &Store, name: &str, refuse: bool) -> Result<(), Refused> {
    let name = name.to_owned();
    store
        .write(async move |mut tx| {
            sqlx::query("INSERT INTO principals (registry_id, name, created) VALUES (1, ?1, 0)")
                .bind(name)
                .execute(&mut *tx)
                .await
                .map_err(|error| Refused::ByStore(error.to_string()))?;
            if refuse { Err(Refused::ByChange) } else { Ok(()) }
        })
        .await
}

/// A change that the writer is at, and stays at until it is released.
struct Held {
    release: Arc<Notify>,
    change: JoinHandle<Result<(), StoreError>>,
}

impl Held {
    async fn begin(store: &Store) -> Self {
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (store, begun, until) = (store.clone(), entered.clone(), release.clone());
        let change = tokio::spawn(async move {
            store
                .write(async move |_tx| {
                    begun.notify_one();
                    until.notified().await;
                    Ok::<_, StoreError>(())
                })
                .await
        });
        entered.notified().await;
        Self { release, change }
    }

    async fn release(self) -> Result<(), StoreError> {
        self.release.notify_one();
        self.change.await.unwrap()
    }
}

async fn names(store: &Store) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM principals ORDER BY name").fetch_all(store.readers()).await.unwrap()
}

#[tokio::test]
async fn concurrent_changes_share_commits() {
    let fixture = Fixture::new().await;
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = fixture.store.clone();
            tokio::spawn(async move { insert(&store, &format!("p{n:03}"), false).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let counts = fixture.store.writer_counts();
    assert_eq!(counts.changes, 200);
    assert!(counts.commits < 100, "{counts:?}");
    assert_eq!(names(&fixture.store).await.len(), 200);
}

#[tokio::test]
async fn a_failing_change_is_rolled_back_alone() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    // Held back by the first change, the others are queued in this order and make one group with it.
    let held = Held::begin(store).await;
    let commits = store.writer_counts().commits;
    let (before, refused, panicked, duplicate, after, held) = tokio::join!(
        biased;
        insert(store, "before", false),
        insert(store, "refused", true),
        store.write(async move |mut tx| {
            let sql = "INSERT INTO principals (registry_id, name, created) VALUES (1, 'panicked', 0)";
            sqlx::query(sql).execute(&mut *tx).await.unwrap();
            if true {
                panic!("a fault of ours")
            }
            Ok::<_, StoreError>(())
        }),
        insert(store, "before", false),
        insert(store, "after", false),
        held.release(),
    );
    held.unwrap();
    before.unwrap();
    assert_eq!(refused, Err(Refused::ByChange));
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    assert!(matches!(duplicate, Err(Refused::ByStore(text)) if text.contains("UNIQUE")));
    after.unwrap();
    assert_eq!(names(store).await, ["after", "before"]);
    assert_eq!(store.writer_counts().commits, commits + 1);
}

#[tokio::test]
async fn the_impatient_go_first_and_keep_nobody_out() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let held = Held::begin(store).await;
    let said = Arc::new(std::sync::Mutex::new(String::new()));
    let say = |name: char| {
        let said = said.clone();
        async move |_tx| {
            said.lock().unwrap().push(name);
            Ok::<_, StoreError>(())
        }
    };
    // Queued in this order behind the one that is held.
    let patient = async { tokio::join!(biased; store.write(say('a')), store.write(say('b')), store.write(say('c'))) };
    let impatient = async { tokio::join!(biased; store.write_soon(say('1')), store.write_soon(say('2'))) };
    let (patient, impatient, held) = tokio::join!(biased; patient, impatient, held.release());
    held.unwrap();
    assert!(patient.0.is_ok() && patient.1.is_ok() && patient.2.is_ok() && impatient.0.is_ok() && impatient.1.is_ok());
    assert_eq!(*said.lock().unwrap(), "12abc");

    // However many there are, a group has room for others.
    let held = Held::begin(store).await;
    said.lock().unwrap().clear();
    let many = async { join_all((0..40).map(|_| store.write_soon(say('1')))).await };
    let (patient, many, held) = tokio::join!(biased; store.write(say('a')), many, held.release());
    held.unwrap();
    assert!(patient.is_ok() && many.iter().all(Result::is_ok));
    assert_eq!(*said.lock().unwrap(), format!("{}a{}", "1".repeat(32), "1".repeat(8)));
}

#[tokio::test]
async fn a_group_that_takes_long_lets_nobody_in() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let commits = store.writer_counts().commits;
    let held = Held::begin(store).await;
    let slow = {
        let clock = fixture.clock.clone();
        async move |mut tx: cooper_store::Tx| {
            sqlx::query("INSERT INTO principals (registry_id, name, created) VALUES (1, 'slow', 0)")
                .execute(&mut *tx)
                .await
                .unwrap();
            clock.advance(std::time::Duration::from_millis(20));
            Ok::<_, StoreError>(())
        }
    };
    let changes =
        async { tokio::join!(biased; store.write(slow), insert(store, "p1", false), insert(store, "p2", false)) };
    let (changes, held) = tokio::join!(biased; changes, held.release());
    held.unwrap();
    assert!(changes.0.is_ok() && changes.1.is_ok() && changes.2.is_ok());
    // The slow one in the first group, and those behind it in the next.
    assert_eq!(store.writer_counts().commits, commits + 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_tears_nothing() {
    let fixture = Fixture::new().await;
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let caller = {
        let (store, entered, release) = (fixture.store.clone(), entered.clone(), release.clone());
        tokio::spawn(async move {
            store
                .write(async move |mut tx| {
                    for name in ["one", "two"] {
                        sqlx::query("INSERT INTO principals (registry_id, name, created) VALUES (1, ?1, 0)")
                            .bind(name)
                            .execute(&mut *tx)
                            .await
                            .unwrap();
                        entered.notify_one();
                        release.notified().await;
                    }
                    Ok::<_, StoreError>(())
                })
                .await
        })
    };
    entered.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    release.notify_one();
    entered.notified().await;
    release.notify_one();
    insert(&fixture.store, "three", false).await.unwrap();
    assert_eq!(names(&fixture.store).await, ["one", "three", "two"]);
}

#[tokio::test]
async fn close_finishes_what_is_queued_and_refuses_the_rest() {
    let mut fixture = Fixture::new().await;
    let store = fixture.store.clone();
    let (inserted, closed) = tokio::join!(insert(&store, "queued", false), store.close());
    inserted.unwrap();
    closed.unwrap();
    assert_eq!(insert(&store, "late", false).await, Err(Refused::ByStore(StoreError::Closed.to_string())));
    store.close().await.unwrap();
    fixture.reopen().await;
    assert_eq!(names(&fixture.store).await, ["queued"]);
}

#[tokio::test]
async fn readers_without_a_pause_do_not_keep_the_log_growing() {
    let fixture = Fixture::new().await;
    let readers = fixture.store.readers().clone();
    let reading = tokio::spawn(async move {
        let begin = async || {
            let mut tx = readers.begin().await.unwrap();
            sqlx::query("SELECT 1 FROM principals").fetch_optional(&mut *tx).await.unwrap();
            tx
        };
        // At each moment somebody reads.
        let mut current = begin().await;
        loop {
            let next = begin().await;
            current.rollback().await.unwrap();
            current = next;
        }
    });
    let log = fixture.directory.path().join("cooper.db-wal");
    let mut longest = 0;
    for n in 0..120 {
        insert(&fixture.store, &format!("p{n:03}{}", "x".repeat(1 << 20)), false).await.unwrap();
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    reading.abort();
    // A moment without readers is tried for each 8 MiB, and not always had on a busy machine.
    assert!(longest < 88 << 20, "the log has grown to {longest} bytes");
    assert_eq!(fixture.count("SELECT count(*) FROM principals").await, 120);
}

#[tokio::test]
async fn the_log_is_copied_while_changes_go_on() {
    let fixture = Fixture::new().await;
    let database = fixture.directory.path().join("cooper.db");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    let mut bytes = 0;
    // Far below the length at which the log would be emptied by force: what is in the database got there beside the changes.
    while std::fs::metadata(&database).unwrap().len() < 4 << 20 {
        assert!(std::time::Instant::now() < deadline && bytes < 30 << 20, "nothing was copied");
        insert(&fixture.store, &format!("p{bytes:09}{}", "x".repeat(256 << 10)), false).await.unwrap();
        bytes += 256 << 10;
    }
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "cooper-test"])
            .arg(directory.path())
            .status()
            .expect("this test mounts a small file system: run it as root");
        assert!(status.success(), "this test mounts a small file system: run it as root");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a failed test still holds files there.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_group_that_changes_nothing_is_not_committed() {
    let fixture = Fixture::new().await;
    insert(&fixture.store, "one", false).await.unwrap();
    let commits = fixture.store.writer_counts().commits;
    assert_eq!(insert(&fixture.store, "two", true).await, Err(Refused::ByChange));
    let again = "INSERT INTO principals (registry_id, name, created) VALUES (1, 'one', 0) ON CONFLICT DO NOTHING";
    fixture
        .store
        .write(async move |mut tx| {
            sqlx::query(again).execute(&mut *tx).await.unwrap();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    // The refused change counts as a write, which costs a commit at most.
    assert!(fixture.store.writer_counts().commits <= commits + 1);
    insert(&fixture.store, "three", false).await.unwrap();
    assert_eq!(names(&fixture.store).await, ["one", "three"]);
}

#[tokio::test]
async fn a_disk_without_any_room_is_an_error_that_names_the_database() {
    let disk = SmallDisk::mount("64k");
    let refused = open(&disk.data()).await.err().unwrap();
    let text = crate::fixture::chain(&refused);
    assert!(text.contains("cooper.db") && (text.contains("full") || text.contains("I/O")), "{text}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let disk = SmallDisk::mount("2m");
    let store = open(&disk.data()).await.unwrap();
    let ballast = disk.path().join("ballast");
    let mut acknowledged = Vec::new();
    insert(&store, "first", false).await.unwrap();
    acknowledged.push("first".to_owned());

    // Fills what is left; the last write is a short one.
    let filled = std::fs::write(&ballast, vec![1; 4 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let mut refused = 0;
    let mut errors = Vec::new();
    for n in 0..200 {
        let name = format!("full{n:03}");
        let padding = "x".repeat(20_000);
        let result = store
            .write(async move |mut tx| {
                sqlx::query("INSERT INTO principals (registry_id, name, created) VALUES (1, ?1 || ?2, 0)")
                    .bind(name)
                    .bind(padding)
                    .execute(&mut *tx)
                    .await
                    .map(drop)
                    .map_err(|error| StoreError::database("insert", error))
            })
            .await;
        match result {
            Ok(()) => acknowledged.push(format!("full{n:03}")),
            Err(StoreError::StorageFull { .. }) => refused += 1,
            Err(error) => panic!("{}", crate::fixture::chain(&error)),
        }
    }
    assert!(refused > 100, "{refused}");
    // A whole group is refused together, whoever met the end of the disk; changes larger than SQLite's cache meet it
    // before the commit does.
    for (round, sizes) in [[50_000, 50_000], [3_000_000, 3_000_000], [100, 3_000_000]].into_iter().enumerate() {
        let group = (0..20).map(|n| {
            let (store, name) = (store.clone(), format!("group{round}{n:02}{}", "x".repeat(sizes[n % 2])));
            tokio::spawn(async move { insert(&store, &name, false).await })
        });
        for (n, task) in group.collect::<Vec<_>>().into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(()) => acknowledged.push(format!("group{round}{n:02}")),
                Err(error) => errors.push(error),
            }
        }
    }
    assert!(errors.len() > 40, "{errors:?}");
    for error in errors {
        assert!(
            matches!(&error, Refused::ByStore(text) if text.contains("full") || text.contains("no space")),
            "{error:?}"
        );
    }

    std::fs::remove_file(&ballast).unwrap();
    insert(&store, "last", false).await.unwrap();
    acknowledged.push("last".to_owned());
    store.close().await.unwrap();
    let store = open(&disk.data()).await.unwrap();
    let kept: Vec<String> = names(&store).await.iter().map(|name| name.trim_end_matches('x').to_owned()).collect();
    acknowledged.sort();
    assert_eq!(kept, acknowledged);
    store.close().await.unwrap();
}
