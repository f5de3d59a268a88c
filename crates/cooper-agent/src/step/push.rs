//! A push: the image to each repository; in the embedded registry under the tag that the attempt has there for itself,
//! elsewhere under the user's. Each image has three tries (ACR contract §3); what a step says of retries is not for it.
//! What the repository has already, from other placements, gets its tag there (`publish`). Tags elsewhere are moved when it
//! is the run's turn (`turn`).

mod publish;
mod turn;

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::agent::{PushFrom, PushOrder, PushTarget};
use cooper_engine::message::{PushedManifest, StepOutput};
use cooper_ports::engine::{PushError, PushEvent, PushRequest, PushedImage};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::{Digest, ImageRef, RepositoryName, Timestamp};
use tokio::sync::mpsc;

use super::{Attempt, Ended, Surroundings};
use crate::render::size;
use turn::Newer;

/// Events of the engine that may wait for the log.
const EVENT_QUEUE: usize = 256;
/// How often a layer on its way gets a line.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The pauses after failed tries of one image, and so the number of tries but the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(500)];
/// The engine's words for states that are not worth a line.
const QUIET: [&str; 3] = ["Preparing", "Waiting", "Pushing"];

impl Attempt<'_> {
    pub(super) async fn push(&self, order: PushOrder, around: Surroundings<'_>) -> Result<StepOutput, Ended> {
        let mut manifests = Vec::with_capacity(order.targets.len());
        let goes_out = |target: &PushTarget| target.registry.as_ref().is_some_and(|other| other != around.registry);
        let newer = match order.targets.iter().any(goes_out) {
            true => self.turn().await?,
            false => Newer::new(),
        };
        for target in order.targets {
            let registry = target.registry.as_ref().unwrap_or(around.registry);
            let is_ours = registry == around.registry;
            let reference = ImageRef {
                registry: Some(registry.clone()),
                repository: target.repository.clone(),
                tag: Some(target.staging_tag.clone()),
                digest: None,
            };
            if let Some(run) = newer.get(&reference.to_string()).filter(|_| !is_ours) {
                self.log.service(&format!("{reference}: tag not moved: newer run {run} has moved it")).await;
                continue;
            }
            // A staging tag is nobody's business.
            let shown = if is_ours { format!("{registry}/{}", target.repository) } else { reference.to_string() };
            self.log.service(&format!("push to {shown}")).await;
            let pushed = match &target.from {
                PushFrom::Image(image) => {
                    self.push_one(image, &target.repository, reference, &shown, is_ours, &around).await?
                }
                PushFrom::Manifest(_) | PushFrom::Index(_) => {
                    self.publish_one(&target, &reference, &order.allowed_networks, is_ours, &around).await?
                }
            };
            failpoint::pass(Failpoint::ImagePushed);
            let repository = format!("{registry}/{}", target.repository);
            let length = pushed.size.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
            self.log.service(&format!("pushed {repository}@{}{length}", pushed.digest)).await;
            manifests.push(PushedManifest {
                registry: target.registry.filter(|_| !is_ours),
                repository: target.repository,
                staging_tag: target.staging_tag,
                digest: pushed.digest,
            });
        }
        Ok(StepOutput::Pushed { manifests })
    }

    async fn push_one(
        &self,
        image: &Digest,
        repository: &RepositoryName,
        reference: ImageRef,
        shown: &str,
        is_ours: bool,
        around: &Surroundings<'_>,
    ) -> Result<PushedImage, Ended> {
        // An engine has one image under a name: two runs that push to one name outside wait for each other.
        let turn = if is_ours { None } else { Some(self.runner.outside_pushes.lock(&reference.to_string()).await) };
        let credential = around.logins.of(reference.registry.as_ref().unwrap_or(around.registry)).await?.credential;
        let mut pauses = PAUSES.iter();
        loop {
            let request =
                PushRequest { image: image.clone(), reference: reference.clone(), credential: credential.clone() };
            let (sink, events) = mpsc::channel(EVENT_QUEUE);
            let push = self.runner.engine.push(request, sink, self.stop.clone());
            let (pushed, ()) = tokio::join!(push, self.show_layers(events, repository));
            let error = match pushed {
                Ok(pushed) => {
                    drop(turn);
                    return Ok(pushed);
                }
                Err(PushError::Cancelled) => return Err(Ended::Stopped),
                Err(error) => error,
            };
            let lasting = matches!(error, PushError::Reference { .. } | PushError::ImageMissing { .. });
            let Some(pause) = pauses.next().filter(|_| !lasting) else {
                return Err(match error {
                    PushError::ImageMissing { .. } | PushError::Machinery { .. } => Ended::lost("push failed", &error),
                    // It goes to the server's own registry, and that the run may push there was settled when it was
                    // accepted: a full disk or a refusal is not the user's.
                    error if is_ours => Ended::lost("push failed", &error),
                    error @ PushError::Unauthorized { .. } => {
                        let reason = format!("{error}{}", around.logins.advice(&reference));
                        Ended::Failed { exit_code: None, reason }
                    }
                    error => Ended::failed(&error),
                });
            };
            let why = crate::error::chain(&error);
            self.log.service(&format!("push to {shown} failed, and is tried again: {why}")).await;
            self.pause(*pause).await?;
        }
    }

    /// Puts the layers' progress into the log, in few lines.
    async fn show_layers(&self, mut events: mpsc::Receiver<PushEvent>, repository: &RepositoryName) {
        let mut layers = Layers::default();
        while let Some(event) = events.recv().await {
            if let Some(line) = layers.line(event, self.log.now()) {
                self.log.service(&format!("{repository}: {line}")).await;
            }
        }
    }
}

/// What was said of each layer last.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (String, Timestamp)>);

impl Layers {
    /// The line that an event is worth, if any.
    fn line(&mut self, event: PushEvent, now: Timestamp) -> Option<String> {
        // What is about the whole image names the staging tag, which is nobody's business.
        let layer = event.layer?;
        let quiet = QUIET.contains(&event.status.as_str());
        let known = self.0.get(&layer);
        let due = match known {
            None => !quiet,
            Some((status, _)) if !quiet => *status != event.status,
            Some((_, said)) => event.current.is_some() && now.since(*said) >= LINE_EVERY,
        };
        if known.is_none() || due {
            self.0.insert(layer.clone(), (event.status.clone(), now));
        }
        due.then(|| match (event.current, event.total) {
            (Some(current), Some(total)) if quiet => {
                format!("{layer} {} {} / {}", event.status, size(current), size(total))
            }
            _ => format!("{layer} {}", event.status),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_get_a_line_when_something_happened() {
        let mut layers = Layers::default();
        let mut check = |second: i64, layer: Option<&str>, status: &str, current: Option<u64>, expect: Option<&str>| {
            let event = PushEvent {
                layer: layer.map(str::to_owned),
                status: status.to_owned(),
                current,
                total: current.map(|_| 4_000_000),
            };
            assert_eq!(layers.line(event, Timestamp::from_micros(second * 1_000_000)).as_deref(), expect);
        };
        check(0, None, "The push refers to repository [x]", None, None);
        check(0, Some("a"), "Preparing", None, None);
        check(0, Some("b"), "Layer already exists", None, Some("b Layer already exists"));
        check(1, Some("b"), "Layer already exists", None, None);
        check(2, Some("a"), "Pushing", Some(1_000_000), None);
        check(6, Some("a"), "Pushing", Some(2_000_000), Some("a Pushing 2.00MB / 4.00MB"));
        check(7, Some("a"), "Pushing", Some(3_000_000), None);
        check(8, Some("a"), "Pushed", None, Some("a Pushed"));
    }
}
