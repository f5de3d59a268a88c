//! One HTTP call: address, token, deadline, and what the answer means.

use std::error::Error;
use std::sync::{Arc, Once};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::problem::{Problem, ProblemCode};
use cooper_types::SecretString;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LINK, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;

use crate::{CertificateFault, ClientError, ServerUrl, Trust};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a small call may take from its start to the end of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a peer may leave sent bytes unconfirmed.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest JSON answer that is read: a page of a thousand runs stays far below.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// The largest problem document that is read.
const MAX_PROBLEM: usize = 64 * 1024;
/// How many redirects within one server are followed.
const MAX_REDIRECTS: usize = 5;

/// Calls to one server with one token.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    server: Arc<ServerUrl>,
    login: Login,
}

/// What is shown with each request.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Nothing.
    #[default]
    Nobody,
    /// An access token.
    Token(SecretString),
    /// A name and a password, as registries take them.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: SecretString,
    },
}

impl Http {
    pub(crate) fn new(server: ServerUrl, login: Login, trust: &Trust) -> Result<Self, ClientError> {
        install_crypto();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cooper/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::custom(within_one_server));
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(DEAD_PEER_TIMEOUT);
        }
        #[cfg(not(target_os = "linux"))]
        {
            builder = builder.tcp_keepalive(DEAD_PEER_TIMEOUT);
        }
        if server.is_loopback() {
            // A proxy would look for the server on its own machine.
            builder = builder.no_proxy();
        }
        if !server.is_https() {
            // Otherwise a machine without root certificates could not even talk to a plain http server.
            builder = builder.tls_certs_only(std::iter::empty());
        } else if let Some(certificates) = trust.certificates() {
            let certificates = certificates.iter().map(|certificate| reqwest::Certificate::from_der(certificate));
            let certificates: Result<Vec<_>, _> = certificates.collect();
            builder = builder.tls_certs_only(certificates.map_err(|error| ClientError::Setup(error.into()))?);
        }
        let client = builder.build().map_err(|error| ClientError::Setup(error.into()))?;
        Ok(Self { client, server: Arc::new(server), login })
    }

    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// A request for `path`, with the login.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.server.join(path));
        let text = match &self.login {
            Login::Nobody => return request,
            Login::Token(token) => format!("Bearer {}", token.expose()),
            Login::Password { username, password } => {
                format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))
            }
        };
        match HeaderValue::try_from(text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.header(AUTHORIZATION, value)
            }
            // A token with control characters is no token: the server will say that one is needed.
            Err(_) => request,
        }
    }

    /// Sends a small call that reads a part of a list: the answer, the path of the next part, and the server's time in
    /// seconds since 1970.
    pub(crate) async fn page<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<(T, Option<String>, Option<i64>), ClientError> {
        let response = self.send(request.header(ACCEPT, "application/json")).await?;
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let next = text(LINK).filter(|link| link.contains("rel=\"next\"")).and_then(|link| {
            let (path, _) = link.strip_prefix('<')?.split_once('>')?;
            path.starts_with('/').then(|| path.to_owned())
        });
        let date = text(DATE).and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let date = date.map(|date| date.timestamp().as_second());
        let bytes = self.body(response, MAX_ANSWER).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| self.protocol(error.to_string(), false))?;
        Ok((value, next, date))
    }

    /// Sends a small call; an answer that is not a success is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        self.send_without_deadline(request.timeout(CALL_TIMEOUT)).await
    }

    /// Sends a call that may take its time.
    pub(crate) async fn send_without_deadline(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response).await),
        }
    }

    /// Sends a small call and reads its JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.json_without_deadline(request.timeout(CALL_TIMEOUT)).await
    }

    /// Sends a call that may take its time and reads its JSON answer.
    pub(crate) async fn json_without_deadline<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send_without_deadline(request.header(ACCEPT, "application/json")).await?;
        let bytes = self.body(response, MAX_ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.protocol(error.to_string(), false))
    }

    async fn body(&self, mut response: Response, max: usize) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if bytes.len() + chunk.len() > max {
                return Err(self.protocol(format!("it is longer than {max} bytes"), false));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let type_is_json =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                value.starts_with("application/problem+json") || value.starts_with("application/json")
            });
        if status.is_redirection() {
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
            return self.protocol(format!("a redirect to {}, which is not followed", one_line(target)), false);
        }
        if type_is_json && let Ok(bytes) = self.body(response, MAX_PROBLEM).await {
            let problem = serde_json::from_slice::<Problem>(&bytes).ok().or_else(|| of_registry(status, &bytes));
            if let Some(problem) = problem {
                let (detail, hint) = (one_line(&problem.detail), problem.hint.as_deref().map(one_line));
                return ClientError::Refused { problem: Box::new(Problem { detail, hint, ..problem }) };
            }
        }
        // 502 to 504 are what a proxy says while its backend restarts.
        let transient = matches!(status.as_u16(), 502..=504);
        self.protocol(format!("HTTP {status} without a problem document; is this a Cooperage server?"), transient)
    }

    /// An error of the transport.
    pub(crate) fn unreachable(&self, error: reqwest::Error) -> ClientError {
        // The address is named by our own message, and the path says nothing to a user.
        let error = error.without_url();
        // The outer layers say no more than "error sending request": the innermost cause is what helps.
        let mut cause: Box<dyn Error + Send + Sync> =
            if error.is_timeout() { "no answer in time".into() } else { innermost(&error).into() };
        if error.is_redirect() {
            cause = "too many redirects".into();
        }
        let url = self.server.to_string();
        match CertificateFault::of(&error) {
            Some(fault) => ClientError::Certificate { url, fault, source: cause },
            None => ClientError::Unreachable { url, source: cause },
        }
    }

    /// An answer that makes no sense.
    pub(crate) fn protocol(&self, reason: String, transient: bool) -> ClientError {
        ClientError::Protocol { url: self.server.to_string(), reason, transient }
    }
}

/// A refusal as registries write it.
fn of_registry(status: StatusCode, bytes: &[u8]) -> Option<Problem> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(serde::Deserialize)]
    struct OneError {
        message: String,
    }
    let error = serde_json::from_slice::<Errors>(bytes).ok()?.errors.into_iter().next()?;
    let code = match status.as_u16() {
        400 => ProblemCode::InvalidRequest,
        401 => ProblemCode::Unauthorized,
        403 => ProblemCode::Forbidden,
        404 => ProblemCode::NotFound,
        405 => ProblemCode::MethodNotAllowed,
        412 => ProblemCode::Conflict,
        429 => ProblemCode::TooManyRequests,
        503 => ProblemCode::Unavailable,
        507 => ProblemCode::StorageFull,
        _ => ProblemCode::Internal,
    };
    Some(Problem { status: status.as_u16(), ..Problem::new(code, error.message) })
}

/// Follows redirects that stay within one scheme, host and port: the token must not reach anybody else.
fn within_one_server(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    match (same, attempt.previous().len() <= MAX_REDIRECTS) {
        (true, true) => attempt.follow(),
        (true, false) => attempt.error("too many redirects"),
        (false, _) => attempt.stop(),
    }
}

/// The number in a header.
pub(crate) fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    one_line(&cause.to_string())
}

/// What a server says goes to a terminal: one line, nothing that steers it.
pub(crate) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(2000).collect::<String>().trim().to_owned()
}

/// rustls takes its cryptography from whoever installs it first; a second installation is refused and harmless.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("another part of this process chose the cryptography");
        }
    });
}
