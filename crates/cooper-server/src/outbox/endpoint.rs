//! Where events go to, and what goes with them: an address, headers and a secret. All three are sealed at rest, since an address
//! of a chat's webhook is a secret as well.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_engine::task::{Task, TaskEndpoint};
use cooper_ports::outbox::{Target, UpdateNotice};
use cooper_types::{SecretBytes, TaskName};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::keys::ServerKey;

/// The longest address, in bytes.
const MAX_URI: usize = 2048;
/// The most headers, and the bytes of all of them.
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 8192;
/// The lengths that a secret may have.
const SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 16..=200;

/// What all headers of ours begin with.
pub(super) const OWN_HEADERS: &str = "cooper-";

/// Headers that say how a request is sent, and not what it says.
const TRANSPORT_HEADERS: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "proxy-connection",
];

/// An endpoint that events are posted to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) uri: String,
    /// The user's own headers.
    pub(crate) headers: BTreeMap<String, String>,
    /// What requests are signed with.
    pub(crate) secret: String,
}

/// Why something is no endpoint. None of its texts holds a value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("the address is not an http or https URL of at most {MAX_URI} bytes, such as https://example.org/hook")]
    Uri,
    #[error(
        "the address holds a user name or a password; send them in a header: --headers \"Authorization=Basic BASE64\""
    )]
    Credentials,
    #[error(
        "the address holds a user name or a password, which are not sent to a task's endpoint: put a token into the path or the query, \
         which are kept secret, or check what requests are signed with (`cooper task update-trigger-secret NAME`)"
    )]
    TaskCredentials,
    #[error("header `{0}` can't be set: it belongs to the request itself or to the server")]
    Reserved(String),
    #[error("header `{0}` is not a name and a value of visible characters")]
    Header(String),
    #[error("there are more than {MAX_HEADERS} headers, or they are longer than {MAX_HEADER_BYTES} bytes together")]
    TooManyHeaders,
    #[error("the secret must be {} to {} visible ASCII characters", SECRET_LENGTHS.start(), SECRET_LENGTHS.end())]
    Secret,
}

/// An endpoint can't be read: it was sealed with another key.
#[derive(Debug, thiserror::Error)]
#[error("the address of {0} can't be read with this server's key; set it again")]
pub(crate) struct UnreadableError(String);

impl Endpoint {
    /// Checks everything that can be checked without asking the endpoint.
    pub(crate) fn new(uri: &str, headers: BTreeMap<String, String>, secret: String) -> Result<Self, EndpointError> {
        let url = parse(uri)?;
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return Err(EndpointError::TooManyHeaders);
        }
        for (name, value) in &headers {
            check_header(name, value)?;
        }
        if !SECRET_LENGTHS.contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EndpointError::Secret);
        }
        Ok(Self { uri: url.into(), headers, secret })
    }

    /// Who is told of the runs that updates of base images set off, where a task says so.
    pub(crate) fn of_task(key: &ServerKey, task: &Task) -> Result<Option<Self>, UnreadableError> {
        let target = Target::UpdateTrigger(task.name.key());
        match &task.base_image.endpoint {
            None => Ok(None),
            Some(TaskEndpoint::Plain(uri)) => {
                // Older releases made the secret of the task's name and principal.
                let secret = key.update_trigger_secret(&task.name.key(), &task.principal);
                Ok(Some(Self { uri: uri.clone(), headers: BTreeMap::new(), secret }))
            }
            Some(TaskEndpoint::Sealed { sealed, .. }) => {
                let bytes = STANDARD.decode(sealed).map_err(|_| UnreadableError(super::named(&target)))?;
                Self::unseal(key, &target, &bytes).map(Some)
            }
        }
    }

    /// The same as a task keeps it.
    pub(crate) fn kept(&self, key: &ServerKey, task: &TaskName) -> TaskEndpoint {
        let sealed = self.seal(key, &Target::UpdateTrigger(task.key()));
        TaskEndpoint::Sealed { host: self.host(), sealed: STANDARD.encode(sealed) }
    }

    /// What a task's run is accepted with, so that its endpoint is told.
    pub(crate) fn notice(task: &Task) -> Option<UpdateNotice> {
        let host = match task.base_image.endpoint.as_ref()? {
            TaskEndpoint::Sealed { host, .. } => host.clone(),
            TaskEndpoint::Plain(uri) => host_of(uri),
        };
        Some(UpdateNotice { host, payload: task.base_image.payload })
    }

    /// The host, with the port where that is not the scheme's own: what is shown.
    pub(crate) fn host(&self) -> String {
        host_of(&self.uri)
    }

    /// Seals it for its target alone.
    pub(crate) fn seal(&self, key: &ServerKey, target: &Target) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("texts become JSON");
        key.seal(&purpose(target), &SecretBytes::new(text))
    }

    /// Opens what was sealed for this target.
    pub(crate) fn unseal(key: &ServerKey, target: &Target, sealed: &[u8]) -> Result<Self, UnreadableError> {
        let unreadable = || UnreadableError(super::named(target));
        let text = key.unseal(&purpose(target), sealed).map_err(|_| unreadable())?;
        serde_json::from_slice(text.expose()).map_err(|_| unreadable())
    }
}

fn host_of(uri: &str) -> String {
    parse(uri).map(|url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()).unwrap_or_default()
}

/// The address of a task's endpoint, checked and as it is kept.
pub(crate) fn checked_uri(uri: &str) -> Result<String, EndpointError> {
    match parse(uri) {
        Ok(url) => Ok(url.into()),
        // It has no headers of a user's.
        Err(EndpointError::Credentials) => Err(EndpointError::TaskCredentials),
        Err(error) => Err(error),
    }
}

fn parse(uri: &str) -> Result<Url, EndpointError> {
    let url = Url::parse(uri).ok().filter(|url| uri.len() <= MAX_URI && matches!(url.scheme(), "http" | "https"));
    let mut url = url.filter(Url::has_host).ok_or(EndpointError::Uri)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EndpointError::Credentials);
    }
    url.set_fragment(None);
    Ok(url)
}

fn check_header(name: &str, value: &str) -> Result<(), EndpointError> {
    // A name that is none may be a value that has slipped.
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EndpointError::Header(shown(name)))?;
    let parsed = parsed.as_str();
    if parsed.starts_with(OWN_HEADERS) || TRANSPORT_HEADERS.contains(&parsed) {
        return Err(EndpointError::Reserved(parsed.to_owned()));
    }
    HeaderValue::from_str(value).map(drop).map_err(|_| EndpointError::Header(parsed.to_owned()))
}

fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

/// What a sealed endpoint is bound to.
fn purpose(target: &Target) -> String {
    match target {
        Target::Webhook(name) => format!("webhook/{}", name.as_str().to_ascii_lowercase()),
        Target::UpdateTrigger(task) => format!("update-trigger/{task}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str, headers: &[(&str, &str)]) -> Result<Endpoint, EndpointError> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Endpoint::new(uri, headers, "0123456789abcdef".to_owned())
    }

    #[test]
    fn an_endpoint_is_checked_and_shows_nothing_of_itself() {
        let check =
            |uri, headers: &[_], expect| assert_eq!(endpoint(uri, headers).map(|_| ()), expect, "{uri} {headers:?}");
        check("https://example.org/a?b=c#d", &[("Authorization", "Bearer x"), ("X-Team", "ci")], Ok(()));
        check("ftp://example.org/", &[], Err(EndpointError::Uri));
        check("example.org", &[], Err(EndpointError::Uri));
        check("https://ann:pw@example.org/", &[], Err(EndpointError::Credentials));
        let of_task = checked_uri("https://ann:pw@example.org/").expect_err("a password");
        assert!(!of_task.to_string().contains("--headers"), "{of_task}");
        let reserved = |name: &str| Err(EndpointError::Reserved(name.to_owned()));
        check("https://e.org/", &[("Cooper-Signature", "v1=00")], reserved("cooper-signature"));
        check("https://e.org/", &[("HOST", "other")], reserved("host"));
        check("https://e.org/", &[("X-A", "a\r\nX-B: b")], Err(EndpointError::Header("x-a".to_owned())));
        check("https://e.org/", &[("a b", "c")], Err(EndpointError::Header("a b".to_owned())));
        let long = "x".repeat(MAX_HEADER_BYTES);
        check("https://e.org/", &[("X-A", &long)], Err(EndpointError::TooManyHeaders));
        let short = Endpoint::new("https://e.org/", BTreeMap::new(), "short".to_owned()).map(|_| ());
        assert_eq!(short, Err(EndpointError::Secret));
        let endpoint = endpoint("https://Example.org:8443/a#b", &[]).ok();
        assert_eq!(
            endpoint.map(|one| (one.host(), one.uri)),
            Some(("example.org:8443".to_owned(), "https://example.org:8443/a".to_owned()))
        );
    }
}
