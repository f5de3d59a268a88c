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

/// How many uploads are removed at once, so that the writer is held for a short time only.
const SWEEP: u32 = 256;

/// How often that is done in one sweep at most.
const SWEEPS: u32 = 64;

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
        let mut swept = Swept { uploads: 0, staged_tags: parts.store.expire_staged(now).await? };
        let mut failure = None;
        // Those that can't be removed now come back first each time, and must not keep the others.
        let mut staying = 0;
        for _ in 0..SWEEPS {
            let asked = SWEEP + staying;
            let expired = parts.store.expired_uploads(now, asked).await?;
            let full = expired.len() == asked as usize;
            let mut ended = Vec::new();
            staying = 0;
            for id in expired {
                match parts.blobs.discard(id).await {
                    Ok(()) => ended.push(id),
                    // Somebody still writes to it after all this time: the next sweep sees to it.
                    Err(UploadError::Busy(_)) => staying += 1,
                    Err(error) => {
                        staying += 1;
                        failure = failure.or(Some(error));
                    }
                }
            }
            // Bytes first, rows after: a crash in between leaves a row, which the next sweep finds.
            parts.store.forget_uploads(&ended).await?;
            swept.uploads += ended.len() as u64;
            if !full {
                break;
            }
        }
        failure.map_or(Ok(swept), |error| Err(error.into()))
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
