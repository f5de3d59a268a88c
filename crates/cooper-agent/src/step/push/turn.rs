//! The turn at tags of other registries, which an attempt has of the server before it moves any: runs of one task move a tag
//! one after the other, and an older one leaves it where a newer one has moved it.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::agent::{attempt_message, wire};
use tonic::{Code, Status};

use crate::link;
use crate::step::own_tries::{OwnTries, may_pass};
use crate::step::{Attempt, Ended};

/// How long the server may take to answer, once there is a stream to it.
const ANSWER: Duration = Duration::from_secs(20);
/// The pause before the server is asked again whose turn it is.
const AGAIN: Duration = Duration::from_secs(1);

/// The tags that stay where a newer run has moved them, `REGISTRY/REPOSITORY:TAG`, with those runs.
pub(super) type Newer = BTreeMap<String, String>;

impl Attempt<'_> {
    /// Waits for the turn at all tags that the step moves in other registries.
    pub(super) async fn turn(&self) -> Result<Newer, Ended> {
        let mut waits_for = String::new();
        loop {
            let claim = tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                claim = self.claim() => claim?,
            };
            if claim.taken_by.is_empty() {
                let newer = claim.newer.into_iter();
                let named = newer.map(|tag| (format!("{}/{}:{}", tag.registry, tag.repository, tag.tag), tag.run));
                return Ok(named.collect());
            }
            if claim.taken_by != waits_for {
                self.log.service(&format!("waiting for run {}, which moves the same tag now", claim.taken_by)).await;
                waits_for = claim.taken_by;
            }
            self.pause(AGAIN).await?;
        }
    }

    async fn claim(&self) -> Result<wire::TagClaim, Ended> {
        let mut tries = OwnTries::at_the_server();
        loop {
            match self.ask().await {
                Ok(claim) => return Ok(claim),
                // A server from before keeps no order there.
                Err(status) if status.code() == Code::Unimplemented => return Ok(wire::TagClaim::default()),
                Err(status) if may_pass(&status) && tries.again().await => {}
                Err(status) => {
                    let why = status.message();
                    return Err(Ended::Lost(format!("the server does not say whether tags may be moved: {why}")));
                }
            }
        }
    }

    async fn ask(&self) -> Result<wire::TagClaim, Status> {
        let client = link::current_client(&self.runner.channels, &self.runner.bearer).await;
        let mut client = client.ok_or_else(|| Status::failed_precondition("the agent shuts down"))?;
        let named = attempt_message(self.key, self.attempt);
        let request = wire::TagClaimRequest { key: named.key, attempt: named.attempt };
        let answer = tokio::time::timeout(ANSWER, client.claim_tags(request)).await;
        let silent = || Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs()));
        Ok(answer.map_err(|_| silent())??.into_inner())
    }
}
