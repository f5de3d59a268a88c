//! A commit's tree: paths looked up through links, and the entries that go into an archive.

use std::collections::VecDeque;

use cooper_spec::ignore::{IgnoreVerdict, IgnoreWalk};
use git2::Oid;

use super::context::Selection;
use super::error::shown;
use super::objects::Objects;
use super::{FetchLimits, GitError, GitNameFault};

/// As on a real system.
const MAX_LINKS: usize = 40;
/// What every common file system takes.
const PATH_LEN: usize = 4096;
const PART_LEN: usize = 255;
/// Bytes of all paths of an archive together, as for archives that are uploaded.
const PATHS_LEN: u64 = 128 << 20;
/// Directories inside each other.
const MAX_DEPTH: usize = 200;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Missing,
    /// A directory and its own path, without links.
    Directory {
        tree: Oid,
        path: String,
    },
    /// A file and its own path, without links.
    File {
        id: Oid,
        path: String,
    },
    /// The path goes through a submodule, or ends in one.
    Submodule {
        path: String,
        commit: Oid,
        rest: String,
    },
}

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { executable: bool },
    Link,
}

/// One entry of an archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path in the archive.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Which repository its content is in.
    pub(super) repository: usize,
    pub(super) id: Oid,
    pub(super) size: u64,
}

/// A submodule that goes into an archive.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Its path in its own repository, as `.gitmodules` names it.
    pub(super) inside: String,
    /// Its path in the archive.
    pub(super) path: String,
    pub(super) commit: Oid,
}

enum Node {
    Directory(Oid),
    File(Oid, bool),
    Link(Oid),
    Submodule(Oid),
}

fn node(entry: &git2::TreeEntry<'_>) -> Option<Node> {
    let mode = entry.filemode_raw();
    match mode & 0o170_000 {
        0o040_000 => Some(Node::Directory(entry.id())),
        0o100_000 => Some(Node::File(entry.id(), mode & 0o100 != 0)),
        0o120_000 => Some(Node::Link(entry.id())),
        0o160_000 => Some(Node::Submodule(entry.id())),
        _ => None,
    }
}

/// Finds a path below `root`. Links are followed inside the repository; one that leads out of it leads to nothing.
pub(super) fn find(objects: &Objects<'_>, root: Oid, path: &str, limits: &FetchLimits) -> Result<Place, GitError> {
    let mut above: Vec<(String, Oid)> = Vec::new();
    let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut links = 0;
    let joined = |above: &[(String, Oid)], last: &str| {
        above
            .iter()
            .map(|(name, _)| name.as_str())
            .chain((!last.is_empty()).then_some(last))
            .collect::<Vec<_>>()
            .join("/")
    };
    while let Some(part) = ahead.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            ".." if above.pop().is_none() => return Ok(Place::Missing),
            ".." => continue,
            _ => {}
        }
        let here = above.last().map_or(root, |(_, tree)| *tree);
        let (tree, _) = objects.tree(here, 0, limits.directories)?;
        let Some(entry) = tree.get_name_bytes(part.as_bytes()) else { return Ok(Place::Missing) };
        match node(&entry) {
            Some(Node::Directory(id)) => above.push((part, id)),
            Some(Node::File(id, _)) => {
                let is_last = ahead.iter().all(|part| matches!(part.as_str(), "" | "."));
                return Ok(if is_last { Place::File { id, path: joined(&above, &part) } } else { Place::Missing });
            }
            Some(Node::Link(id)) => {
                links += 1;
                let target = objects.file(id, &part, PATH_LEN as u64)?;
                let Some(target) = std::str::from_utf8(target.content()).ok().filter(|text| !text.starts_with('/'))
                else {
                    return Ok(Place::Missing);
                };
                if links > MAX_LINKS || target.is_empty() {
                    return Ok(Place::Missing);
                }
                for part in target.rsplit('/') {
                    ahead.push_front(part.to_owned());
                }
            }
            Some(Node::Submodule(commit)) => {
                let rest: Vec<String> = ahead.into_iter().filter(|part| !matches!(part.as_str(), "" | ".")).collect();
                return Ok(Place::Submodule { path: joined(&above, &part), commit, rest: rest.join("/") });
            }
            None => return Ok(Place::Missing),
        }
    }
    let tree = above.last().map_or(root, |(_, tree)| *tree);
    Ok(Place::Directory { tree, path: joined(&above, "") })
}

/// A tree on its way into an archive.
pub(super) struct Collector<'run> {
    pub(super) objects: &'run Objects<'run>,
    /// Which repository the tree is of.
    pub(super) repository: usize,
    pub(super) selection: &'run Selection,
    pub(super) limits: &'run FetchLimits,
    pub(super) entries: Vec<Entry>,
    pub(super) links: Vec<Link>,
    pub(super) tally: Tally,
    /// Bytes of the directories from the root to where it is: all of them are in memory.
    pub(super) open: u64,
}

/// What has been counted over all trees of an archive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Entries that were looked at.
    entries: u64,
    /// Bytes of files.
    bytes: u64,
    /// Bytes of paths.
    paths: u64,
}

impl Collector<'_> {
    /// Takes in a tree. `inside` is its path in its repository, `path` that in the archive; both empty for a root.
    pub(super) fn collect(&mut self, tree: Oid, inside: &str, path: &str) -> Result<(), GitError> {
        let selection = self.selection;
        let mut rules = selection.rules.walk();
        for (at, _) in path.match_indices('/') {
            rules.visit(&path[..at], true);
        }
        if !path.is_empty() {
            rules.visit(path, true);
        }
        self.directory(tree, inside, path, &mut rules, path.matches('/').count())
    }

    fn directory(
        &mut self,
        tree: Oid,
        inside: &str,
        path: &str,
        rules: &mut IgnoreWalk<'_>,
        depth: usize,
    ) -> Result<(), GitError> {
        if depth > MAX_DEPTH {
            return Err(GitError::Limit { what: "directories inside each other", limit: MAX_DEPTH as u64 });
        }
        let objects = self.objects;
        let (tree, length) = objects.tree(tree, self.open, self.limits.directories)?;
        self.open += length;
        for entry in &tree {
            self.tally.entries += 1;
            if self.tally.entries > self.limits.entries {
                return Err(GitError::Limit { what: "entries", limit: self.limits.entries });
            }
            let raw = entry.name_bytes();
            let shown_path = || join(path, &shown(raw));
            let is_directory = matches!(node(&entry), Some(Node::Directory(_) | Node::Submodule(_)));
            let lossy = String::from_utf8_lossy(raw);
            let full = join(path, &lossy);
            let verdict = self.selection.verdict(rules.visit(&full, is_directory), &full);
            if verdict == IgnoreVerdict::Prune || (verdict == IgnoreVerdict::Omit && !is_directory) {
                continue;
            }
            if self.selection.is_replaced(&full) {
                continue;
            }
            let Ok(name) = std::str::from_utf8(raw) else {
                return Err(GitError::Name { path: shown_path(), fault: GitNameFault::NotUtf8 });
            };
            if let Some(fault) = name_fault(name, &full) {
                return Err(GitError::Name { path: shown_path(), fault });
            }
            self.tally.paths += full.len() as u64;
            if self.tally.paths > PATHS_LEN {
                return Err(GitError::Limit { what: "bytes in its paths", limit: PATHS_LEN });
            }
            let inner = join(inside, name);
            match node(&entry) {
                Some(Node::Directory(id)) => {
                    if verdict == IgnoreVerdict::Keep {
                        self.add(full.clone(), Kind::Directory, id, 0);
                    }
                    self.directory(id, &inner, &full, rules, depth + 1)?;
                }
                Some(Node::Submodule(commit)) => {
                    if verdict == IgnoreVerdict::Keep {
                        self.add(full.clone(), Kind::Directory, commit, 0);
                    }
                    self.links.push(Link { inside: inner, path: full, commit });
                }
                Some(Node::File(id, executable)) => {
                    let size = self.size(id, &full)?;
                    self.add(full, Kind::File { executable }, id, size);
                }
                Some(Node::Link(id)) => {
                    let size = self.size(id, &full)?;
                    self.add(full, Kind::Link, id, size);
                }
                None => return Err(GitError::Name { path: shown_path(), fault: GitNameFault::Forbidden }),
            }
        }
        self.open -= length;
        Ok(())
    }

    fn add(&mut self, path: String, kind: Kind, id: Oid, size: u64) {
        self.entries.push(Entry { path, kind, repository: self.repository, id, size });
    }

    fn size(&mut self, id: Oid, path: &str) -> Result<u64, GitError> {
        let size = self.objects.len(id)?;
        if size > self.limits.file_len {
            return Err(GitError::FileTooLarge { path: path.escape_debug().to_string(), limit: self.limits.file_len });
        }
        self.tally.bytes += size;
        if self.tally.bytes > self.limits.bytes {
            return Err(GitError::Limit { what: "bytes", limit: self.limits.bytes });
        }
        Ok(size)
    }
}

fn name_fault(name: &str, path: &str) -> Option<GitNameFault> {
    if name.len() > PART_LEN || path.len() > PATH_LEN {
        return Some(GitNameFault::TooLong);
    }
    let forbidden = matches!(name, "" | "." | "..") || name.eq_ignore_ascii_case(".git") || name.contains(['/', '\0']);
    forbidden.then_some(GitNameFault::Forbidden)
}

/// A name below a directory; the root's path is empty.
pub(super) fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}
