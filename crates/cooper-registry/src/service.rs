//! The registry's parts held together, what runs beside requests, and what must end before the process does.

use std::sync::Arc;

use cooper_ports::blobs::{BlobStore, UploadError};
use cooper_ports::clock::Clock;
use cooper_ports::registry::{CredentialVerifier, RegistryStore};
use cooper_ports::store_error::StoreError;
use cooper_types::RegistryName;
use http::StatusCode;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::SigningKey;
use crate::error::OciError;

/// How many uploads one sweep removes at most, so that it holds the writer for a short time only.
const SWEEP: u32 = 256;

/// What the registry stands on.
#[derive(Clone)]
pub struct RegistryParts {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Rows.
    pub store: Arc<dyn RegistryStore>,
    /// Access tokens.
    pub credentials: Arc<dyn CredentialVerifier>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Signs bearer tokens and the credentials of attempts.
    pub key: SigningKey,
}

/// How the registry behaves.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// The registry's name: what its tokens are for.
    pub name: RegistryName,
    /// Whether anybody may pull from any repository.
    pub anonymous_pull: bool,
}

/// The registry. Clones share it.
#[derive(Clone)]
pub struct RegistryService(Arc<Inner>);

struct Inner {
    parts: RegistryParts,
    options: RegistryOptions,
    tasks: TaskTracker,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that nobody finished.
    pub uploads: u64,
    /// Staged tags that nobody promoted.
    pub staged_tags: u64,
}

/// Why a sweep stopped.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The rows could not be read or changed.
    #[error("failed to sweep the registry's rows")]
    Store(#[from] StoreError),
    /// An upload's bytes could not be removed.
    #[error("failed to remove an expired upload")]
    Upload(#[from] UploadError),
}

impl RegistryService {
    /// A registry of these parts.
    pub fn new(parts: RegistryParts, options: RegistryOptions) -> Self {
        Self(Arc::new(Inner { parts, options, tasks: TaskTracker::new() }))
    }

    /// Removes uploads and staged tags whose time is over. To be called now and then; it does a bounded piece of work.
    pub async fn sweep(&self) -> Result<Swept, SweepError> {
        let parts = self.parts();
        let now = parts.clock.now();
        let staged_tags = parts.store.expire_staged(now).await?;
        let mut ended = Vec::new();
        for id in parts.store.expired_uploads(now, SWEEP).await? {
            match parts.blobs.discard(id).await {
                // Somebody still writes to it after all this time: the next sweep sees to it.
                Err(UploadError::Busy(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => ended.push(id),
            }
        }
        // Bytes first, rows after: a crash in between leaves a row, which the next sweep finds.
        parts.store.forget_uploads(&ended).await?;
        Ok(Swept { uploads: ended.len() as u64, staged_tags })
    }

    /// Waits for changes that requests have begun. To be called when no new requests come, before the store is closed.
    pub async fn finished(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn parts(&self) -> &RegistryParts {
        &self.0.parts
    }

    pub(crate) fn options(&self) -> &RegistryOptions {
        &self.0.options
    }

    /// Runs a change to its end even if the client goes away: a dropped request would leave bytes without rows, or the
    /// client in doubt about a push that half happened.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, OciError>> + Send + 'static,
    ) -> Result<T, OciError> {
        let task = self.0.tasks.spawn(change.in_current_span());
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "registry change panicked");
            Err(OciError::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry failed; its log says why"))
        })
    }
}
