//! Connections: HTTP/1.1 and HTTP/2 on one port, in clear or over TLS, and over the in-process agent's stream. What a
//! client may be slow with is bounded here: its first bytes, a request's head, a request's body.

mod linger;
mod opening;
mod patience;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Version};
use cooper_registry::ConnectionScheme;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::problem::chain;
use linger::LingeringBody;
use opening::Opened;
use patience::{FirstBytes, SteadyBody};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request's body may pause. Agents speak every few seconds, and pushes and uploads flow.
const BODY_PAUSE: Duration = Duration::from_secs(120);
/// How long the rest of a body that is not wanted is read.
const LINGER: Duration = Duration::from_secs(10);
/// The largest head of an HTTP/2 request, in bytes: the longest credential fits twice.
const MAX_HEAD: u32 = 64 << 10;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to answer: the machine of an
/// agent that lost its network is noticed within twice this.
const PING_PERIOD: Duration = Duration::from_secs(7);
/// Flow-control windows: the defaults of 64 KiB hold a fast upload back.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What one connection may ask for at a time.
const MAX_STREAMS: u32 = 1024;
/// How long to wait when the process has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections, however they came.
#[derive(Clone)]
pub(crate) struct Connections {
    app: Router,
    builder: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
}

impl Connections {
    pub(crate) fn new(app: Router) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING_PERIOD)
            .keep_alive_timeout(PING_PERIOD);
        Self { app, builder, tls: None }
    }

    /// The same for what speaks TLS, where it comes from the network.
    pub(crate) fn over_tls(self, tls: Option<TlsAcceptor>) -> Self {
        Self { tls, ..self }
    }

    /// Accepts until `stop` fires; then waits for requests that are being answered, until `cut` fires and ends them all.
    pub(crate) async fn accept(self, listener: TcpListener, stop: CancellationToken, cut: CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Small messages must not wait for one another; a socket that refuses is closing already.
                    let _ = stream.set_nodelay(true);
                    let served = self.clone().open(stream, peer, graceful.watcher(), stop.clone());
                    tokio::spawn(cut.clone().run_until_cancelled_owned(served));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        graceful.shutdown().await;
    }

    /// Serves what came over the network, once it is known what it is.
    async fn open(self, stream: TcpStream, peer: SocketAddr, watcher: Watcher, stop: CancellationToken) {
        let Some(acceptor) = &self.tls else { return self.serve(stream, watcher).await };
        // Nothing has been asked yet: a stop need not wait.
        match stop.run_until_cancelled(opening::open(stream, peer, acceptor)).await {
            Some(Ok(Opened::Secure(stream))) => self.serve_as(stream, ConnectionScheme::Https, watcher).await,
            Some(Ok(Opened::Local(stream))) => self.serve(stream, watcher).await,
            Some(Err(error)) => tracing::debug!(error = chain(&error), %peer, "connection did not come about"),
            None => {}
        }
    }

    /// Serves one stream in clear until it ends, or until the watcher's owner shuts down and its last answer is out.
    pub(crate) async fn serve<S>(self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_as(stream, ConnectionScheme::Http, watcher).await;
    }

    async fn serve_as<S>(self, stream: S, scheme: ConnectionScheme, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let steady = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(scheme);
            // HTTP/2 can end one request without harm to its answer.
            let lingers = request.version() < Version::HTTP_2;
            request.map(|body| match SteadyBody::new(body, BODY_PAUSE) {
                body if lingers => Body::new(LingeringBody::new(body, LINGER)),
                body => Body::new(body),
            })
        };
        let service = TowerToHyperService::new(self.app.map_request(steady));
        let connection = self.builder.serve_connection(TokioIo::new(FirstBytes::new(stream, HEAD_TIMEOUT)), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(error, "connection ended");
        }
    }
}
