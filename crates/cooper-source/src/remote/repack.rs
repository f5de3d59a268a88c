//! From an unpacked source to the archive of a context: the directory that was named, by the ignore file's rules, with the
//! same bytes for the same source. The rules are those for a folder (`pack::selection`) and for a repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_spec::ignore::{IgnoreRules, IgnoreVerdict};
use cooper_types::Digest;
use flate2::{Compression, GzBuilder};

use super::place::{Place, content, find, join};
use super::{RemoteError, RemoteRequest, RemoteSnapshot};
use crate::further::Found;
use crate::pack::PackError;
use crate::pack::archive::{Archive, EntryHead};
use crate::pack::hashing::Hashing;
use crate::pack::selection::replacement;

/// More than any Dockerfile, and little enough to hold in memory.
const TEXT_LIMIT: u64 = 16 << 20;
const NANOSECONDS: i64 = 1_000_000_000;

/// What goes in besides and in spite of rules.
#[derive(Default)]
struct Selection {
    rules: IgnoreRules,
    dockerfile: Option<String>,
    always: Vec<String>,
    added: Vec<(String, Vec<u8>)>,
}

/// Packs what was asked for of a source that is called `what`. One without a digest of its own is known by its archive's.
pub(super) fn repack(
    tree: &ContextTree,
    what: &str,
    subdirectory: Option<&str>,
    request: &RemoteRequest,
    pinned: Option<Digest>,
    stop: &AtomicBool,
) -> Result<RemoteSnapshot, RemoteError> {
    let root = match find(tree, "", subdirectory.unwrap_or_default()) {
        Place::Directory(path) => path,
        Place::File { .. } | Place::Missing => {
            let path = subdirectory.unwrap_or_default().escape_debug().to_string();
            return Err(RemoteError::NoSubdirectory { what: what.to_owned(), path, hint: hint(tree, "") });
        }
    };
    let mut files = BTreeMap::new();
    named(tree, &root, &request.files, request.named_file_len, &mut files)?;
    let further = request.further.after(&Found::default(), &files);
    named(tree, &root, &further, request.named_file_len, &mut files)?;
    let selection = select(tree, what, &root, request.dockerfile.as_deref())?;
    let archive = request.scratch.join("source.tar.gz");
    let (digest, size) = write(tree, &root, &selection, &archive, stop)?;
    let pinned = pinned.unwrap_or_else(|| digest.clone());
    Ok(RemoteSnapshot { pinned, archive, digest, size, dockerfile: selection.dockerfile, files })
}

/// Reads the files that the caller has named.
fn named(
    tree: &ContextTree,
    root: &str,
    names: &[String],
    limit: u64,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), RemoteError> {
    for name in names {
        if let Place::File { offset, size, .. } = find(tree, root, name) {
            files.insert(name.clone(), read(tree, name, offset, size, limit)?);
        }
    }
    Ok(())
}

/// What somebody may have meant who names something that is not there.
fn hint(tree: &ContextTree, root: &str) -> String {
    let below = |path: &str| match root {
        "" => !path.contains('/'),
        root => path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.contains('/')),
    };
    let mut there = tree.entries().iter().filter(|entry| below(&entry.path));
    match (there.next(), there.next()) {
        (Some(only), None) if only.kind == EntryKind::Directory => {
            let path: String = only.path.chars().take(200).flat_map(char::escape_debug).collect();
            format!("everything is in `{path}`: write `#:{path}` behind the source")
        }
        _ => String::new(),
    }
}

fn read(tree: &ContextTree, name: &str, offset: u64, size: u64, limit: u64) -> Result<Vec<u8>, RemoteError> {
    if size > limit {
        return Err(RemoteError::FileTooLarge { path: name.escape_debug().to_string(), limit });
    }
    let mut bytes = Vec::new();
    let read = content(tree, offset, size).and_then(|mut content| content.read_to_end(&mut bytes));
    read.map_err(|source| RemoteError::Disk { source })?;
    Ok(bytes)
}

fn text(tree: &ContextTree, root: &str, path: &str) -> Result<Option<String>, RemoteError> {
    let Place::File { offset, size, .. } = find(tree, root, path) else { return Ok(None) };
    let bytes = read(tree, path, offset, size, TEXT_LIMIT)?;
    String::from_utf8(bytes).map(Some).map_err(|_| RemoteError::IgnoreNotText { path: path.to_owned() })
}

fn select(tree: &ContextTree, what: &str, root: &str, dockerfile: Option<&str>) -> Result<Selection, RemoteError> {
    let Some(asked) = dockerfile else { return Ok(Selection::default()) };
    let clean: Vec<&str> = asked.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let clean = clean.join("/");
    let Place::File { path, offset, size } = find(tree, root, &clean) else {
        return Err(RemoteError::NoDockerfile {
            what: what.to_owned(),
            path: asked.escape_debug().to_string(),
            hint: hint(tree, root),
        });
    };
    let (file, rules) = match text(tree, root, &format!("{clean}.dockerignore"))? {
        Some(text) => (format!("{clean}.dockerignore"), text),
        None => (".dockerignore".to_owned(), text(tree, root, ".dockerignore")?.unwrap_or_default()),
    };
    let mut selection = Selection { rules: IgnoreRules::parse(&file, &rules)?, ..Selection::default() };
    selection.always.push(".dockerignore".to_owned());
    if path == join(root, &clean) {
        selection.always.push(format!("{clean}.dockerignore"));
        selection.always.push(clean.clone());
        selection.dockerfile = Some(clean);
    } else {
        let (name, added) = replacement(read(tree, asked, offset, size, TEXT_LIMIT)?, &rules);
        selection.added = added;
        selection.dockerfile = Some(name);
    }
    Ok(selection)
}

impl Selection {
    fn verdict(&self, verdict: IgnoreVerdict, path: &str) -> IgnoreVerdict {
        let inside = |always: &String| always.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        match verdict {
            IgnoreVerdict::Omit if self.always.iter().any(|always| always == path) => IgnoreVerdict::Keep,
            IgnoreVerdict::Prune if self.always.iter().any(inside) => IgnoreVerdict::Omit,
            verdict => verdict,
        }
    }
}

fn write(
    tree: &ContextTree,
    root: &str,
    selection: &Selection,
    place: &Path,
    stop: &AtomicBool,
) -> Result<(Digest, u64), RemoteError> {
    let disk = |source| RemoteError::Disk { source };
    let file = File::options().write(true).create_new(true).open(place).map_err(disk)?;
    let hashing = Hashing::new(BufWriter::with_capacity(256 << 10, file));
    let mut ignore = |_| {};
    let mut archive = Archive::new(GzBuilder::new().write(hashing, Compression::fast()), &mut ignore);
    let mut rules = selection.rules.walk();
    // Directories that are left out until something in them is kept, and the one in which nothing can be.
    let mut waiting: Vec<(String, EntryHead)> = Vec::new();
    let mut pruned: Option<String> = None;
    for entry in tree.entries() {
        if stop.load(Ordering::Relaxed) {
            return Err(RemoteError::Cancelled);
        }
        let path = match root {
            "" => entry.path.as_str(),
            root => match entry.path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) {
                Some(path) => path,
                None => continue,
            },
        };
        let is_inside = |above: &str| path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        if pruned.as_deref().is_some_and(is_inside) || selection.added.iter().any(|(name, _)| name == path) {
            continue;
        }
        let is_directory = entry.kind == EntryKind::Directory;
        let verdict = selection.verdict(rules.visit(path, is_directory), path);
        waiting.retain(|(above, _)| is_inside(above));
        let head = EntryHead { mode: entry.mode, mtime: u64::try_from(entry.mtime_ns / NANOSECONDS).unwrap_or(0) };
        match verdict {
            IgnoreVerdict::Prune => {
                pruned = Some(path.to_owned());
                continue;
            }
            IgnoreVerdict::Omit => {
                if is_directory {
                    waiting.push((path.to_owned(), head));
                }
                continue;
            }
            IgnoreVerdict::Keep => {}
        }
        for (above, head) in waiting.drain(..) {
            archive.directory(&above, head).map_err(of_archive)?;
        }
        match &entry.kind {
            EntryKind::Directory => archive.directory(path, head),
            EntryKind::Symlink { target } => archive.symlink(path, head, target),
            EntryKind::File { offset, size } => {
                let mut content = content(tree, *offset, *size).map_err(disk)?;
                archive.file(path, head, *size, &mut content)
            }
        }
        .map_err(of_archive)?;
    }
    for (name, content) in &selection.added {
        let head = EntryHead { mode: 0o644, mtime: 0 };
        archive.file(name, head, content.len() as u64, &mut content.as_slice()).map_err(of_archive)?;
    }
    let (gzip, _) = archive.finish().map_err(of_archive)?;
    let mut hashing = gzip.finish().map_err(disk)?;
    hashing.flush().map_err(disk)?;
    Ok(hashing.finish())
}

/// Contents come from the spool file, so what can fail is the disk.
pub(super) fn of_archive(error: PackError) -> RemoteError {
    match error {
        PackError::Output { source } | PackError::Unreadable { source, .. } => RemoteError::Disk { source },
        other => RemoteError::Disk { source: io::Error::other(other) },
    }
}
