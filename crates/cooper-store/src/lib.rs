//! The store: SQLite behind the ports.
//!
//! It owns the database file, its schema and migrations, the lock on the data directory, and the one writer. It holds
//! no rule of the product: what a run does is decided by `cooper-engine`, and this crate makes that durable, whole
//! transactions at a time. It encrypts nothing: secrets arrive sealed.

mod access;
mod agents;
mod backup;
mod batch;
mod checkpoint;
mod clock;
mod contexts;
mod credentials;
mod events;
mod lock;
mod logs;
mod migrations;
mod open;
mod outbox;
mod registry;
mod runs;
mod secrets;
mod sql_error;
mod tasks;
mod waves;
mod writer;

pub use backup::{Referred, Snapshot, SnapshotError};
pub use lock::{DataLock, LockError, RESTORING, sync_directory};
pub use migrations::MigrationError;
pub use open::{OpenError, Store, StoreOptions};
pub use writer::{Tx, WriterCounts};
