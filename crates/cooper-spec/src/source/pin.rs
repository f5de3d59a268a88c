//! What a source was found to be when it was fetched.

use std::fmt;

use cooper_types::Digest;
use serde::{Deserialize, Serialize};

/// What a name of a source stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourcePin {
    /// A commit's id, in hexadecimal digits.
    Commit(String),
    /// The digest of an archive as it came, or of an artifact's manifest.
    Digest(Digest),
}

impl SourcePin {
    /// The commit, if it is one.
    pub fn commit(&self) -> Option<&str> {
        match self {
            Self::Commit(commit) => Some(commit),
            Self::Digest(_) => None,
        }
    }

    /// The digest, if it is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Commit(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }
}

/// `commit …` or the digest.
impl fmt::Display for SourcePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(commit) => write!(f, "commit {commit}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
