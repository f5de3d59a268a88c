//! Contexts made in a test: files in a spool, as an agent would have unpacked them.

use std::io::Write;
use std::path::Path;

use cooper_ports::context_tree::{ContextEntry, ContextTree, EntryKind};
use cooper_types::Digest;

/// Seconds of every entry: edits must be seen by their content's nanoseconds alone.
const MTIME_SECONDS: i64 = 1_700_000_000;

pub(crate) struct Context {
    entries: Vec<ContextEntry>,
    spool: std::fs::File,
    length: u64,
}

impl Context {
    /// A context with this Dockerfile.
    pub(crate) fn new(dockerfile: &str) -> Self {
        let spool = tempfile::tempfile().expect("a spool file");
        Self { entries: Vec::new(), spool, length: 0 }.file("Dockerfile", 0o644, dockerfile.as_bytes())
    }

    /// The same with a shell: `COPY bin /bin` makes `RUN` work on scratch.
    pub(crate) fn shell(dockerfile: &str) -> Self {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.expect("Debian's busybox-static, which `cargo xtask test` installs, is needed");
        let busybox = std::fs::read(busybox).expect("busybox is readable");
        Self::new(dockerfile).directory("bin").file("bin/busybox", 0o755, &busybox).symlink("bin/sh", "busybox")
    }

    pub(crate) fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.spool.write_all(content).expect("the spool takes bytes");
        let kind = EntryKind::File { offset: self.length, size: content.len() as u64 };
        self.length += content.len() as u64;
        let nanos = u32::from_str_radix(&Digest::sha256(content).hex()[..7], 16).expect("hexadecimal");
        self.entry(path, kind, mode, i64::from(nanos))
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(path, EntryKind::Directory, 0o755, 0)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryKind::Symlink { target: target.into() }, 0o777, 0)
    }

    /// An entry whose contents are not in the spool.
    pub(crate) fn torn_file(self, path: &str, size: u64) -> Self {
        self.entry(path, EntryKind::File { offset: 1 << 40, size }, 0o644, 0)
    }

    fn entry(mut self, path: &str, kind: EntryKind, mode: u32, nanos: i64) -> Self {
        let mtime_ns = MTIME_SECONDS * 1_000_000_000 + nanos;
        self.entries.push(ContextEntry { path: path.into(), kind, mode, mtime_ns });
        self
    }

    pub(crate) fn tree(self) -> ContextTree {
        ContextTree::new(self.entries, self.spool)
    }
}
