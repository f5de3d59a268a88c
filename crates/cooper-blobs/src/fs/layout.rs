//! Where files are. Every path is made here, of parsed values only.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cooper_ports::blobs::{SURVEY_PARTS, UploadId};
use cooper_ports::registry::UPLOAD_LIFETIME;
use cooper_types::{Digest, DigestAlgorithm};

use super::disk::Disk;

pub(super) struct Layout {
    data_dir: PathBuf,
    blobs: PathBuf,
    uploads: PathBuf,
}

impl Layout {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), blobs: data_dir.join("blobs"), uploads: data_dir.join("uploads") }
    }

    /// The file of a blob.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs.join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    /// The directory with a part of the blobs, and their algorithm. There are [`SURVEY_PARTS`].
    pub(super) fn part(&self, part: u16) -> (PathBuf, DigestAlgorithm) {
        let [algorithm, shard] = (part % SURVEY_PARTS).to_be_bytes();
        let algorithm = if algorithm == 0 { DigestAlgorithm::Sha256 } else { DigestAlgorithm::Sha512 };
        (self.blobs.join(algorithm.name()).join(format!("{shard:02x}")), algorithm)
    }

    /// The file of an upload.
    pub(super) fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads.join(id.to_string())
    }

    /// Makes all directories, down to the last level, and makes them durable: committing a blob then syncs one directory
    /// and no more.
    pub(super) fn create(&self, disk: &dyn Disk) -> io::Result<()> {
        let algorithms = [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512].map(|it| self.blobs.join(it.name()));
        create_dir(&self.uploads)?;
        create_dir(&self.blobs)?;
        for algorithm in &algorithms {
            create_dir(algorithm)?;
            for shard in 0..=u8::MAX {
                create_dir(&algorithm.join(format!("{shard:02x}")))?;
            }
        }
        // Synced after all is made: where a file system has one journal, the first sync does the work of all.
        for directory in algorithms.iter().chain([&self.blobs, &self.data_dir]) {
            disk.sync_dir(directory)?;
        }
        Ok(())
    }

    /// Removes files of uploads that are long over. The name of a removed file may come back after a power loss, when
    /// nothing else remembers the upload.
    pub(super) fn remove_stray_uploads(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.uploads)? {
            let entry = entry?;
            let is_upload = entry.file_name().to_str().is_some_and(|name| UploadId::parse(name).is_ok());
            // A time in the future has no age: such a file stays.
            let is_old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > STRAY);
            if is_upload && is_old(entry.metadata()?.modified()?) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The age at which an upload's file is a stray: nobody may go on with an upload as old.
const STRAY: Duration = UPLOAD_LIFETIME.saturating_mul(2);

/// Makes a directory for this user alone; one that is there is fine.
fn create_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
