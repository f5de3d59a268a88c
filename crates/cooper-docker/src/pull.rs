//! One pull: fetches an image, and tells which one it was.

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use cooper_ports::engine::{EngineError, LocalImage, PullError, PullEvent, PullRequest, PulledImage};
use cooper_types::{Digest, ImageRef, Platform, RegistryName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::container::create::LOST_SNAPSHOT;
use crate::engine::engine_error;
use crate::housekeeping::Removals;
use crate::lines::Lines;
use crate::push::{Refusal, login_header};
use crate::socket::EngineSocket;
use crate::wire::{EngineWire, RequestError, one_line};

const OPERATION: &str = "pull an image";
/// How often an image is pulled that is gone again at once.
const PULLS: usize = 3;

/// The image that the engine has under a reference or id.
pub(crate) async fn find(
    docker: &Docker,
    socket: &EngineSocket,
    reference: &str,
) -> Result<Option<LocalImage>, EngineError> {
    const OPERATION: &str = "inspect an image";
    let image = match docker.inspect_image(reference).await {
        Ok(image) => image,
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(engine_error(socket, OPERATION, error)),
    };
    let platform = platform_of(&image);
    let id = image.id.unwrap_or_default();
    let id = Digest::parse(&id).map_err(|error| EngineError::Broken { operation: OPERATION, source: error.into() })?;
    Ok(Some(LocalImage { image: id, platform, manifests: image.repo_digests.unwrap_or_default() }))
}

/// What an image says that it is for, if that has a name here.
fn platform_of(image: &ImageInspect) -> Option<Platform> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let variant = image.variant.as_ref().filter(|variant| !variant.is_empty());
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    Platform::parse(&format!("{}/{}{variant}", text(&image.os), text(&image.architecture))).ok()
}

/// Pulls, as often as it was asked to try.
pub(crate) async fn pull(
    docker: &Docker,
    socket: &EngineSocket,
    wire: &EngineWire,
    removals: &Removals,
    request: PullRequest,
    sink: mpsc::Sender<PullEvent>,
    cancel: &CancellationToken,
) -> Result<PulledImage, PullError> {
    let Some(registry) = &request.reference.registry else {
        let message = "the reference has no registry".to_owned();
        return Err(PullError::Refused { reference: request.reference, message });
    };
    let pull = Pull { docker, socket, wire, removals, request: &request, registry };
    let mut left = request.retries;
    let tries = async {
        loop {
            let error = match pull.settled(&sink).await {
                Err(error) if left > 0 && error.is_retryable() => error,
                done => return done,
            };
            left -= 1;
            let event = PullEvent { layer: None, status: format!("Retrying: {error}"), current: None, total: None };
            // A receiver that is gone is no error of the pull's.
            let _ = sink.send(event).await;
            tokio::time::sleep(request.retry_delay).await;
        }
    };
    // Biased: what was cancelled before it began does nothing.
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(PullError::Cancelled),
        done = tries => done,
    }
}

struct Pull<'a> {
    docker: &'a Docker,
    socket: &'a EngineSocket,
    wire: &'a EngineWire,
    removals: &'a Removals,
    request: &'a PullRequest,
    registry: &'a RegistryName,
}

/// A line of a pull's answer.
#[derive(serde::Deserialize)]
struct Line {
    status: Option<String>,
    id: Option<String>,
    #[serde(rename = "progressDetail")]
    progress: Option<Progress>,
    error: Option<String>,
}

#[derive(serde::Deserialize)]
struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

impl Pull<'_> {
    /// Pulls until what was pulled is there to stay. The engine takes all names off an image whose last one is removed, those
    /// included that a pull gives it meanwhile, and a removal takes as long as the start of any container.
    async fn settled(&self, sink: &mpsc::Sender<PullEvent>) -> Result<PulledImage, PullError> {
        for _ in 0..PULLS {
            if let Some(pulled) = self.once(sink).await? {
                return Ok(pulled);
            }
        }
        Err(self.broken("the image is gone again"))
    }

    /// One pull; none if somebody has removed the image since.
    async fn once(&self, sink: &mpsc::Sender<PullEvent>) -> Result<Option<PulledImage>, PullError> {
        let reference = self.reference().clone().tagged_by_default();
        let name = format!("{}/{}", self.registry, reference.repository);
        let which = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.as_ref().map_or("latest", |tag| tag.as_str()).to_owned(),
        };
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut path = format!("/images/create?fromImage={}&tag={}", encode(&name), encode(&which));
        if let Some(platform) = &self.request.platform {
            path.push_str(&format!("&platform={}", encode(&platform.to_string())));
        }
        let login =
            login_header(self.registry, self.request.credential.as_ref()).map_err(|error| self.broken(error))?;
        let answer = match self.wire.post(OPERATION, &path, vec![login]).await {
            Ok(answer) => answer,
            Err(RequestError::Engine(error)) => return Err(self.machinery(error)),
            Err(RequestError::Status(_, message)) => return Err(refusal(self.request, &message)),
        };
        let (body, _connection) = answer.into_parts();
        let mut lines = Lines::new(body);
        let mut digest = None;
        while let Some(line) = lines.next().await.map_err(|error| self.broken(error))? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line: Line = serde_json::from_slice(&line).map_err(|error| self.broken(error))?;
            if let Some(error) = line.error {
                return Err(refusal(self.request, &error));
            }
            let Some(status) = line.status else { continue };
            if let Some(text) = status.strip_prefix("Digest: ") {
                digest = Some(Digest::parse(text).map_err(|error| self.broken(error))?);
            }
            let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
            let (current, total) = match line.progress {
                Some(progress) => (count(progress.current), count(progress.total)),
                None => (None, None),
            };
            let _ = sink.send(PullEvent { layer: line.id, status: one_line(&status), current, total }).await;
        }
        let digest = digest.or(reference.digest).ok_or_else(|| self.broken("the answer ended without a digest"))?;
        // A removal that is under way could still take it.
        drop(self.removals.hold().await);
        // By its digest: the tag may already have moved on by somebody else's pull.
        let found = find(self.docker, self.socket, &format!("{name}@{digest}")).await;
        let found = found.map_err(|error| self.machinery(error))?;
        let Some(found) = found else { return Ok(None) };
        if let (Some(wanted), Some(is)) = (&self.request.platform, &found.platform)
            && (wanted.os(), wanted.architecture()) != (is.os(), is.architecture())
        {
            let (reference, wanted) = (self.reference().clone(), wanted.clone());
            return Err(PullError::WrongPlatform { reference, wanted, found: Some(is.to_string()) });
        }
        Ok(Some(PulledImage { image: found.image, digest }))
    }

    fn reference(&self) -> &ImageRef {
        &self.request.reference
    }

    fn machinery(&self, source: EngineError) -> PullError {
        PullError::Machinery { reference: self.reference().clone(), source }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PullError {
        self.machinery(EngineError::Broken { operation: OPERATION, source: source.into() })
    }
}

/// What the engine's text about a failed pull means.
fn refusal(request: &PullRequest, message: &str) -> PullError {
    let (reference, message) = (request.reference.clone(), one_line(message));
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if has(&["no space left on device"]) {
        return PullError::Machinery { reference, source: EngineError::DiskFull { message } };
    }
    if let Some(wanted) = request.platform.clone()
        && has(&["no matching manifest for", "does not match the specified platform", "no match for platform"])
    {
        return PullError::WrongPlatform { reference, wanted, found: None };
    }
    match Refusal::of(&message) {
        // Docker Hub's words for both; without a credential nobody can tell which it is.
        _ if message.starts_with("pull access denied") => PullError::Unauthorized { reference, message },
        Refusal::Unreachable => PullError::Unreachable { reference, message },
        Refusal::Unauthorized => PullError::Unauthorized { reference, message },
        Refusal::Other if has(&[LOST_SNAPSHOT]) => {
            PullError::Machinery { reference, source: EngineError::Refused { operation: OPERATION, message } }
        }
        Refusal::Other if has(&["manifest unknown", "name unknown", "not found"]) => PullError::Missing { reference },
        Refusal::Other => PullError::Refused { reference, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_engine_are_sorted() {
        let request = PullRequest {
            reference: ImageRef::parse("r.io/team/app:1").expect("a reference"),
            credential: None,
            platform: Some(Platform::parse("linux/arm64").expect("a platform")),
            retries: 0,
            retry_delay: std::time::Duration::ZERO,
        };
        let check = |message: &str, expect: &str| {
            let error = refusal(&request, message);
            let text = match &error {
                PullError::Machinery { source, .. } => format!("machinery: {source}"),
                other => other.to_string(),
            };
            assert!(text.contains(expect), "{message}\n  {text}\n  {expect}");
        };
        check("manifest for r.io/team/app:1 not found: manifest unknown", "is not in its registry");
        check("failed to resolve reference \"r.io/team/app:1\": r.io/team/app:1: not found", "is not in its registry");
        check(
            "failed to prepare extraction snapshot \"x\": parent snapshot sha256:7a does not exist: not found",
            "machinery: container engine refused to pull an image: failed to prepare",
        );
        for denied in [
            "pull access denied for x, repository does not exist or may require 'docker login'",
            "unexpected status from HEAD request to https://r.io/v2/team/app/manifests/1: 403 Forbidden",
            "Head \"https://r.io/v2/team/app/manifests/1\": no basic auth credentials",
        ] {
            check(denied, "may not be pulled, or is not there");
        }
        check("Get \"https://r.io/v2/\": dial tcp: lookup r.io: no such host", "cannot be reached");
        check("no matching manifest for linux/arm64 in the manifest list entries", "is not for linux/arm64");
        check("write /var/lib/docker/x: no space left on device", "machinery: container engine has no space left");
        check("filesystem layer verification failed for digest sha256:00", "could not be pulled: filesystem layer");
    }
}
