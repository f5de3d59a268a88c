//! Turns the database's errors into the store's, in one place, with the operation that failed.

use std::error::Error;
use std::sync::Arc;

use cooper_ports::store_error::StoreError;

/// Adds the operation to a failed result, as a verb phrase that fits after "failed to".
pub(crate) trait During<T> {
    /// Turns the error into a [`StoreError`] that names `operation`.
    fn during(self, operation: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| store_error(operation, error))
    }
}

/// Adds the operation to a stored value that did not read back.
pub(crate) trait Stored<T> {
    /// Turns the error into [`StoreError::Corrupt`] for `operation`.
    fn stored(self, operation: &'static str) -> Result<T, StoreError>;
}

impl<T, E: Error + Send + Sync + 'static> Stored<T> for Result<T, E> {
    fn stored(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::corrupt(operation, error))
    }
}

/// Sorts a database error.
pub(crate) fn store_error(operation: &'static str, error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => StoreError::Closed,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::corrupt(operation, error),
        _ if is_storage_full(&error) => StoreError::StorageFull { operation },
        _ => StoreError::database(operation, error),
    }
}

/// The error of every change of a group whose COMMIT failed.
pub(crate) fn commit_error(error: sqlx::Error) -> StoreError {
    if is_storage_full(&error) {
        return StoreError::StorageFull { operation: "commit" };
    }
    StoreError::Commit(Arc::new(error))
}

/// SQLITE_FULL, or one of the IO errors of growing a file, which a full disk shows as well: on the write-ahead log,
/// on its index in shared memory, and on the directory.
fn is_storage_full(error: &sqlx::Error) -> bool {
    const FULL: i32 = 13;
    const IOERR: i32 = 10;
    // SQLITE_IOERR_WRITE, _FSYNC, _DIR_FSYNC, _TRUNCATE, _SHMOPEN, _SHMSIZE, _SHMMAP, _GETTEMPPATH.
    const GROWING: [i32; 8] = [3, 4, 5, 6, 18, 19, 21, 25];
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == FULL || (code & 0xff == IOERR && GROWING.contains(&(code >> 8))))
}

/// A stored value that is none of those it could be.
#[derive(Debug, thiserror::Error)]
#[error("{kind} `{value}` is not a known one")]
pub(crate) struct UnknownValue {
    kind: &'static str,
    value: String,
}

impl UnknownValue {
    pub(crate) fn new(kind: &'static str, value: &str) -> Self {
        Self { kind, value: value.to_owned() }
    }
}
