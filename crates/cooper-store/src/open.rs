//! Opens and closes the store: directory, lock, database, schema, clock, writer and readers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cooper_ports::clock::Clock;
use cooper_ports::store_error::StoreError;
use cooper_types::{PoolName, RegistryId, RegistryName, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Notify;

use crate::checkpoint::{Checkpoints, WAL_LIMIT};
use crate::clock::{StoreClock, WallClock};
use crate::lock::{DataLock, LockError, private, sync_directory};
use crate::migrations::{MIGRATIONS, MigrationError, migrate};
use crate::writer::{Patience, Tx, Writer, WriterCounts};

/// How many queries may read at once. Reads are short; more connections would only compete for two cores.
const READERS: u32 = 4;
/// How long a connection waits for another one's lock: a sync of a busy disk takes seconds.
pub(crate) const BUSY: Duration = Duration::from_secs(60);

/// What the store must be told.
pub struct StoreOptions {
    /// What `$Registry`, tokens and records say.
    pub registry_name: RegistryName,
    /// The clock to use instead of the store's own ones, for tests.
    pub clock: Option<Arc<dyn Clock>>,
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory is in use or not usable.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database file can't be opened.
    #[error("database `{path}` can't be opened")]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is newer than this binary, or a migration failed.
    #[error("database `{path}` can't be used")]
    Migration {
        /// The file.
        path: PathBuf,
        /// What is wrong with its schema.
        #[source]
        source: MigrationError,
    },
}

/// An open store; clones share it. It implements the ports.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: SqlitePool,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn Clock>,
    registry: RegistryId,
    registry_name: RegistryName,
    /// Something may have been queued that goes out.
    queued: Notify,
    bases_moved: Notify,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is missing, and brings its schema up to date.
    pub async fn open(directory: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let lock = DataLock::take(directory)?;
        let path = directory.join("cooper.db");
        // SQLite gives its other files the mode of this one.
        private(&path).map_err(|source| OpenError::Database { path: path.clone(), source: source.into() })?;
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let connect = SqliteConnectOptions::new().filename(&path).busy_timeout(BUSY).disable_statement_logging();
        let mut connection = connect
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // A burst may grow the log; it is cut back to this at the next checkpoint.
            .pragma("journal_size_limit", WAL_LIMIT.to_string())
            // The log is copied into the database beside the commits.
            .pragma("wal_autocheckpoint", "0")
            .connect()
            .await
            .map_err(failed)?;
        let wall = StoreClock::starting_after(Timestamp::from_micros(0));
        migrate(&mut connection, MIGRATIONS, wall.now())
            .await
            .map_err(|source| OpenError::Migration { path: path.clone(), source })?;
        let newest = newest_time(&mut connection).await.map_err(failed)?;
        let wall = options.clock.clone().unwrap_or_else(|| Arc::new(WallClock));
        let clock = options.clock.unwrap_or_else(|| Arc::new(StoreClock::starting_after(newest)));
        let registry = registry(&mut connection, &options.registry_name, clock.now()).await.map_err(failed)?;
        // SQLite syncs its files, and the log's name in the directory only where it makes a rollback journal.
        sync_directory(directory).map_err(|source| failed(source.into()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            // A connection to a file does not go away; asking it first would double the time of a short read.
            .test_before_acquire(false)
            .connect_with(connect.clone().read_only(true))
            .await
            .map_err(failed)?;
        let copying = connect.synchronous(SqliteSynchronous::Full).connect().await.map_err(failed)?;
        let checkpoints = Checkpoints::new(copying, &path).map_err(|source| failed(source.into()))?;
        let writer = Writer::start(connection, checkpoints, clock.clone(), lock);
        let registry_name = options.registry_name;
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                readers,
                clock,
                wall,
                registry,
                registry_name,
                queued: Notify::new(),
                bases_moved: Notify::new(),
            }),
        })
    }

    /// Lets queued changes finish, refuses new ones, closes the database and frees the data directory.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.readers.close().await;
        self.inner.writer.close().await
    }

    /// The clock that judges leases.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The clock that timers follow.
    pub fn wall_clock(&self) -> &Arc<dyn Clock> {
        &self.inner.wall
    }

    /// The one registry of today.
    pub fn registry_id(&self) -> RegistryId {
        self.inner.registry
    }

    /// The registry's name.
    pub fn registry_name(&self) -> &RegistryName {
        &self.inner.registry_name
    }

    /// Told after each push of a tag from outside.
    pub(crate) fn bases_moved(&self) -> &Notify {
        &self.inner.bases_moved
    }

    /// What the writer has done since the store was opened.
    pub fn writer_counts(&self) -> WriterCounts {
        self.inner.writer.counts()
    }

    /// Runs `change` in a transaction of the writer; the answer means durable. See [`Tx`] for what a change may do.
    pub async fn write<T, E, F, Fut>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.run(Patience::Patient, change).await
    }

    /// [`Store::write`] for a small change that somebody outside waits for with little patience: it goes before what
    /// waits in [`Store::write`], and does not stand behind it. The two keep no order between each other.
    pub async fn write_soon<T, E, F, Fut>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.inner.writer.run(Patience::Impatient, change).await
    }

    /// Wakes whoever sends what goes out: a change was committed that may have queued something.
    pub(crate) fn something_queued(&self) {
        self.inner.queued.notify_one();
    }

    pub(crate) fn outbox_notify(&self) -> &Notify {
        &self.inner.queued
    }

    /// The connections for reading. They see what is committed, and can't write.
    pub fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }
}

async fn newest_time(connection: &mut SqliteConnection) -> Result<Timestamp, sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO store_clock (only, newest) VALUES (1, 0)").execute(&mut *connection).await?;
    let micros = sqlx::query_scalar("SELECT newest FROM store_clock").fetch_one(&mut *connection).await?;
    Ok(Timestamp::from_micros(micros))
}

/// The registry's row and its default pool, made at the first start. The name is a setting: it follows the newest start.
async fn registry(
    connection: &mut SqliteConnection,
    name: &RegistryName,
    now: Timestamp,
) -> Result<RegistryId, sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "INSERT INTO registries (id, name, run_counter, created) VALUES (1, ?1, 0, ?2)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    )
    .bind(name.as_str())
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO pools (registry_id, name, description, created) VALUES (1, ?1, '', ?2) ON CONFLICT DO NOTHING",
    )
    .bind(PoolName::default_pool().as_str())
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(RegistryId(1))
}
