//! A server's address, checked once.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// The address of a server: `http` or `https`, a host, perhaps a port and a path, nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

/// Why a text is not a server's address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServerUrlError {
    /// Not a URL of the form that is needed.
    #[error("server `{0}` is not an address such as http://localhost:5000 or https://build.example.com")]
    Form(String),
    /// A name, password, query or fragment in the URL.
    #[error("server `{0}` must not carry a user name, a password, a query or a fragment")]
    Extra(String),
    /// The token would travel in clear text.
    #[error("server `{0}` is plain http beyond this machine, which would show the token to the network")]
    PlainHttp(String),
}

impl ServerUrl {
    /// Parses an address. Without a scheme, a loopback host gets `http` and any other `https`.
    pub fn parse(text: &str) -> Result<Self, ServerUrlError> {
        let text = text.trim();
        let shown = || shown(text);
        let url = match text.contains("://") {
            true => Url::parse(text).map_err(|_| ServerUrlError::Form(shown()))?,
            false => {
                let plain = Url::parse(&format!("http://{text}")).map_err(|_| ServerUrlError::Form(shown()))?;
                match is_loopback(&plain) {
                    true => plain,
                    false => Url::parse(&format!("https://{text}")).map_err(|_| ServerUrlError::Form(shown()))?,
                }
            }
        };
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(ServerUrlError::Form(shown()));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(ServerUrlError::Extra(shown()));
        }
        Ok(Self(url))
    }

    /// Refuses an address over which a token would travel in clear text beyond this machine.
    pub fn require_private(&self) -> Result<(), ServerUrlError> {
        match self.0.scheme() == "https" || self.is_loopback() {
            true => Ok(()),
            false => Err(ServerUrlError::PlainHttp(self.to_string())),
        }
    }

    /// Whether the server is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Whether the address is `https`.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> String {
        match self.0.host().expect("it was parsed with a host") {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// The port, the scheme's own if none was written.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().expect("http and https have ports of their own")
    }

    /// Whether the address names more than a host and a port.
    pub fn has_path(&self) -> bool {
        self.0.path() != "/"
    }

    /// The address of `path`, which begins with `/`, holds no characters that need escaping, and may have a query.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{base}{path}"));
        url.set_query(query);
        url
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        // Names below `localhost` are left to DNS by many resolvers, and may lead anywhere.
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// The text for a message, cut short and without what stands before an `@`: that may be a password.
fn shown(text: &str) -> String {
    let rest = match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    };
    rest.chars().filter(|c| !c.is_control()).take(200).collect()
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ServerUrl {
    type Err = ServerUrlError;
    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_and_guesses_the_scheme() {
        let check = |text: &str, expect: &str| assert_eq!(ServerUrl::parse(text).expect(text).to_string(), expect);
        check("http://localhost:5000", "http://localhost:5000");
        check(" https://build.example.com/ ", "https://build.example.com");
        check("https://example.com/cooper/", "https://example.com/cooper");
        check("localhost:5000", "http://localhost:5000");
        check("127.0.0.1:5000", "http://127.0.0.1:5000");
        check("[::1]:5000", "http://[::1]:5000");
        check("build.example.com", "https://build.example.com");
        assert_eq!(
            ServerUrl::parse("https://example.com/cooper/").expect("valid").join("/api/v1/info").as_str(),
            "https://example.com/cooper/api/v1/info"
        );
    }

    #[test]
    fn refuses_what_is_no_address_and_shows_no_password() {
        for text in ["", "ftp://example.com", "http://", "file:///etc/passwd", "http://a b"] {
            assert!(matches!(ServerUrl::parse(text), Err(ServerUrlError::Form(_))), "{text}");
        }
        for text in ["https://user:hunter2@example.com", "https://example.com?a=1", "https://example.com#a"] {
            let error = ServerUrl::parse(text).expect_err(text);
            assert!(matches!(error, ServerUrlError::Extra(_)), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback() {
        let check = |text: &str, ok: bool| {
            assert_eq!(ServerUrl::parse(text).expect(text).require_private().is_ok(), ok, "{text}");
        };
        check("http://localhost:5000", true);
        check("http://127.8.9.1", true);
        check("http://[::1]:80", true);
        check("http://[::ffff:127.0.0.1]:80", true);
        check("https://example.com", true);
        check("http://example.com", false);
        check("http://10.0.0.1:5000", false);
        check("http://localhost.example.com", false);
        check("http://registry.localhost:5000", false);
        check("http://127.0.0.1.example.com", false);
    }
}
