//! The entries of a context while they come in: names cleaned and judged, duplicates replaced, parents completed.

use std::collections::HashMap;

use cooper_ports::context_tree::{ContextEntry, EntryKind};

use super::error::shown;
use super::member::{Member, MemberKind};
use super::{NameFault, UnpackError, UnpackLimits};

/// What every common file system takes as one part of a path.
const PART_LEN: usize = 255;
const NANOSECONDS: i64 = 1_000_000_000;

/// Where a file's content went.
pub(super) struct Content {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Made from the content, to stand below the seconds of its time.
    pub(super) nanoseconds: i64,
}

pub(super) struct TreeBuilder<'run> {
    limits: &'run UnpackLimits,
    entries: HashMap<String, ContextEntry>,
    count: u64,
    paths_len: u64,
}

impl<'run> TreeBuilder<'run> {
    pub(super) fn new(limits: &'run UnpackLimits) -> Self {
        Self { limits, entries: HashMap::new(), count: 0, paths_len: 0 }
    }

    /// Takes in the next entry; `content` is what a file's entry came with.
    pub(super) fn add(&mut self, member: Member, content: Option<Content>) -> Result<(), UnpackError> {
        let refused = |fault| UnpackError::Name { name: shown(member.name.as_bytes()), fault };
        let Some(path) = clean(&member.name, self.limits).map_err(refused)? else {
            // The root is a directory whatever its entry says of modes and times.
            return if member.kind == MemberKind::Directory { Ok(()) } else { Err(refused(NameFault::Root)) };
        };
        self.account(&path)?;
        let seconds = member.mtime * NANOSECONDS;
        let (kind, nanoseconds) = match member.kind {
            MemberKind::Directory => (EntryKind::Directory, 0),
            MemberKind::File => {
                let content = content.unwrap_or(Content { offset: 0, size: 0, nanoseconds: 0 });
                (EntryKind::File { offset: content.offset, size: content.size }, content.nanoseconds)
            }
            MemberKind::Symlink { target } => {
                check_target(&target, self.limits).map_err(|fault| {
                    let name = shown(member.name.as_bytes());
                    UnpackError::LinkTarget { name, fault }
                })?;
                (EntryKind::Symlink { target }, 0)
            }
            MemberKind::HardLink { target } => {
                let found = clean(&target, self.limits).ok().flatten().and_then(|path| self.entries.get(&path));
                match found {
                    Some(entry) if entry.kind != EntryKind::Directory => {
                        (entry.kind.clone(), entry.mtime_ns % NANOSECONDS)
                    }
                    _ => {
                        let target = shown(target.as_bytes());
                        return Err(UnpackError::HardLink { name: shown(member.name.as_bytes()), target });
                    }
                }
            }
        };
        let entry = ContextEntry { path: path.clone(), kind, mode: member.mode, mtime_ns: seconds + nanoseconds };
        self.entries.insert(path, entry);
        Ok(())
    }

    /// All entries, every one of them inside directories that are entries, too.
    pub(super) fn finish(mut self) -> Result<Vec<ContextEntry>, UnpackError> {
        // In order, so that the same archive always has the same error.
        let mut paths: Vec<String> = self.entries.keys().cloned().collect();
        paths.sort_unstable();
        for path in paths {
            // From the nearest parent upwards, to the first that is there: what is above that one is its own affair.
            for (at, _) in path.rmatch_indices('/') {
                let Some(above) = path.get(..at) else { break };
                match self.entries.get(above).map(|entry| &entry.kind) {
                    Some(EntryKind::Directory) => break,
                    Some(kind) => {
                        let kind = if matches!(kind, EntryKind::File { .. }) { "file" } else { "symbolic link" };
                        let (name, above) = (shown(path.as_bytes()), shown(above.as_bytes()));
                        return Err(UnpackError::Inside { name, above, kind });
                    }
                    None => {
                        self.account(above)?;
                        let kind = EntryKind::Directory;
                        let entry = ContextEntry { path: above.to_owned(), kind, mode: 0o755, mtime_ns: 0 };
                        self.entries.insert(above.to_owned(), entry);
                    }
                }
            }
        }
        Ok(self.entries.into_values().collect())
    }

    /// Counts every entry, also one that is replaced later: it has cost its work.
    fn account(&mut self, path: &str) -> Result<(), UnpackError> {
        self.count += 1;
        self.paths_len += path.len() as u64;
        if self.count > self.limits.entries {
            return Err(UnpackError::TooManyEntries { limit: self.limits.entries });
        }
        if self.paths_len > self.limits.paths_len {
            return Err(UnpackError::NamesTooLong { limit: self.limits.paths_len });
        }
        Ok(())
    }
}

/// The name as a path of a context: without `.` parts and doubled or trailing slashes. Nothing for the root.
fn clean(name: &str, limits: &UnpackLimits) -> Result<Option<String>, NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.contains('\0') {
        return Err(NameFault::Nul);
    }
    if name.len() > limits.path_len {
        return Err(NameFault::TooLong);
    }
    if name == "/" {
        return Ok(None);
    }
    if name.starts_with('/') {
        return Err(NameFault::Absolute);
    }
    let mut path = String::with_capacity(name.len());
    for part in name.split('/') {
        match part {
            "" | "." => continue,
            ".." => return Err(NameFault::Parent),
            part if part.len() > PART_LEN => return Err(NameFault::TooLong),
            part => {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(part);
            }
        }
    }
    Ok(Some(path).filter(|path| !path.is_empty()))
}

/// A link's target may be any text that a system call would take: it is never followed here.
fn check_target(target: &str, limits: &UnpackLimits) -> Result<(), NameFault> {
    if target.is_empty() {
        Err(NameFault::Empty)
    } else if target.contains('\0') {
        Err(NameFault::Nul)
    } else if target.len() > limits.path_len {
        Err(NameFault::TooLong)
    } else {
        Ok(())
    }
}
