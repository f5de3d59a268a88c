//! Connections: HTTP/1.1 and cleartext HTTP/2 on one port, and over the in-process agent's stream. What a client may be
//! slow with is bounded here: its first bytes, a request's head, a request's body.

mod linger;
mod patience;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use linger::LingeringBody;
use patience::{FirstBytes, SteadyBody};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request's body may pause. Agents speak every few seconds, and pushes and uploads flow.
const BODY_PAUSE: Duration = Duration::from_secs(120);
/// How long the rest of a body that is not wanted is read.
const LINGER: Duration = Duration::from_secs(10);
/// The largest head of an HTTP/2 request, in bytes: the longest credential fits twice.
const MAX_HEAD: u32 = 64 << 10;
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING_PERIOD: Duration = Duration::from_secs(20);
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
        Self { app, builder }
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
                Ok((stream, _)) => {
                    // Small messages must not wait for one another; a socket that refuses is closing already.
                    let _ = stream.set_nodelay(true);
                    let served = self.clone().serve(stream, graceful.watcher());
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

    /// Serves one stream until it ends, or until the watcher's owner shuts down and its last answer is out.
    pub(crate) async fn serve<S>(self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let steady = |request: Request<Incoming>| {
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
