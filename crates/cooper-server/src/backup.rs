//! Backup and restore of a data directory.
//!
//! A backup is an uncompressed tar of regular files: a manifest, the database, the key and its like, contexts of unfinished
//! runs, and blobs. What a reader may expect next is known before it comes: the manifest names the first files with
//! their digests, the database all others. So an archive that was cut off, changed or made up is told at the
//! first byte that is wrong, and nothing in it chooses a path.
//!
//! The order of a backup is the promise: the database first, then the files that it refers to. Blobs never go while
//! something refers to them, so each one of the snapshot is still there when its turn comes.
//!
//! Both block: they are for a command of its own, not for a serving process.

mod archive;
mod create;
mod restore;

use std::path::PathBuf;

use cooper_store::{LockError, Snapshot, SnapshotError};
use serde::{Deserialize, Serialize};

pub(crate) use create::is_running;
pub use create::{BackupOptions, WorkFolder, backup};
pub use restore::restore;

/// The version of the archive's form that is written and read.
const FORMAT: u32 = 1;
/// The first entry's name.
const MANIFEST: &str = "cooper-backup.json";
/// The database's name, in the archive as in the data directory.
const DATABASE: &str = "cooper.db";
/// The files of the data directory that are secrets of the server itself.
const SECRET_FILES: [&str; 2] = ["key", "admin-token"];
/// The folder of the server's certificates; its plain files belong to the secrets.
const TLS_FOLDER: &str = "tls";
/// The largest manifest, and the largest of the small files, in bytes.
const MAX_SMALL_FILE: u64 = 1 << 20;
/// How many small files there may be.
const MAX_SMALL_FILES: usize = 64;
/// How many blobs are asked for at once.
const PAGE: u32 = 500;

/// What the archive says of itself: its first entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    format: u32,
    /// The version of cooper that wrote it.
    version: String,
    /// The database's schema.
    schema: i64,
    /// The newest time that the database knows, in microseconds since 1970.
    newest: i64,
    /// The database and the small files, in the order in which they come next.
    files: Vec<ManifestFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ManifestFile {
    name: String,
    size: u64,
    digest: String,
}

/// What was backed up or restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// The version of cooper that made the backup.
    pub version: String,
    /// The newest time that the backup knows, in microseconds since 1970.
    pub newest_micros: i64,
    /// Whether the server's key is in it, without which no stored secret opens.
    pub has_key: bool,
    /// Runs that were not at their end.
    pub unfinished_runs: u64,
    /// Contexts of those.
    pub contexts: u64,
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database can't be copied.
    #[error("failed to copy the database")]
    Database(#[from] SnapshotError),
    /// A file that the database refers to is not there, or not what it was.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file can't be read.
    #[error("`{path}` can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The archive can't be written.
    #[error("the backup can't be written")]
    Write(#[source] std::io::Error),
    /// Contexts went away again and again while they were to be copied.
    #[error("context `{0}` ended while it was copied; try again")]
    Gone(PathBuf),
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive is not a whole backup.
    #[error("the backup is not usable: {0}")]
    Archive(String),
    /// The archive can't be read.
    #[error("the backup can't be read")]
    Read(#[source] std::io::Error),
    /// Its database can't be used.
    #[error("the backup's database is not usable")]
    Database(#[from] SnapshotError),
    /// The data directory holds something.
    #[error("data directory `{0}` is not empty; name a new folder with --data-dir")]
    NotEmpty(PathBuf),
    /// The data directory can't be taken.
    #[error("the data directory can't be used")]
    Lock(#[from] LockError),
    /// A file can't be written.
    #[error("`{path}` can't be written")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The version of the schema of a data directory's database, which a server may be using.
pub async fn schema(data_dir: &std::path::Path) -> Result<i64, SnapshotError> {
    Snapshot::schema_of(data_dir).await
}

/// Whether a small file may have this name: one of ours, or a plain name in the folder of certificates.
fn is_small_file(name: &str) -> bool {
    let is_plain = |name: &str| {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        first
            && name.len() <= 64
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let in_tls = name.strip_prefix(TLS_FOLDER).and_then(|rest| rest.strip_prefix('/'));
    SECRET_FILES.contains(&name) || in_tls.is_some_and(is_plain)
}

/// A blob's name in the archive: short enough for every tar.
fn blob_name(digest: &cooper_types::Digest) -> String {
    let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
    match hex.split_at_checked(64) {
        Some((start, rest)) if !rest.is_empty() => format!("blobs/{algorithm}/{start}/{rest}"),
        _ => format!("blobs/{algorithm}/{hex}"),
    }
}

/// A context's name in the archive.
fn context_name(id: &cooper_types::ContextId) -> String {
    format!("contexts/{id}.tar.gz")
}

#[cfg(test)]
mod tests {
    use cooper_types::Digest;

    use super::*;

    #[test]
    fn names_choose_no_path() {
        for name in ["key", "admin-token", "tls/ca.pem", "tls/server-1_key.pem"] {
            assert!(is_small_file(name), "{name}");
        }
        for name in ["", "../key", "tls/", "tls/..", "tls/.a", "tls/a/b", "tls", "cooper.db", "/key", "tls//a", "Key"] {
            assert!(!is_small_file(name), "{name}");
        }
    }

    #[test]
    fn blobs_names_fit_into_a_tar() {
        let sha512 = Digest::parse(&format!("sha512:{}", "ab".repeat(64))).expect("digest");
        assert_eq!(blob_name(&sha512), format!("blobs/sha512/{0}/{0}", "ab".repeat(32)));
        assert_eq!(blob_name(&Digest::sha256(b"")).len(), "blobs/sha256/".len() + 64);
    }
}
