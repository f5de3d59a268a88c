//! Fetching archives behind URLs and artifacts of OCI registries into an archive that a build can be served from; and
//! publishing indexes of images that registries have.
//!
//! What comes is written to a file, judged by [`crate::unpack()`] as an uploaded context is, and packed again: the
//! directory that was named, without what its ignore file leaves out. Nothing is created on disk under a name that came
//! from outside. Repositories are [`crate::git`]'s; where requests may go is [`crate::egress`]'s.

mod archive;
mod artifact;
mod download;
mod error;
mod place;
mod publish;
mod registry;
mod repack;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cooper_ports::context_tree::ContextTree;
use cooper_types::Digest;

pub use archive::fetch_archive;
pub use artifact::fetch_artifact;
pub use error::RemoteError;
pub use publish::{Publish, PublishError, Published, publish};
pub use watch::{WatchError, Watched, watch};

use crate::further::FurtherFiles;
use crate::unpack::UnpackLimits;

/// What to make of a source, and what it may ask for at most.
#[derive(Clone, Debug)]
pub struct RemoteRequest {
    /// The Dockerfile's path below the source's subdirectory, if the archive is for a build: then `.dockerignore`'s
    /// rules apply, as they do to a folder. Without it everything goes in.
    pub dockerfile: Option<String>,
    /// Files below the subdirectory that the caller wants to read: missing ones are missing in the answer.
    pub files: Vec<String>,
    /// More of them, by what those hold.
    pub further: FurtherFiles,
    /// An empty directory that is this fetch's own. The caller removes it, with the archive in it.
    pub scratch: PathBuf,
    /// What the source may hold once it is unpacked.
    pub unpack: UnpackLimits,
    /// Bytes that are received.
    pub received: u64,
    /// Bytes of one of the named files.
    pub named_file_len: u64,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSnapshot {
    /// The digest of the archive as it came, or of the artifact's manifest.
    pub pinned: Digest,
    /// The archive, a tar.gz in the scratch directory.
    pub archive: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What the Dockerfile is called in it, if one was asked for: another name if it is a link.
    pub dockerfile: Option<String>,
    /// The named files that were found, by the names that the caller gave.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Makes of a context that is here what is made of a source that is fetched.
pub async fn read_context(tree: ContextTree, request: RemoteRequest) -> Result<RemoteSnapshot, RemoteError> {
    blocking(move |stop| repack::repack(&tree, "the context", None, &request, None, stop)).await
}

/// Takes lines for the run's log.
pub type Say<'run> = &'run (dyn Fn(String) + Send + Sync);

/// Runs blocking work on a thread of its own; the work's flag is set when nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    struct SetOnDrop(Arc<AtomicBool>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let guard = SetOnDrop(Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&guard.0);
    match tokio::task::spawn_blocking(move || work(&stop)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels blocking work.
            Err(_) => Err(RemoteError::Cancelled),
        },
    }
}
