//! The one client for requests to places that users name: checked addresses, checked redirects, limits on time.
//!
//! Owns where a request may go, over what, and how long it may take. What is asked and what an answer means is the
//! caller's. A name is resolved by this client alone, and the connection goes to the address that was checked: there is
//! no second look-up that could say something else. Proxies from the environment are ignored, because a proxy would
//! resolve the name again, out of sight. The system's certificates are trusted (`SSL_CERT_FILE` counts), and those given.

mod cidr;
mod error;
mod outgoing;
mod policy;
mod resolver;
mod response;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Url, redirect};

pub use cidr::{Cidr, CidrError};
pub use error::EgressError;
pub use policy::EgressPolicy;
pub use resolver::Names;
use resolver::Resolver;
pub use response::EgressResponse;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// The whole of a response's headers.
const MAX_HEADERS: u32 = 64 << 10;

/// How the client behaves.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// Where requests may go.
    pub policy: EgressPolicy,
    /// The option with which an operator lists an address for these requests: what a refusal names.
    pub listed_by: &'static str,
    /// Who knows the addresses of names; the system if absent.
    pub names: Option<Names>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub extra_roots: Option<Vec<u8>>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long a server may stay silent, before its answer and within it.
    pub idle_timeout: Duration,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            policy: EgressPolicy::default(),
            listed_by: "cooper serve --allow-source",
            names: None,
            extra_roots: None,
            connect_timeout: Duration::from_secs(20),
            // Servers count and compress before the first byte of a large repository.
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// The client. Clones share connections.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: EgressOptions,
    /// Built when they are needed: a machine without certificates must still reach plain servers.
    https: OnceLock<Client>,
    http: OnceLock<Client>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct EgressRequest {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// More headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for none.
    pub body: bytes::Bytes,
    /// Sent to this URL's host alone: a redirect to another drops it.
    pub authorization: Option<HeaderValue>,
    /// Whether redirects are followed; otherwise one is an error.
    pub follow: bool,
}

impl Egress {
    /// A client that follows these options.
    pub fn new(options: EgressOptions) -> Self {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Whoever wins a race has installed the same provider: there is only one in the tree.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        Self(Arc::new(Inner { options, https: OnceLock::new(), http: OnceLock::new() }))
    }

    /// Sends a request and waits for the head of its answer, whatever its status.
    pub async fn send(&self, request: EgressRequest) -> Result<EgressResponse, EgressError> {
        let EgressRequest { method, mut url, headers, body, mut authorization, follow } = request;
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client_for(&url)?;
            let mut sent = client.request(method.clone(), url.clone()).body(body.clone());
            let map: HeaderMap = headers.iter().cloned().collect();
            sent = sent.headers(map);
            if let Some(value) = &authorization {
                let mut value = value.clone();
                value.set_sensitive(true);
                sent = sent.header(AUTHORIZATION, value);
            }
            // The head's own limit: reqwest's covers the silence within a body.
            let answer = tokio::time::timeout(self.0.options.idle_timeout, sent.send()).await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return Err(EgressError::from_reqwest(&url, error)),
                Err(_) => return Err(EgressError::Silent { host: host_of(&url) }),
            };
            if !answer.status().is_redirection() {
                return Ok(EgressResponse::new(url, authorization.is_some(), answer));
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(next) = location.and_then(|text| url.join(text).ok()) else {
                return Ok(EgressResponse::new(url, authorization.is_some(), answer));
            };
            if !follow {
                return Err(EgressError::Redirected { host: host_of(&url), to: host_of(&next) });
            }
            check_redirect(&url, &next)?;
            if (next.scheme(), next.host(), next.port_or_known_default())
                != (url.scheme(), url.host(), url.port_or_known_default())
            {
                authorization = None;
            }
            url = next;
        }
        Err(EgressError::TooManyRedirects { host: host_of(&url), limit: MAX_REDIRECTS })
    }

    fn client_for(&self, url: &Url) -> Result<&Client, EgressError> {
        let (slot, listed_only) = match url.scheme() {
            "https" => (&self.0.https, false),
            // Whoever can read along can also change what is built: only where the operator says so.
            "http" => (&self.0.http, true),
            scheme => return Err(EgressError::Scheme { scheme: scheme.to_owned() }),
        };
        // An address in the URL never reaches the resolver.
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(EgressError::Scheme { scheme: url.scheme().to_owned() }),
        };
        if let Some(address) = literal {
            let EgressOptions { policy, listed_by, .. } = &self.0.options;
            policy.check(address, listed_only).map_err(|denial| denial.into_error(&host_of(url), listed_by))?;
        }
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(listed_only)?;
        Ok(slot.get_or_init(|| client))
    }

    fn build(&self, plain: bool) -> Result<Client, EgressError> {
        let options = &self.0.options;
        let setup = |error: reqwest::Error| EgressError::Setup { source: error.into() };
        let mut builder = Client::builder()
            // Forges tell git from a browser by its name.
            .user_agent(concat!("git/2.0 (cooper ", env!("CARGO_PKG_VERSION"), ")"))
            .no_proxy()
            .referer(false)
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.idle_timeout)
            .http2_max_header_list_size(MAX_HEADERS)
            .dns_resolver(Arc::new(Resolver::new(options, plain)));
        if plain {
            builder = builder.tls_certs_only(std::iter::empty());
        } else if let Some(pem) = &options.extra_roots {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?);
        }
        builder.build().map_err(setup)
    }
}

fn check_redirect(from: &Url, to: &Url) -> Result<(), EgressError> {
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(EgressError::Downgrade { host: host_of(from), to: host_of(to) });
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err(EgressError::Redirected { host: host_of(from), to: host_of(to) });
    }
    Ok(())
}

/// The host with the port, if it is not the scheme's own: what messages name.
pub(crate) fn host_of(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}
