//! The data directory: closed to other users, and locked, so that one server at a time has it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Why the data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another server has it.
    #[error("data directory `{0}` is in use by another server; stop that one or choose another directory")]
    InUse(PathBuf),
    /// Other users may enter it, and it is not ours to close.
    #[error(
        "data directory `{0}` is open to other users and holds files that are not Cooperage's; choose an empty \
         directory, or close this one with `chmod 700`"
    )]
    Shared(PathBuf),
    /// A restore into it was broken off.
    #[error("data directory `{0}` holds a restore that was broken off; empty it and restore again")]
    HalfRestored(PathBuf),
    /// It can't be made, opened or locked.
    #[error("data directory `{path}` is not usable")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// The file that is locked.
const LOCK: &str = "lock";
/// The folder in which a restore puts its files together; while it is there, the data is not whole.
pub const RESTORING: &str = "restoring";
/// Any of these says that the directory is ours.
const OURS: [&str; 3] = [LOCK, "cooper.db", "blobs"];

/// Holds the data directory; the lock ends with this value, or with the process.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the directory if it is missing, closes it to other users, and locks it.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let lock = Self::take_any(directory)?;
        match directory.join(RESTORING).try_exists() {
            Ok(false) => Ok(lock),
            Ok(true) => Err(LockError::HalfRestored(directory.to_owned())),
            Err(source) => Err(LockError::Io { path: directory.to_owned(), source }),
        }
    }

    /// The same for whoever puts the data together and not to use: it may be half restored.
    pub fn take_any(directory: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        if !close_to_others(directory).map_err(io)? {
            return Err(LockError::Shared(directory.to_owned()));
        }
        let file = private(&directory.join(LOCK)).map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::InUse(directory.to_owned())),
            Err(errno) => Err(io(errno.into())),
        }
    }
}

/// Opens a file for reading and writing that no other user may read, and makes it if it is missing.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes the directory private if it is empty or ours. `false` if it is neither: somebody may have named `/tmp`.
fn close_to_others(directory: &Path) -> io::Result<bool> {
    let mode = std::fs::metadata(directory)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(true);
    }
    let mut ours = std::fs::read_dir(directory)?.next().is_none();
    for name in OURS {
        ours |= directory.join(name).try_exists()?;
    }
    if ours {
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(ours)
}

/// Makes the names in the directory durable, and its own name in its parent.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = directory.canonicalize()?;
    for directory in [Some(directory.as_path()), directory.parent()].into_iter().flatten() {
        match File::open(directory) {
            Ok(directory) => directory.sync_all()?,
            // A parent that we may not read was not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
