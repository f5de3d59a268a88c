//! Why a folder can't be packed: each error names the path and the way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cooper_spec::ignore::IgnoreError;

/// Why a folder can't be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// There is no such folder.
    #[error("folder `{}` does not exist", folder.display())]
    FolderMissing {
        /// The folder as it was given.
        folder: PathBuf,
    },
    /// It is something else than a folder.
    #[error("`{}` is not a folder; give the folder that holds the sources", folder.display())]
    NotAFolder {
        /// The path as it was given.
        folder: PathBuf,
    },
    /// There is no Dockerfile.
    #[error("no Dockerfile: looked for {}; name one with --file", list(looked))]
    NoDockerfile {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The Dockerfile is a directory.
    #[error("Dockerfile `{}` is a directory; name the file in it with --file", path.display())]
    DockerfileIsDirectory {
        /// Where it is.
        path: PathBuf,
    },
    /// The Dockerfile is too big to be one.
    #[error("Dockerfile `{}` is larger than {limit} bytes", path.display())]
    DockerfileTooLarge {
        /// Where it is.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// The ignore file holds a bad pattern.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// The ignore file is not text.
    #[error("ignore file `{}` is not UTF-8 text", path.display())]
    IgnoreNotText {
        /// Where it is.
        path: PathBuf,
    },
    /// The folder, the Dockerfile or the ignore file can't be read.
    #[error("can't read `{}`; fix its permissions", path.display())]
    InputUnreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file or directory inside the folder can't be read.
    #[error("can't read `{}`; fix its permissions, or leave it out with a line in .dockerignore", path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A name is not UTF-8, which BuildKit's protocol can't carry.
    #[error("the name of `{path}` is not UTF-8; rename it, or leave it out with a line in .dockerignore")]
    NameNotUtf8 {
        /// The path inside the folder, with marks where it is not text.
        path: String,
    },
    /// A device or a named pipe, which no build context can hold.
    #[error("`{path}` is a {kind}; remove it, or leave it out with a line in .dockerignore")]
    Special {
        /// The path inside the folder.
        path: String,
        /// What it is.
        kind: SpecialFile,
    },
    /// A file had another size at its end than at its beginning.
    #[error("`{path}` changed its size while it was read; build again when nothing writes to it")]
    Changed {
        /// The path inside the folder.
        path: String,
    },
    /// The archive can't be written.
    #[error("can't write the archive")]
    Output {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Kinds of files that are no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFile {
    /// A block or character device.
    Device,
    /// A named pipe.
    Pipe,
    /// Something that this system has and tar has not.
    Other,
}

impl fmt::Display for SpecialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Pipe => "named pipe",
            Self::Other => "special file",
        })
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(" and ")
}
