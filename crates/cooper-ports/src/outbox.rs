//! What goes out when something has happened: webhooks, and the deliveries to them.
//!
//! A delivery is a row that the event's own transaction writes, one for each target that wants the event. A target gets its
//! deliveries in that order: the first one that has not ended is tried, and those behind it wait.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use cooper_engine::delivery::{Answer, Delivery};
use cooper_engine::task::UpdatePayload;
use cooper_engine::webhook::{Action, Scope};
use cooper_types::{EventId, PrincipalName, Timestamp, WebhookName};

use crate::store_error::StoreError;

/// How many webhooks a registry may have.
pub const MAX_WEBHOOKS: usize = 500;

/// A webhook without its address, its headers and its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: WebhookName,
    /// The host that it goes to, with the port where that is not the scheme's own.
    pub host: String,
    /// What it is told of.
    pub actions: BTreeSet<Action>,
    /// Of which images.
    pub scope: Scope,
    /// Whether it is told of anything.
    pub enabled: bool,
    /// Who changed it last.
    pub set_by: PrincipalName,
    /// When it was made.
    pub created: Timestamp,
    /// How often it was changed: a change is made from what it was.
    pub generation: u64,
}

/// A webhook as it is to be.
#[derive(Clone, PartialEq, Eq)]
pub struct PutWebhook {
    /// Its name.
    pub name: WebhookName,
    /// The host that it goes to.
    pub host: String,
    /// Nonce and ciphertext of its address, headers and secret.
    pub sealed: Vec<u8>,
    /// What it is told of.
    pub actions: BTreeSet<Action>,
    /// Of which images.
    pub scope: Scope,
    /// Whether it is told of anything.
    pub enabled: bool,
    /// Who says so.
    pub set_by: PrincipalName,
    /// The generation that it has now; it is new if absent.
    pub replaces: Option<u64>,
}

/// Why a webhook was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutWebhookError {
    /// There is one of this name.
    #[error("webhook `{0}` exists; change it with `cooper webhook update`")]
    Exists(WebhookName),
    /// There is none of this name any more, or it is no longer what the change was made from.
    #[error("webhook `{0}` was changed or deleted in the meantime; look at it and try again")]
    Changed(WebhookName),
    /// There are [`MAX_WEBHOOKS`].
    #[error("there are {MAX_WEBHOOKS} webhooks; delete one first")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whom a delivery is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A webhook.
    Webhook(WebhookName),
    /// The endpoint that a task has told of updates of its base images: the task's key.
    UpdateTrigger(String),
}

/// Which deliveries that are due are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether those of targets too that have not taken what they were sent before.
    pub failing: bool,
    /// Whether those for endpoints of tasks too.
    pub notices: bool,
    /// Not those for targets at these hosts.
    pub without_hosts: Vec<String>,
    /// Not those for endpoints of tasks at these hosts.
    pub without_notices_at: Vec<String>,
    /// How many at most.
    pub limit: u32,
}

/// A target's first delivery that has not ended, which is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The delivery's place in the order of all.
    pub seq: i64,
    /// The host that it goes to.
    pub host: String,
    /// Whether it is for an endpoint of a task.
    pub is_notice: bool,
    /// Whether the target has not taken what it was sent before.
    pub is_failing: bool,
}

/// A delivery that the caller is to try now.
#[derive(Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its place in the order of all.
    pub seq: i64,
    /// Whom it is for.
    pub target: Target,
    /// The number of this try.
    pub number: u32,
    /// The event.
    pub event: EventId,
    /// What happened.
    pub action: Action,
    /// What is sent.
    pub body: String,
    /// Nonce and ciphertext of a webhook's address, headers and secret; nothing for the endpoint of a task, which its task says.
    pub sealed: Option<Vec<u8>>,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Which delivery.
    pub seq: i64,
    /// The number of the try.
    pub number: u32,
    /// What it means for the delivery.
    pub answer: Answer,
    /// A random number from 0 to 1.
    pub spread: f64,
    /// The status of the answer; absent if there was none.
    pub status: Option<u16>,
    /// The answer's first bytes, or why there was none.
    pub said: String,
}

/// A delivery as the log of a target shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The event.
    pub event: EventId,
    /// What happened.
    pub action: Action,
    /// To what: an image, a run, a wave; empty for a ping.
    pub subject: String,
    /// What is sent.
    pub body: String,
    /// Whether somebody asked for it again.
    pub redelivery: bool,
    /// How far it is.
    pub delivery: Delivery,
    /// When it was tried last, with what came of it.
    pub last: Option<LastTry>,
}

/// The newest try that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTry {
    /// When it ended.
    pub at: Timestamp,
    /// The status of the answer; absent if there was none.
    pub status: Option<u16>,
    /// The answer's first bytes, or why there was none.
    pub said: String,
}

/// That the endpoint of a task is told of a run which an update of its base images sets off.
#[derive(Clone, PartialEq, Eq)]
pub struct UpdateNotice {
    /// The host that it is at.
    pub host: String,
    /// How much it is told.
    pub payload: UpdatePayload,
}

impl fmt::Debug for UpdateNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpdateNotice({:?})", self.payload)
    }
}

/// Keeps webhooks, and what is sent to them.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Keeps a webhook. What waits for it is tried at once: its address may be another.
    async fn put_webhook(&self, put: PutWebhook) -> Result<Webhook, PutWebhookError>;

    /// A webhook and its sealed part, by its name in any letter case.
    async fn find_webhook(&self, name: &WebhookName) -> Result<Option<(Webhook, Vec<u8>)>, StoreError>;

    /// All webhooks, by name.
    async fn list_webhooks(&self) -> Result<Vec<Webhook>, StoreError>;

    /// Forgets a webhook with its deliveries; tells whether there was one.
    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool, StoreError>;

    /// Queues a ping, whatever the webhook asks for; nothing if there is no such webhook.
    async fn ping_webhook(&self, name: &WebhookName) -> Result<Option<EventId>, StoreError>;

    /// A target's deliveries, the newest first.
    async fn list_sent(&self, target: &Target, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// Queues an event for a target once more, behind all others; tells whether it has had that event.
    async fn redeliver(&self, target: &Target, event: &EventId) -> Result<bool, StoreError>;
}

/// The deliveries that have not ended, for whoever makes them.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Waits until something may have been queued.
    async fn queued(&self);

    /// Of targets that may be told, the first deliveries that have not ended and are due: first those of targets that take what they
    /// get, then the others, each in the order in which they are due.
    async fn waiting(&self, look: &Look) -> Result<Vec<Waiting>, StoreError>;

    /// When the first delivery is due that is not due yet.
    async fn next(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Begins tries of these deliveries. Those that are not due any more are left out, and those that can't be read are given up.
    async fn claim(&self, seqs: Vec<i64>) -> Result<Vec<Claimed>, StoreError>;

    /// Writes down what a try came to, and tells what the delivery is now; nothing where the try is no longer the newest.
    async fn tried(&self, tried: Tried) -> Result<Option<Delivery>, StoreError>;

    /// For a server that starts: makes due what somebody was trying, for nobody does any more, and what waits for a target that
    /// was not reached. Tells how many were being tried.
    async fn release(&self) -> Result<u64, StoreError>;

    /// Gives up what waits behind too many others or for too long, forgets what ended long ago, and tells of how many it gave up. It
    /// does so in many small changes.
    async fn prune(&self) -> Result<u64, StoreError>;
}
