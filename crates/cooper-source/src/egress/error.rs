//! Why a request got no answer: told from the layers below by what they are, never by their texts.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use reqwest::Url;

use super::host_of;
use super::resolver::{Denied, NoAddress};

/// Why a request got no answer, or no whole one. Each names the host.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The name has no address.
    #[error("host `{host}` was not found")]
    HostNotFound {
        /// The host.
        host: String,
        /// What the resolver says.
        #[source]
        source: Option<io::Error>,
    },
    /// The policy refuses the address.
    #[error("host `{host}` has the address {address}, which is not public; the operator can allow it with {listed_by}")]
    Refused {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
        /// The operator's option.
        listed_by: &'static str,
    },
    /// Plain http to a place that is not listed.
    #[error("host `{host}` ({address}) is reached over https only; the operator can allow http with {listed_by}")]
    PlainHttp {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
        /// The operator's option.
        listed_by: &'static str,
    },
    /// Neither http nor https.
    #[error("`{scheme}` URLs are not followed")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// Nothing listens there.
    #[error("host `{host}` refuses connections; check the URL's host and port, and that the server runs")]
    RefusesConnections {
        /// The host.
        host: String,
    },
    /// The connection was not made.
    #[error("can't connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// What the system says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection took too long.
    #[error("connecting to `{host}` took too long")]
    ConnectTimeout {
        /// The host.
        host: String,
    },
    /// The server's certificate or its TLS is not acceptable.
    #[error("the TLS connection to `{host}` failed: {reason}; a private CA must be trusted on the agent's machine")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The server says nothing.
    #[error("`{host}` stopped answering")]
    Silent {
        /// The host.
        host: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection to `{host}` broke off")]
    Cut {
        /// The host.
        host: String,
        /// What the layers below say.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A redirect where none is followed.
    #[error("`{host}` redirects to `{to}`, which is not followed here; name the new address")]
    Redirected {
        /// The host.
        host: String,
        /// Where it points.
        to: String,
    },
    /// From https to http.
    #[error("`{host}` redirects to plain http on `{to}`, which is refused")]
    Downgrade {
        /// The host.
        host: String,
        /// Where it points.
        to: String,
    },
    /// Redirects without an end.
    #[error("`{host}` redirects more than {limit} times")]
    TooManyRedirects {
        /// The last host.
        host: String,
        /// How many are followed.
        limit: usize,
    },
    /// The client can't be made on this machine.
    #[error("can't set up the client for outgoing requests; check the machine's certificates")]
    Setup {
        /// What the layers below say.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EgressError {
    /// What whoever named the place may be told: neither where its name leads nor what is said there, which would let them read
    /// where the machine can.
    pub fn told(&self) -> String {
        match self {
            Self::Refused { host, listed_by, .. } => {
                format!("host `{host}` has an address which is not public; the operator can allow it with {listed_by}")
            }
            Self::PlainHttp { host, listed_by, .. } => {
                format!("host `{host}` is reached over https only; the operator can allow http with {listed_by}")
            }
            Self::Tls { host, .. } => {
                format!("the TLS connection to `{host}` failed; a private CA must be trusted on the server's machine")
            }
            Self::Redirected { host, .. } => {
                format!("`{host}` redirects elsewhere, which is not followed here; name the new address")
            }
            Self::Downgrade { host, .. } => format!("`{host}` redirects to plain http, which is refused"),
            // The causes beneath are left out.
            Self::HostNotFound { .. }
            | Self::Scheme { .. }
            | Self::RefusesConnections { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Silent { .. }
            | Self::Cut { .. }
            | Self::TooManyRedirects { .. }
            | Self::Setup { .. } => self.to_string(),
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RefusesConnections { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Silent { .. }
            | Self::Cut { .. } => true,
            // A resolver that can't be asked is not the same as a name that isn't there, but can't be told from it
            // everywhere: trying again does no harm to either.
            Self::HostNotFound { source, .. } => source.is_some() && !self.is_unknown_name(),
            Self::Refused { .. }
            | Self::PlainHttp { .. }
            | Self::Scheme { .. }
            | Self::Tls { .. }
            | Self::Redirected { .. }
            | Self::Downgrade { .. }
            | Self::TooManyRedirects { .. }
            | Self::Setup { .. } => false,
        }
    }

    fn is_unknown_name(&self) -> bool {
        // The standard library keeps getaddrinfo's code in its text alone: EAI_NONAME and EAI_NODATA against EAI_AGAIN.
        let Self::HostNotFound { source: Some(source), .. } = self else { return false };
        !source.to_string().contains("Temporary failure")
    }

    pub(super) fn from_reqwest(url: &Url, error: reqwest::Error) -> Self {
        let host = host_of(url);
        let error = error.without_url();
        if let Some(Denied { denial, listed_by }) = find::<Denied>(&error) {
            return denial.into_error(&host, listed_by);
        }
        if let Some(missing) = find::<NoAddress>(&error) {
            let source = missing.0.as_ref().map(|error| io::Error::new(error.kind(), error.to_string()));
            return Self::HostNotFound { host, source };
        }
        if let Some(tls) = find::<rustls::Error>(&error) {
            return Self::Tls { host, reason: tls.to_string() };
        }
        if error.is_connect()
            && find::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return Self::RefusesConnections { host };
        }
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Self::ConnectTimeout { host },
            (true, false) => Self::Connect { host, source: innermost(&error).into() },
            (false, true) => Self::Silent { host },
            (false, false) => Self::Cut { host, source: innermost(&error).into() },
        }
    }
}

/// Looks for an error of a kind among the causes, also inside IO errors, which wrap without showing.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The last cause: the layers above it only say that there is one.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
