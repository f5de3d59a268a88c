//! Paths of an unpacked source: looked up through links, as a real system would, and never out of the source.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use cooper_ports::context_tree::{ContextTree, EntryKind};

/// As on a real system.
const MAX_LINKS: usize = 40;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Missing,
    /// A directory by its own path in the tree, without links; empty for the tree's root.
    Directory(String),
    /// A file by its own path in the tree, without links, and where its bytes lie.
    File {
        path: String,
        offset: u64,
        size: u64,
    },
}

/// Finds a path below a directory of the tree. Links are followed inside that directory; one that leads out of it leads
/// to nothing.
pub(super) fn find(tree: &ContextTree, root: &str, path: &str) -> Place {
    let mut above: Vec<String> = Vec::new();
    let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            ".." if above.pop().is_none() => return Place::Missing,
            ".." => continue,
            _ => {}
        }
        let full = join(root, &join(&above.join("/"), &part));
        match tree.get(&full).map(|entry| &entry.kind) {
            None => return Place::Missing,
            Some(EntryKind::Directory) => above.push(part),
            Some(EntryKind::File { offset, size }) => {
                let is_last = ahead.iter().all(|part| matches!(part.as_str(), "" | "."));
                let (offset, size) = (*offset, *size);
                return if is_last { Place::File { path: full, offset, size } } else { Place::Missing };
            }
            Some(EntryKind::Symlink { target }) => {
                links += 1;
                if links > MAX_LINKS || target.starts_with('/') {
                    return Place::Missing;
                }
                for part in target.rsplit('/') {
                    ahead.push_front(part.to_owned());
                }
            }
        }
    }
    Place::Directory(join(root, &above.join("/")))
}

/// A path below a directory; the root's is empty.
pub(super) fn join(above: &str, name: &str) -> String {
    match (above, name) {
        ("", name) => name.to_owned(),
        (above, "") => above.to_owned(),
        (above, name) => format!("{above}/{name}"),
    }
}

/// A file's bytes. The tree's spool file is read by nobody else meanwhile.
pub(super) fn content(tree: &ContextTree, offset: u64, size: u64) -> io::Result<impl Read> {
    let mut file: &std::fs::File = tree.contents();
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.take(size))
}
