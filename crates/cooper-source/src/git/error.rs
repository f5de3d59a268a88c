//! Why a source can't be fetched: each error names the object, and tells the user's mistake from a passing trouble. Where
//! credentials are given is nothing that is known here: whoever asked says it.

use std::fmt;
use std::io;
use std::time::Duration;

use cooper_spec::ignore::IgnoreError;
use cooper_spec::source::SourceError;

use crate::egress::EgressError;

/// Why a source can't be fetched.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The server was not reached, or broke off.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The server wants to know who asks.
    #[error("`{host}` asks for credentials for `{url}`; check the URL")]
    CredentialsNeeded {
        /// The host.
        host: String,
        /// The repository.
        url: String,
    },
    /// The server does not take the credentials that it was shown.
    #[error("`{host}` refuses the stored credentials for `{url}`; check the URL")]
    CredentialsRefused {
        /// The host.
        host: String,
        /// The repository.
        url: String,
    },
    /// The credentials could not be looked up.
    #[error("can't look up the credentials for `{host}`")]
    CredentialLookup {
        /// The host.
        host: String,
        /// What the store says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such repository, or the server says so to strangers.
    #[error("repository `{url}` was not found; check the URL, and whether it is private")]
    RepositoryNotFound {
        /// The host.
        host: String,
        /// The repository.
        url: String,
    },
    /// Something answers, but not Git.
    #[error("`{url}` answers, but not as a Git repository does; name the URL that `git clone` takes")]
    NotGit {
        /// The repository.
        url: String,
    },
    /// The server answers with an error.
    #[error("`{host}` answered with HTTP status {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// The server does not keep to the protocol.
    #[error("`{host}` does not speak Git's protocol as it should: {what}")]
    Protocol {
        /// The host.
        host: String,
        /// What it said wrong.
        what: &'static str,
    },
    /// The server refuses in its own words.
    #[error("`{host}` refuses: {message}")]
    Remote {
        /// The host.
        host: String,
        /// Its words, made harmless.
        message: String,
    },
    /// Objects with names that are not SHA-1.
    #[error("repository `{url}` uses SHA-256 object names, which are not supported yet")]
    ObjectFormat {
        /// The repository.
        url: String,
    },
    /// Nothing has been committed.
    #[error("repository `{url}` is empty")]
    Empty {
        /// The repository.
        url: String,
    },
    /// There is no such branch or tag.
    #[error("`{reference}` is no branch, tag or commit of `{url}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    ReferenceNotFound {
        /// What was asked for.
        reference: String,
        /// The repository.
        url: String,
        /// The nearest name that exists.
        near: Option<String>,
    },
    /// There is no such commit.
    #[error("commit `{commit}` was not found in `{url}`; it must be on a branch or a tag of this repository")]
    CommitNotFound {
        /// What was asked for.
        commit: String,
        /// The repository.
        url: String,
    },
    /// More than one object begins like this.
    #[error("`{commit}` is the beginning of several objects of `{url}`; write more digits")]
    CommitAmbiguous {
        /// What was asked for.
        commit: String,
        /// The repository.
        url: String,
    },
    /// The reference leads to something else.
    #[error("`{reference}` of `{url}` does not lead to a commit")]
    NotACommit {
        /// What was asked for.
        reference: String,
        /// The repository.
        url: String,
    },
    /// There is no such directory.
    #[error("subdirectory `{path}` does not exist in commit {commit}")]
    SubdirectoryNotFound {
        /// The path.
        path: String,
        /// The commit.
        commit: String,
    },
    /// It is something else.
    #[error("subdirectory `{path}` is a file in commit {commit}; name the directory that holds it")]
    SubdirectoryIsFile {
        /// The path.
        path: String,
        /// The commit.
        commit: String,
    },
    /// There is no such Dockerfile.
    #[error(
        "no Dockerfile: `{path}` does not exist in the source; name one with --file, relative to the source's directory"
    )]
    NoDockerfile {
        /// The path.
        path: String,
    },
    /// The ignore file holds a bad pattern.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// The ignore file is not text.
    #[error("ignore file `{path}` is not UTF-8 text")]
    IgnoreNotText {
        /// The path.
        path: String,
    },
    /// A name can't be in a context.
    #[error("the name of `{path}` {fault}")]
    Name {
        /// The path, with marks where it is not text.
        path: String,
        /// What is wrong.
        fault: GitNameFault,
    },
    /// The file's content is elsewhere.
    #[error(
        "`{path}` is a Git LFS pointer, and LFS is not supported yet; commit the file itself, or ignore it in .dockerignore"
    )]
    Lfs {
        /// The file.
        path: String,
    },
    /// A named file or one that is read to decide something is too large.
    #[error("`{path}` is larger than {limit} bytes")]
    FileTooLarge {
        /// The file.
        path: String,
        /// The most that is taken.
        limit: u64,
    },
    /// The source has too much of something.
    #[error("the source has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A submodule is not described.
    #[error("submodule `{path}` has no URL in .gitmodules")]
    SubmoduleUnknown {
        /// Where it lies.
        path: String,
    },
    /// A submodule's URL is refused.
    #[error("submodule `{path}` has a URL that can't be used")]
    SubmoduleUrl {
        /// Where it lies.
        path: String,
        /// What is wrong with it.
        #[source]
        source: SourceError,
    },
    /// A submodule can't be fetched.
    #[error("can't fetch submodule `{path}`")]
    Submodule {
        /// Where it lies.
        path: String,
        /// Why.
        #[source]
        source: Box<GitError>,
    },
    /// The objects that came are damaged or incomplete.
    #[error("what `{url}` sent is damaged or incomplete")]
    Objects {
        /// The repository.
        url: String,
        /// What libgit2 says.
        #[source]
        source: git2::Error,
    },
    /// This machine's disk.
    #[error("can't store the source")]
    Disk {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("fetching the source took longer than {} seconds", limit.as_secs())]
    TooSlow {
        /// How long it may take.
        limit: Duration,
    },
    /// The caller has cancelled.
    #[error("fetching the source was cancelled")]
    Cancelled,
}

impl GitError {
    /// Whether the same fetch may succeed a moment later without anybody changing anything: the network's trouble, or
    /// the host's.
    pub fn is_transient(&self) -> bool {
        self.trouble() == Trouble::Passing
    }

    /// Whether it is the trouble of the machine that fetches, or of who knows the credentials, and of no source.
    pub fn is_fetchers_own(&self) -> bool {
        self.trouble() == Trouble::Fetchers
    }

    fn trouble(&self) -> Trouble {
        match self {
            // Who listens nowhere is as little there as who has no address.
            Self::Egress(EgressError::RefusesConnections { .. }) => Trouble::Sources,
            Self::Egress(error) if error.is_transient() => Trouble::Passing,
            Self::Status { status: 408 | 425 | 429 | 500.., .. } => Trouble::Passing,
            Self::Egress(EgressError::Setup { .. }) | Self::CredentialLookup { .. } | Self::Disk { .. } => {
                Trouble::Fetchers
            }
            Self::Submodule { source, .. } => source.trouble(),
            Self::Egress(_)
            | Self::Status { .. }
            | Self::CredentialsNeeded { .. }
            | Self::CredentialsRefused { .. }
            | Self::RepositoryNotFound { .. }
            | Self::NotGit { .. }
            | Self::Protocol { .. }
            | Self::Remote { .. }
            | Self::ObjectFormat { .. }
            | Self::Empty { .. }
            | Self::ReferenceNotFound { .. }
            | Self::CommitNotFound { .. }
            | Self::CommitAmbiguous { .. }
            | Self::NotACommit { .. }
            | Self::SubdirectoryNotFound { .. }
            | Self::SubdirectoryIsFile { .. }
            | Self::NoDockerfile { .. }
            | Self::Ignore(_)
            | Self::IgnoreNotText { .. }
            | Self::Name { .. }
            | Self::Lfs { .. }
            | Self::FileTooLarge { .. }
            | Self::Limit { .. }
            | Self::SubmoduleUnknown { .. }
            | Self::SubmoduleUrl { .. }
            | Self::Objects { .. }
            | Self::TooSlow { .. }
            | Self::Cancelled => Trouble::Sources,
        }
    }

    /// What whoever named the repository may be told where another machine than theirs asks: neither where a name leads nor what
    /// is said there.
    pub fn told(&self) -> String {
        match self {
            Self::Egress(error) => error.told(),
            Self::Remote { host, .. } => format!("`{host}` refuses"),
            Self::Submodule { path, source } => format!("can't fetch submodule `{path}`: {}", source.told()),
            Self::SubmoduleUrl { .. } => self.line(),
            // The causes beneath are left out.
            Self::CredentialsNeeded { .. }
            | Self::CredentialsRefused { .. }
            | Self::CredentialLookup { .. }
            | Self::RepositoryNotFound { .. }
            | Self::NotGit { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::ObjectFormat { .. }
            | Self::Empty { .. }
            | Self::ReferenceNotFound { .. }
            | Self::CommitNotFound { .. }
            | Self::CommitAmbiguous { .. }
            | Self::NotACommit { .. }
            | Self::SubdirectoryNotFound { .. }
            | Self::SubdirectoryIsFile { .. }
            | Self::NoDockerfile { .. }
            | Self::Ignore(_)
            | Self::IgnoreNotText { .. }
            | Self::Name { .. }
            | Self::Lfs { .. }
            | Self::FileTooLarge { .. }
            | Self::Limit { .. }
            | Self::SubmoduleUnknown { .. }
            | Self::Objects { .. }
            | Self::Disk { .. }
            | Self::TooSlow { .. }
            | Self::Cancelled => self.to_string(),
        }
    }

    /// The error and its causes in one line.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            next = cause.source();
        }
        line
    }
}

/// Whose trouble an error is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The network's or the host's: it may pass.
    Passing,
    /// The machine's that fetches, or of who knows the credentials.
    Fetchers,
    /// The source's, or of what was asked for.
    Sources,
}

/// Why a name in a repository is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitNameFault {
    /// It is not UTF-8, which a build can't be served.
    NotUtf8,
    /// No honest repository has it: `.`, `..`, `.git`, a slash, nothing at all.
    Forbidden,
    /// The path is longer than a file system takes.
    TooLong,
    /// A link's target is empty, too long or no text.
    LinkTarget,
}

impl fmt::Display for GitNameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "is not UTF-8; rename it, or ignore it in .dockerignore",
            Self::Forbidden => "is one that no repository may hold",
            Self::TooLong => "is too long",
            Self::LinkTarget => "is a link whose target is empty, too long or not UTF-8",
        })
    }
}

/// A text from outside for a message: what is not printable is escaped, and it is not long. Everything else stays as it
/// is, quotes too, so that a secret in it can be found and masked.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).trim().chars().take(200) {
        match c {
            '\'' | '"' | '\\' => text.push(c),
            c => text.extend(c.escape_debug()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_of_a_server_are_harmless_and_else_as_it_said_them() {
        assert_eq!(
            super::shown(b" pass'wo\\rd\" \x1b[2J\na\xff\xe2\x80\xae \n"),
            "pass'wo\\rd\" \\u{1b}[2J\\na\u{fffd}\\u{202e}"
        );
        assert_eq!(super::shown(&[b'x'; 300]).len(), 200);
    }
}
