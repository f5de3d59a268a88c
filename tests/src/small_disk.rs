//! A file system so small that it can be filled.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A small file system in memory. Mounting takes root.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one of this many MiB.
    #[track_caller]
    pub fn mount(mebibytes: u32) -> Self {
        let folder = TempDir::with_prefix("cooper-disk-").expect("make a temporary folder");
        let options = format!("size={mebibytes}m,mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        assert!(
            mount.is_ok_and(|mounted| mounted.success()),
            "this test mounts a small tmpfs, which takes root: run it as `cargo xtask test` says"
        );
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder on it for a server's data.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Takes all the space that is left.
    #[track_caller]
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).expect("make a file on a small disk");
        let block = [0u8; 4096];
        while file.write_all(&block).is_ok() {}
    }

    /// Gives back what [`Self::fill`] took.
    #[track_caller]
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("remove a file from a small disk");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is still ending may hold a file.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
