//! Keeps the write-ahead log short: copies it into the database beside the writer, who would make everybody wait.
//!
//! Left to itself SQLite copies in the middle of a commit, with two syncs of the disk, and whoever waits for that commit
//! waits for the copy. Here a connection of its own copies while the writer goes on; what came meanwhile is little, and
//! the writer copies that itself, so that the log begins anew.
//!
//! SQLite syncs the database only with the copy that comes to the log's end: that is the writer's. What was copied before
//! it is synced here, beside the writer, so that the writer's sync has little to do.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::task::JoinHandle;

/// How long the write-ahead log may grow in bytes. SQLite begins it anew when it finds a moment without readers; beyond
/// this the writer makes one.
pub(crate) const WAL_LIMIT: u64 = 32 << 20;

/// After how many changes the log is copied: about ten pages each, so some megabytes.
const CHANGES: u64 = 400;
/// After how many bytes that the log has grown by.
const GROWTH: u64 = 8 << 20;

const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The copying, from the writer's side.
pub(crate) struct Checkpoints {
    /// The file of the write-ahead log.
    wal: PathBuf,
    /// The database's file. It stays open until the writer's connections are closed: a process that closes a file loses all
    /// its locks of it. A runtime that is torn down may close it sooner, at the end of a process.
    database: Arc<File>,
    /// The connection that copies, while it does not.
    idle: Option<SqliteConnection>,
    copying: Option<JoinHandle<SqliteConnection>>,
    /// Changes since the last copy began.
    changes: u64,
    /// How long the log was then.
    length: u64,
    /// The length beyond which the log is emptied, readers or not.
    limit: u64,
}

impl Checkpoints {
    /// `connection` is one beside the writer's, `path` the database's file.
    pub(crate) fn new(connection: SqliteConnection, path: &Path) -> io::Result<Self> {
        let database = Arc::new(OpenOptions::new().write(true).open(path)?);
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let (idle, wal) = (Some(connection), wal.into());
        Ok(Self { wal, database, idle, copying: None, changes: 0, length: 0, limit: WAL_LIMIT })
    }

    /// Looks after a group of changes on the writer's connection, between two transactions.
    pub(crate) async fn after_group(&mut self, writer: &mut SqliteConnection, changes: u64) {
        self.changes += changes;
        if self.copying.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish().await;
            // What was written meanwhile: only when all is copied does the log begin anew.
            let _ = sqlx::query(COPY).execute(&mut *writer).await;
        }
        let length = self.log_length();
        if self.changes >= CHANGES || length >= self.length.saturating_add(GROWTH) {
            self.begin(length);
        }
        if length > self.limit {
            self.empty(writer).await;
        }
    }

    /// Lets the copy in progress end, and closes the connection.
    pub(crate) async fn close(&mut self) {
        self.finish().await;
        if let Some(connection) = self.idle.take() {
            // It has nothing of its own to lose.
            let _ = sqlx::Connection::close(connection).await;
        }
    }

    fn begin(&mut self, length: u64) {
        let Some(mut connection) = self.idle.take() else { return };
        (self.changes, self.length) = (0, length);
        let database = Arc::clone(&self.database);
        self.copying = Some(tokio::spawn(async move {
            // A copy that fails, on a full disk for instance, loses nothing: the log stays, and the next one tries again.
            let _ = sqlx::query(COPY).execute(&mut connection).await;
            // Nor does a sync that fails: SQLite's own decides.
            let _ = tokio::task::spawn_blocking(move || database.sync_data()).await;
            connection
        }));
    }

    async fn finish(&mut self) {
        if let Some(copying) = self.copying.take() {
            self.idle = copying.await.ok();
        }
    }

    /// Empties the log. SQLite never does so while one reader always comes before the last one has gone, and the log
    /// would grow as long as that lasts. New readers read the database itself meanwhile.
    async fn empty(&mut self, writer: &mut SqliteConnection) {
        self.finish().await;
        for statement in ["PRAGMA busy_timeout = 500", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA busy_timeout = 60000"]
        {
            let _ = sqlx::query(statement).execute(&mut *writer).await;
        }
        // A reader that stays for long must not make each group wait for it: the next try is a good deal later.
        self.length = self.log_length();
        self.limit = if self.length > WAL_LIMIT { self.length + WAL_LIMIT / 4 } else { WAL_LIMIT };
    }

    fn log_length(&self) -> u64 {
        std::fs::metadata(&self.wal).map_or(0, |wal| wal.len())
    }
}
