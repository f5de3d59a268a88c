//! How an agent gets a channel to its server, and what it shows there. What goes over the channel is the [link]'s.
//!
//! [link]: crate::link

use std::time::Duration;

use cooper_types::SecretString;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};

/// The server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("server cannot be reached")]
pub struct ConnectError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Opens channels to one server.
#[async_trait::async_trait]
pub trait Connector: Send + Sync {
    /// Where the server is, for the log.
    fn server(&self) -> String;

    /// Opens a new channel. An agent uses one until it breaks.
    async fn connect(&self) -> Result<Channel, ConnectError>;
}

/// Bytes on the way in each direction of an in-process stream.
const DUPLEX_BYTES: usize = 1 << 20;
/// Flow-control windows: the defaults of 64 KiB would hold a context back.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(7);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// The settings of connections that every connector should use.
pub fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_timeout(CONNECT)
}

/// Reaches a server in the same process: each channel is a stream in memory whose other end is handed over.
pub struct InProcessConnector {
    hand_over: Box<dyn Fn(DuplexStream) + Send + Sync>,
}

impl InProcessConnector {
    /// A connector that gives the server's end of each new stream to `hand_over`, which must not block; a stream that
    /// it drops is a server that does not answer.
    pub fn new(hand_over: impl Fn(DuplexStream) + Send + Sync + 'static) -> Self {
        Self { hand_over: Box::new(hand_over) }
    }
}

#[async_trait::async_trait]
impl Connector for InProcessConnector {
    fn server(&self) -> String {
        "in this process".to_owned()
    }

    async fn connect(&self) -> Result<Channel, ConnectError> {
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        (self.hand_over)(theirs);
        let mut ours = Some(ours);
        // The name is never looked up, it only fills the requests' authority.
        let endpoint = tuned(Endpoint::from_static("http://in-process.invalid"));
        let connector = tower::service_fn(move |_| {
            // A channel whose stream broke asks again: a new channel is the way, so it gets nothing.
            let stream = ours.take().map(TokioIo::new);
            std::future::ready(stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
        });
        endpoint.connect_with_connector(connector).await.map_err(|error| ConnectError(Box::new(error)))
    }
}

/// The token is not one that fits into a header.
#[derive(Debug, thiserror::Error)]
#[error("the agent's token holds characters that no token has")]
pub(crate) struct BadToken;

/// Shows the agent's token with every call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub(crate) fn new(token: &SecretString) -> Result<Self, BadToken> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse().map_err(|_| BadToken)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
