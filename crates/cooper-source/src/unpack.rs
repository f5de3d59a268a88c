//! Unpacking an uploaded archive into a context: a table of entries, and all contents in one spool file.
//!
//! Nothing is created on disk under a name that the archive chose. What a name or a link could do on a real file system
//! is refused all the same, so that an archive means the same here as anywhere: no `..`, no absolute names (but the
//! root's own `/` or `./`, which `az` writes first), nothing inside a link or a file. The last entry of a name wins.

mod decoder;
mod error;
mod member;
mod stream;
mod tree;

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use cooper_ports::context_tree::ContextTree;
use cooper_types::{DigestAlgorithm, Hasher};

pub use error::{NameFault, UnpackError};
use member::{Member, MemberKind, Members};
use stream::Stream;
use tree::{Content, TreeBuilder};

/// What an archive may ask for at most.
#[derive(Clone, Debug)]
pub struct UnpackLimits {
    /// Entries, with the directories that are only implied by names.
    pub entries: u64,
    /// Bytes of the archive after decompression.
    pub bytes: u64,
    /// How many times larger than its compressed form the archive may be…
    pub ratio: u64,
    /// …once it has grown beyond this many bytes.
    pub ratio_floor: u64,
    /// Bytes of a path or of a link's target.
    pub path_len: usize,
    /// Bytes of all paths together.
    pub paths_len: u64,
    /// Bytes of one extended header.
    pub metadata_len: u64,
}

impl Default for UnpackLimits {
    /// Larger than any context that is meant, small enough for one machine: a million entries, 16 GiB.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 16 << 30,
            // Deflate ends at 1032:1, source text at about 10:1; images of disks are mostly zeros, hence the floor.
            ratio: 200,
            ratio_floor: 1 << 30,
            path_len: 4096,
            paths_len: 128 << 20,
            metadata_len: 1 << 20,
        }
    }
}

/// Reads a tar archive, plain or compressed with gzip, bzip2, xz or zstd, and writes its files' contents one after another to `spool`.
///
/// The spool file is emptied first. Checked between chunks, `cancelled` ends the work with [`UnpackError::Cancelled`].
pub fn unpack<R: Read>(
    reader: R,
    mut spool: File,
    limits: &UnpackLimits,
    cancelled: &AtomicBool,
) -> Result<ContextTree, UnpackError> {
    let spool_error = |source| UnpackError::Spool { source };
    spool.set_len(0).and_then(|()| spool.seek(SeekFrom::Start(0))).map_err(spool_error)?;
    let mut members = Members::new(Stream::open(reader, limits, cancelled)?, limits);
    let mut contents =
        Contents { output: BufWriter::with_capacity(1 << 20, spool), end: 0, buffer: vec![0; 256 << 10] };
    let mut tree = TreeBuilder::new(limits);
    while let Some(member) = members.next()? {
        let content = match member.kind {
            MemberKind::File => Some(contents.take(&mut members, &member)?),
            _ => None,
        };
        tree.add(member, content)?;
    }
    let entries = tree.finish()?;
    let spool = contents.output.into_inner().map_err(|error| UnpackError::Spool { source: error.into_error() })?;
    Ok(ContextTree::new(entries, spool))
}

/// The spool file while it grows.
struct Contents {
    output: BufWriter<File>,
    end: u64,
    buffer: Vec<u8>,
}

impl Contents {
    fn take<R: Read>(&mut self, members: &mut Members<'_, R>, member: &Member) -> Result<Content, UnpackError> {
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
        let offset = self.end;
        loop {
            let read = members.read_content(&mut self.buffer)?;
            let Some(bytes) = self.buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            self.output.write_all(bytes).map_err(|source| UnpackError::Spool { source })?;
            self.end += read as u64;
        }
        // Metadata alone decides whether an engine asks for a file again: an edit that keeps size and second must show.
        let head: String = hasher.finish().hex().chars().take(16).collect();
        let nanoseconds = u64::from_str_radix(&head, 16).unwrap_or_default() % 1_000_000_000;
        Ok(Content { offset, size: member.size, nanoseconds: i64::try_from(nanoseconds).unwrap_or_default() })
    }
}
