//! A database file beside a running server, and back: the snapshot that a backup holds, what it refers to, and what a
//! restored one needs before it is served.
//!
//! A snapshot is made by `VACUUM INTO` over a connection that only reads: the server that has the data goes on, and
//! the copy is one moment of it. Files are not this crate's: it says which ones the snapshot refers to.

use std::path::{Path, PathBuf};

use cooper_engine::run::{Placement, Run};
use cooper_ports::clock::Clock as _;
use cooper_types::{ContextId, Digest, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::clock::StoreClock;
use crate::lock::private;
use crate::migrations::{MIGRATIONS, MigrationError, check, migrate};

/// By how much the counters of a restored database go ahead: what was given out after the snapshot (numbers of runs and
/// attempts, fences of agents that may be at work still) is not given out again. Nobody makes as many within the
/// time between two backups of a system of this size; whoever does makes backups more often.
const SKIPPED: u64 = 100_000;

/// The same for the versions of secrets, which people set and type.
const SKIPPED_VERSIONS: i64 = 1000;

/// The incarnation of an agent that no process has.
const RESTORED: &str = "restored";

/// A snapshot's file, open.
pub struct Snapshot {
    connection: SqliteConnection,
    path: PathBuf,
}

/// A file that the database refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred<K> {
    /// Which one.
    pub key: K,
    /// Its size in bytes.
    pub size: u64,
    /// Its content.
    pub digest: Digest,
}

/// Why a snapshot was not made or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none.
    #[error("`{0}` holds no database of a server; name the data directory with --data-dir")]
    Absent(PathBuf),
    /// SQLite failed.
    #[error("failed to {operation} `{path}`")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is not one of this binary's.
    #[error("database `{path}` can't be used")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong with its schema.
        #[source]
        source: MigrationError,
    },
    /// The file is damaged, or no database of ours.
    #[error("database `{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, in a line.
        reason: String,
    },
}

impl Snapshot {
    /// Copies the database of `directory` as it is now to the new file `into`. What a backup does not hold is taken
    /// out of the copy: uploads on their way, and contexts that no unfinished run needs.
    pub async fn take(directory: &Path, into: &Path) -> Result<Self, SnapshotError> {
        let source = directory.join("cooper.db");
        let mut reader = reader(directory, &source).await?;
        let failed = |operation| failed(operation, &source);
        // SQLite takes an empty file as its target, and keeps its mode.
        private(into).map_err(|error| failed("copy")(error.into()))?;
        let copied = sqlx::query("VACUUM INTO ?1").bind(into.to_string_lossy()).execute(&mut reader).await;
        copied.map_err(failed("copy"))?;
        reader.close().await.map_err(failed("close"))?;

        let mut snapshot = Self::open(into).await?;
        snapshot
            .change(
                "prepare",
                "DELETE FROM uploads;
                 UPDATE contexts SET state = 'deleted' WHERE NOT EXISTS (
                     SELECT 1 FROM runs r WHERE r.registry_id = contexts.registry_id AND r.context_id = contexts.id
                         AND r.finished IS NULL
                 ) AND NOT EXISTS (
                     SELECT 1 FROM live_attempts a WHERE a.registry_id = contexts.registry_id
                         AND a.run_number = contexts.run_number AND a.attempt = contexts.attempt
                 );",
            )
            .await?;
        Ok(snapshot)
    }

    /// The version of the schema in `directory`, where it is one that this binary knows.
    pub async fn schema_of(directory: &Path) -> Result<i64, SnapshotError> {
        let source = directory.join("cooper.db");
        let connection = reader(directory, &source).await?;
        let mut database = Self { connection, path: source };
        let schema = database.schema().await?;
        database.close().await?;
        Ok(schema)
    }

    /// Opens a snapshot's file, checks that it is a whole database whose schema this binary knows, and brings that up to
    /// date: an older one's data is read and restored as a start of the server would read it.
    pub async fn open(path: &Path) -> Result<Self, SnapshotError> {
        // A file from elsewhere is only data: nothing in its schema may call what is not a plain function.
        let options = SqliteConnectOptions::new().filename(path).pragma("trusted_schema", "OFF");
        let connection = connect(options).await.map_err(failed("open", path))?;
        let mut snapshot = Self { connection, path: path.to_owned() };
        let faults: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)")
            .fetch_all(&mut snapshot.connection)
            .await
            .map_err(failed("check", path))?;
        if faults != ["ok"] {
            return Err(snapshot.damaged(faults.join(", ")));
        }
        check(&mut snapshot.connection, MIGRATIONS)
            .await
            .map_err(|source| SnapshotError::Schema { path: path.to_owned(), source })?;
        let now = StoreClock::starting_after(snapshot.newest().await?).now();
        migrate(&mut snapshot.connection, MIGRATIONS, now)
            .await
            .map_err(|source| SnapshotError::Schema { path: path.to_owned(), source })?;
        Ok(snapshot)
    }

    /// The schema's version.
    pub async fn schema(&mut self) -> Result<i64, SnapshotError> {
        self.number("SELECT max(version) FROM schema_migrations").await
    }

    /// The newest time that the snapshot knows of.
    pub async fn newest(&mut self) -> Result<Timestamp, SnapshotError> {
        self.number("SELECT coalesce(max(newest), 0) FROM store_clock").await.map(Timestamp::from_micros)
    }

    /// How many runs are unfinished.
    pub async fn unfinished_runs(&mut self) -> Result<i64, SnapshotError> {
        self.number("SELECT count(*) FROM runs WHERE finished IS NULL").await
    }

    /// How many blobs there are, and their size in bytes.
    pub async fn blob_totals(&mut self) -> Result<(u64, u64), SnapshotError> {
        let count = self.number("SELECT count(*) FROM blobs").await?;
        let bytes = self.number("SELECT coalesce(sum(size), 0) FROM blobs").await?;
        let number = |number: i64| u64::try_from(number).map_err(|error| self.damaged(error.to_string()));
        Ok((number(count)?, number(bytes)?))
    }

    /// The contexts whose files a backup holds, in the order of their ids.
    pub async fn contexts(&mut self) -> Result<Vec<Referred<ContextId>>, SnapshotError> {
        let rows = sqlx::query("SELECT id, size, digest FROM contexts WHERE state = 'uploaded' ORDER BY id")
            .fetch_all(&mut self.connection)
            .await
            .map_err(failed("read", &self.path))?;
        let parse = |text: &str| ContextId::parse(text).map_err(|error| error.to_string());
        rows.iter().map(|row| referred(row, parse).map_err(|reason| self.damaged(reason))).collect()
    }

    /// At most `limit` blobs in the order of their digests, from the one after `after` on.
    pub async fn blobs(&mut self, after: Option<&Digest>, limit: u32) -> Result<Vec<Referred<Digest>>, SnapshotError> {
        let rows = sqlx::query(
            "SELECT DISTINCT digest AS id, size, digest FROM blobs WHERE digest > ?1 ORDER BY digest LIMIT ?2",
        )
        .bind(after.map_or("", Digest::as_str))
        .bind(limit)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read", &self.path))?;
        let parse = |text: &str| Digest::parse(text).map_err(|error| error.to_string());
        rows.iter().map(|row| referred(row, parse).map_err(|reason| self.damaged(reason))).collect()
    }

    /// Makes a restored database ready to be served: no number that its server may have given out after the snapshot
    /// comes twice, and no process that was at work then holds anything. An agent that lives has forgotten the part of its
    /// log that the old server had and this one has not: its placements are lost, with the gap marked, and begin again.
    pub async fn skip_numbers(&mut self) -> Result<(), SnapshotError> {
        let path = self.path.clone();
        let failed = failed("prepare", &path);
        let mut tx = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let skipped = SKIPPED as i64;
        sqlx::query("UPDATE registries SET run_counter = run_counter + ?1")
            .bind(skipped)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        // Records of runs name versions that were set after the snapshot.
        sqlx::query("UPDATE secrets SET newest = newest + ?1")
            .bind(SKIPPED_VERSIONS)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        let rows = sqlx::query("SELECT registry_id, number, state FROM runs WHERE finished IS NULL")
            .fetch_all(&mut *tx)
            .await
            .map_err(&failed)?;
        for row in rows {
            let damaged = |error: serde_json::Error| SnapshotError::Damaged {
                path: path.clone(),
                reason: format!("a run can't be read: {error}"),
            };
            let state: &str = row.try_get("state").map_err(&failed)?;
            let mut run: Run = serde_json::from_str(state).map_err(damaged)?;
            run.last_fence.0 = run.last_fence.0.saturating_add(SKIPPED);
            run.last_attempt.0 = run.last_attempt.0.saturating_add(SKIPPED as _);
            run.placements.iter_mut().for_each(leave_to_nobody);
            sqlx::query(
                "UPDATE runs SET state = ?3, generation = generation + 1 WHERE registry_id = ?1 AND number = ?2",
            )
            .bind(row.try_get::<i64, _>("registry_id").map_err(&failed)?)
            .bind(row.try_get::<i64, _>("number").map_err(&failed)?)
            .bind(serde_json::to_string(&run).map_err(damaged)?)
            .execute(&mut *tx)
            .await
            .map_err(&failed)?;
        }
        // Receivers have had since then what followed, and a copy that is made for a trial speaks to nobody.
        for forget in [
            "UPDATE outbox SET state = 'failed', at = (SELECT newest FROM store_clock), last_status = NULL,
                 last_said = 'given up: it waited when the backup was made that was restored'
             WHERE state IN ('due', 'trying')",
            "UPDATE outbox_targets SET seq = NULL, at = NULL, failures = 0, failing_since = NULL",
        ] {
            sqlx::query(forget).execute(&mut *tx).await.map_err(&failed)?;
        }
        tx.commit().await.map_err(&failed)
    }

    /// Closes the file: from here on it is whole by itself.
    pub async fn close(self) -> Result<(), SnapshotError> {
        self.connection.close().await.map_err(failed("close", &self.path))
    }

    async fn change(&mut self, operation: &'static str, sql: &'static str) -> Result<(), SnapshotError> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await.map(drop).map_err(failed(operation, &self.path))
    }

    async fn number(&mut self, query: &'static str) -> Result<i64, SnapshotError> {
        sqlx::query_scalar(query).fetch_one(&mut self.connection).await.map_err(failed("read", &self.path))
    }

    fn damaged(&self, reason: String) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), reason }
    }
}

/// A connection that only reads, to the database of a server that may be writing.
async fn reader(directory: &Path, source: &Path) -> Result<SqliteConnection, SnapshotError> {
    if !source.is_file() {
        return Err(SnapshotError::Absent(directory.to_owned()));
    }
    let options = SqliteConnectOptions::new().filename(source).read_only(true);
    let mut reader = connect(options).await.map_err(failed("open", source))?;
    check(&mut reader, MIGRATIONS)
        .await
        .map_err(|error| SnapshotError::Schema { path: source.to_owned(), source: error })?;
    Ok(reader)
}

async fn connect(options: SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    options.busy_timeout(crate::open::BUSY).disable_statement_logging().connect().await
}

/// Gives a lease to a life of its agent that never was: the agent's next report finds it lost.
fn leave_to_nobody(placement: &mut Placement) {
    match placement {
        Placement::Offered(lease)
        | Placement::Accepted(lease)
        | Placement::Running(lease)
        | Placement::Stopping(lease) => RESTORED.clone_into(&mut lease.agent.incarnation),
        Placement::Waiting { .. } | Placement::Done => {}
    }
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(sqlx::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Database { operation, path: path.clone(), source }
}

fn referred<K>(
    row: &sqlx::sqlite::SqliteRow,
    parse: impl Fn(&str) -> Result<K, String>,
) -> Result<Referred<K>, String> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(|error| error.to_string());
    let size = row.try_get::<i64, _>("size").map_err(|error| error.to_string())?;
    Ok(Referred {
        key: parse(&text("id")?)?,
        size: u64::try_from(size).map_err(|_| format!("a size is {size}"))?,
        digest: Digest::parse(&text("digest")?).map_err(|error| error.to_string())?,
    })
}
