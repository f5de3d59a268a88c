//! Repositories by their URLs: when two spellings are one repository.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest URL of a repository, in bytes.
const MAX_URL: usize = 2048;

/// Hosts that serve the same repositories as another one, mostly ssh on an unusual port.
const OTHER_HOSTS: &[(&str, &str)] = &[
    ("www.github.com", "github.com"),
    ("ssh.github.com", "github.com"),
    ("altssh.gitlab.com", "gitlab.com"),
    ("altssh.bitbucket.org", "bitbucket.org"),
    ("ssh.dev.azure.com", "dev.azure.com"),
];

/// Where a repository is, without what makes no difference: scheme, user, `.git`, the host's case, usual ports.
///
/// Never the place of a request: user names and passwords are gone from it, and Azure DevOps' several forms are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RepositoryUrl {
    host: String,
    /// Of http and https alone; ssh's says nothing about where the web is.
    port: Option<u16>,
    path: String,
}

/// Why a text names no repository.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` names no repository: {reason}")]
pub struct RepositoryUrlError {
    text: String,
    reason: &'static str,
}

/// A repository as an event names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRepository {
    /// The forge's name for it, such as `owner/name`.
    pub name: String,
    /// Its URLs. Bitbucket Server's older releases send none: then the name has to do.
    pub urls: Vec<RepositoryUrl>,
    /// Whether the forge takes the path in any case.
    pub any_case: bool,
}

impl RepositoryUrl {
    /// Reads `https://…`, `http://…`, `ssh://…`, `git://…` and `user@host:path`.
    pub fn parse(text: &str) -> Result<Self, RepositoryUrlError> {
        // What may hold a password is not shown.
        let shown = || match text.rsplit_once('@') {
            Some((_, rest)) => rest,
            None => text,
        };
        let fault = |reason| RepositoryUrlError {
            text: shown().chars().take(160).flat_map(char::escape_debug).collect(),
            reason,
        };
        if text.len() > MAX_URL {
            return Err(fault("it is too long"));
        }
        if text.chars().any(|char| char.is_control() || char.is_whitespace()) {
            return Err(fault("it has blanks or controls"));
        }
        let (web, authority, path) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let web = match scheme.to_ascii_lowercase().as_str() {
                    "https" => Some(443),
                    "http" => Some(80),
                    "ssh" | "git" | "git+ssh" | "ssh+git" => None,
                    _ => return Err(fault("its scheme is none of https, http, ssh and git")),
                };
                let (authority, path) = rest.split_once('/').ok_or_else(|| fault("it has no path"))?;
                (web, authority, path)
            }
            None => {
                let (authority, path) = text.split_once(':').ok_or_else(|| fault("it is no URL"))?;
                if authority.contains('/') {
                    return Err(fault("it is no URL"));
                }
                (None, authority, path)
            }
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, Some(port.parse::<u16>().map_err(|_| fault("its port is no number"))?))
            }
            _ => (authority, None),
        };
        if host.is_empty() {
            return Err(fault("it has no host"));
        }
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = decoded(path).ok_or_else(|| fault("its path is not UTF-8"))?;
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        if path.is_empty() {
            return Err(fault("it has no path"));
        }
        let port = port.filter(|port| web.is_some_and(|usual| usual != *port));
        Ok(one_form(host, port, path))
    }

    /// The host, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path, without a slash at its ends and without `.git`.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn is_same(&self, other: &Self, any_case: bool) -> bool {
        let path =
            if any_case { self.path.to_lowercase() == other.path.to_lowercase() } else { self.path == other.path };
        path && self.host == other.host && self.port == other.port
    }
}

/// Azure DevOps writes one repository in five ways.
fn one_form(host: &str, port: Option<u16>, path: &str) -> RepositoryUrl {
    let host = OTHER_HOSTS.iter().find(|(other, _)| *other == host).map_or(host, |(_, host)| host);
    let azure = |parts: &[&str]| RepositoryUrl {
        host: "dev.azure.com".to_owned(),
        port: None,
        path: match parts {
            // A repository with its project's name needs to say it only once.
            [organization, "_git", repository] => format!("{organization}/{repository}/_git/{repository}"),
            parts => parts.join("/"),
        },
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    if host == "dev.azure.com" {
        if let ["v3", organization, project, repository] = parts[..] {
            return azure(&[organization, project, "_git", repository]);
        }
        return azure(&parts);
    }
    if host == "vs-ssh.visualstudio.com"
        && let ["v3", organization, project, repository] = parts[..]
    {
        return azure(&[organization, project, "_git", repository]);
    }
    if let Some(organization) = host.strip_suffix(".visualstudio.com") {
        if parts.first().is_some_and(|part| part.eq_ignore_ascii_case("DefaultCollection")) {
            parts.remove(0);
        }
        parts.insert(0, organization);
        return azure(&parts);
    }
    RepositoryUrl { host: host.to_owned(), port, path: path.to_owned() }
}

/// Takes `%xx` away.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = tail;
                }
                _ => {
                    bytes.push(b'%');
                    rest = &rest[1..];
                }
            },
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}/{}", self.host, self.path),
            None => write!(f, "{}/{}", self.host, self.path),
        }
    }
}

impl EventRepository {
    /// Whether this is the repository that a task names.
    pub fn is_at(&self, url: &RepositoryUrl) -> bool {
        if self.urls.is_empty() {
            let (path, name) = (url.path.to_lowercase(), self.name.to_lowercase());
            return path == name || path.ends_with(&format!("/{name}"));
        }
        self.urls.iter().any(|own| own.is_same(url, self.any_case))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_repository_are_one() {
        for (expect, texts) in [
            (
                "github.com/Owner/Name",
                &[
                    "https://github.com/Owner/Name",
                    "https://github.com/Owner/Name.git",
                    "https://GitHub.com:443/Owner/Name.git/",
                    "https://ann:secret@github.com/Owner/Name.git",
                    "http://github.com:80/Owner/Name",
                    "git@github.com:Owner/Name.git",
                    "ssh://git@github.com/Owner/Name.git",
                    "ssh://git@ssh.github.com:443/Owner/Name.git",
                    "git://github.com/Owner/Name",
                    "https://www.github.com/Owner/Name#main",
                ][..],
            ),
            ("git.example:8443/a/b", &["https://git.example:8443/a/b.git", "https://GIT.example.:8443/a/b"][..]),
            (
                "dev.azure.com/org/My Project/_git/repo",
                &[
                    "https://dev.azure.com/org/My%20Project/_git/repo",
                    "https://org@dev.azure.com/org/My%20Project/_git/repo",
                    "git@ssh.dev.azure.com:v3/org/My%20Project/repo",
                    "https://org.visualstudio.com/My%20Project/_git/repo",
                    "https://org.visualstudio.com/DefaultCollection/My%20Project/_git/repo",
                    "org@vs-ssh.visualstudio.com:v3/org/My%20Project/repo",
                ][..],
            ),
            ("dev.azure.com/org/repo/_git/repo", &["https://dev.azure.com/org/_git/repo"][..]),
            ("[::1]:3000/a/b", &["http://[::1]:3000/a/b.git"][..]),
        ] {
            for text in texts {
                assert_eq!(RepositoryUrl::parse(text).map(|url| url.to_string()), Ok(expect.to_owned()), "{text}");
            }
        }
        for text in [
            "",
            "x",
            "https://",
            "https://host",
            "https://host/",
            "ftp://h/a",
            "https://h/a b",
            "https://h:x/a",
            "a/b:c",
        ] {
            assert!(RepositoryUrl::parse(text).is_err(), "{text}");
        }
        let error = RepositoryUrl::parse("https://ann:secret@host").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn an_events_repository_is_known_by_any_of_its_urls() {
        let url = |text: &str| RepositoryUrl::parse(text).unwrap();
        let mut repository = EventRepository {
            name: "PROJ/app".to_owned(),
            urls: vec![url("https://git.example/scm/proj/app.git"), url("ssh://git@git.example:7999/proj/app.git")],
            any_case: true,
        };
        assert!(repository.is_at(&url("https://git.example/scm/PROJ/App")));
        assert!(repository.is_at(&url("git@git.example:proj/app")));
        assert!(!repository.is_at(&url("https://git.example/scm/proj/app2")));
        assert!(!repository.is_at(&url("https://git.example:8443/scm/proj/app")));
        assert!(!repository.is_at(&url("https://other.example/scm/proj/app")));
        repository.any_case = false;
        assert!(!repository.is_at(&url("https://git.example/scm/PROJ/app")));
        repository.urls.clear();
        assert!(repository.is_at(&url("https://git.example/scm/proj/app")));
        assert!(!repository.is_at(&url("https://git.example/scm/xproj/app")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(https://|git@|ssh://)?.{0,40}") {
            if let Ok(url) = RepositoryUrl::parse(&text) {
                prop_assert!(!url.path().is_empty());
                prop_assert!(!url.host().contains('@'));
            }
        }
    }
}
