//! Blobs as files: `blobs/<algorithm>/<two digits>/<digits>`, and uploads as files `uploads/<id>`.
//!
//! An upload is hashed while it is written, in batches on blocking threads: memory stays flat, and no thread waits for a
//! slow client. Paths are made of parsed digests and ids only. What an upload's file holds is the truth; the running
//! hash is a shortcut that is made again from the file after a restart.

mod commit;
mod disk;
mod layout;
mod read;
mod removal;
mod session;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cooper_ports::blobs::{
    AppendAt, BlobReadError, BlobRemoveError, BlobStore, IncomingBytes, OutgoingBytes, SurveyError, UploadError,
    UploadId,
};
use cooper_types::Digest;
use futures::StreamExt;
use tokio::task::JoinHandle;

use disk::{Disk, LocalDisk};
use layout::Layout;
use session::{Session, Sessions};

/// How many bytes are gathered before they are hashed and written in one go. An append holds two batches at most: one
/// that is being written and one that is being received.
const BATCH: usize = 1024 * 1024;

/// How many chunks are gathered at most: a client that sends single bytes must not take far more memory than it sends.
const BATCH_CHUNKS: usize = 4096;

/// A blob store on a local file system. Clones share it.
#[derive(Clone)]
pub struct FsBlobStore(Arc<Inner>);

struct Inner {
    layout: Layout,
    disk: Box<dyn Disk>,
    sessions: Sessions,
}

/// Why a blob store did not open.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare blob store in {}", .directory.display())]
pub struct OpenBlobStoreError {
    /// The data directory.
    directory: PathBuf,
    /// What the system said.
    #[source]
    source: io::Error,
}

impl FsBlobStore {
    /// Opens the store in `data_dir`, which must exist and be held by this process alone. Makes what is missing.
    ///
    /// This blocks for some file operations; uploads of an earlier life are left to be resumed or to expire.
    pub fn open(data_dir: &Path) -> Result<Self, OpenBlobStoreError> {
        Self::open_on(data_dir, Box::new(LocalDisk))
    }

    fn open_on(data_dir: &Path, disk: Box<dyn Disk>) -> Result<Self, OpenBlobStoreError> {
        let layout = Layout::new(data_dir);
        layout.create(disk.as_ref()).map_err(|source| OpenBlobStoreError { directory: data_dir.to_owned(), source })?;
        layout
            .remove_stray_uploads()
            .map_err(|source| OpenBlobStoreError { directory: data_dir.to_owned(), source })?;
        Ok(Self(Arc::new(Inner { layout, disk, sessions: Sessions::default() })))
    }

    /// Takes hold of an upload and makes sure that its running hash fits its file.
    async fn session(&self, id: UploadId) -> Result<Session, UploadError> {
        let held = self.0.sessions.hold(id)?;
        let inner = self.0.clone();
        let opened = tokio::task::spawn_blocking(move || Session::open(&inner.layout.upload(id), held));
        let opened = joined(opened, "open", id).await;
        if let Err(UploadError::Unknown(_)) = opened {
            self.0.sessions.forget(id);
        }
        opened
    }
}

/// Where the store in `data_dir` keeps a blob, for whoever copies it away or puts it there before the store is opened.
pub fn blob_file(data_dir: &Path, digest: &Digest) -> PathBuf {
    Layout::new(data_dir).blob(digest)
}

#[async_trait]
impl BlobStore for FsBlobStore {
    async fn begin_upload(&self, id: UploadId) -> Result<(), UploadError> {
        let held = self.0.sessions.hold(id)?;
        let inner = self.0.clone();
        let begun = tokio::task::spawn_blocking(move || Session::create(&inner.layout.upload(id), held));
        let begun = joined(begun, "begin", id).await;
        if begun.is_err() {
            self.0.sessions.forget(id);
        }
        begun
    }

    async fn append(&self, id: UploadId, at: AppendAt, mut bytes: IncomingBytes) -> Result<u64, UploadError> {
        let session = self.session(id).await?;
        let start = session.progress();
        if at.offset.is_some_and(|offset| offset != start.size) {
            return Err(UploadError::OutOfOrder { id, size: start.size });
        }
        let mut received = 0;
        let mut writing = Idle::Session(session);
        let interruption = loop {
            let batch = Batch::gather(&mut bytes).await;
            received += batch.size as u64;
            let too_much = at.length.is_some_and(|announced| received > announced);
            let session = writing.finish(id).await?;
            if too_much {
                writing = Idle::Session(session);
                break None;
            }
            let inner = self.0.clone();
            // A future that is dropped here leaves the batch to be written; the session is let go after it.
            writing = Idle::Writing(tokio::task::spawn_blocking(move || write(&inner, session, &batch.chunks)));
            if batch.end {
                break batch.failure;
            }
        };
        let session = writing.finish(id).await?;
        if let Some(source) = interruption {
            return Err(UploadError::Interrupted { id, source });
        }
        if let Some(announced) = at.length.filter(|announced| *announced != received) {
            joined(tokio::task::spawn_blocking(move || session.rewind(start)), "rewind", id).await?;
            return Err(UploadError::WrongLength { id, announced, received });
        }
        Ok(session.progress().size)
    }

    async fn upload_size(&self, id: UploadId) -> Result<u64, UploadError> {
        Ok(self.session(id).await?.progress().size)
    }

    async fn commit(&self, id: UploadId, expected: &Digest) -> Result<u64, UploadError> {
        let session = self.session(id).await?;
        let inner = self.0.clone();
        let expected = expected.clone();
        joined(tokio::task::spawn_blocking(move || commit::commit(&inner, session, &expected)), "commit", id).await
    }

    async fn discard(&self, id: UploadId) -> Result<(), UploadError> {
        let held = self.0.sessions.hold(id)?;
        let inner = self.0.clone();
        let discarded = tokio::task::spawn_blocking(move || {
            let removed = std::fs::remove_file(inner.layout.upload(id));
            inner.sessions.forget(id);
            drop(held);
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(UploadError::Io { operation: "discard", id, source })
                }
                _ => Ok(()),
            }
        });
        joined(discarded, "discard", id).await
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobReadError> {
        let path = self.0.layout.blob(digest);
        match tokio::fs::metadata(path).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobReadError::Io { digest: digest.clone(), source }),
        }
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<OutgoingBytes, BlobReadError> {
        read::read(self.0.layout.blob(digest), digest, range).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobRemoveError> {
        let (inner, blob) = (self.0.clone(), digest.clone());
        let removed = tokio::task::spawn_blocking(move || removal::remove(&inner, &blob)).await;
        let removed = removed.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(|source| BlobRemoveError { digest: digest.clone(), source })
    }

    async fn survey(&self, part: u16, age: Duration) -> Result<Vec<Digest>, SurveyError> {
        let inner = self.0.clone();
        let surveyed = tokio::task::spawn_blocking(move || removal::survey(&inner.layout, part, age)).await;
        let surveyed = surveyed.unwrap_or_else(|error| Err(io::Error::other(error)));
        surveyed.map_err(|source| SurveyError { part, source })
    }
}

/// An upload between batches: at hand, or with the thread that writes the last batch.
enum Idle {
    Session(Session),
    Writing(JoinHandle<Result<Session, UploadError>>),
}

impl Idle {
    async fn finish(self, id: UploadId) -> Result<Session, UploadError> {
        match self {
            Self::Session(session) => Ok(session),
            Self::Writing(task) => joined(task, "write", id).await,
        }
    }
}

/// What is written in one go.
struct Batch {
    chunks: Vec<Bytes>,
    size: usize,
    /// Whether the stream is over after this batch.
    end: bool,
    /// Why it is over, if it broke off.
    failure: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Batch {
    async fn gather(bytes: &mut IncomingBytes) -> Self {
        let mut batch = Self { chunks: Vec::new(), size: 0, end: false, failure: None };
        while batch.size < BATCH && batch.chunks.len() < BATCH_CHUNKS {
            match bytes.next().await {
                // Frames without bytes cost a client next to nothing, and must not cost us more.
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    batch.size += chunk.len();
                    batch.chunks.push(chunk);
                }
                Some(Err(error)) => {
                    batch.end = true;
                    batch.failure = Some(error);
                    break;
                }
                None => {
                    batch.end = true;
                    break;
                }
            }
        }
        batch
    }
}

fn write(inner: &Inner, mut session: Session, chunks: &[Bytes]) -> Result<Session, UploadError> {
    let id = session.id();
    match session.write(inner.disk.as_ref(), chunks) {
        Ok(()) => Ok(session),
        Err(error) if is_full(&error) => {
            // The bytes are of no use to anybody, and others need the space.
            inner.remove_upload(session);
            Err(UploadError::StorageFull(id))
        }
        Err(source) => Err(UploadError::Io { operation: "write", id, source }),
    }
}

impl Inner {
    /// Ends an upload whose bytes are useless.
    fn remove_upload(&self, session: Session) {
        let id = session.id();
        if let Err(error) = std::fs::remove_file(self.layout.upload(id)) {
            tracing::warn!(upload = %id, %error, "failed to remove a useless upload; it is removed when it expires");
        }
        self.sessions.forget(id);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Waits for a blocking part of an operation.
async fn joined<T>(
    task: JoinHandle<Result<T, UploadError>>,
    operation: &'static str,
    id: UploadId,
) -> Result<T, UploadError> {
    task.await.unwrap_or_else(|error| Err(UploadError::Io { operation, id, source: io::Error::other(error) }))
}

#[cfg(test)]
mod tests;
