//! Folders to build from.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::product::repository_path;

/// A folder with a Dockerfile and other files, gone when it is dropped.
pub struct Context {
    folder: TempDir,
}

impl Context {
    /// A folder with this Dockerfile.
    pub fn new(dockerfile: &str) -> Self {
        Self::empty().file("Dockerfile", dockerfile)
    }

    /// An empty folder.
    pub fn empty() -> Self {
        Self { folder: TempDir::with_prefix("cooper-context-").expect("make a temporary folder") }
    }

    /// A copy of a folder of `examples/`.
    pub fn example(name: &str) -> Self {
        let context = Self::empty();
        let from = repository_path("examples").join(name);
        for entry in std::fs::read_dir(&from).unwrap_or_else(|error| panic!("read {}: {error}", from.display())) {
            let entry = entry.expect("read an example's folder");
            assert!(entry.file_type().is_ok_and(|kind| kind.is_file()), "examples are flat");
            std::fs::copy(entry.path(), context.path().join(entry.file_name())).expect("copy a file of an example");
        }
        context
    }

    /// The folder of `examples/busybox` with this machine's busybox in it.
    pub fn busybox() -> Self {
        let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
        let program = program.expect("a static busybox is needed: `cargo xtask test` installs one");
        let context = Self::example("busybox");
        std::fs::copy(program, context.path().join("busybox")).expect("copy busybox");
        context
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make a folder");
        std::fs::write(path, text).expect("write a file");
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is, for a command line.
    pub fn display(&self) -> String {
        self.path().display().to_string()
    }

    /// A path inside it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A word that nobody has used before: an engine keeps what it has built, and then builds it no more.
pub fn unique() -> String {
    format!("u{:016x}", RandomState::new().hash_one(()))
}
