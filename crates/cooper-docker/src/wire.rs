//! Connections to the engine's socket that belong to one request, which ends with them.
//!
//! Closing the connection is how a build or a push is stopped; a pool would keep it alive.

use std::time::Duration;

use bytes::Bytes;
use cooper_ports::engine::EngineError;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::socket::EngineSocket;

/// How long connecting and answers that take no work may take. An engine under load answers late, not never.
const PROMPT: Duration = Duration::from_secs(30);
/// An engine's error answer is a line of JSON.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// What `http::Uri` takes, less room for what is always there.
pub(crate) const MAX_QUERY: usize = 60_000;

/// Headers of a request.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Opens connections to one engine.
#[derive(Clone, Debug)]
pub(crate) struct EngineWire {
    socket: EngineSocket,
    /// The prefix of all paths, such as `/v1.41`.
    version: String,
}

/// An answer that streams; the connection closes when it is dropped.
pub(crate) struct StreamingAnswer {
    pub(crate) body: Incoming,
    connection: AbortOnDropHandle<()>,
}

/// Why a request got no answer to work with.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The engine answered with a status other than success.
    Status(StatusCode, String),
    /// There was no answer.
    Engine(EngineError),
}

impl EngineWire {
    pub(crate) fn new(socket: EngineSocket, api_version: &str) -> Self {
        Self { socket, version: format!("/v{api_version}") }
    }

    /// Posts without a body; the answer's body streams.
    pub(crate) async fn post(
        &self,
        operation: &'static str,
        path_and_query: &str,
        headers: Headers,
    ) -> Result<StreamingAnswer, RequestError> {
        let (response, connection) = self.send(operation, path_and_query, headers).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(StreamingAnswer { body: response.into_body(), connection })
    }

    /// Asks to speak another protocol on the connection: `h2c` as `/session` and `/grpc` do, `tcp` as `/attach` does.
    pub(crate) async fn upgrade(
        &self,
        operation: &'static str,
        path: &str,
        protocol: HeaderValue,
        mut headers: Headers,
    ) -> Result<Upgraded, RequestError> {
        headers.push((http::header::CONNECTION, HeaderValue::from_static("Upgrade")));
        headers.push((http::header::UPGRADE, protocol));
        let upgrade = async {
            let (response, connection) = self.send(operation, path, headers).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refusal(response).await);
            }
            let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(operation, error))?;
            // The connection's task ends by itself once it has handed the stream over.
            drop(connection.detach());
            Ok(upgraded)
        };
        tokio::time::timeout(PROMPT, upgrade)
            .await
            .unwrap_or(Err(RequestError::Engine(EngineError::TimedOut { operation, after: PROMPT })))
    }

    async fn send(
        &self,
        operation: &'static str,
        path_and_query: &str,
        headers: Headers,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), RequestError> {
        let connect = tokio::time::timeout(PROMPT, UnixStream::connect(self.socket.path()));
        let stream = connect
            .await
            .map_err(|_| EngineError::TimedOut { operation, after: PROMPT })?
            .map_err(|error| self.socket.unreachable(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(operation, e))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // What ends the connection shows in the response's body, where it is handled.
            let _ = connection.with_upgrades().await;
        }));
        let mut request = Request::post(format!("{}{path_and_query}", self.version))
            .header(http::header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(operation, error))?;
        for (name, value) in headers {
            request.headers_mut().append(name, value);
        }
        let response = sender.send_request(request).await.map_err(|error| broken(operation, error))?;
        Ok((response, connection))
    }
}

impl StreamingAnswer {
    /// The body, and what keeps its connection open.
    pub(crate) fn into_parts(self) -> (Incoming, AbortOnDropHandle<()>) {
        (self.body, self.connection)
    }
}

impl From<EngineError> for RequestError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl RequestError {
    /// The error where the engine's refusal has no further meaning.
    pub(crate) fn into_engine_error(self, operation: &'static str) -> EngineError {
        match self {
            Self::Status(_, message) => EngineError::Refused { operation, message },
            Self::Engine(error) => error,
        }
    }
}

fn broken(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
    EngineError::Broken { operation, source: source.into() }
}

/// Reads the message of an error answer: `{"message": "…"}`, or whatever else it says, cut short.
async fn refusal(response: Response<Incoming>) -> RequestError {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let status = response.status();
    let collect = Limited::new(response.into_body(), MAX_ERROR_BODY).collect();
    let bytes = match tokio::time::timeout(PROMPT, collect).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let message = match serde_json::from_slice::<Message>(&bytes) {
        Ok(body) => body.message,
        Err(_) => format!("status {status} {}", String::from_utf8_lossy(&bytes).trim()),
    };
    RequestError::Status(status, one_line(&message))
}

/// A message of the engine's as one line of bounded length, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 2000;
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
