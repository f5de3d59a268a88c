//! Hooks of stored tasks: where forges send what happened, which deliveries came, and what each led to.
//!
//! A delivery is one insert: what was answered with 202 is there after a crash and is worked on later. That the same event
//! starts a task once is a key of its own, written in the transaction that accepts the run.

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::Refusal;
use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use cooper_types::{HookId, PrincipalName, RunId, TaskName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store_error::StoreError;

/// A hook to be made, if the task has none for the provider.
#[derive(Clone, Debug)]
pub struct NewHook {
    /// Its id, random.
    pub id: HookId,
    /// Who sends to it.
    pub provider: Provider,
    /// Its secret, encrypted by the caller.
    pub sealed: Vec<u8>,
}

/// A hook, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRecord {
    /// Its id.
    pub id: HookId,
    /// Who sends to it.
    pub provider: Provider,
    /// When it was made.
    pub created: Timestamp,
    /// Until when its last but one secret is taken as well.
    pub previous_until: Option<Timestamp>,
}

/// A hook that something was sent to, with its task.
#[derive(Clone, Debug)]
pub struct FoundHook {
    /// Who sends to it.
    pub provider: Provider,
    /// Whose it is.
    pub task: Task,
    /// Its secret, encrypted.
    pub sealed: Vec<u8>,
    /// The secret before, and until when it is taken as well.
    pub previous: Option<(Vec<u8>, Timestamp)>,
}

/// What became of a delivery that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptDelivery {
    /// It is kept, and waits. It is new, or what came under its id before has failed or was refused.
    New,
    /// It is there already, and waits or has led to what it can lead to.
    Repeated,
    /// Too many others of the hook wait.
    Full,
    /// There is no such hook any more.
    Gone,
}

/// A delivery that is to be worked on.
#[derive(Clone, Debug)]
pub struct PendingDelivery {
    /// Its number here: they are worked on in this order.
    pub number: i64,
    /// The number under which it came first; the same if it was not sent again.
    pub first: i64,
    /// Whose it is, as the task is now.
    pub task: Task,
    /// Who sent it.
    pub provider: Provider,
    /// The sender's id for it.
    pub delivery: String,
    /// When it came.
    pub received: Timestamp,
    /// What happened; or why that can't be read, which is no reason not to go on with the others.
    pub events: Result<Vec<SourceEvent>, String>,
}

/// What one event of a delivery led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventOutcome {
    /// What happened, in a few words.
    pub what: String,
    /// What it led to.
    pub outcome: Outcome,
}

/// What an event led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It set off a run.
    Started(RunId),
    /// The same event had set off this run before.
    Known(RunId),
    /// A rule said no.
    Refused(Refusal),
    /// The run that it asks for could not be accepted.
    Failed(String),
}

impl Outcome {
    /// Whether the same may lead to a run when it is sent again: after a rule was changed, or what failed was mended.
    pub fn may_differ(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Failed(_) => true,
            Self::Started(_) | Self::Known(_) => false,
        }
    }
}

/// A run that an event has set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOfEvent {
    /// The run.
    pub run: RunId,
    /// The number under which the delivery that told of the event came first. Of one that was found without, the newest at that
    /// time.
    pub delivery: i64,
    /// Whether it goes on; one that is gone does not.
    pub unfinished: bool,
}

/// A delivery that was kept, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The hook that it came to.
    pub hook: HookId,
    /// The sender's id for it.
    pub delivery: String,
    /// When it came.
    pub received: Timestamp,
    /// What each of its events led to; nothing while it waits.
    pub outcomes: Option<Vec<EventOutcome>>,
}

/// An event that sets off a run, and the delivery that told of it.
#[derive(Clone, Debug)]
pub struct SourceFiring {
    /// The task.
    pub task: TaskName,
    /// What tells the event from others: the same kind, reference and commit is the same.
    pub key: String,
    /// Other keys under which it may be told.
    pub also: Vec<String>,
    /// The delivery, if one told of it.
    pub delivery: Option<FiringDelivery>,
}

/// The delivery that told of an event.
#[derive(Clone, Debug)]
pub struct FiringDelivery {
    /// Its number.
    pub number: i64,
    /// The number under which it came first.
    pub first: i64,
    /// What the event is, in a few words.
    pub what: String,
    /// What the events before this one led to, if this one is the delivery's last: then it is worked off with the run.
    pub last_after: Option<Vec<EventOutcome>>,
}

/// Keeps hooks and deliveries.
#[async_trait]
pub trait HookStore: Send + Sync {
    /// A hook with its task.
    async fn find_hook(&self, id: &HookId) -> Result<Option<FoundHook>, StoreError>;

    /// Gives a hook another secret; the one that it has is taken until then as well, or no more. Tells whether there is such
    /// a hook.
    async fn rotate_hook(&self, id: &HookId, sealed: Vec<u8>, until: Option<Timestamp>) -> Result<bool, StoreError>;

    /// Keeps a delivery, if the hook has room for another that waits.
    async fn keep_delivery(
        &self,
        hook: &HookId,
        delivery: &str,
        events: Vec<SourceEvent>,
    ) -> Result<KeptDelivery, StoreError>;

    /// The tasks for which deliveries wait, and whose they are.
    async fn waiting_tasks(&self) -> Result<Vec<(TaskName, PrincipalName)>, StoreError>;

    /// The oldest delivery after this one that waits for a task.
    async fn next_delivery(&self, task: &TaskName, after: i64) -> Result<Option<PendingDelivery>, StoreError>;

    /// Writes down what a delivery led to.
    async fn finish_delivery(&self, number: i64, outcomes: Vec<EventOutcome>) -> Result<(), StoreError>;

    /// Forgets, at most so many of each: deliveries that are old or too many, events whose runs are long gone, and the order
    /// of tags that no run can disturb any more. Says how many it were.
    async fn prune_hooks(&self, limit: u32) -> Result<u64, StoreError>;

    /// The last deliveries to a task's hooks, the newest first.
    async fn list_deliveries(&self, task: &TaskName, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// The run that an event of a task has set off, under the first of these keys that is known.
    async fn run_of_event(&self, task: &TaskName, keys: &[String]) -> Result<Option<RunId>, StoreError>;

    /// The runs that events of a task have set off whose keys begin like this, the oldest first.
    async fn runs_of_events(&self, task: &TaskName, prefix: &str) -> Result<Vec<RunOfEvent>, StoreError>;
}
