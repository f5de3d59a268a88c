//! The registry's parts held together, what runs beside requests, and what must end before the process does.

use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use cooper_ports::blobs::{BlobStore, UploadError};
use cooper_ports::clock::Clock;
use cooper_ports::registry::{CredentialVerifier, RegistryStore};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryName};
use http::StatusCode;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::SigningKey;
use crate::error::OciError;

/// How many uploads are removed at once, so that the writer is held for a short time only.
const SWEEP: u32 = 256;

/// How often that is done in one sweep at most.
const SWEEPS: u32 = 64;

/// Over how many locks digests are spread.
const DIGEST_LOCKS: usize = 256;

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
    /// How long a blob that no manifest refers to is kept after its last use: the longest pause of a push that counts on
    /// one, twice over.
    pub blob_grace: Duration,
}

/// The registry. Clones share it.
#[derive(Clone)]
pub struct RegistryService(Arc<Inner>);

struct Inner {
    parts: RegistryParts,
    options: RegistryOptions,
    tasks: TaskTracker,
    /// Who commits a blob holds the lock of its digest with others, who removes one holds it alone.
    digests: [RwLock<()>; DIGEST_LOCKS],
    /// The part of the blob store that is surveyed next.
    next_part: AtomicU16,
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
        let digests = std::array::from_fn(|_| RwLock::new(()));
        Self(Arc::new(Inner { parts, options, tasks: TaskTracker::new(), digests, next_part: AtomicU16::new(0) }))
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

    /// The turn of the parts of the blob store.
    pub(crate) fn next_part(&self) -> &AtomicU16 {
        &self.0.next_part
    }

    /// Keeps a blob's file from being removed between the moment when its bytes are there and the one when a row says so.
    pub(crate) async fn committing(&self, digest: &Digest) -> RwLockReadGuard<'_, ()> {
        self.digest_lock(digest).read().await
    }

    /// Keeps everybody else from committing a blob.
    pub(crate) async fn removing(&self, digest: &Digest) -> RwLockWriteGuard<'_, ()> {
        self.digest_lock(digest).write().await
    }

    fn digest_lock(&self, digest: &Digest) -> &RwLock<()> {
        let index = u8::from_str_radix(&digest.hex()[..2], 16).expect("a digest begins with two hexadecimal digits");
        &self.0.digests[usize::from(index)]
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
