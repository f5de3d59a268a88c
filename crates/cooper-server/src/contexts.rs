//! The bytes of uploaded contexts: one file each, durable before the upload is answered.
//!
//! The server never looks inside an archive: it counts, hashes and keeps it until an agent fetches it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cooper_ports::contexts::ContextStore;
use cooper_ports::store_error::StoreError;
use cooper_types::{ContextId, Digest, DigestAlgorithm, Hasher};
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

/// The files of contexts.
#[derive(Clone, Debug)]
pub(crate) struct ContextFiles {
    directory: PathBuf,
    max_bytes: u64,
    turns: Arc<tokio::sync::Mutex<()>>,
}

/// Bytes that came whole and are durable, and are no context's yet.
#[derive(Debug)]
pub(crate) struct Received {
    partial: Partial,
    /// Their number.
    pub(crate) size: u64,
    /// Their digest.
    pub(crate) digest: Digest,
}

/// Why a context's bytes were not kept. Nothing of them is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// More came than is taken.
    #[error("context is larger than {0} bytes, the most that this server takes")]
    TooLarge(u64),
    /// The client broke off.
    #[error("upload was cut off by the client")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full.
    #[error("no space is left on the server for the context")]
    StorageFull,
    /// The file system failed.
    #[error("context can't be written")]
    Io(#[source] std::io::Error),
}

impl From<std::io::Error> for ReceiveError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::Io(error),
        }
    }
}

/// Why bytes without a record were left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    /// The file system failed.
    #[error("contexts' files can't be listed or removed")]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes a half-written file, however its writer ended.
#[derive(Debug)]
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // The start of the server removes what even this leaves behind.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl ContextFiles {
    /// Opens the folder, and removes uploads that a crash left half-way.
    pub(crate) async fn open(directory: PathBuf, max_bytes: u64) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(&directory).await?;
        let mut entries = tokio::fs::read_dir(&directory).await?;
        while let Some(entry) = entries.next_entry().await? {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                tokio::fs::remove_file(entry.path()).await?;
            }
        }
        Ok(Self { directory, max_bytes, turns: Arc::default() })
    }

    /// The contexts whose bytes are here. Files with other names are nobody's business.
    pub(crate) async fn ids(&self) -> std::io::Result<Vec<ContextId>> {
        let mut entries = tokio::fs::read_dir(&self.directory).await?;
        let mut ids = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| ContextId::parse(name.strip_suffix(".tar.gz")?).ok());
            ids.extend(id);
        }
        Ok(ids)
    }

    /// Removes the bytes that no record is about: a crash came between keeping and recording them, and the record was
    /// refused later. For the start of the server, when nothing is being uploaded.
    pub(crate) async fn sweep(&self, contexts: &dyn ContextStore) -> Result<(), SweepError> {
        for id in contexts.unknown_contexts(self.ids().await?).await? {
            tracing::info!(context = %id, "bytes that are no context's are removed");
            self.remove(&id).await?;
        }
        Ok(())
    }

    /// The most bytes that one context may have.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Where a context's bytes are. An id holds letters, digits and `-` only.
    pub(crate) fn path(&self, id: &ContextId) -> PathBuf {
        self.directory.join(format!("{id}.tar.gz"))
    }

    /// Writes a context's bytes and makes them durable, aside: [`Self::keep`] makes them the context's. Dropped, they are
    /// gone.
    pub(crate) async fn receive<S, E>(&self, id: &ContextId, mut bytes: S) -> Result<Received, ReceiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Two uploads of one id must not write into each other's file.
        let path = self.directory.join(format!("{id}.{}.part", uuid::Uuid::new_v4().simple()));
        let partial = Partial(Some(path.clone()));
        let mut file = tokio::fs::File::create_new(&path).await?;
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
        let mut size: u64 = 0;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|error| ReceiveError::Interrupted(error.into()))?;
            size = size.saturating_add(chunk.len() as u64);
            if size > self.max_bytes {
                return Err(ReceiveError::TooLarge(self.max_bytes));
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(Received { partial, size, digest: hasher.finish() })
    }

    /// The turn to decide which upload becomes the context. A context never changes once it is recorded, so looking at
    /// the record, keeping the bytes and recording them is one upload's at a time.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.turns.clone().lock_owned().await
    }

    /// Makes received bytes the context's.
    pub(crate) async fn keep(&self, id: &ContextId, mut received: Received) -> Result<(), ReceiveError> {
        if let Some(path) = &received.partial.0 {
            tokio::fs::rename(path, self.path(id)).await?;
        }
        received.partial.0 = None;
        sync_directory(&self.directory).await?;
        Ok(())
    }

    /// Removes a context's bytes; that they are gone already is fine.
    pub(crate) async fn remove(&self, id: &ContextId) -> std::io::Result<()> {
        match tokio::fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

async fn sync_directory(directory: &Path) -> std::io::Result<()> {
    tokio::fs::File::open(directory).await?.sync_all().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContextId {
        ContextId::parse("abc-1").expect("valid")
    }

    fn chunks(texts: &[&'static str]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Unpin {
        futures::stream::iter(texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect::<Vec<_>>())
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).expect("read");
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn keeps_what_came_whole_and_nothing_else() {
        let directory = tempfile::tempdir().expect("temp dir");
        std::fs::write(directory.path().join("old.part"), "x").expect("write");
        let files = ContextFiles::open(directory.path().to_owned(), 10).await.expect("open");
        assert!(names(directory.path()).is_empty(), "leftovers are removed");

        let received = files.receive(&id(), chunks(&["hello", "there"])).await.expect("received");
        assert_eq!((received.size, &received.digest), (10, &Digest::sha256(b"hellothere")));
        let second = files.receive(&id(), chunks(&["bye"])).await.expect("received");
        files.keep(&id(), received).await.expect("kept");
        drop(second);
        assert_eq!(names(directory.path()), ["abc-1.tar.gz"]);

        let error = files.receive(&id(), chunks(&["hello", "there", "!"])).await.expect_err("too large");
        assert!(matches!(error, ReceiveError::TooLarge(10)));
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"he")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(files.receive(&id(), broken).await, Err(ReceiveError::Interrupted(_))));
        assert_eq!(names(directory.path()), ["abc-1.tar.gz"]);
        assert_eq!(std::fs::read(files.path(&id())).expect("read"), b"hellothere");

        assert_eq!(files.ids().await.expect("listed"), [id()]);
        files.remove(&id()).await.expect("removed");
        files.remove(&id()).await.expect("twice is fine");
    }
}
