//! A source to be fetched. So far it is refused: fetching follows.

use cooper_api::agent::PrepareOrder;
use cooper_engine::message::StepOutput;

use super::{Attempt, Ended};

impl Attempt<'_> {
    pub(super) async fn prepare(&self, order: PrepareOrder) -> Result<StepOutput, Ended> {
        self.log.service(&format!("Fetching {}", order.source)).await;
        Err(Ended::Failed { exit_code: None, reason: "this agent can't fetch sources yet".to_owned() })
    }
}
