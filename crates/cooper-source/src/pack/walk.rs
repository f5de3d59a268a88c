//! The walk over a folder: which entries go in, in which order, and what the system's files become in the archive.
//!
//! Links are never followed. Names are visited in byte order, a directory right before what it holds. An ignored
//! directory is visited only where something inside can be kept, and then goes in with the first such entry. Directories
//! that are open wait in a list, not on the stack, which a deep folder would overflow.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::vec;

use cooper_spec::ignore::{IgnoreVerdict, IgnoreWalk};

use super::archive::{Archive, EntryHead};
use super::{PackError, Selection, SpecialFile};

pub(super) struct Walk<'run, 'progress, W: Write> {
    selection: &'run Selection,
    rules: IgnoreWalk<'run>,
    archive: &'run mut Archive<'progress, W>,
    /// The directories from the root down to the one that is being visited; `None` once they are in the archive.
    above: Vec<(String, Option<EntryHead>)>,
    skipped: Vec<String>,
}

/// A directory whose entries are being visited.
struct Level {
    place: PathBuf,
    /// Its path inside the folder; empty for the folder itself.
    inside: String,
    /// The names that are still to be visited.
    names: vec::IntoIter<OsString>,
}

impl<'run, 'progress, W: Write> Walk<'run, 'progress, W> {
    pub(super) fn new(selection: &'run Selection, archive: &'run mut Archive<'progress, W>) -> Self {
        Self { selection, rules: selection.rules.walk(), archive, above: Vec::new(), skipped: Vec::new() }
    }

    /// Packs the folder; gives the sockets that were left out.
    pub(super) fn run(mut self) -> Result<Vec<String>, PackError> {
        let mut levels: Vec<Level> = open(&self.selection.folder, "", false)?.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                self.above.pop();
                continue;
            };
            let (place, inside) = (level.place.join(&name), level.inside.clone());
            levels.extend(self.entry(&place, &name, &inside)?);
        }
        Ok(self.skipped)
    }

    /// Visits an entry; gives it back to be visited inside if it is a directory.
    fn entry(&mut self, place: &Path, name: &OsStr, inside: &str) -> Result<Option<Level>, PackError> {
        let metadata = match fs::symlink_metadata(place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PackError::Unreadable { path: place.to_owned(), source }),
        };
        let shown = name.to_string_lossy();
        let path = if inside.is_empty() { shown.clone().into_owned() } else { format!("{inside}/{shown}") };
        let verdict = match self.rules.visit(&path, metadata.is_dir()) {
            IgnoreVerdict::Omit if self.selection.is_always_in(&path) => IgnoreVerdict::Keep,
            IgnoreVerdict::Prune if self.selection.leads_to_always_in(&path) => IgnoreVerdict::Omit,
            verdict => verdict,
        };
        if verdict == IgnoreVerdict::Prune || (verdict == IgnoreVerdict::Omit && !metadata.is_dir()) {
            return Ok(None);
        }
        if self.selection.is_replaced(&path) {
            return Ok(None);
        }
        if name.to_str().is_none() {
            return Err(PackError::NameNotUtf8 { path });
        }
        let head = EntryHead { mode: mode(&metadata), mtime: mtime(&metadata) };
        if metadata.is_dir() {
            self.above.push((path.clone(), Some(head)));
            if verdict == IgnoreVerdict::Keep {
                self.bring_in_above()?;
            }
            let level = open(place, &path, verdict == IgnoreVerdict::Omit)?;
            if level.is_none() {
                self.above.pop();
            }
            return Ok(level);
        }
        if is_socket(metadata.file_type()) {
            self.skipped.push(path);
            return Ok(None);
        }
        self.bring_in_above()?;
        if metadata.is_symlink() {
            let unreadable = |source| PackError::Unreadable { path: place.to_owned(), source };
            let target = fs::read_link(place).map_err(unreadable)?;
            let Some(target) = target.to_str() else { return Err(PackError::NameNotUtf8 { path }) };
            self.archive.symlink(&path, head, target)?;
        } else if metadata.is_file() {
            self.file(place, &path)?;
        } else {
            return Err(PackError::Special { path, kind: special(metadata.file_type()) });
        }
        Ok(None)
    }

    fn file(&mut self, place: &Path, path: &str) -> Result<(), PackError> {
        let unreadable = |source| PackError::Unreadable { path: place.to_owned(), source };
        // The opened file counts: the name may stand for another one by now.
        let mut file = open_file(place).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(PackError::Changed { path: path.to_owned() });
        }
        let head = EntryHead { mode: mode(&metadata), mtime: mtime(&metadata) };
        self.archive.file(path, head, metadata.len(), &mut file).map_err(|error| match error {
            // The archive knows the path inside; a reader wants the path to fix.
            PackError::Unreadable { source, .. } => PackError::Unreadable { path: place.to_owned(), source },
            error => error,
        })
    }

    fn bring_in_above(&mut self) -> Result<(), PackError> {
        for (path, head) in &mut self.above {
            if let Some(head) = head.take() {
                self.archive.directory(path, head)?;
            }
        }
        Ok(())
    }
}

/// Opens a directory, its names in order; `ignored` says that a rule leaves it out. Nothing if there is nothing to visit.
fn open(place: &Path, inside: &str, ignored: bool) -> Result<Option<Level>, PackError> {
    let unreadable = |source| match inside {
        "" => PackError::InputUnreadable { path: place.to_owned(), source },
        _ => PackError::Unreadable { path: place.to_owned(), source },
    };
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        // As docker's walk: what is ignored may well be unreadable, and what has gone is not there.
        Err(error) if ignored && error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) if !inside.is_empty() && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    names.sort_unstable();
    Ok(Some(Level { place: place.to_owned(), inside: inside.to_owned(), names: names.into_iter() }))
}

/// Opens what was a file a moment ago: a link that took its place is not followed, a pipe is not waited for.
#[cfg(unix)]
fn open_file(place: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(place)
}

#[cfg(not(unix))]
fn open_file(place: &Path) -> io::Result<File> {
    File::open(place)
}

/// Whole seconds, and none before the epoch: tar can't hold them.
fn mtime(metadata: &Metadata) -> u64 {
    metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs())
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o7777
}

/// Windows has no permission bits: docker marks everything executable there, too.
#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0o755
}

#[cfg(unix)]
fn is_socket(kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.is_socket()
}

#[cfg(not(unix))]
fn is_socket(_: FileType) -> bool {
    false
}

#[cfg(unix)]
fn special(kind: FileType) -> SpecialFile {
    use std::os::unix::fs::FileTypeExt as _;
    if kind.is_fifo() {
        SpecialFile::Pipe
    } else if kind.is_block_device() || kind.is_char_device() {
        SpecialFile::Device
    } else {
        SpecialFile::Other
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> SpecialFile {
    SpecialFile::Other
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_took_a_files_place_is_neither_followed_nor_waited_for() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join("outside"), "secret").expect("file");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("outside", &link).expect("link");
        assert!(open_file(&link).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("pipe");
        let opened = open_file(&pipe).expect("no wait for a writer");
        assert!(!opened.metadata().expect("metadata").is_file());
    }
}
