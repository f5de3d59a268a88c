//! The bytes of uploaded contexts: one file each, durable before the upload is answered.
//!
//! The server never looks inside an archive: it counts, hashes and keeps it until an agent fetches it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use cooper_types::{ContextId, Digest, DigestAlgorithm, Hasher};
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

/// The files of contexts.
#[derive(Clone, Debug)]
pub(crate) struct ContextFiles {
    directory: PathBuf,
    max_bytes: u64,
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

/// Removes a half-written file, however its writer ended.
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
        Ok(Self { directory, max_bytes })
    }

    /// The most bytes that one context may have.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Where a context's bytes are. An id holds letters, digits and `-` only.
    pub(crate) fn path(&self, id: &ContextId) -> PathBuf {
        self.directory.join(format!("{id}.tar.gz"))
    }

    /// Writes a context's bytes and makes them durable. Returns their number and digest.
    pub(crate) async fn receive<S, E>(&self, id: &ContextId, mut bytes: S) -> Result<(u64, Digest), ReceiveError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Two uploads of one id must not write into each other's file: the last to finish is the one that counts.
        let path = self.directory.join(format!("{id}.{}.part", uuid::Uuid::new_v4().simple()));
        let mut partial = Partial(Some(path.clone()));
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
        tokio::fs::rename(&path, self.path(id)).await?;
        partial.0 = None;
        sync_directory(&self.directory).await?;
        Ok((size, hasher.finish()))
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

        let (size, digest) = files.receive(&id(), chunks(&["hello", "there"])).await.expect("received");
        assert_eq!((size, digest), (10, Digest::sha256(b"hellothere")));
        assert_eq!(names(directory.path()), ["abc-1.tar.gz"]);

        let error = files.receive(&id(), chunks(&["hello", "there", "!"])).await.expect_err("too large");
        assert!(matches!(error, ReceiveError::TooLarge(10)));
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"he")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(files.receive(&id(), broken).await, Err(ReceiveError::Interrupted(_))));
        assert_eq!(names(directory.path()), ["abc-1.tar.gz"]);
        assert_eq!(std::fs::read(files.path(&id())).expect("read"), b"hellothere");

        files.remove(&id()).await.expect("removed");
        files.remove(&id()).await.expect("twice is fine");
    }
}
