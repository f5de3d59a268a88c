//! The file operations that durability hangs on, behind a trait so that a test sees their order and makes them fail.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

pub(super) trait Disk: Send + Sync {
    /// Writes all of `bytes` at the file's position.
    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes and size durable.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Moves a file, replacing what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// The operating system's.
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}
