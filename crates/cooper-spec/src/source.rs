//! Where a run's files come from, as a user writes it: a local folder, a tar on the standard input, nothing at all, or a
//! place that an agent fetches: in a Git repository, an archive behind a URL, an artifact in an OCI registry.
//!
//! Owns the texts: which of them mean what, what their parts may hold, and what is refused with which way out. Nothing
//! here asks a network or a disk. What an address may resolve to is decided where the request is made.
//!
//! A Git source is `URL[#[REFERENCE][:SUBDIRECTORY]]`, as `az acr` and `docker build` have it; archives and artifacts
//! have no references, so theirs is `#:SUBDIRECTORY`. The part after the first `#` is taken as it is written: nothing in
//! it is percent-decoded.

mod archive;
mod artifact;
mod error;
mod git;
mod pin;
mod reference;
mod subdirectory;
mod url;

use std::fmt;

use cooper_types::{ContextId, Digest};

pub use archive::{ArchiveSource, ArchiveUrl};
pub use artifact::ArtifactSource;
pub use error::{ReferenceError, SourceError, SubdirectoryError};
pub use git::GitSource;
pub use pin::SourcePin;
pub use reference::{GitReference, ReferenceKind};
pub use subdirectory::Subdirectory;
pub use url::RepositoryUrl;

/// The longest text of a source, in bytes.
pub const MAX_SOURCE_LEN: usize = 4096;

/// What a user names as the source of a build or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// No files: `/dev/null`.
    Nothing,
    /// A tar archive on the standard input of whoever asks: `-`.
    Stdin,
    /// A path on the user's machine, as it was written.
    Local(String),
    /// A place that an agent fetches.
    Remote(RemoteSource),
}

/// A source that an agent fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteSource {
    /// A place in a Git repository.
    Git(GitSource),
    /// A tar archive behind a URL.
    Archive(ArchiveSource),
    /// An artifact in an OCI registry.
    Artifact(ArtifactSource),
    /// A context that was uploaded to the server. No text of a user's means one: the server has checked whose it is.
    Uploaded(ContextId),
}

/// What stands before a context's id where a source is written down.
const UPLOADED: &str = "context:";

impl SourceLocation {
    /// Reads a source as a user writes it.
    ///
    /// Git are: `http(s)://` URLs whose path ends in `.git` or holds `/_git/` (Azure DevOps), repositories on
    /// `github.com` also without `.git`, and `github.com/OWNER/NAME` without a scheme. Every other `http(s)://` URL is
    /// an archive's; `oci://` names an artifact. `/dev/null` is nothing, `-` the standard input. What has no scheme and
    /// is none of these is a local path; `./` in front makes a path of anything.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        if text.len() > MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        match text {
            "/dev/null" => return Ok(Self::Nothing),
            "-" => return Ok(Self::Stdin),
            _ => {}
        }
        if text.starts_with("github.com/") {
            return GitSource::parse(&format!("https://{text}")).map(RemoteSource::Git).map(Self::Remote);
        }
        if let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => behind_url(text).map(Self::Remote),
                "oci" => ArtifactSource::parse(rest).map(RemoteSource::Artifact).map(Self::Remote),
                "git" | "ssh" | "git+ssh" | "ssh+git" => Err(SourceError::NotHttps {
                    scheme: scheme.to_ascii_lowercase(),
                    instead: format!("https://{}", error::shown_authority(rest)),
                }),
                "file" => Err(SourceError::File),
                _ => Err(SourceError::Scheme { scheme: error::shown(scheme) }),
            };
        }
        if let Some((host, path)) = scp_form(text) {
            return Err(SourceError::NotHttps {
                scheme: "ssh".to_owned(),
                instead: format!("https://{}/{}", error::shown(host), error::shown(path.trim_start_matches('/'))),
            });
        }
        if text.contains('\0') {
            return Err(SourceError::Control);
        }
        Ok(Self::Local(text.to_owned()))
    }
}

/// An `http(s)://` text: Git, or an archive.
fn behind_url(text: &str) -> Result<RemoteSource, SourceError> {
    let url = text.split('#').next().unwrap_or_default();
    // A query does not make something else of a repository: it is a slip that Git's own rules name.
    if RepositoryUrl::is_plainly_git(url) {
        GitSource::parse(text).map(RemoteSource::Git)
    } else {
        ArchiveSource::parse(text).map(RemoteSource::Archive)
    }
}

/// The parts of `USER@HOST:PATH`, ssh's short form.
fn scp_form(text: &str) -> Option<(&str, &str)> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '\\', ':']);
    (plain(user) && plain(host) && !path.is_empty()).then_some((host, path))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

impl RemoteSource {
    /// Reads a source that an agent fetches.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        match SourceLocation::parse(text)? {
            SourceLocation::Remote(source) => Ok(source),
            SourceLocation::Nothing | SourceLocation::Stdin | SourceLocation::Local(_) => {
                Err(SourceError::NotRemote { text: error::shown(text) })
            }
        }
    }

    /// Reads a source as it is written down: what a user may write, or an uploaded context.
    pub fn read(text: &str) -> Result<Self, SourceError> {
        match text.strip_prefix(UPLOADED) {
            Some(id) => ContextId::parse(id)
                .map(Self::Uploaded)
                .map_err(|_| SourceError::NotRemote { text: error::shown(text) }),
            None => Self::parse(text),
        }
    }

    /// The source for people: without what may be a secret.
    pub fn shown(&self) -> String {
        match self {
            Self::Git(source) => source.to_string(),
            Self::Artifact(source) => source.to_string(),
            Self::Archive(ArchiveSource { url, subdirectory: None }) => url.shown(),
            Self::Archive(ArchiveSource { url, subdirectory: Some(folder) }) => format!("{}#:{folder}", url.shown()),
            Self::Uploaded(id) => format!("context {id}"),
        }
    }

    /// The same for people, without what is taken of it: neither reference nor directory.
    pub fn place(&self) -> String {
        match self {
            Self::Git(source) => source.url.to_string(),
            Self::Archive(source) => source.url.shown(),
            Self::Artifact(source) => format!("oci://{}", source.reference()),
            Self::Uploaded(_) => self.shown(),
        }
    }

    /// The directory inside the source that is the context; the root if nothing is named.
    pub fn subdirectory(&self) -> Option<&Subdirectory> {
        match self {
            Self::Git(source) => source.subdirectory.as_ref(),
            Self::Archive(source) => source.subdirectory.as_ref(),
            Self::Artifact(source) => source.subdirectory.as_ref(),
            Self::Uploaded(_) => None,
        }
    }

    /// The same place as it was found to be before: at a commit, or at a digest. An archive is what its URL gives.
    #[must_use]
    pub fn pinned(&self, commit: Option<&str>, digest: Option<&Digest>) -> Self {
        match (self, commit, digest) {
            (Self::Git(source), Some(commit), _) => match GitReference::parse(commit) {
                Ok(reference) => Self::Git(GitSource { reference: Some(reference), ..source.clone() }),
                Err(_) => self.clone(),
            },
            (Self::Artifact(source), _, Some(digest)) => Self::Artifact(source.pinned(digest)),
            (Self::Git(_) | Self::Archive(_) | Self::Artifact(_) | Self::Uploaded(_), _, _) => self.clone(),
        }
    }

    /// The same place without what its URL's query says, which may be a signature: that there was one can be seen. None if
    /// its query says nothing.
    pub fn without_query(&self) -> Option<Self> {
        match self {
            Self::Archive(source) if source.url.query().is_some_and(|query| !query.is_empty()) => {
                Some(Self::Archive(ArchiveSource { url: source.url.clone().with_query(Some("")), ..source.clone() }))
            }
            Self::Archive(_) | Self::Git(_) | Self::Artifact(_) | Self::Uploaded(_) => None,
        }
    }

    /// The repository's URL, if it is one: what `.Run.Repository` says.
    pub fn repository(&self) -> Option<&RepositoryUrl> {
        match self {
            Self::Git(source) => Some(&source.url),
            Self::Archive(_) | Self::Artifact(_) | Self::Uploaded(_) => None,
        }
    }

    /// What its user should hear: that it may not be what was meant.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Archive(source) if source.url.is_forge_page() => Some(format!(
                "{} is taken as an archive's URL; a repository's is https://github.com/OWNER/NAME.git",
                source.url.shown()
            )),
            Self::Archive(_) | Self::Git(_) | Self::Artifact(_) | Self::Uploaded(_) => None,
        }
    }
}

/// The whole text, as [`RemoteSource::read`] takes it. [`RemoteSource::shown`] is for people.
impl fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(source) => source.fmt(f),
            Self::Archive(source) => source.fmt(f),
            Self::Artifact(source) => source.fmt(f),
            Self::Uploaded(id) => write!(f, "{UPLOADED}{id}"),
        }
    }
}

impl From<GitSource> for RemoteSource {
    fn from(source: GitSource) -> Self {
        Self::Git(source)
    }
}

impl serde::Serialize for RemoteSource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for RemoteSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
