//! The walk over a folder: which entries go in, in which order, and what the system's files become in the archive.
//!
//! Links are never followed. Names are visited in byte order, a directory right before what it holds. An ignored
//! directory is visited only where something inside can be kept, and then goes in with the first such entry.

use std::ffi::OsStr;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

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

impl<'run, 'progress, W: Write> Walk<'run, 'progress, W> {
    pub(super) fn new(selection: &'run Selection, archive: &'run mut Archive<'progress, W>) -> Self {
        Self { selection, rules: selection.rules.walk(), archive, above: Vec::new(), skipped: Vec::new() }
    }

    /// Packs the folder; gives the sockets that were left out.
    pub(super) fn run(mut self) -> Result<Vec<String>, PackError> {
        let folder = self.selection.folder.clone();
        self.directory(&folder, "", false)?;
        Ok(self.skipped)
    }

    fn directory(&mut self, place: &Path, inside: &str, ignored: bool) -> Result<(), PackError> {
        let unreadable = |source| match inside {
            "" => PackError::InputUnreadable { path: place.to_owned(), source },
            _ => PackError::Unreadable { path: place.to_owned(), source },
        };
        let entries = match fs::read_dir(place) {
            Ok(entries) => entries,
            // As docker's walk: what is ignored may well be unreadable, and what has gone is not there.
            Err(error) if ignored && error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) if !inside.is_empty() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        names.sort_unstable();
        for name in names {
            self.entry(&place.join(&name), &name, inside)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: &Path, name: &OsStr, inside: &str) -> Result<(), PackError> {
        let metadata = match fs::symlink_metadata(place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
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
            return Ok(());
        }
        if self.selection.is_replaced(&path) {
            return Ok(());
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
            self.directory(place, &path, verdict == IgnoreVerdict::Omit)?;
            self.above.pop();
            return Ok(());
        }
        if is_socket(metadata.file_type()) {
            self.skipped.push(path);
            return Ok(());
        }
        self.bring_in_above()?;
        if metadata.is_symlink() {
            let unreadable = |source| PackError::Unreadable { path: place.to_owned(), source };
            let target = fs::read_link(place).map_err(unreadable)?;
            let Some(target) = target.to_str() else { return Err(PackError::NameNotUtf8 { path }) };
            self.archive.symlink(&path, head, target)
        } else if metadata.is_file() {
            self.file(place, &path)
        } else {
            Err(PackError::Special { path, kind: special(metadata.file_type()) })
        }
    }

    fn file(&mut self, place: &Path, path: &str) -> Result<(), PackError> {
        let unreadable = |source| PackError::Unreadable { path: place.to_owned(), source };
        let mut file = File::open(place).map_err(unreadable)?;
        // The opened file counts: the name may stand for another one by now.
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
