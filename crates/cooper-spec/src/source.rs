//! Where a run's files come from, as a user writes it: a local folder, or a place in a Git repository.
//!
//! Owns the texts: which of them mean Git, what their parts may hold, and what is refused with which way out. Nothing
//! here asks a network or a disk. What an address may resolve to is decided where the request is made.
//!
//! A Git source is `URL[#[REFERENCE][:SUBDIRECTORY]]`, as `az acr` and `docker build` have it. The part after the first
//! `#` is taken as it is written: nothing in it is percent-decoded.

mod error;
mod reference;
mod url;

use std::fmt;

pub use error::{ReferenceError, SourceError, SubdirectoryError};
pub use reference::{GitReference, ReferenceKind};
pub use url::RepositoryUrl;

/// The longest text of a source, in bytes.
pub const MAX_SOURCE_LEN: usize = 4096;
/// The longest subdirectory, in bytes.
const MAX_SUBDIRECTORY_LEN: usize = 1024;

/// What a user names as the source of a build or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// A path on the user's machine, as it was written.
    Local(String),
    /// A place in a Git repository.
    Git(GitSource),
}

/// A place in a Git repository: which one, which commit of it, which directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSource {
    /// Where the repository is; holds no credentials.
    pub url: RepositoryUrl,
    /// What to take; the default branch if nothing is named.
    pub reference: Option<GitReference>,
    /// The directory that is the context; the repository's root if nothing is named.
    pub subdirectory: Option<Subdirectory>,
}

/// A directory inside a repository: relative, with `/` between its parts, without empty, `.` or `..` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subdirectory(String);

impl SourceLocation {
    /// Reads a source as a user writes it.
    ///
    /// Git are: `http(s)://` URLs whose path ends in `.git` or holds `/_git/` (Azure DevOps), repositories on
    /// `github.com` also without `.git`, and `github.com/OWNER/NAME` without a scheme. What has no scheme and is none of
    /// these is a local path; `./` in front makes a path of anything.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        if text.len() > MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        if text.starts_with("github.com/") {
            return GitSource::parse(&format!("https://{text}")).map(Self::Git);
        }
        if let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => remote(text),
                "git" | "ssh" | "git+ssh" | "ssh+git" => Err(SourceError::NotHttps {
                    scheme: scheme.to_ascii_lowercase(),
                    instead: format!("https://{}", error::shown_authority(rest)),
                }),
                "oci" => Err(SourceError::Oci),
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

/// An `http(s)://` text: Git, or a kind of source that is not taken.
fn remote(text: &str) -> Result<SourceLocation, SourceError> {
    let source = GitSource::parse(text)?;
    if source.url.is_plainly_git() {
        return Ok(SourceLocation::Git(source));
    }
    Err(SourceError::NotGit { url: error::shown(source.url.as_str()) })
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

impl GitSource {
    /// Reads `URL[#[REFERENCE][:SUBDIRECTORY]]`; the URL is taken to be a repository's.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let url = RepositoryUrl::parse(url)?;
        let reference = match reference {
            "" => None,
            text => Some(GitReference::parse(text)?),
        };
        let own = Self { url, reference, subdirectory: Subdirectory::parse(subdirectory)? };
        // Encoded, a URL may be three times as long, and what is stored must be readable.
        match own.to_string().len() {
            length if length > MAX_SOURCE_LEN => Err(SourceError::TooLong { length }),
            _ => Ok(own),
        }
    }
}

impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)?;
        match (&self.reference, &self.subdirectory) {
            (None, None) => Ok(()),
            (Some(reference), None) => write!(f, "#{reference}"),
            (None, Some(subdirectory)) => write!(f, "#:{subdirectory}"),
            (Some(reference), Some(subdirectory)) => write!(f, "#{reference}:{subdirectory}"),
        }
    }
}

impl Subdirectory {
    /// Reads a directory's path; nothing for the root itself. A leading `/` means the repository's root, as with docker.
    pub fn parse(text: &str) -> Result<Option<Self>, SubdirectoryError> {
        if text.len() > MAX_SUBDIRECTORY_LEN {
            return Err(SubdirectoryError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(SubdirectoryError::Control);
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(SubdirectoryError::Parent(error::shown(text)));
        }
        Ok((!parts.is_empty()).then(|| Self(parts.join("/"))))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subdirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for GitSource {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The text that a user could have written.
impl serde::Serialize for GitSource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for GitSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
