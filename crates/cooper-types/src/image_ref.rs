//! Image references as Docker writes them: `[registry/]repository[:tag][@digest]`.

use std::fmt;

use crate::parsed::text_form;
use crate::{Digest, DigestError, RepositoryName, RepositoryNameError, Tag, TagError};

/// A registry's host and port as it stands in image references, such as `localhost:5000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(Box<str>);

/// A reference to an image. The registry is absent where the text named none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Host and port; `None` where the text did not name a registry.
    pub registry: Option<RegistryName>,
    /// The repository inside the registry.
    pub repository: RepositoryName,
    /// The tag, if one was written.
    pub tag: Option<Tag>,
    /// The digest, if one was written.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageRefError {
    /// Nothing was written.
    #[error("image reference is empty")]
    Empty,
    /// The first part looks like a registry and is not a host with an optional port.
    #[error("registry name `{0}` is not a host with an optional port")]
    Registry(String),
    /// The repository does not fit the grammar.
    #[error("image reference `{reference}` is not valid")]
    Repository {
        /// The whole reference.
        reference: String,
        /// What is wrong with its repository.
        #[source]
        source: RepositoryNameError,
    },
    /// The tag does not fit the grammar.
    #[error("image reference `{reference}` is not valid")]
    Tag {
        /// The whole reference.
        reference: String,
        /// What is wrong with its tag.
        #[source]
        source: TagError,
    },
    /// The digest does not fit the grammar.
    #[error("image reference `{reference}` is not valid")]
    Digest {
        /// The whole reference.
        reference: String,
        /// What is wrong with its digest.
        #[source]
        source: DigestError,
    },
}

impl RegistryName {
    /// Parses `host[:port]`, where the host is a DNS name, an IPv4 address or a bracketed IPv6 address.
    pub fn parse(text: &str) -> Result<Self, ImageRefError> {
        let error = || ImageRefError::Registry(text.chars().take(160).collect());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(error)?;
                if !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                    return Err(error());
                }
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(error)?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let label = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let host_ok = !host.is_empty() && (text.starts_with('[') || host.split('.').all(label));
        let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0));
        if text.len() > 255 || !host_ok || !port_ok {
            return Err(error());
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ImageRef {
    /// Parses a reference. As Docker does, the first part is a registry when it holds a `.` or a `:`, or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, ImageRefError> {
        if text.is_empty() {
            return Err(ImageRefError::Empty);
        }
        let reference = || text.chars().take(255).collect::<String>();
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest =
                    Digest::parse(digest).map_err(|source| ImageRefError::Digest { reference: reference(), source })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (Some(RegistryName::parse(first)?), rest)
            }
            _ => (None, name),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => {
                let tag = Tag::parse(tag).map_err(|source| ImageRefError::Tag { reference: reference(), source })?;
                (repository, Some(tag))
            }
            None => (rest, None),
        };
        let repository = RepositoryName::parse(repository)
            .map_err(|source| ImageRefError::Repository { reference: reference(), source })?;
        Ok(Self { registry, repository, tag, digest })
    }

    /// The same image in `registry`, unless the text named a registry itself.
    #[must_use]
    pub fn in_registry_by_default(mut self, registry: &RegistryName) -> Self {
        self.registry.get_or_insert_with(|| registry.clone());
        self
    }

    /// The same reference with `latest` where neither a tag nor a digest was written.
    #[must_use]
    pub fn tagged_by_default(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(Tag::latest());
        }
        self
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

text_form!(RegistryName, ImageRefError);
text_form!(ImageRef, ImageRefError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_references_as_docker_does() {
        let check = |text: &str, registry: Option<&str>, repository: &str, tag: Option<&str>| {
            let image = ImageRef::parse(text).expect(text);
            assert_eq!(image.registry.as_ref().map(RegistryName::as_str), registry, "{text}");
            assert_eq!(image.repository.as_str(), repository, "{text}");
            assert_eq!(image.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(image.to_string(), text);
        };
        check("app", None, "app", None);
        check("team/app:v1", None, "team/app", Some("v1"));
        check("localhost/app", Some("localhost"), "app", None);
        check("localhost:5000/app:v1", Some("localhost:5000"), "app", Some("v1"));
        check("r.io/a/b", Some("r.io"), "a/b", None);
        check("[::1]:5000/app", Some("[::1]:5000"), "app", None);
    }

    #[test]
    fn refuses_bad_references() {
        let long = "a".repeat(300);
        for text in ["", ":v1", "App", "app:", "app:v 1", "r.io:x/app", "r.io:0/app", "app@sha256:00", "a//b", &long] {
            assert!(ImageRef::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_fill_what_is_absent_only() {
        let local = RegistryName::parse("localhost:5000").expect("valid");
        let check = |text: &str, expect: &str| {
            let image = ImageRef::parse(text).expect(text).in_registry_by_default(&local).tagged_by_default();
            assert_eq!(image.to_string(), expect);
        };
        check("app", "localhost:5000/app:latest");
        check("r.io/app:1", "r.io/app:1");
    }
}
