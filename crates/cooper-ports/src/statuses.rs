//! What forges are to be told of the runs that their events have set off: the state of a commit.
//!
//! What is to be told is a row that is written in the transaction that accepts or ends the run; telling it may be late and
//! may be repeated, and what is told last is how the run stands.

use async_trait::async_trait;
use cooper_engine::run::RunStatus;
use cooper_types::{RunId, SourceHost, TaskName, Timestamp};

use crate::store_error::StoreError;

/// A run that its forge is to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueStatus {
    /// The run.
    pub run: RunId,
    /// Which of the things that were to be told of it this is.
    pub want: i64,
    /// How often it was tried.
    pub tries: u32,
    /// The forge's host, as the repository's URL names it.
    pub host: String,
}

/// How far telling of a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRecord {
    /// The run.
    pub run: RunId,
    /// How the run stands.
    pub status: RunStatus,
    /// The commit.
    pub commit: String,
    /// When there was something to tell last: the run's acceptance or its end.
    pub since: Timestamp,
    /// When it is told next; absent where nothing is left to tell.
    pub due: Option<Timestamp>,
    /// How often the newest was tried.
    pub tries: u32,
    /// When that was the last time.
    pub tried: Option<Timestamp>,
    /// Why the last try failed.
    pub fault: Option<String>,
}

/// A task's token for a Git host, encrypted.
#[derive(Clone)]
pub struct TaskToken {
    /// The user name that goes with it.
    pub username: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// Keeps what is to be told.
#[async_trait]
pub trait StatusStore: Send + Sync {
    /// What is to be told by now, the oldest first: so many of one host at most, and nothing of some hosts.
    async fn due_statuses(
        &self,
        until: Timestamp,
        of_a_host: u32,
        without: &[String],
    ) -> Result<Vec<DueStatus>, StoreError>;

    /// When the next is to be told.
    async fn next_status(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Writes down that it was tried: when it is tried again, and what went wrong. Something newer stays due.
    async fn status_tried(
        &self,
        told: &DueStatus,
        again: Option<Timestamp>,
        fault: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Has a forge told once more how a run of a task stands that was made then; tells whether there is one that it is to be told of.
    async fn tell_again(&self, task: &TaskName, since: Timestamp, run: RunId) -> Result<bool, StoreError>;

    /// What forges are told of the runs that a task has had since then, the newest first: before, its name was another one's.
    async fn list_statuses(
        &self,
        task: &TaskName,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<StatusRecord>, StoreError>;

    /// What a task keeps for a host.
    async fn task_token(&self, task: &TaskName, host: &SourceHost) -> Result<Option<TaskToken>, StoreError>;
}
