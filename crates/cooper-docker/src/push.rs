//! One push: names the image as its registry knows it, pushes, and takes the name away again.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bollard::Docker;
use bollard::query_parameters::TagImageOptionsBuilder;
use cooper_ports::engine::{EngineError, PushError, PushEvent, PushRequest, PushedImage, RegistryCredential};
use cooper_types::{Digest, ImageRef, RegistryName, Tag};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::engine_error;
use crate::housekeeping::Removals;
use crate::lines::Lines;
use crate::socket::EngineSocket;
use crate::wire::{EngineWire, RequestError, one_line};

const OPERATION: &str = "push an image";

/// What may stand plain in a path: a reference's `/`, and what needs no escape.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Pushes; the engine's name for it is gone when this returns.
pub(crate) async fn push(
    docker: &Docker,
    socket: &EngineSocket,
    wire: &EngineWire,
    removals: &Removals,
    request: PushRequest,
    sink: mpsc::Sender<PushEvent>,
    cancel: &CancellationToken,
) -> Result<PushedImage, PushError> {
    let PushRequest { image, reference, credential } = request;
    let (Some(registry), Some(tag), None) = (&reference.registry, &reference.tag, &reference.digest) else {
        return Err(PushError::Reference { reference });
    };
    let target =
        Target { reference: &reference, registry, tag, repository: format!("{registry}/{}", reference.repository) };
    let options = TagImageOptionsBuilder::default().repo(&target.repository).tag(tag.as_str()).build();
    // Not cancellable: once asked, the engine makes the name, and only then can it be removed.
    match docker.tag_image(image.as_str(), Some(options)).await {
        Ok(()) => {}
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
            return Err(PushError::ImageMissing { image });
        }
        Err(error) => return Err(target.machinery(engine_error(socket, "name an image", error))),
    }
    let pushed = cancel.run_until_cancelled(target.push(docker, wire, credential.as_ref(), sink)).await;
    if let Err(error) = removals.remove(docker, socket, &reference.to_string()).await {
        // The push has its own answer; the name is found again by whoever reaps.
        tracing::warn!(%error, %reference, "name of a pushed image is left in the engine");
    }
    pushed.unwrap_or(Err(PushError::Cancelled))
}

/// Where a push goes.
struct Target<'a> {
    reference: &'a ImageRef,
    registry: &'a RegistryName,
    tag: &'a Tag,
    /// Registry and repository.
    repository: String,
}

/// A line of a push's answer.
#[derive(serde::Deserialize)]
struct Line {
    status: Option<String>,
    id: Option<String>,
    #[serde(rename = "progressDetail")]
    progress: Option<Progress>,
    aux: Option<Aux>,
    error: Option<String>,
}

#[derive(serde::Deserialize)]
struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(serde::Deserialize)]
struct Aux {
    #[serde(rename = "Digest")]
    digest: Option<String>,
    #[serde(rename = "Size")]
    size: Option<u64>,
}

impl Target<'_> {
    async fn push(
        &self,
        docker: &Docker,
        wire: &EngineWire,
        credential: Option<&RegistryCredential>,
        sink: mpsc::Sender<PushEvent>,
    ) -> Result<PushedImage, PushError> {
        let name = utf8_percent_encode(&self.repository, PATH);
        let path = format!("/images/{name}/push?tag={}", self.tag);
        let login = login_header(self.registry, credential).map_err(|error| self.broken(error))?;
        let answer = match wire.post(OPERATION, &path, vec![login]).await {
            Ok(answer) => answer,
            Err(RequestError::Engine(error)) => return Err(self.machinery(error)),
            Err(RequestError::Status(status, message)) if status != StatusCode::INTERNAL_SERVER_ERROR => {
                let source = EngineError::Refused { operation: OPERATION, message };
                return Err(self.machinery(source));
            }
            Err(RequestError::Status(_, message)) => return Err(self.sort(&message)),
        };
        let (body, _connection) = answer.into_parts();
        let mut lines = Lines::new(body);
        let mut pushed = None;
        while let Some(line) = lines.next().await.map_err(|error| self.broken(error))? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line: Line = serde_json::from_slice(&line).map_err(|error| self.broken(error))?;
            if let Some(error) = line.error {
                return Err(self.sort(&error));
            }
            if let Some(Aux { digest: Some(digest), size }) = line.aux {
                let digest = Digest::parse(&digest).map_err(|error| self.broken(error))?;
                pushed = Some(PushedImage { digest, size });
            }
            if let Some(status) = line.status {
                let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
                let (current, total) = match line.progress {
                    Some(progress) => (count(progress.current), count(progress.total)),
                    None => (None, None),
                };
                // A receiver that is gone is no error of the push's.
                let _ = sink.send(PushEvent { layer: line.id, status: one_line(&status), current, total }).await;
            }
        }
        match pushed {
            Some(pushed) => Ok(pushed),
            None => self.known(docker).await,
        }
    }

    /// What was pushed, where the push itself does not say it: with containerd's image store, Docker Engine 26 keeps the
    /// digest to itself. There the image is its manifest, and is known by that under the name that it was given.
    async fn known(&self, docker: &Docker) -> Result<PushedImage, PushError> {
        let image = docker.inspect_image(&self.reference.to_string()).await.map_err(|error| self.broken(error))?;
        let of_repository = |known: &String| {
            let (name, digest) = known.split_once('@')?;
            (name == self.repository).then(|| Digest::parse(digest).ok())?
        };
        match image.repo_digests.iter().flatten().find_map(of_repository) {
            Some(digest) => Ok(PushedImage { digest, size: None }),
            None => Err(self.broken("the answer ended without a digest")),
        }
    }

    fn machinery(&self, source: EngineError) -> PushError {
        PushError::Machinery { reference: self.reference.clone(), source }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PushError {
        self.machinery(EngineError::Broken { operation: OPERATION, source: source.into() })
    }

    fn sort(&self, message: &str) -> PushError {
        let (reference, message) = (self.reference.clone(), one_line(message));
        match Refusal::of(&message) {
            Refusal::Unreachable => PushError::Unreachable { reference, message },
            Refusal::Unauthorized => PushError::Unauthorized { reference, message },
            Refusal::Other => PushError::Refused { reference, message },
        }
    }
}

/// What the engine's text about a failed push means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unreachable,
    Unauthorized,
    Other,
}

impl Refusal {
    /// The engine gives text only. It has tried five times over 50 s by itself where trying again could help.
    pub(crate) fn of(message: &str) -> Self {
        const UNREACHABLE: [&str; 14] = [
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "connection reset",
            ": EOF",
            "x509:",
            "server gave HTTP response",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
            "429 Too Many Requests",
            "toomanyrequests",
        ];
        const UNAUTHORIZED: [&str; 5] =
            ["unauthorized", "denied", "no basic auth credentials", "401 Unauthorized", "403 Forbidden"];
        // A refusal of the registry's own starts with its code; a name in it must not make it something else.
        if UNAUTHORIZED.into_iter().any(|text| message.starts_with(text)) {
            Self::Unauthorized
        } else if UNREACHABLE.into_iter().any(|text| message.contains(text)) {
            Self::Unreachable
        } else if UNAUTHORIZED.into_iter().any(|text| message.contains(text)) {
            Self::Unauthorized
        } else {
            Self::Other
        }
    }
}

/// The login as the engine's API wants it; without one the header is an empty object, which older engines insist on.
pub(crate) fn login_header(
    registry: &RegistryName,
    credential: Option<&RegistryCredential>,
) -> Result<(HeaderName, HeaderValue), http::header::InvalidHeaderValue> {
    let login = match credential {
        Some(login) => serde_json::json!({
            "username": login.username,
            "password": login.password.expose(),
            "serveraddress": registry.as_str(),
        }),
        None => serde_json::json!({}),
    };
    let mut value = HeaderValue::from_str(&BASE64_URL_SAFE.encode(login.to_string()))?;
    value.set_sensitive(true);
    Ok((HeaderName::from_static("x-registry-auth"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted() {
        let check = |message: &str, expect: Refusal| assert_eq!(Refusal::of(message), expect, "{message}");
        check("unauthorized: authentication required", Refusal::Unauthorized);
        check("no basic auth credentials", Refusal::Unauthorized);
        check("denied: attempt 3 of step build of run ca1 is over", Refusal::Unauthorized);
        check("denied: connection refused is a name", Refusal::Unauthorized);
        check(
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            Refusal::Unreachable,
        );
        check("received unexpected HTTP status: 503 Service Unavailable", Refusal::Unreachable);
        check("error parsing HTTP 403 response body: requested access is denied", Refusal::Unauthorized);
        // All that engines with containerd's store tell.
        check(
            "failed commit on ref \"manifest-sha256:12\": unexpected status from PUT request to \
             http://127.0.0.1:1/v2/app/manifests/1: 403 Forbidden",
            Refusal::Unauthorized,
        );
        check("manifest invalid: no", Refusal::Other);
        check("", Refusal::Other);
    }

    #[test]
    fn a_login_is_a_sensitive_header() {
        let registry = RegistryName::parse("r.io:5000").expect("a registry");
        let (_, none) = login_header(&registry, None).expect("a header");
        assert_eq!(none, "e30=");
        let password = cooper_types::SecretString::new("p\"ä\n".into());
        let login = RegistryCredential { username: "u".into(), password };
        let (_, value) = login_header(&registry, Some(&login)).expect("a header");
        assert!(value.is_sensitive());
        let decoded = BASE64_URL_SAFE.decode(value.as_bytes()).expect("base64");
        let decoded: serde_json::Value = serde_json::from_slice(&decoded).expect("JSON");
        assert_eq!(decoded["password"], "p\"ä\n");
        assert_eq!(decoded["serveraddress"], "r.io:5000");
    }
}
