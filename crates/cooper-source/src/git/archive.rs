//! Writing the archive: entries in the order of a walk, contents from the objects, the same bytes for the same source.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use cooper_types::Digest;
use flate2::{Compression, GzBuilder};

use super::context::Selection;
use super::objects::Objects;
use super::tree::{Entry, Kind};
use super::worker::check;
use super::{FetchLimits, GitError, GitNameFault};
use crate::pack::PackError;
use crate::pack::archive::{Archive, EntryHead};
use crate::pack::hashing::Hashing;

/// Every entry's time, 2000-01-01: commits keep none, and a constant lets an engine see what did not change from one
/// commit to the next. Zip files, which builds make, can hold nothing before 1980.
const TIME: u64 = 946_684_800;
/// How Git LFS begins a pointer, and how long one may be.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1";
const LFS_LEN: u64 = 1024;
const LINK_LEN: usize = 4096;

/// What was written.
pub(super) struct Written {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) entries: u64,
}

/// Writes the entries of these repositories to `place`.
pub(super) fn write(
    place: &Path,
    repositories: &[Objects<'_>],
    mut entries: Vec<Entry>,
    selection: &Selection,
    limits: &FetchLimits,
    stop: &AtomicBool,
) -> Result<Written, GitError> {
    let disk = |source| GitError::Disk { source };
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    let file = File::options().write(true).create_new(true).open(place).map_err(disk)?;
    let hashing = Hashing::new(BufWriter::with_capacity(256 << 10, file));
    let mut ignore = |_| {};
    let mut archive = Archive::new(GzBuilder::new().write(hashing, Compression::fast()), &mut ignore);
    let mut count = 0;
    let mut there: HashSet<String> = HashSet::new();
    let directory = EntryHead { mode: 0o755, mtime: TIME };
    for entry in &entries {
        check(stop)?;
        // An ignored directory is there once something in it is.
        let above: Vec<&str> = entry.path.match_indices('/').filter_map(|(at, _)| entry.path.get(..at)).collect();
        for above in above {
            if !there.contains(above) {
                archive.directory(above, directory).map_err(of_archive)?;
                there.insert(above.to_owned());
                count += 1;
            }
        }
        let Some(objects) = repositories.get(entry.repository) else { continue };
        match entry.kind {
            Kind::Directory if there.contains(&entry.path) => continue,
            Kind::Directory => {
                archive.directory(&entry.path, directory).map_err(of_archive)?;
                there.insert(entry.path.clone());
            }
            Kind::File { executable } => {
                let content = objects.file(entry.id, &entry.path, limits.file_len)?;
                let mut content = content.content();
                if entry.size < LFS_LEN && content.starts_with(LFS) {
                    return Err(GitError::Lfs { path: entry.path.escape_debug().to_string() });
                }
                let head = EntryHead { mode: if executable { 0o755 } else { 0o644 }, mtime: TIME };
                archive.file(&entry.path, head, content.len() as u64, &mut content).map_err(of_archive)?;
            }
            Kind::Link => {
                let fault =
                    || GitError::Name { path: entry.path.escape_debug().to_string(), fault: GitNameFault::LinkTarget };
                let target = objects.file(entry.id, &entry.path, limits.file_len)?;
                let target = std::str::from_utf8(target.content()).map_err(|_| fault())?;
                if target.is_empty() || target.len() > LINK_LEN || target.contains('\0') {
                    return Err(fault());
                }
                let head = EntryHead { mode: 0o777, mtime: TIME };
                archive.symlink(&entry.path, head, target).map_err(of_archive)?;
            }
        }
        count += 1;
    }
    for (name, content) in &selection.added {
        let head = EntryHead { mode: 0o644, mtime: TIME };
        archive.file(name, head, content.len() as u64, &mut content.as_slice()).map_err(of_archive)?;
        count += 1;
    }
    let (gzip, _) = archive.finish().map_err(of_archive)?;
    let mut hashing = gzip.finish().map_err(disk)?;
    hashing.flush().map_err(disk)?;
    let (digest, size) = hashing.finish();
    Ok(Written { digest, size, entries: count })
}

/// Contents come from memory here, so what can fail is the disk.
fn of_archive(error: PackError) -> GitError {
    match error {
        PackError::Output { source } | PackError::Unreadable { source, .. } => GitError::Disk { source },
        other => GitError::Disk { source: io::Error::other(other) },
    }
}
