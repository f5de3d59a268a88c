//! Repository names and tags, by the grammar of OCI Distribution 1.1 ("Pulling manifests").

use std::fmt;

use crate::parsed::text_form;

/// The longest repository name: what Docker's clients accept.
const MAX_REPOSITORY_LEN: usize = 255;

/// A repository's name inside a registry, such as `library/busybox`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Box<str>);

/// Why a text is not a repository name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "repository name `{0}` is not lower-case letters and digits in parts joined by `/`, with single `.`, `_`, `__` or \
     `-` inside a part, 255 characters at most"
)]
pub struct RepositoryNameError(String);

impl RepositoryName {
    /// Parses a name without registry, tag or digest.
    pub fn parse(text: &str) -> Result<Self, RepositoryNameError> {
        if text.len() > MAX_REPOSITORY_LEN || !text.split('/').all(is_path_component) {
            return Err(RepositoryNameError(text.chars().take(160).collect()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(|b| alnum(*b)) || !bytes.last().is_some_and(|b| alnum(*b)) {
        return false;
    }
    let mut rest = part;
    while let Some(start) = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()) {
        let tail = &rest[start..];
        let end = tail.find(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).unwrap_or(tail.len());
        let separator = &tail[..end];
        let allowed = matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
        if !allowed {
            return false;
        }
        rest = &tail[end..];
    }
    true
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

/// Why a text is not a tag.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("tag `{0}` is not 1 to 128 letters, digits, `_`, `.` and `-`, starting with a letter, a digit or `_`")]
pub struct TagError(String);

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first = text.bytes().next().is_some_and(word);
        if !first || text.len() > 128 || !text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-')) {
            return Err(TagError(text.chars().take(160).collect()));
        }
        Ok(Self(text.into()))
    }

    /// `latest`, which stands for a tag that was left out.
    pub fn latest() -> Self {
        Self("latest".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(RepositoryName, RepositoryNameError);
text_form!(Tag, TagError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_grammar() {
        for good in ["a", "a/b", "library/busybox", "a.b", "a_b", "a__b", "a--b", "a-b/c.d_e", "0"] {
            assert!(RepositoryName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "A", "a..b", "a___b", "a._b", "-a", "a-", "a b", "a:b", "ü", "a/../b", "."] {
            assert!(RepositoryName::parse(bad).is_err(), "{bad}");
        }
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
        assert!(RepositoryName::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn tag_grammar() {
        for good in ["latest", "v1.0", "_x", "A-b.c", &"a".repeat(128)] {
            assert!(Tag::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }
}
