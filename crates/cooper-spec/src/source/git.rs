//! A place in a Git repository: `URL[#[REFERENCE][:SUBDIRECTORY]]`.

use std::fmt;

use super::{GitReference, MAX_SOURCE_LEN, RepositoryUrl, SourceError, Subdirectory};

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

impl std::str::FromStr for GitSource {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}
