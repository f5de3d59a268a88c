//! How the store fails, whatever was asked of it. What an operation refuses is in that operation's own error.

use std::error::Error;
use std::sync::Arc;

/// A failure of the store itself. Whether the change was made is unknown only after [`StoreError::Commit`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system that holds the data directory took no more bytes; nothing was changed.
    #[error("failed to {operation}: no space is left for the store's data; free some in the data directory")]
    StorageFull {
        /// What was being done, as a verb phrase.
        operation: &'static str,
    },
    /// The group of changes that this one was part of could not be made durable.
    #[error("failed to commit to the store")]
    Commit(#[source] Arc<dyn Error + Send + Sync>),
    /// The database refused or failed.
    #[error("failed to {operation}")]
    Database {
        /// What was being done, as a verb phrase.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A stored value does not read back: a fault of ours, or a database that was edited by hand.
    #[error("failed to {operation}: a stored value is not readable")]
    Corrupt {
        /// What was being done, as a verb phrase.
        operation: &'static str,
        /// Why the value is not readable.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A stored value has a form that a newer release wrote.
    #[error("failed to {operation}: it was stored by a newer release; upgrade the server again")]
    Newer {
        /// What was being done, as a verb phrase.
        operation: &'static str,
    },
    /// The code of a change panicked; its part of the transaction was rolled back.
    #[error("store operation panicked and was rolled back")]
    Panicked,
    /// The store has been closed, or is about to be.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// Wraps a database's error.
    pub fn database(operation: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Database { operation, source: Arc::new(source) }
    }

    /// Wraps the reason why a stored value is not readable.
    pub fn corrupt(operation: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Corrupt { operation, source: Arc::new(source) }
    }

    /// Whether the same request may succeed later without a change to it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StorageFull { .. } | Self::Commit(_) | Self::Closed => true,
            Self::Database { .. } | Self::Corrupt { .. } | Self::Newer { .. } | Self::Panicked => false,
        }
    }
}
