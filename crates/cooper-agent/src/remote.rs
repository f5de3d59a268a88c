//! A server on another machine: how to get there, in clear or over TLS.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cooper_client::{CertificateFault, ServerUrl, Trust, TrustError};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::connect::{ConnectError, Connector, tuned};

/// How long the network may take, and then TLS.
const PATIENCE: Duration = Duration::from_secs(10);
/// After which silence the other machine is asked whether it is there, how often, and how long what was sent may go
/// unconfirmed: a server that lost its power says nothing, and who waits for an image's bytes sends nothing.
const SILENCE: Duration = Duration::from_secs(20);
const DEAD_PEER: Duration = Duration::from_secs(60);

/// A server's address, and whom to believe that it is the server. Cheap to clone.
#[derive(Clone)]
pub struct RemoteServer {
    url: ServerUrl,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    name: ServerName<'static>,
    http2: TlsConnector,
    http1: TlsConnector,
}

/// Why no agent can work for a server.
#[derive(Debug, thiserror::Error)]
pub enum RemoteServerError {
    /// gRPC has no folders.
    #[error("server {0} is an address with a path, and agents need one without")]
    Path(String),
    /// No certificate can be for this name.
    #[error("server {0} has a name that no certificate can be for")]
    Name(String),
    /// Nobody can be believed.
    #[error("server {server} can't be trusted")]
    Trust {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: Box<TrustError>,
    },
}

/// What is to be spoken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl RemoteServer {
    /// A server. Whether a token may go there in clear is the caller's question: [`ServerUrl::require_private`].
    pub fn new(url: ServerUrl, trust: &Trust) -> Result<Self, RemoteServerError> {
        if url.has_path() {
            return Err(RemoteServerError::Path(url.to_string()));
        }
        if !url.is_https() {
            return Ok(Self { url, tls: None });
        }
        let name = ServerName::try_from(url.host()).map_err(|_| RemoteServerError::Name(url.to_string()))?;
        let connector = |protocol| match trust.client_config(&[protocol]) {
            Ok(config) => Ok(TlsConnector::from(Arc::new(config))),
            Err(source) => Err(RemoteServerError::Trust { server: url.to_string(), source: Box::new(source) }),
        };
        let tls = Tls { name, http2: connector("h2")?, http1: connector("http/1.1")? };
        Ok(Self { url, tls: Some(tls) })
    }

    /// The server that listens at this loopback name, in clear: every server takes that from its own machine.
    pub(crate) fn on_this_machine(name: &str) -> Option<Self> {
        let url = ServerUrl::parse(&format!("http://{name}")).ok()?;
        Some(Self { url, tls: None })
    }

    /// Host and port, as requests name them.
    pub(crate) fn authority(&self) -> String {
        let host = self.url.host();
        match host.contains(':') {
            true => format!("[{host}]:{}", self.url.port()),
            false => format!("{host}:{}", self.url.port()),
        }
    }

    /// Opens a connection.
    pub(crate) async fn dial(&self, protocol: Protocol) -> io::Result<Box<dyn Stream>> {
        let stream = timely(TcpStream::connect((self.url.host(), self.url.port()))).await?;
        // Small messages must not wait for one another.
        let _ = stream.set_nodelay(true);
        if let Err(error) = notice_dead_peer(&stream) {
            tracing::debug!(%error, "a server that is gone without a word will not be noticed");
        }
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let connector = match protocol {
            Protocol::Http1 => &tls.http1,
            Protocol::Http2 => &tls.http2,
        };
        match timely(connector.connect(tls.name.clone(), stream)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(match CertificateFault::of(&error) {
                Some(fault) => io::Error::other(format!("{error}; {}", fault.way_out())),
                None => error,
            }),
        }
    }
}

/// Has the system break the connection off when nobody is at its other end any more.
fn notice_dead_peer(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE)?;
    sockopt::set_tcp_keepcnt(stream, 2)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(DEAD_PEER.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

async fn timely<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late()))
}

#[async_trait::async_trait]
impl Connector for RemoteServer {
    fn server(&self) -> String {
        self.url.to_string()
    }

    async fn connect(&self) -> Result<Channel, ConnectError> {
        let uri = |scheme: &str| -> Result<Uri, ConnectError> {
            let uri = format!("{scheme}://{}", self.authority()).parse::<Uri>();
            uri.map_err(|error| ConnectError(Box::new(error)))
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // The connection is made here; the scheme is only for the requests.
        let endpoint = tuned(Endpoint::from(uri("http")?)).origin(uri(scheme)?);
        let server = self.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let server = server.clone();
            async move { server.dial(Protocol::Http2).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(dial).await.map_err(|error| ConnectError(Box::new(error)))
    }
}

impl fmt::Debug for RemoteServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteServer").field(&self.url).finish()
    }
}
