//! Uploaded contexts: who may use which, and until when. Their bytes are somebody else's.
//!
//! A *snapshot* is a context that a prepare attempt uploads: it is its run's alone, and is kept for as long as its attempt
//! is live or the run builds from it.
//!
//! ```text
//! Created ──uploaded──▶ Uploaded ──expired, no run needs it──▶ Deleted
//!    └────────────────────expired─────────────────────────────────▲
//! ```

use std::time::Duration;

use async_trait::async_trait;
use cooper_types::{AttemptNumber, ContextId, Digest, PrincipalName, RunId, Timestamp};

use crate::store_error::StoreError;

/// A context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its id, which is hard to guess.
    pub id: ContextId,
    /// The only one who may upload it and start runs from it.
    pub principal: PrincipalName,
    /// How far it is.
    pub state: ContextState,
    /// When it was asked for.
    pub created: Timestamp,
    /// From when on it may be deleted, once no unfinished run needs it.
    pub expires: Timestamp,
}

/// How far a context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextState {
    /// Waits for its bytes.
    Created,
    /// Whole.
    Uploaded {
        /// Bytes of the archive.
        size: u64,
        /// The archive's digest.
        digest: Digest,
    },
    /// Its bytes are gone or are being removed.
    Deleted,
}

/// Why the bytes of a context were not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadContextError {
    /// There is none with this id, or it is another principal's, which looks the same.
    #[error("context `{0}` does not exist")]
    Unknown(ContextId),
    /// It was uploaded before: a context never changes.
    #[error("context `{0}` has been uploaded already; ask for a new one")]
    Uploaded(ContextId),
    /// It has expired.
    #[error("context `{0}` has expired; ask for a new one")]
    Expired(ContextId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an attempt's snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The attempt is over or was never.
    #[error("attempt {attempt} of run {run} is over")]
    NotLive {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The attempt has begun another upload since.
    #[error("context `{0}` was given up for a newer upload of the same attempt")]
    Replaced(ContextId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps what is known of contexts.
#[async_trait]
pub trait ContextStore: Send + Sync {
    /// Makes a context that waits for its bytes. `id` is random; `expires` is when it may be deleted.
    async fn create_context(
        &self,
        id: ContextId,
        principal: PrincipalName,
        expires: Timestamp,
    ) -> Result<Context, StoreError>;

    /// The context with this id, if it is `principal`'s and not deleted. Never a snapshot.
    async fn find_context(&self, id: &ContextId, principal: &PrincipalName) -> Result<Option<Context>, StoreError>;

    /// Records that the bytes are durable. The same size and digest a second time change nothing.
    async fn mark_uploaded(
        &self,
        id: &ContextId,
        principal: &PrincipalName,
        size: u64,
        digest: &Digest,
    ) -> Result<Context, UploadContextError>;

    /// Makes a context that waits for what a live attempt uploads. An earlier one of the same attempt is given up.
    async fn create_snapshot(&self, id: ContextId, run: RunId, attempt: AttemptNumber) -> Result<(), SnapshotError>;

    /// Whether a snapshot still waits for its bytes: its attempt is live and has not begun another.
    async fn snapshot_waits(&self, id: &ContextId, run: RunId, attempt: AttemptNumber) -> Result<bool, StoreError>;

    /// Records that a snapshot's bytes are durable, if its attempt still lives.
    async fn mark_snapshot(
        &self,
        id: &ContextId,
        run: RunId,
        attempt: AttemptNumber,
        size: u64,
        digest: &Digest,
    ) -> Result<(), SnapshotError>;

    /// The context of an unfinished run, with its archive's size and digest.
    async fn context_of_run(&self, run: RunId) -> Result<Option<Context>, StoreError>;

    /// Marks up to `limit` contexts deleted that have expired and that neither an unfinished run, nor one that ended less
    /// than `kept` ago, nor a live attempt needs, and returns their ids: their bytes are to be removed then. Those that were marked and not [forgotten](Self::forget_contexts)
    /// come back, so that a crash in between leaves no bytes behind.
    async fn expire_contexts(&self, kept: Duration, limit: u32) -> Result<Vec<ContextId>, StoreError>;

    /// Marks up to `limit` contexts deleted whose runs have all ended, those first whose runs ended first, until the rest of
    /// these takes up `bytes` at most; returns their ids as [`expire_contexts`](Self::expire_contexts) does.
    async fn cut_contexts(&self, bytes: u64, limit: u32) -> Result<Vec<ContextId>, StoreError>;

    /// Those of these that the store knows nothing of: nobody will ever ask for their bytes.
    async fn unknown_contexts(&self, ids: Vec<ContextId>) -> Result<Vec<ContextId>, StoreError>;

    /// Forgets deleted contexts, after their bytes are gone.
    async fn forget_contexts(&self, ids: &[ContextId]) -> Result<(), StoreError>;
}
