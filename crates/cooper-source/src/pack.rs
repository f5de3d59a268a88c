//! Packing a folder into the archive that a context is uploaded as: gzip over tar.
//!
//! What goes in is what `docker build` would send: the folder without what the ignore file leaves out. The Dockerfile
//! and the ignore file itself always go in, because the build reads them; whether `COPY` sees them is then decided by
//! the same rules at the engine's side, as it is with docker: an ignored Dockerfile is sent and is not copied.
//! Nothing else is left out: `.git` goes in unless a rule says otherwise.
//!
//! An archive depends on the folder's content alone: names in byte order, owner 0, no names of owners, times in whole
//! seconds.

pub(crate) mod archive;
mod error;
pub(crate) mod hashing;
pub(crate) mod selection;
mod walk;

use std::io::Write;
use std::path::PathBuf;

use flate2::{Compression, GzBuilder};

use archive::{Archive, EntryHead};
pub use error::{PackError, SpecialFile};
use selection::Selection;
use walk::Walk;

/// What to pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The context's folder.
    pub folder: PathBuf,
    /// The Dockerfile as the user wrote it: looked for as written (so, from the working directory), then inside the
    /// folder. `Dockerfile` inside the folder if nothing is given. It may lie outside the folder.
    pub dockerfile: Option<PathBuf>,
    /// Whether the folder is packed as the beginning of a workspace: no Dockerfile is looked for.
    pub whole: bool,
}

/// How far packing has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackProgress {
    /// Regular files that are packed.
    pub files: u64,
    /// Their bytes before compression.
    pub bytes: u64,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackReport {
    /// The Dockerfile's path inside the archive: what the run must ask for.
    pub dockerfile_name: String,
    /// The ignore file that decided, as a path on this machine.
    pub ignore_file: Option<PathBuf>,
    /// Regular files in the archive.
    pub files: u64,
    /// Their bytes before compression.
    pub bytes: u64,
    /// Sockets, which an archive can't hold and which docker leaves out, too: paths inside the folder.
    pub skipped: Vec<String>,
}

/// Writes the folder's archive to `output`, calling `progress` as it goes.
///
/// Level 1 of gzip: contexts are mostly source text, on which it already takes most of what there is to take, and on a
/// local network the higher levels cost more time than their few percent save.
pub fn pack<W: Write>(
    options: &PackOptions,
    output: W,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<PackReport, PackError> {
    let selection = Selection::find(options)?;
    let gzip = GzBuilder::new().write(output, Compression::fast());
    let mut archive = Archive::new(gzip, progress);
    let skipped = Walk::new(&selection, &mut archive).run()?;
    for (name, content) in &selection.added {
        let size = content.len() as u64;
        archive.file(name, EntryHead { mode: 0o644, mtime: 0 }, size, &mut content.as_slice())?;
    }
    let (gzip, done) = archive.finish()?;
    let mut output = gzip.finish().map_err(|source| PackError::Output { source })?;
    output.flush().map_err(|source| PackError::Output { source })?;
    Ok(PackReport {
        dockerfile_name: selection.dockerfile_name,
        ignore_file: selection.ignore_file,
        files: done.files,
        bytes: done.bytes,
        skipped,
    })
}
