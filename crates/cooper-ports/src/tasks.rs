//! Stored tasks: kept, changed, found, with their secrets and credentials; and the instants of their timers.
//!
//! Secrets come sealed and leave sealed. An instant of a timer sets off one run at most: the row that says when a timer
//! fires next moves in the transaction that accepts the run.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use cooper_engine::task::{Task, TaskEndpoint};
use cooper_types::{PoolName, PrincipalName, RunId, SourceHost, TaskName, TimerName, Timestamp};

use crate::hooks::{HookRecord, NewHook};
use crate::registrations::Registration;
use crate::runs::{SealedSecret, SecretKind};
use crate::store_error::StoreError;

/// A task to be kept.
#[derive(Clone, Debug)]
pub struct PutTask {
    /// The task as it is to be.
    pub task: Task,
    /// New values of its secrets.
    pub secrets: Vec<SealedSecret>,
    /// All secrets that it has; others are forgotten.
    pub all_secrets: BTreeSet<(SecretKind, String)>,
    /// The generation that it has now; it is new if absent. It must be the one that was made at [`Task::created`], too: its
    /// name may be another one's by now.
    pub replaces: Option<u64>,
    /// Hooks for the kinds of forges that its triggers listen to. One that the task has stays as it is.
    pub hooks: Vec<NewHook>,
    /// Which of its hooks the forges are to have. Others are removed there.
    pub registrations: Vec<Registration>,
}

/// Why a task was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutTaskError {
    /// There is one of this name.
    #[error("task `{0}` exists; change it with `cooper task update`")]
    Exists(TaskName),
    /// There is none of this name any more, or it is no longer what the change was made from.
    #[error("task `{0}` was changed or deleted in the meantime; look at it and try again")]
    Changed(TaskName),
    /// A secret has no value.
    #[error("secret `{0}` of the task has no value; give it")]
    NoValue(String),
    /// There is no such pool.
    #[error("agent pool `{0}` does not exist: `cooper pool list` shows the pools")]
    UnknownPool(PoolName),
    /// It is too large.
    #[error("task `{task}` has {size} bytes with everything that it says; at most {max} are kept")]
    TooLarge {
        /// The task.
        task: TaskName,
        /// What it has.
        size: usize,
        /// What it may have.
        max: usize,
    },
    /// Its principal has many.
    #[error("principal {principal} has {max} tasks and can have no more; delete some")]
    TooMany {
        /// The principal.
        principal: PrincipalName,
        /// How many it may have.
        max: u32,
    },
    /// The pool is for the code of strangers, who leave things in its caches.
    #[error(
        "agent pool `{0}` is marked for untrusted work: it may be the pool for forks, and the task's own runs need another one"
    )]
    PoolForStrangers(PoolName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The most bytes of a task as it is stored.
pub const MAX_TASK_BYTES: usize = 3 << 20;
/// The most tasks of a principal.
pub const MAX_TASKS: u32 = 20_000;

/// A task as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// The task.
    pub task: Task,
    /// What its runs may show to hosts.
    pub credentials: Vec<TaskCredential>,
    /// When its timers fire next.
    pub next: BTreeMap<TimerName, Timestamp>,
    /// Where forges send what happens.
    pub hooks: Vec<HookRecord>,
}

/// A credential of a task, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCredential {
    /// What it is for.
    pub host: SourceHost,
    /// The user name that goes with it.
    pub username: String,
    /// When it was set last.
    pub updated: Timestamp,
}

/// An instant that a timer of a task stands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instant {
    /// The task.
    pub task: TaskName,
    /// Its timer.
    pub timer: TimerName,
    /// The instant.
    pub at: Timestamp,
    /// Whose task it is.
    pub principal: PrincipalName,
}

/// An instant that has come, and the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Which.
    pub instant: Instant,
    /// When the timer fires next.
    pub next: Option<Timestamp>,
}

/// What became of an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The timer.
    pub timer: TimerName,
    /// The instant.
    pub instant: Timestamp,
    /// When that was decided.
    pub at: Timestamp,
    /// The run that it set off, or why there is none.
    pub outcome: Result<RunId, String>,
}

/// Keeps tasks.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Keeps a task. A timer that is as it was keeps its next instant, others get their first one after now.
    async fn put_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError>;

    /// What [`put_task`](Self::put_task) would answer; nothing is kept.
    async fn try_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError>;

    /// What a task is, by its name in any letter case.
    async fn task(&self, name: &TaskName) -> Result<Option<Task>, StoreError>;

    /// A task with everything that is kept of it, by its name in any letter case.
    async fn find_task(&self, name: &TaskName) -> Result<Option<TaskRecord>, StoreError>;

    /// The tasks after `after`, by name, at most `limit`. Where they are large it may be fewer than there are, but never none.
    async fn list_tasks(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskRecord>, StoreError>;

    /// The tasks after `after` of which an older release has kept the endpoint in clear, by name, at most so many.
    async fn clear_endpoints(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskName>, StoreError>;

    /// Keeps an endpoint as it is here, where the task has still what an older release kept of it; tells whether it had. Nothing
    /// else of the task changes.
    async fn seal_endpoint(&self, task: &Task, endpoint: &TaskEndpoint) -> Result<bool, StoreError>;

    /// Forgets a task with everything that is kept of it but its runs; tells whether it was still there, and no other one
    /// of its name.
    async fn delete_task(&self, task: &Task) -> Result<bool, StoreError>;

    /// The secrets of a task; none of another one of its name.
    async fn task_secrets(&self, task: &Task) -> Result<Vec<SealedSecret>, StoreError>;

    /// Keeps a credential of a task in place of its earlier one for the host; tells whether it is still there.
    async fn put_task_credential(
        &self,
        task: &Task,
        host: &SourceHost,
        username: String,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError>;

    /// Forgets a credential of a task; tells whether there was one.
    async fn delete_task_credential(&self, task: &Task, host: &SourceHost) -> Result<bool, StoreError>;

    /// The instants that have come by `until`, the earliest first.
    async fn due_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Instant>, StoreError>;

    /// When a timer fires next after some instant.
    async fn next_timer(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Moves a timer on without a run, and writes down why; tells whether it stood before that instant.
    async fn pass_instant(&self, firing: &Firing, why_not: &str) -> Result<bool, StoreError>;

    /// How many of the last `limit` runs that a timer set off wait to be begun.
    async fn waiting_runs(&self, name: &TaskName, timer: &TimerName, limit: u32) -> Result<u32, StoreError>;

    /// What became of the last `limit` instants of each of a task's timers, the newest first.
    async fn list_fired(&self, name: &TaskName, limit: u32) -> Result<Vec<Fired>, StoreError>;
}
