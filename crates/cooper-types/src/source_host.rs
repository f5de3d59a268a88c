//! The host of a source or of a registry: what credentials are kept for.

use std::fmt;

use crate::parsed::text_form;
use crate::{ImageRef, RegistryName};

/// The longest name of a host with its port.
const MAX_LEN: usize = 261;
/// The port that https needs no mention of.
const USUAL_PORT: &str = "443";

/// The registry that references mean which name none.
const DOCKER_HUB: &str = "docker.io";
/// Its other names: an older one, and the one that it answers under.
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// `host` or `host:port`, in lower case and without https's own port: the form that a URL's host has. Docker Hub's names
/// are one host, `docker.io`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceHost(Box<str>);

/// Why a text names no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no host: {reason}")]
pub struct SourceHostError {
    text: String,
    reason: &'static str,
}

impl SourceHost {
    /// Parses a name, an IPv4 address or an IPv6 address in brackets, each with a port or without.
    pub fn parse(text: &str) -> Result<Self, SourceHostError> {
        let refused = |reason| {
            // A user name and a password may stand before the `@`: they are not shown.
            let shown = text.rsplit('@').next().unwrap_or_default();
            SourceHostError { text: shown.chars().take(160).flat_map(char::escape_debug).collect(), reason }
        };
        if text.contains("://") || text.contains('/') {
            return Err(refused("write the host alone, without a scheme and a path"));
        }
        if text.contains('@') {
            return Err(refused("write the host without a user name"));
        }
        if text.len() > MAX_LEN {
            return Err(refused("it is too long"));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let sound = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let part = |part: &str| {
                    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                };
                host.split('.').all(part)
            }
        };
        if !sound {
            return Err(refused("a host is made of ASCII letters, digits, `-` and dots"));
        }
        let host = match bracketed.and_then(|address| address.parse::<std::net::Ipv6Addr>().ok()) {
            Some(address) => format!("[{address}]"),
            None => host.to_ascii_lowercase(),
        };
        let port = match port {
            None => None,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Some(number.to_string()),
                _ => return Err(refused("its port is not a number from 1 to 65535")),
            },
        };
        Ok(Self(match port.filter(|port| port != USUAL_PORT) {
            Some(port) => format!("{host}:{port}").into(),
            None if DOCKER_HUB_ALIASES.contains(&host.as_str()) => DOCKER_HUB.into(),
            None => host.into(),
        }))
    }

    /// The host of a registry; `None` for what no host can be called.
    pub fn of_registry(registry: &RegistryName) -> Option<Self> {
        Self::parse(registry.as_str()).ok()
    }

    /// The host of the registry that a reference means: Docker Hub where it names none.
    pub fn of_image(image: &ImageRef) -> Option<Self> {
        image.registry.as_ref().map_or_else(|| Some(Self(DOCKER_HUB.into())), Self::of_registry)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(SourceHost, SourceHostError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, expect) in [
            ("github.com", "github.com"),
            ("GitHub.com", "github.com"),
            ("git.example:8443", "git.example:8443"),
            ("git.example:443", "git.example"),
            ("git.example:0443", "git.example"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:3000", "[::1]:3000"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("index.docker.io", "docker.io"),
            ("Registry-1.Docker.io:443", "docker.io"),
            ("index.docker.io:8080", "index.docker.io:8080"),
        ] {
            assert_eq!(SourceHost::parse(text).map(|host| host.to_string()), Ok(expect.to_owned()), "{text}");
        }
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "https://a",
            "a/b",
            "a b",
            "a..b",
            "[x]",
            "::1",
            "bücher.example",
            "a\n",
        ] {
            assert!(SourceHost::parse(text).is_err(), "{text}");
        }
        for (image, expect) in [("busybox", "docker.io"), ("index.docker.io/a/b", "docker.io"), ("R.io:443/a", "r.io")]
        {
            let image = ImageRef::parse(image).expect("valid");
            assert_eq!(SourceHost::of_image(&image).map(|host| host.to_string()).as_deref(), Some(expect), "{image}");
        }
        let error = SourceHost::parse("ann:secret@git.example").expect_err("refused").to_string();
        assert_eq!(error, "`git.example` is no host: write the host without a user name");
    }
}
