//! Accepted is durable: a process that accepts runs is killed again and again, and nothing it acknowledged is missing.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cooper_ports::logs::{LogStore, NewFrame};
use cooper_ports::runs::RunStore;
use cooper_types::{RunId, Timestamp};

use crate::fixture::{open, quick_build, upload};

/// Where the child process finds its data directory; absent in an ordinary run of the tests.
const DIRECTORY: &str = "COOPER_CRASH_TEST_DIRECTORY";

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged: Vec<RunId> = Vec::new();
    for kill_after in [1, 7, 40, 23, 90] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_accepts_until_it_is_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // Lines after the kill were acknowledged before it: they count as well.
            let Some(id) = line.unwrap().strip_prefix("accepted ").map(|id| RunId::parse(id).unwrap()) else {
                continue;
            };
            acknowledged.push(id);
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= kill_after, "the child ended by itself");

        runtime.block_on(async {
            let store = open(directory.path()).await.unwrap();
            for id in &acknowledged {
                assert!(store.find_run(*id).await.unwrap().is_some(), "run {id} is gone");
                let text = store.read_text(*id, 0, usize::MAX).await.unwrap();
                assert_eq!(String::from_utf8(text.data).unwrap(), format!("log of {id}\n"));
            }
            let mut connection = store.readers().acquire().await.unwrap();
            let sound: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut *connection).await.unwrap();
            assert_eq!(sound, "ok");
            drop(connection);
            store.close().await.unwrap();
        });
    }
    let mut distinct = acknowledged.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), acknowledged.len(), "a number was given twice");
}

/// The other process of the test above; by itself it does nothing.
#[test]
fn child_accepts_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "the test harness leaves a child no other argument")]
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = open(&directory).await.unwrap();
        upload(&store, "alice", "source").await;
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    loop {
                        let id = store.accept_run(quick_build("alice", "source")).await.unwrap().record.run.id;
                        let line = NewFrame::service(Timestamp::from_micros(0), &format!("log of {id}"));
                        store.append_service_frames(id, vec![line]).await.unwrap();
                        // One write: a line is whole or not there.
                        std::io::stdout().write_all(format!("accepted {id}\n").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        // Workers never end by themselves; one that panics ends the child, and the parent sees that.
        futures::future::select_all(workers).await.0.unwrap()
    });
}
