//! URLs over `http` and `https`, and a repository's: a host, a path, and nothing that is secret.
//!
//! The URL is kept in the form that the request is made with, so that what is checked is what is used: host in lower
//! case, numeric addresses in their usual form, no default port, no `.` or `..` parts.

use std::fmt;

use url::{Position, Url};

use super::error::{SourceError, shown_url};

/// Reads an `http(s)` URL with a host, and without credentials and fragment. The error repeats neither credentials nor a
/// query.
pub(super) fn parse_http(text: &str) -> Result<Url, SourceError> {
    let invalid = |reason: &str| SourceError::Url { url: shown_url(text), reason: reason.to_owned() };
    // The URL standard would drop some of these in silence.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("it holds a blank or a control character"));
    }
    if text.contains('\\') {
        return Err(invalid("it holds a backslash"));
    }
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it begins with neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
        return Err(SourceError::Credentials { host });
    }
    if url.fragment().is_some() {
        return Err(invalid("it holds a `#`"));
    }
    Ok(url)
}

/// Where a repository is. It holds no user name, password, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryUrl(Url);

impl RepositoryUrl {
    /// Reads a URL; the error never repeats credentials or a query.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let own = Self(parse_http(text)?);
        if own.0.query().is_some() {
            return Err(SourceError::Query { url: shown_url(text) });
        }
        if own.0.path().trim_matches('/').is_empty() {
            return Err(SourceError::NoPath { url: shown_url(text) });
        }
        Ok(own)
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The host in lower case, with the port where it is not the scheme's own: what credentials are stored for.
    pub fn host(&self) -> String {
        self.0[Position::BeforeHost..Position::AfterPort].to_owned()
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether a URL's text alone says that it is a repository's, whatever its query.
    pub(super) fn is_plainly_git(text: &str) -> bool {
        let Ok(url) = Url::parse(text) else {
            // Then an error will say what is wrong with it, in the words of what it most likely was to be.
            return text.trim_end_matches('/').ends_with(".git");
        };
        let path = url.path().trim_end_matches('/');
        let parts = path.split('/').filter(|part| !part.is_empty()).count();
        path.ends_with(".git")
            || path.to_ascii_lowercase().contains("/_git/")
            || (matches!(url.host_str(), Some("github.com" | "www.github.com")) && parts == 2)
    }

    /// The URL of a submodule, as `.gitmodules` of this repository writes it.
    ///
    /// Paths that begin with `./` or `../` are relative to this repository, as git takes them. ssh's forms are taken for
    /// this same host alone, over this repository's own scheme: other hosts' would need keys that are not there.
    pub fn submodule(&self, text: &str) -> Result<Self, SourceError> {
        if text.len() > super::MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        if text.starts_with("./") || text.starts_with("../") {
            return self.relative(text);
        }
        let ssh = match text.split_once("://") {
            Some((scheme, rest)) if matches!(scheme, "ssh" | "git" | "git+ssh" | "ssh+git") => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = authority.rsplit('@').next().unwrap_or_default();
                // ssh's port says nothing about HTTP's.
                Some((scheme, host.split(':').next().unwrap_or_default(), path))
            }
            Some(_) => None,
            None => match super::scp_form(text) {
                Some((host, path)) => Some(("ssh", host, path)),
                None => {
                    let reason = "it is a path; only URLs, `./` and `../` are taken".to_owned();
                    return Err(SourceError::Url { url: shown_url(text), reason });
                }
            },
        };
        match ssh {
            Some((_, host, path)) if Some(host.to_ascii_lowercase().as_str()) == self.0.host_str() => {
                let root = &self.0[..Position::BeforePath];
                Self::parse(&format!("{root}/{}", path.trim_start_matches('/')))
            }
            Some((scheme, host, path)) => Err(SourceError::NotHttps {
                scheme: scheme.to_owned(),
                instead: super::error::shown(&format!("https://{host}/{}", path.trim_start_matches('/'))),
            }),
            None => Self::parse(text),
        }
    }

    fn relative(&self, text: &str) -> Result<Self, SourceError> {
        let root = &self.0[..Position::BeforePath];
        let mut parts: Vec<&str> = self.0.path().split('/').filter(|part| !part.is_empty()).collect();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_none() => {
                    let reason = "it leads above the host".to_owned();
                    return Err(SourceError::Url { url: shown_url(text), reason });
                }
                ".." => {}
                part => parts.push(part),
            }
        }
        Self::parse(&format!("{root}/{}", parts.join("/")))
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
