//! Where the branches of tasks' repositories were at the last look, to find pushes that no delivery told of.

use async_trait::async_trait;
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_types::TaskName;

use crate::store_error::StoreError;

/// A branch of a task's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBranch {
    /// Its name.
    pub branch: RefName,
    /// The commit that has been dealt with; none of a branch that is new.
    pub done: Option<CommitId>,
    /// The one that was there at the last look and is not dealt with.
    pub seen: Option<CommitId>,
}

/// Keeps what was seen.
#[async_trait]
pub trait BranchStore: Send + Sync {
    /// What is known of a task's branches.
    async fn seen_branches(&self, task: &TaskName) -> Result<Vec<SeenBranch>, StoreError>;

    /// Writes down how branches stand, in place of what was known of them, and forgets others. Nothing happens where the
    /// task is gone.
    async fn put_branches(
        &self,
        task: &TaskName,
        branches: Vec<SeenBranch>,
        gone: Vec<RefName>,
    ) -> Result<(), StoreError>;

    /// Writes down that a branch's commit has been dealt with by a delivery, if the task's branches have been looked at.
    async fn branch_dealt_with(&self, task: &TaskName, branch: &RefName, commit: &CommitId) -> Result<(), StoreError>;
}
