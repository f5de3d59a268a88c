//! An archive behind a URL: `URL[#:SUBDIRECTORY]`.
//!
//! A URL's query is part of it, because that is how storage services sign their URLs. It can be a secret, so it is in no
//! message and in no text that is made for people.

use std::fmt;

use url::Url;

use super::error::{shown, shown_url};
use super::url::parse_http;
use super::{MAX_SOURCE_LEN, SourceError, Subdirectory};

/// A tar archive that a server hands out, and the directory of it that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSource {
    /// Where the archive is.
    pub url: ArchiveUrl,
    /// The directory that is the context; the archive's root if nothing is named.
    pub subdirectory: Option<Subdirectory>,
}

/// Where an archive is: `http` or `https`, a host, a path, perhaps a query; no user name, password or fragment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveUrl(Url);

impl ArchiveSource {
    /// Reads `URL[#:SUBDIRECTORY]`; the URL is taken to be an archive's.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let url = ArchiveUrl::parse(url)?;
        if !reference.is_empty() {
            return Err(SourceError::ArchiveReference { url: url.shown(), reference: shown(reference) });
        }
        let own = Self { url, subdirectory: Subdirectory::parse(subdirectory)? };
        // Encoded, a URL may be three times as long, and what is stored must be readable.
        match own.to_string().len() {
            length if length > MAX_SOURCE_LEN => Err(SourceError::TooLong { length }),
            _ => Ok(own),
        }
    }
}

impl ArchiveUrl {
    /// Reads a URL; the error never repeats credentials or a query.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let own = Self(parse_http(text)?);
        if own.0.path().trim_matches('/').is_empty() {
            return Err(SourceError::NoPath { url: shown_url(text) });
        }
        Ok(own)
    }

    /// The URL, its query included: for the request, not for people.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The URL for people: what its query holds is not said.
    pub fn shown(&self) -> String {
        let mut text = self.0[..url::Position::AfterPath].to_owned();
        if self.0.query().is_some() {
            text.push_str("?…");
        }
        text
    }

    /// The query, which may be a secret.
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// The same place with another query, or none.
    #[must_use]
    pub fn with_query(mut self, query: Option<&str>) -> Self {
        self.0.set_query(query);
        self
    }

    /// The host in lower case, with the port where it is not the scheme's own.
    pub fn host(&self) -> String {
        self.0[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
    }

    /// Whether the URL is a page about a repository, as a browser shows it, rather than an archive.
    pub(super) fn is_forge_page(&self) -> bool {
        let path = self.0.path();
        matches!(self.0.host_str(), Some("github.com" | "www.github.com"))
            && !["/archive/", "/tarball/", "/releases/download/"].iter().any(|part| path.contains(part))
    }
}

impl fmt::Display for ArchiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.expose())?;
        match &self.subdirectory {
            None => Ok(()),
            Some(subdirectory) => write!(f, "#:{subdirectory}"),
        }
    }
}

/// Without the query.
impl fmt::Debug for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveUrl({})", self.shown())
    }
}
