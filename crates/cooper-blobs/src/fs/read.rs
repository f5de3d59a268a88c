//! Blobs on their way out: large reads at offsets on blocking threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cooper_ports::blobs::{BlobReadError, OutgoingBytes};
use cooper_types::Digest;
use futures::StreamExt as _;

/// How much is read at once. Small reads cost more in hops between threads than in copying.
const READ: u64 = 256 * 1024;

/// Opens the file of a blob and streams `range` of it.
pub(super) async fn read(path: PathBuf, digest: &Digest, range: Range<u64>) -> Result<OutgoingBytes, BlobReadError> {
    let opened = blocking(move || {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    let (file, size) = opened.await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BlobReadError::Unknown(digest.clone()),
        _ => BlobReadError::Io { digest: digest.clone(), source },
    })?;
    if range.start > range.end || range.end > size {
        return Err(BlobReadError::Truncated(digest.clone()));
    }
    let digest = digest.clone();
    let file = Arc::new(file);
    let chunks = futures::stream::try_unfold(range.start, move |offset| {
        let (file, digest, end) = (file.clone(), digest.clone(), range.end);
        async move {
            if offset >= end {
                return Ok(None);
            }
            let length = (end - offset).min(READ);
            let chunk = blocking(move || read_at(&file, offset, length)).await;
            match chunk {
                Ok(chunk) if chunk.is_empty() => Err(BlobReadError::Truncated(digest)),
                Ok(chunk) => {
                    let next = offset + chunk.len() as u64;
                    Ok(Some((chunk, next)))
                }
                Err(source) => Err(BlobReadError::Io { digest, source }),
            }
        }
    });
    Ok(chunks.boxed())
}

fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(length).expect("a read is small")];
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
