//! A build context on an agent's disk, as the engine adapter serves it and the source adapter makes it.
//!
//! File contents lie one after another in a single spool file that the agent names; nothing of a context is ever
//! created on the agent's disk under a name that the context chose, so an entry cannot escape or collide there.

use std::fs::File;
use std::sync::Arc;

/// A context: entries in the order of a walk that visits a directory right before its children, children in byte
/// order of their names, together with the file that holds the contents.
#[derive(Clone, Debug)]
pub struct ContextTree {
    entries: Arc<[ContextEntry]>,
    contents: Arc<File>,
}

/// One entry of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// Relative path with `/` between its parts: no empty, `.` or `..` part.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Unix permission bits, `0o7777` at most.
    pub mode: u32,
    /// Modification time in nanoseconds since the epoch. For files, the part below a second comes from the content's
    /// hash, so that an edit that keeps size and second is still seen by a comparison of metadata.
    pub mtime_ns: i64,
}

/// What a context's entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file: where its bytes lie in the spool file.
    File {
        /// First byte in the spool file.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// A symbolic link, kept as it was written and never followed on the agent.
    Symlink {
        /// The link's text.
        target: String,
    },
}

impl ContextTree {
    /// A tree of `entries`, which this sorts, over `contents`.
    ///
    /// The caller has checked the paths and has made sure that every entry's parent directory is there.
    pub fn new(mut entries: Vec<ContextEntry>, contents: File) -> Self {
        entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Self { entries: entries.into(), contents: Arc::new(contents) }
    }

    /// What lies below a folder, as a context of its own; none if it is not there or no folder. The empty path is the
    /// context itself.
    pub fn folder(&self, path: &str) -> Option<Self> {
        if path.is_empty() {
            return Some(self.clone());
        }
        if self.get(path)?.kind != EntryKind::Directory {
            return None;
        }
        let below = |entry: &ContextEntry| {
            let path = entry.path.strip_prefix(path)?.strip_prefix('/')?.to_owned();
            Some(ContextEntry { path, ..entry.clone() })
        };
        // All of them begin with the same parts, so their order stays.
        Some(Self { entries: self.entries.iter().filter_map(below).collect(), contents: Arc::clone(&self.contents) })
    }

    /// All entries, in walk order.
    pub fn entries(&self) -> &[ContextEntry] {
        &self.entries
    }

    /// The spool file: read at offsets, never seek.
    pub fn contents(&self) -> &Arc<File> {
        &self.contents
    }

    /// The entry at exactly this path.
    pub fn get(&self, path: &str) -> Option<&ContextEntry> {
        let index = self.entries.binary_search_by(|entry| entry.path.split('/').cmp(path.split('/'))).ok()?;
        self.entries.get(index)
    }
}
