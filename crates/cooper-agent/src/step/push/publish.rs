//! Tags for what a repository has already: images of other placements, and indexes of several platforms' images.

use cooper_api::agent::{PushFrom, PushTarget};
use cooper_ports::engine::PushedImage;
use cooper_source::{Publish, publish};
use cooper_types::ImageRef;

use crate::step::prepare::own_registry_egress;
use crate::step::{Attempt, Ended, Surroundings};

impl Attempt<'_> {
    /// Gives a target's tag to what its repository has.
    pub(super) async fn publish_one(
        &self,
        target: &PushTarget,
        reference: &ImageRef,
        allowed_networks: &[String],
        is_ours: bool,
        around: &Surroundings<'_>,
    ) -> Result<PushedImage, Ended> {
        let what = match &target.from {
            PushFrom::Image(_) => return Err(Ended::Lost("an image of the engine is in no registry".to_owned())),
            PushFrom::Manifest(digest) => Publish::Manifest(digest),
            PushFrom::Index(parts) => {
                for (platform, digest) in parts {
                    self.log.service(&format!("{}: {platform} is {digest}", target.repository)).await;
                }
                Publish::Index(parts)
            }
        };
        let egress = if is_ours {
            // It is where this agent reaches it, and no place that a user chose.
            own_registry_egress()
        } else {
            self.egress(allowed_networks)?
        };
        let place = (target.registry.as_ref().unwrap_or(around.registry), &target.repository);
        let published = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            published = publish(&egress, around.logins.as_ref(), place, what, &target.staging_tag) => published,
        };
        match published {
            Ok(published) => Ok(PushedImage { digest: published.digest, size: Some(published.size) }),
            // What the run may write in the server's own registry was settled when it was accepted.
            Err(error) if is_ours || error.is_own() => Err(Ended::lost("push failed", &error)),
            Err(error) if error.is_refusal() => {
                let reason = format!("{error}{}", around.logins.advice(reference));
                Err(Ended::Failed { exit_code: None, reason })
            }
            Err(error) => Err(Ended::failed(&error)),
        }
    }
}
