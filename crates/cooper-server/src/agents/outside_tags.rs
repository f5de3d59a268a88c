//! Turns at tags of other registries, for the agents that move them.

use cooper_api::agent::wire;
use cooper_engine::run::Run;
use cooper_ports::outside_tags::{TagClaim, TagTurn};
use cooper_types::AttemptNumber;
use tonic::Status;

use super::service::got_nothing;
use crate::core::Core;

/// The turn of a live attempt, at all that its step moves. What no task's run moves is in no order.
pub(super) async fn claim(
    core: &Core,
    run: &Run,
    step: usize,
    attempt: AttemptNumber,
) -> Result<wire::TagClaim, Status> {
    let images = run.outside_tags(step);
    let Some(order) = run.tag_order().filter(|_| !images.is_empty()) else { return Ok(wire::TagClaim::default()) };
    let claim = TagClaim { run: run.id, attempt, order, images };
    let turn = core.outside_tags.claim_tags(claim).await.map_err(got_nothing)?;
    Ok(match turn {
        TagTurn::Taken { by } => wire::TagClaim { taken_by: by.to_string(), newer: Vec::new() },
        TagTurn::Granted { newer } => {
            let newer = newer.into_iter().map(|(image, run)| wire::NewerTag {
                registry: image.registry.map(|registry| registry.to_string()).unwrap_or_default(),
                repository: image.repository.to_string(),
                tag: image.tag.map(|tag| tag.to_string()).unwrap_or_default(),
                run: run.to_string(),
            });
            wire::TagClaim { taken_by: String::new(), newer: newer.collect() }
        }
    })
}
