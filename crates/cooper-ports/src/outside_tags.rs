//! Whose turn it is at a tag of another registry, which no transaction of the server's moves: runs of one task move it one
//! after the other, and an older one not after a newer.

use async_trait::async_trait;
use cooper_engine::task::TagOrder;
use cooper_types::{AttemptNumber, ImageRef, RunId};

use crate::runs::AttemptError;

/// What an attempt wants before it pushes to other registries.
#[derive(Clone, Debug)]
pub struct TagClaim {
    /// The run.
    pub run: RunId,
    /// Its live attempt.
    pub attempt: AttemptNumber,
    /// How the run is put in order with others of its task.
    pub order: TagOrder,
    /// All tags that it will move, each with its registry.
    pub images: Vec<ImageRef>,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagTurn {
    /// It may move the tags, but for those that a newer run has moved. It has its turn until the attempt ends.
    Granted {
        /// Those, with the newer runs.
        newer: Vec<(ImageRef, RunId)>,
    },
    /// Another push of the task moves one of them now. Nothing is kept of the claim: it is to be made again.
    Taken {
        /// Its run.
        by: RunId,
    },
}

/// Keeps the turns.
#[async_trait]
pub trait OutsideTagStore: Send + Sync {
    /// Takes the turn at all of the tags, or at none.
    async fn claim_tags(&self, claim: TagClaim) -> Result<TagTurn, AttemptError>;
}
