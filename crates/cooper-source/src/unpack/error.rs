//! Why an archive is no context: each error names the entry and what is wrong with it.

use std::fmt;
use std::io;

/// Why an archive is no context. Names are shown escaped and cut short.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Nothing was sent.
    #[error("the context archive is empty; send a tar.gz of the folder")]
    Empty,
    /// It is not an archive of a kind that is taken.
    #[error("the context is not a tar archive; send a tar.gz of the folder")]
    NotTar,
    /// It is compressed by something that is not taken.
    #[error(
        "the context archive is compressed with {method}; send a tar archive, plain or with gzip, bzip2, xz or zstd"
    )]
    Compression {
        /// The method's name.
        method: &'static str,
    },
    /// The archive ends too early.
    #[error("the context archive is cut off {}; send it again", place(after))]
    Truncated {
        /// The last entry whose header was read.
        after: Option<String>,
    },
    /// The compressed data contradict themselves.
    #[error("the context archive's compressed data are damaged {}; send it again", place(after))]
    Damaged {
        /// The last entry whose header was read.
        after: Option<String>,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// A header makes no sense.
    #[error("the context archive has {what} {}", place(after))]
    Header {
        /// The last entry whose header was read.
        after: Option<String>,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry's name is refused.
    #[error("context entry `{name}` {fault}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// An entry is neither file, directory nor link.
    #[error("context entry `{name}` is {kind}, which a context can't hold")]
    Special {
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A symbolic link's target is refused.
    #[error("target of the context's link `{name}` {fault}")]
    LinkTarget {
        /// The link.
        name: String,
        /// What is wrong with the target.
        fault: NameFault,
    },
    /// A hard link leads to nothing that it could share.
    #[error("context entry `{name}` is a hard link to `{target}`, which is no earlier file of the archive")]
    HardLink {
        /// The entry.
        name: String,
        /// What it names.
        target: String,
    },
    /// An entry lies inside something that is no directory.
    #[error("context entry `{name}` lies inside `{above}`, which is a {kind}")]
    Inside {
        /// The entry.
        name: String,
        /// What is above it.
        above: String,
        /// What that is.
        kind: &'static str,
    },
    /// Too many entries.
    #[error("the context has more than {limit} entries; leave folders out with .dockerignore")]
    TooManyEntries {
        /// How many are allowed.
        limit: u64,
    },
    /// The names take too much room.
    #[error("the names in the context are longer than {limit} bytes together; leave folders out with .dockerignore")]
    NamesTooLong {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// Too many bytes.
    #[error("the context is larger than {limit} bytes when unpacked; leave files out with .dockerignore")]
    TooLarge {
        /// How many are allowed.
        limit: u64,
    },
    /// It grows too much when it is unpacked.
    #[error("the context archive unpacks to more than {ratio} times its size, and to more than {floor} bytes")]
    Bomb {
        /// The allowed ratio.
        ratio: u64,
        /// The size from which on it counts.
        floor: u64,
    },
    /// The archive could not be read from where it comes.
    #[error("can't read the context archive")]
    Read {
        /// What the source says.
        #[source]
        source: io::Error,
    },
    /// The contents could not be written to the spool file.
    #[error("can't store the context's files")]
    Spool {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The caller has cancelled.
    #[error("unpacking the context was cancelled")]
    Cancelled,
}

impl UnpackError {
    /// Whether the archive itself is at fault: unpacking it again can only fail again.
    pub fn is_in_archive(&self) -> bool {
        match self {
            Self::Empty
            | Self::NotTar
            | Self::Compression { .. }
            | Self::Truncated { .. }
            | Self::Damaged { .. }
            | Self::Header { .. }
            | Self::Name { .. }
            | Self::Special { .. }
            | Self::LinkTarget { .. }
            | Self::HardLink { .. }
            | Self::Inside { .. }
            | Self::TooManyEntries { .. }
            | Self::NamesTooLong { .. }
            | Self::TooLarge { .. }
            | Self::Bomb { .. } => true,
            Self::Read { .. } | Self::Spool { .. } | Self::Cancelled => false,
        }
    }
}

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It has a `..` part.
    Parent,
    /// It begins with `/`.
    Absolute,
    /// It has no characters.
    Empty,
    /// It holds a NUL character.
    Nul,
    /// It is not UTF-8.
    NotUtf8,
    /// It, or a part of it, is longer than a file system takes.
    TooLong,
    /// It names the context's root, which is a directory.
    Root,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent => "leads out of the context with `..`",
            Self::Absolute => "is absolute; names in an archive are relative to the context",
            Self::Empty => "is empty",
            Self::Nul => "holds a NUL character",
            Self::NotUtf8 => "is not UTF-8",
            Self::TooLong => "is too long",
            Self::Root => "stands for the context's root and is no directory",
        })
    }
}

/// A hostile name for a message: escaped, and not long.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(160).flat_map(char::escape_debug).collect()
}

fn place(after: &Option<String>) -> String {
    after.as_ref().map_or_else(|| "at its beginning".to_owned(), |name| format!("in or after entry `{name}`"))
}
