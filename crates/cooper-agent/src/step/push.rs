//! A push: the image to each repository, under the tag that the attempt has there for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::agent::PushOrder;
use cooper_engine::message::{PushedManifest, StepOutput};
use cooper_ports::engine::{PushError, PushEvent, PushRequest, RegistryCredential};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::{ImageRef, RegistryName, RepositoryName, Timestamp};
use tokio::sync::mpsc;

use super::{Attempt, Ended};
use crate::render::size;

/// Events of the engine that may wait for the log.
const EVENT_QUEUE: usize = 256;
/// How often a layer on its way gets a line.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The engine's words for states that are not worth a line.
const QUIET: [&str; 3] = ["Preparing", "Waiting", "Pushing"];

impl Attempt<'_> {
    pub(super) async fn push(
        &self,
        order: PushOrder,
        registry: RegistryName,
        credential: RegistryCredential,
    ) -> Result<StepOutput, Ended> {
        let mut manifests = Vec::with_capacity(order.targets.len());
        for target in order.targets {
            let shown = format!("{registry}/{}", target.repository);
            self.log.service(&format!("push to {shown}")).await;
            let reference = ImageRef {
                registry: Some(registry.clone()),
                repository: target.repository.clone(),
                tag: Some(target.staging_tag.clone()),
                digest: None,
            };
            let image = target.image.clone();
            let request = PushRequest { image, reference, credential: Some(credential.clone()) };
            let (sink, events) = mpsc::channel(EVENT_QUEUE);
            let push = self.runner.engine.push(request, sink, self.stop.clone());
            let (pushed, ()) = tokio::join!(push, self.show_layers(events, &target.repository));
            if pushed.is_ok() {
                failpoint::pass(Failpoint::ImagePushed);
            }
            let pushed = pushed.map_err(|error| match error {
                PushError::Cancelled => Ended::Stopped,
                // It goes to the server's own registry, and that the run may push there was settled when it was accepted:
                // a full disk or a refusal is not the user's.
                error => Ended::lost("push failed", &error),
            })?;
            self.log.service(&format!("pushed {shown}@{}, {}", pushed.digest, size(pushed.size))).await;
            manifests.push(PushedManifest {
                repository: target.repository,
                staging_tag: target.staging_tag,
                digest: pushed.digest,
            });
        }
        Ok(StepOutput::Pushed { manifests })
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
