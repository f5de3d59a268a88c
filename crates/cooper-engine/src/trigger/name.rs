//! Names of commits and references, parsed where a forge says them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name of a reference, in bytes: what common file systems can hold of it.
const MAX_REF: usize = 1024;

/// The id of a commit, or of an object that leads to one: 7 to 64 hexadecimal digits in lower case, not all zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

/// The name of a branch or a tag, without `refs/heads/` and `refs/tags/`, by Git's rules for such names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefName(String);

/// Why a text is no name of that kind.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no {kind}: {reason}")]
pub struct NameError {
    text: String,
    kind: &'static str,
    reason: &'static str,
}

/// What an id says that is no commit's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectId {
    /// Zeros: there is none.
    None,
    /// A commit.
    Commit(CommitId),
}

impl NameError {
    fn new(text: &str, kind: &'static str, reason: &'static str) -> Self {
        Self { text: text.chars().take(80).flat_map(char::escape_debug).collect(), kind, reason }
    }
}

impl ObjectId {
    /// Reads an id as forges write it, where 40 or 64 zeros mean that there is no commit.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte == b'0') {
            return Ok(Self::None);
        }
        CommitId::parse(text).map(Self::Commit)
    }

    /// The commit, if there is one.
    pub fn commit(self) -> Option<CommitId> {
        match self {
            Self::None => None,
            Self::Commit(commit) => Some(commit),
        }
    }
}

impl CommitId {
    /// Parses an id; digits in upper case become lower.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fault = |reason| NameError::new(text, "commit", reason);
        if !(7..=64).contains(&text.len()) {
            return Err(fault("it has 7 to 64 digits"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault("its digits are hexadecimal"));
        }
        if text.bytes().all(|byte| byte == b'0') {
            return Err(fault("zeros mean that there is none"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether these are all digits (of SHA-1 or SHA-256), and not the first of them.
    pub fn is_full(&self) -> bool {
        matches!(self.0.len(), 40 | 64)
    }

    /// The first twelve digits: what messages show.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(12)]
    }
}

impl RefName {
    /// Parses the name of a branch or a tag.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fault = |reason| NameError::new(text, "name of a branch or tag", reason);
        if text.is_empty() {
            return Err(fault("it is empty"));
        }
        if text.len() > MAX_REF {
            return Err(fault("it is too long"));
        }
        if text.chars().any(|char| char.is_control() || matches!(char, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
        {
            return Err(fault("Git allows no blanks, controls and `~^:?*[\\` in it"));
        }
        if text.contains("..") || text.contains("@{") || text == "@" || text.ends_with('.') {
            return Err(fault("Git allows no `..`, no `@{` and no `.` at its end"));
        }
        let sound = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        if !text.split('/').all(sound) {
            return Err(fault("its parts between slashes are not empty, begin with no `.` and do not end in `.lock`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text_form!(CommitId);
text_form!(RefName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_hexadecimal_and_not_zero() {
        assert_eq!(CommitId::parse("ABCDEF0").unwrap().as_str(), "abcdef0");
        assert!(CommitId::parse(&"1".repeat(40)).unwrap().is_full());
        assert!(!CommitId::parse("0123456789ab").unwrap().is_full());
        for text in ["", "abc", "xyzxyzxyz", "0000000", &"a".repeat(65), "ä".repeat(4).as_str()] {
            assert!(CommitId::parse(text).is_err(), "{text}");
        }
        for (text, expect) in [("0".repeat(40), None), ("0".repeat(64), None), ("a".repeat(40), Some("a".repeat(40)))] {
            let found = ObjectId::parse(&text).unwrap().commit().map(String::from);
            assert_eq!(found, expect);
        }
        assert!(ObjectId::parse("00000000").is_err());
    }

    #[test]
    fn references_follow_gits_rules() {
        for text in ["main", "feature/a.b", "v1.0", "bücher", "a@b", "{x}", "-x"] {
            assert!(RefName::parse(text).is_ok(), "{text}");
        }
        for text in
            ["", "a b", "a..b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a\n", "@", "a@{1}", "x*", "."]
        {
            assert!(RefName::parse(text).is_err(), "{text}");
        }
        assert!(RefName::parse(&"a".repeat(1025)).is_err());
    }
}
