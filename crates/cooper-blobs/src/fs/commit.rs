//! From upload to blob. The order is the promise: bytes on disk, then the name, then the name on disk, then the answer.

use std::io;

use cooper_ports::blobs::UploadError;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::{Digest, DigestAlgorithm};

use super::session::Session;
use super::{Inner, is_full};

/// Turns an upload into the blob `expected` and returns its size.
pub(super) fn commit(inner: &Inner, mut session: Session, expected: &Digest) -> Result<u64, UploadError> {
    let id = session.id();
    let failed = |source| UploadError::Io { operation: "commit", id, source };
    let progress = match expected.algorithm() {
        DigestAlgorithm::Sha256 => session.progress(),
        // Clients name the algorithm at the end only; the file is still in the page cache.
        other => session.hash_again(other).map_err(failed)?,
    };
    // What was hashed must be what the file holds, whatever happened to it behind our back.
    let size = session.file().metadata().map_err(failed)?.len();
    if size != progress.size {
        return Err(failed(io::Error::other("the file's size is not that of the bytes that were received")));
    }
    let actual = progress.hasher.finish();
    if actual != *expected {
        inner.remove_upload(session);
        return Err(UploadError::DigestMismatch { expected: expected.clone(), actual });
    }
    match publish(inner, &session, expected, size) {
        Ok(()) => {
            inner.sessions.forget(id);
            Ok(size)
        }
        Err(error) => {
            // After a failed sync the kernel forgets which pages it lost: these bytes cannot be trusted any more.
            inner.remove_upload(session);
            Err(if is_full(&error) { UploadError::StorageFull(id) } else { failed(error) })
        }
    }
}

fn publish(inner: &Inner, session: &Session, digest: &Digest, size: u64) -> io::Result<()> {
    let from = inner.layout.upload(session.id());
    let to = inner.layout.blob(digest);
    let directory = to.parent().expect("a blob's path has a directory");
    match std::fs::metadata(&to) {
        Ok(existing) if existing.len() == size => {
            // Another upload was first. Its name may not be durable yet, so the directory is synced all the same.
            inner.disk.sync_dir(directory)?;
            std::fs::remove_file(&from)
        }
        _ => {
            inner.disk.sync_file(session.file())?;
            inner.disk.rename(&from, &to)?;
            failpoint::pass(Failpoint::BlobRenamed);
            // The directory that the file has left needs no sync: a name that comes back after a crash is a stray
            // upload, which nothing refers to.
            inner.disk.sync_dir(directory)
        }
    }
}
