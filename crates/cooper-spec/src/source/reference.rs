//! What a source takes from a repository: the text, and the order in which its meanings are tried.
//!
//! A text that begins with `refs/` is that reference and nothing else. Forty hexadecimal digits are a commit. Anything
//! else is tried as a branch, then as a tag, then below `refs/` (`pull/12/head`, `heads/main`), and seven or more
//! hexadecimal digits at last as the beginning of a commit's id. Branch before tag is what `git clone --branch` does.

use std::fmt;

use super::error::{ReferenceError, shown};

/// The longest name, in bytes; file systems behind real servers take no longer parts.
const MAX_LEN: usize = 512;
/// The shortest beginning of a commit's id; git itself never shows a shorter one.
const MIN_ABBREVIATION: usize = 7;
const COMMIT_LEN: usize = 40;

/// A branch, a tag, a commit, or the full name of a reference, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GitReference(String);

/// What a reference's text can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// The repository's own default: `HEAD`.
    Default,
    /// This reference and no other.
    Full(String),
    /// A commit by its whole id, in lower case.
    Commit(String),
    /// The first of these references that exists; if none does, a commit by the beginning of its id.
    Named {
        /// Full names of references, in the order in which they are tried.
        candidates: Vec<String>,
        /// The beginning of a commit's id in lower case, if the text can be one.
        abbreviation: Option<String>,
    },
}

impl GitReference {
    /// Reads a reference by the rules of `git check-ref-format`, a single part allowed.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(ReferenceError { text: shown(text), reason }),
        }
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the text can mean.
    pub fn kind(&self) -> ReferenceKind {
        let text = self.0.as_str();
        if text == "HEAD" {
            return ReferenceKind::Default;
        }
        if text.starts_with("refs/") {
            return ReferenceKind::Full(text.to_owned());
        }
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && text.len() == COMMIT_LEN {
            return ReferenceKind::Commit(text.to_ascii_lowercase());
        }
        let candidates = ["refs/heads/", "refs/tags/", "refs/"].map(|above| format!("{above}{text}")).to_vec();
        let is_abbreviation = is_hex && (MIN_ABBREVIATION..COMMIT_LEN).contains(&text.len());
        ReferenceKind::Named { candidates, abbreviation: is_abbreviation.then(|| text.to_ascii_lowercase()) }
    }
}

impl fmt::Display for GitReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<&'static str> {
    let bad = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    if text.is_empty() {
        Some("is empty")
    } else if text.len() > MAX_LEN {
        Some("is too long")
    } else if text.contains(bad) {
        Some("holds a blank, a control character or one of `~^:?*[\\`")
    } else if text.starts_with('-') {
        Some("begins with `-`")
    } else if text.contains("..") || text.contains("@{") || text == "@" {
        Some("holds `..`, `@{` or is `@`")
    } else if text.ends_with('.') || text.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        Some("has an empty part, a part that begins with `.`, or ends with `.`")
    } else if text.split('/').any(|part| part.ends_with(".lock")) {
        Some("has a part that ends with `.lock`")
    } else {
        None
    }
}
