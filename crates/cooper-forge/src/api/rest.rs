//! Requests with a token, and what an answer's status means, alike for all forges.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::outgoing::{Outgoing, OutgoingRequest};
use cooper_types::{SecretString, Timestamp};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::Hook;
use super::error::{ForgeError, Operation, RetryAt, needs};
use super::place::ForgePlace;

/// The largest answer: a page of a hundred hooks is far smaller.
const BODY_LIMIT: usize = 4 << 20;
/// How long a forge may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How much of a forge's own words is passed on, in characters.
const SAID: usize = 300;
/// The most pages of one list.
pub(super) const MAX_PAGES: usize = 50;

/// A repository's interface.
#[derive(Clone)]
pub(super) struct Rest {
    place: ForgePlace,
    token: SecretString,
    http: Arc<dyn Outgoing>,
}

impl Rest {
    pub(super) fn new(place: ForgePlace, token: SecretString, http: Arc<dyn Outgoing>) -> Self {
        Self { place, token, http }
    }

    pub(super) fn place(&self) -> &ForgePlace {
        &self.place
    }

    pub(super) fn provider(&self) -> Provider {
        self.place.provider()
    }

    pub(super) fn unsupported(&self, what: &'static str) -> ForgeError {
        ForgeError::Unsupported { provider: self.provider(), what }
    }

    pub(super) fn strange(&self, operation: Operation, reason: impl ToString) -> ForgeError {
        let (host, provider) = (self.place.host().to_owned(), self.provider());
        ForgeError::Answer { operation, host, provider, reason: reason.to_string() }
    }

    /// Sends a request to a path below the interface's beginning, and reads the answer as JSON; nothing for an empty one.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(Value, HeaderMap), ForgeError> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request = Request::new(bytes);
        *request.method_mut() = method;
        if !request.body().is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let answer = self.exchange(operation, path, request).await?;
        let (head, body) = answer.into_parts();
        if body.is_empty() {
            return Ok((Value::Null, head.headers));
        }
        let value = serde_json::from_slice(&body).map_err(|error| self.strange(operation, error))?;
        Ok((value, head.headers))
    }

    /// Sends a request with the token; an answer that is no success is an error.
    pub(super) async fn exchange(
        &self,
        operation: Operation,
        path: &str,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, ForgeError> {
        let uri = format!("{}{path}", self.place.api());
        *request.uri_mut() = uri.parse().map_err(|error| self.strange(operation, error))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cooper/", env!("CARGO_PKG_VERSION"))));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        if let Some(authorization) = self.authorization() {
            headers.insert(AUTHORIZATION, authorization);
        } else {
            // A token with a line break in it can't be sent, and so is nobody's.
            return Err(self.refused(operation, StatusCode::UNAUTHORIZED, &HeaderMap::new(), &Bytes::new()));
        }
        let asked = OutgoingRequest { request, body_limit: BODY_LIMIT, deadline: DEADLINE };
        let answer = self.http.send(asked).await.map_err(|source| {
            let host = self.place.host().to_owned();
            ForgeError::Outgoing { operation, host, source }
        })?;
        if answer.status().is_success() && answer.status() != StatusCode::NON_AUTHORITATIVE_INFORMATION {
            return Ok(answer);
        }
        Err(self.refused(operation, answer.status(), answer.headers(), answer.body()))
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let token = self.token.expose();
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let text = match self.provider() {
            Provider::AzureDevops => basic(&format!(":{token}")),
            // An app password or API token comes with its user's name, an access token alone.
            Provider::BitbucketCloud | Provider::BitbucketServer if token.contains(':') => basic(token),
            Provider::Gitea => format!("token {token}"),
            _ => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn refused(&self, operation: Operation, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> ForgeError {
        let (host, repository) = (self.place.host().to_owned(), self.place.name());
        let needs = needs(self.provider(), operation);
        let said = said(body);
        let retry = retry_at(headers);
        let out_of_requests = retry != RetryAt::Unknown || said.to_ascii_lowercase().contains("rate limit");
        match status {
            // Azure DevOps sends people to a page to sign in.
            StatusCode::UNAUTHORIZED | StatusCode::FOUND | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                ForgeError::Token { host, needs }
            }
            StatusCode::TOO_MANY_REQUESTS => ForgeError::RateLimited { host, retry },
            StatusCode::FORBIDDEN if out_of_requests => ForgeError::RateLimited { host, retry },
            StatusCode::FORBIDDEN => ForgeError::Forbidden { operation, host, repository, said, needs },
            StatusCode::NOT_FOUND => ForgeError::NotFound { operation, host, repository, needs },
            StatusCode::CONFLICT => ForgeError::Exists { host, repository, said },
            _ if said.to_ascii_lowercase().contains("already exists") => ForgeError::Exists { host, repository, said },
            status => ForgeError::Refused { operation, host, repository, status: status.as_u16(), said },
        }
    }

    /// The values of a list with numbered pages, to the last one that is read. A page with fewer than `full` is the last one.
    pub(super) async fn pages(&self, operation: Operation, path: &str, full: usize) -> Result<Vec<Value>, ForgeError> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let (value, _) = self.ask(operation, Method::GET, &format!("{path}&page={page}"), None).await?;
            let Value::Array(items) = value else { return Err(self.strange(operation, "it is no list")) };
            let last = items.len() < full;
            all.extend(items);
            if last {
                return Ok(all);
            }
        }
        Ok(all)
    }

    /// A text of an answer, at a JSON pointer.
    pub(super) fn text(&self, operation: Operation, value: &Value, pointer: &str) -> Result<String, ForgeError> {
        match value.pointer(pointer) {
            Some(Value::String(text)) => Ok(text.clone()),
            // Some ids are numbers.
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => Err(self.strange(operation, format!("there is no `{pointer}`"))),
        }
    }

    /// A hook, with its URL at the first of these pointers that has one.
    pub(super) fn hook(&self, value: &Value, id: &str, urls: &[&str], active: bool) -> Result<Hook, ForgeError> {
        let url = urls.iter().find_map(|pointer| value.pointer(pointer).and_then(Value::as_str));
        Ok(Hook { id: self.text(Operation::ReadHooks, value, id)?, url: url.unwrap_or_default().to_owned(), active })
    }
}

/// When to ask again: GitHub says it in two ways, others in one of them.
fn retry_at(headers: &HeaderMap) -> RetryAt {
    let number = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    if let Some(seconds) = number(RETRY_AFTER.as_str()) {
        return RetryAt::After(Duration::from_secs(seconds.into()));
    }
    for (remaining, reset) in
        [("x-ratelimit-remaining", "x-ratelimit-reset"), ("ratelimit-remaining", "ratelimit-reset")]
    {
        if number(remaining) == Some(0)
            && let Some(seconds) = number(reset)
        {
            return RetryAt::At(Timestamp::from_micros(i64::from(seconds) * 1_000_000));
        }
    }
    RetryAt::Unknown
}

/// The forge's own words, out of the several places where forges put them.
fn said(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let texts = json.as_ref().map(|json| {
        let mut texts = Vec::new();
        for pointer in ["/message", "/error/message", "/error_description", "/error"] {
            match json.pointer(pointer) {
                Some(Value::String(text)) => texts.push(text.clone()),
                // GitLab's faults by field.
                Some(value @ Value::Object(_)) if pointer == "/message" => texts.push(value.to_string()),
                _ => {}
            }
        }
        for error in json.pointer("/errors").and_then(Value::as_array).into_iter().flatten() {
            let text = error.as_str().or_else(|| error.get("message").and_then(Value::as_str));
            texts.extend(text.map(str::to_owned));
        }
        texts.dedup();
        texts.join("; ")
    });
    let text = texts.filter(|text| !text.is_empty()).unwrap_or_else(|| {
        String::from_utf8_lossy(body)
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("it does not say why")
            .to_owned()
    });
    super::cut(&text.trim().chars().flat_map(char::escape_debug).collect::<String>(), SAID)
}
