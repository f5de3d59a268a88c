//! The image of a `cmd` step: found in the engine, or pulled with what the attempt may show its registry.

use cooper_api::agent::{CommandImageOrder, CommandOrder};
use cooper_engine::message::BaseImage;
use cooper_ports::engine::{EngineError, LocalImage, PullError, PullEvent, PullRequest};
use cooper_types::{Digest, ImageRef, RegistryName};
use tokio::sync::mpsc;

use crate::step::bases::in_full;
use crate::step::logins::{AttemptLogins, Login};
use crate::step::{Attempt, Ended};

/// Events of the engine that may wait for the log.
const EVENT_QUEUE: usize = 256;
/// The end of registries' names that cannot exist (RFC 6761): by such a name an engine knows what other steps built.
const NO_REGISTRY: &str = ".invalid";

/// What a step's container is made from.
pub(super) struct StepImage {
    /// The id in the engine.
    pub(super) image: Digest,
    /// What it was named, where it is not the run's own.
    pub(super) base: Option<BaseImage>,
}

impl Attempt<'_> {
    /// The image that an order names. Of registries for which a credential is kept, the embedded one included, it is
    /// asked for there, once in a placement: the engine may hold images that this run may not pull. Others are taken from
    /// the engine if it has them, unless the step says `pull`.
    pub(super) async fn step_image(
        &self,
        order: &CommandOrder,
        registry: &RegistryName,
        logins: &AttemptLogins,
    ) -> Result<StepImage, Ended> {
        let name = match &order.image {
            CommandImageOrder::Built(image) => return Ok(StepImage { image: image.clone(), base: None }),
            CommandImageOrder::Named(name) => name,
        };
        let fail = |reason: String| Ended::Failed { exit_code: None, reason };
        let reference =
            ImageRef::parse(name).map_err(|error| fail(format!("image `{name}` has no valid name: {error}")))?;
        let reference = in_full(reference);
        if reference.registry.as_ref().is_some_and(|registry| registry.as_str().ends_with(NO_REGISTRY)) {
            return Err(fail(format!("image `{name}` is in no registry: names below `{NO_REGISTRY}` are nobody's")));
        }
        let is_ours = reference.registry.as_ref() == Some(registry);
        // A reference in full has one.
        let Login { credential, kept } = logins.of(reference.registry.as_ref().unwrap_or(registry)).await?;
        // What the placement has pulled before is its own, for as long as the engine knows it by that name.
        let before = self.shared.pulled(&reference);
        if !order.pull && (!kept || before.is_some()) {
            let found = self.runner.engine.find_image(&reference).await;
            let found = found.map_err(|error| Ended::lost("images can't be looked for", &error))?;
            let before = before.filter(|before| found.as_ref().is_some_and(|local| local.image == before.image));
            if let Some(local) = found.filter(|local| fits(local, order) && (!kept || before.is_some())) {
                let digest = before.map(|before| before.digest).or_else(|| manifest_of(&local, &reference));
                let base = BaseImage { reference: name.clone(), digest, runtime: true };
                return Ok(StepImage { image: local.image, base: Some(base) });
            }
        }
        let request = PullRequest {
            credential,
            platform: Some(order.platform.clone()),
            retries: order.pull_retries,
            retry_delay: order.pull_retry_delay,
            reference: reference.clone(),
        };
        self.log.service(&format!("pulling image {name}")).await;
        let (sink, events) = mpsc::channel(EVENT_QUEUE);
        let pull = self.runner.engine.pull(request, sink, self.stop.clone());
        let (pulled, ()) = tokio::join!(pull, self.show_pull(events, name));
        match pulled {
            Ok(pulled) => {
                let line = match name.contains('@') {
                    true => format!("pulled image {name}"),
                    false => format!("pulled image {name}@{}", pulled.digest),
                };
                self.log.service(&line).await;
                self.shared.has_pulled(reference, pulled.clone());
                let base = BaseImage { reference: name.clone(), digest: Some(pulled.digest), runtime: true };
                Ok(StepImage { image: pulled.image, base: Some(base) })
            }
            Err(PullError::Cancelled) => Err(Ended::Stopped),
            Err(PullError::Machinery { source, .. }) => {
                if matches!(source, EngineError::DiskFull { .. }) {
                    self.runner.disk_was_full.notify_one();
                }
                Err(Ended::lost(&format!("pull of image `{name}` failed"), &source))
            }
            // Our own registry being away is nothing that the user could mend.
            Err(error @ PullError::Unreachable { .. }) if is_ours => Err(Ended::lost("pull failed", &error)),
            Err(error @ PullError::Unauthorized { .. }) => {
                let reason = format!("{error}{}", logins.advice(&reference));
                Err(fail(reason))
            }
            Err(error) => Err(Ended::failed(&error)),
        }
    }

    /// Puts what is worth a line into the log: that a layer came, and why a pull is tried again.
    async fn show_pull(&self, mut events: mpsc::Receiver<PullEvent>, name: &str) {
        while let Some(event) = events.recv().await {
            match (&event.layer, event.status.as_str()) {
                (Some(layer), "Pull complete") => self.log.service(&format!("{name}: {layer} {}", event.status)).await,
                (None, status) if status.starts_with("Retrying") => {
                    self.log.service(&format!("{name}: {status}")).await
                }
                _ => {}
            }
        }
    }
}

/// Whether an image of the engine can be meant by an order.
fn fits(local: &LocalImage, order: &CommandOrder) -> bool {
    local.platform.as_ref().is_none_or(|platform| *platform == order.platform)
}

/// The digest by which an image's registry knows it.
fn manifest_of(local: &LocalImage, reference: &ImageRef) -> Option<Digest> {
    let repository = ImageRef { tag: None, digest: None, ..reference.clone() }.to_string();
    let short = repository.strip_prefix("docker.io/").map(|name| name.strip_prefix("library/").unwrap_or(name));
    local.manifests.iter().find_map(|manifest| {
        let (name, digest) = manifest.split_once('@')?;
        // Engines leave out what the default registry's names have in common.
        (name == repository || Some(name) == short).then(|| Digest::parse(digest).ok())?
    })
}
