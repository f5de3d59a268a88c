//! One connection of the engine, one to the server: requests for the registry go through, and nothing else does.
//!
//! Bodies are never held: what one side does not take, the other does not send.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use cooper_api::rest::IDENTITY_HEADER;
use cooper_ports::registry::ORIGIN_HEADER;

use crate::placement::Logins;
use crate::remote::{Protocol, RemoteServer};

/// How many connections the engine and others on this machine may have; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to ask, the first time and again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to ask who has a port.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the process has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// By what our own forwarders are known (RFC 9110, 7.6.3).
const VIA_US: &str = "1.1 cooper-agent";
/// What belongs to a connection and not to a request (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    // It is answered here, as soon as the server takes the body.
    EXPECT,
];

type Body = BoxBody<Bytes, hyper::Error>;

/// Who listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The server itself.
    Server,
    /// Another agent's forwarder to the same server.
    Forwarder,
    /// Somebody else.
    Other,
}

/// Hands requests on to one server.
#[derive(Clone)]
pub(super) struct Proxy(Arc<Inner>);

struct Inner {
    server: RemoteServer,
    /// The registry's name.
    name: String,
    /// What is shown for requests that read and show nothing themselves.
    logins: Option<Arc<Logins>>,
}

impl Proxy {
    pub(super) fn new(server: RemoteServer, name: String) -> Self {
        Self(Arc::new(Inner { server, name, logins: None }))
    }

    /// One that logs in for those who read and don't.
    pub(super) fn logging_in(server: RemoteServer, name: String, logins: Arc<Logins>) -> Self {
        Self(Arc::new(Inner { server, name, logins: Some(logins) }))
    }

    /// Serves until it is dropped, and its connections with it.
    pub(super) async fn serve(self, listeners: Vec<TcpListener>) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(self.clone().accept(listener, room.clone()));
        }
        accepting.join_all().await;
    }

    async fn accept(self, listener: TcpListener, room: Arc<Semaphore>) {
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let served = self.clone().serve_one(stream);
                    connections.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "connection to the registry can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Serves one connection to its end.
    pub(super) async fn serve_one(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let onward = Mutex::new(None);
        let answer = service_fn(|request| self.answer(request, &onward));
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = served.await {
            tracing::debug!(%error, "connection to the registry ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        onward: &Mutex<Option<SendRequest<Incoming>>>,
    ) -> Result<Response<Body>, Infallible> {
        if !is_registrys(request.uri().path()) {
            return Ok(refusal(StatusCode::NOT_FOUND, "UNSUPPORTED", "only the registry is reached here"));
        }
        let answer = match self.forward(request, onward).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "request for the registry can't be handed on");
                return Ok(refusal(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "the server can't be reached by its agent"));
            }
        };
        let (mut head, body) = answer.into_parts();
        strip(&mut head.headers);
        head.headers.append(VIA, HeaderValue::from_static(VIA_US));
        Ok(Response::from_parts(head, body.boxed()))
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        onward: &Mutex<Option<SendRequest<Incoming>>>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        // Requests of one connection come one after the other.
        let mut onward = onward.lock().await;
        let usable = match onward.as_mut() {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *onward = Some(open(self.0.server.dial(Protocol::Http1).await?).await?);
        }
        let (mut head, body) = request.into_parts();
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&self.0.name);
        let origin = HeaderValue::try_from(format!("http://{host}"))?;
        strip(&mut head.headers);
        head.headers.insert(HeaderName::from_static(ORIGIN_HEADER), origin);
        // A proxy before the server may choose by this.
        head.headers.insert(HOST, HeaderValue::try_from(self.0.server.authority())?);
        // For reading alone. What would write is asked for a login of its own, as it may have one.
        if matches!(head.method, Method::GET | Method::HEAD)
            && let Some(login) = self.0.logins.as_ref().and_then(|logins| logins.newest())
            && !head.headers.contains_key(AUTHORIZATION)
            && (head.uri.path().starts_with("/v2") || head.uri.path().starts_with("/acr/"))
        {
            head.headers.insert(AUTHORIZATION, login);
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse::<Uri>()?;
        let sender = onward.as_mut().ok_or("no connection")?;
        Ok(sender.send_request(Request::from_parts(head, body)).await?)
    }

    /// Finds out who listens on an address.
    pub(super) async fn holder(&self, address: SocketAddr) -> io::Result<Holder> {
        let ours = self.0.server.dial(Protocol::Http1).await?;
        let authority = self.0.server.authority();
        let ours =
            within(identity(ours, &authority)).await?.ok_or_else(|| io::Error::other("the server has no name"))?;
        // A program that accepts nothing is not waited for either.
        let there = within(async { identity(TcpStream::connect(address).await?, &address.to_string()).await }).await;
        Ok(match there {
            Ok(Some(there)) if there.0 == ours.0 => match there.1 {
                true => Holder::Forwarder,
                false => Holder::Server,
            },
            // Whatever it says, it is not the server.
            Ok(_) | Err(_) => Holder::Other,
        })
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(PROBE_TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

/// Which server answers on a connection, and whether a forwarder is in between.
async fn identity(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: &str,
) -> io::Result<Option<(String, bool)>> {
    let mut sender = open(stream).await.map_err(io::Error::other)?;
    let request = Request::get("/healthz").header(HOST, authority).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let forwarded = text(VIA.as_str()).is_some_and(|via| via.contains(VIA_US));
    Ok(text(IDENTITY_HEADER).map(|identity| (identity.to_owned(), forwarded)))
}

/// Speaks HTTP/1.1 on a connection.
async fn open<B>(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<SendRequest<B>, hyper::Error>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, or when the server closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the server's registry ended");
        }
    });
    Ok(sender)
}

/// Whether a path is one that clients of a registry need.
fn is_registrys(path: &str) -> bool {
    // A proxy before the server may make other paths of these. No repository, tag or digest has such a part.
    let climbs = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    let inside = path == "/v2"
        || ["/v2/", "/acr/v1/", "/oauth2/"].into_iter().any(|start| path.starts_with(start))
        || path == "/healthz";
    inside && !path.split(['/', '\\']).any(climbs)
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// An error as clients of a registry expect it.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let text = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().append(VIA, HeaderValue::from_static(VIA_US));
    answer
}
