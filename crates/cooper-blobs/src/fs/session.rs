//! One upload at work: its file, and the running hash of what the file holds.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cooper_ports::blobs::{UploadError, UploadId};
use cooper_types::{DigestAlgorithm, Hasher};
use tokio::sync::OwnedMutexGuard;

use super::disk::Disk;

/// How much of a file is read at once where a hash is made again.
const REHASH_BUFFER: usize = 256 * 1024;

/// What the uploads' files are known to hold. An upload that is not here is hashed again when it goes on.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<UploadId, Slot>>);

/// Locked while somebody works on the upload. `None` where the file must be hashed first.
type Slot = Arc<tokio::sync::Mutex<Option<Progress>>>;

/// How far an upload is.
#[derive(Clone)]
pub(super) struct Progress {
    /// How many bytes.
    pub(super) size: u64,
    /// Their running hash.
    pub(super) hasher: Hasher,
}

/// The right to work on an upload.
pub(super) struct Held {
    id: UploadId,
    progress: OwnedMutexGuard<Option<Progress>>,
}

impl Sessions {
    /// Takes an upload for oneself, without waiting: the other holder may be a client that has gone silent.
    pub(super) fn hold(&self, id: UploadId) -> Result<Held, UploadError> {
        let slot = self.slots().entry(id).or_default().clone();
        let progress = slot.try_lock_owned().map_err(|_| UploadError::Busy(id))?;
        Ok(Held { id, progress })
    }

    /// Forgets an upload that is over.
    pub(super) fn forget(&self, id: UploadId) {
        self.slots().remove(&id);
    }

    /// How many uploads are known.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.slots().len()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An upload at work. Dropping it lets others go on with the upload.
pub(super) struct Session {
    held: Held,
    file: File,
    progress: Progress,
}

impl Session {
    /// Makes the file of a new upload.
    pub(super) fn create(path: &Path, mut held: Held) -> Result<(), UploadError> {
        let id = held.id;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|source| UploadError::Io {
            operation: "begin",
            id,
            source,
        })?;
        *held.progress = Some(Progress { size: 0, hasher: Hasher::new(DigestAlgorithm::Sha256) });
        Ok(())
    }

    /// Opens the file of an upload and hashes it if what is known does not fit it.
    pub(super) fn open(path: &Path, mut held: Held) -> Result<Self, UploadError> {
        let id = held.id;
        let opened = open(path, held.progress.take());
        match opened {
            Ok((file, progress)) => {
                *held.progress = Some(progress.clone());
                Ok(Self { held, file, progress })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UploadError::Unknown(id)),
            Err(source) => Err(UploadError::Io { operation: "open", id, source }),
        }
    }

    /// Which upload this is.
    pub(super) fn id(&self) -> UploadId {
        self.held.id
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Its file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes and hashes the next bytes. After an error the file is hashed again before anything else.
    pub(super) fn write(&mut self, disk: &dyn Disk, chunks: &[Bytes]) -> io::Result<()> {
        *self.held.progress = None;
        for chunk in chunks {
            disk.write_all(&mut self.file, chunk)?;
            self.progress.hasher.update(chunk);
            self.progress.size += chunk.len() as u64;
        }
        *self.held.progress = Some(self.progress.clone());
        Ok(())
    }

    /// Takes back everything after `start`.
    pub(super) fn rewind(mut self, start: Progress) -> Result<(), UploadError> {
        *self.held.progress = None;
        let id = self.id();
        self.file.set_len(start.size).map_err(|source| UploadError::Io { operation: "rewind", id, source })?;
        *self.held.progress = Some(start);
        Ok(())
    }

    /// Hashes the whole file with another algorithm than the running hash's.
    pub(super) fn hash_again(&mut self, algorithm: DigestAlgorithm) -> io::Result<Progress> {
        hash(&mut self.file, algorithm)
    }
}

/// Opens a file, with what is known of it if that fits, ready to be written to at its end.
fn open(path: &Path, known: Option<Progress>) -> io::Result<(File, Progress)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let progress = match known {
        Some(progress) if progress.size == size => progress,
        _ => hash(&mut file, DigestAlgorithm::Sha256)?,
    };
    file.seek(SeekFrom::Start(progress.size))?;
    Ok((file, progress))
}

fn hash(file: &mut File, algorithm: DigestAlgorithm) -> io::Result<Progress> {
    file.seek(SeekFrom::Start(0))?;
    let mut progress = Progress { size: 0, hasher: Hasher::new(algorithm) };
    let mut buffer = vec![0; REHASH_BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(progress),
            Ok(count) => {
                progress.hasher.update(&buffer[..count]);
                progress.size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
