//! Hooks at forges: which are to be registered there, which are to go, and how far that is.
//!
//! What is to be so is a row that is written in the transaction that changes the task, its hook or its credential. Making it
//! so may be late and may be repeated: at the forge, a hook is known by its URL. A hook that is gone here leaves a row behind,
//! with the token that is needed to remove it there, until that is done or given up.

use async_trait::async_trait;
use cooper_engine::trigger::provider::Provider;
use cooper_types::{HookId, SourceHost, TaskName, Timestamp};

use crate::statuses::TaskToken;
use crate::store_error::StoreError;

/// A hook of a task that its forge can be asked to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Whose hook of the task.
    pub provider: Provider,
    /// The repository's URL.
    pub repository: String,
    /// The forge's host: the task's token for it is shown there.
    pub host: SourceHost,
    /// What it is to listen to: where this changes, it is registered anew.
    pub events: String,
}

/// A registration that is to be made, renewed or removed.
#[derive(Clone)]
pub struct DueRegistration {
    /// The hook.
    pub hook: HookId,
    /// The task; it may be gone, or another one of the same name.
    pub task: TaskName,
    /// The kind of forge.
    pub provider: Provider,
    /// The repository's URL.
    pub repository: String,
    /// The forge's host.
    pub host: SourceHost,
    /// Of one that is to be removed, the token for that, as the task had it.
    pub removal: Option<TaskToken>,
    /// Which of the things that were to be done about it this is.
    pub want: i64,
    /// How often it was tried.
    pub tries: u32,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationTried {
    /// The forge has it, with the server's address being this one.
    Registered {
        /// The server's address.
        address: String,
    },
    /// It is tried again.
    Again {
        /// When.
        at: Timestamp,
        /// What went wrong.
        fault: String,
    },
    /// It is left until something changes here.
    Refused {
        /// What went wrong.
        fault: String,
    },
    /// The forge has it no longer, or nobody can help it: it is forgotten.
    Forgotten,
}

/// How far a registration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationRecord {
    /// The hook.
    pub hook: HookId,
    /// The repository's URL.
    pub repository: String,
    /// Whether it is to be removed.
    pub removing: bool,
    /// When it is tried next; nothing if that is not meant to be.
    pub due: Option<Timestamp>,
    /// When the forge took it last.
    pub registered: Option<Timestamp>,
    /// What went wrong last.
    pub fault: Option<String>,
}

/// Keeps what is to be registered. It is written by [`crate::tasks::TaskStore`] and [`crate::hooks::HookStore`].
#[async_trait]
pub trait RegistrationStore: Send + Sync {
    /// What is to be done by now, the oldest first, and little of each host: a slow one is not to keep others waiting.
    async fn due_registrations(&self, until: Timestamp, limit: u32) -> Result<Vec<DueRegistration>, StoreError>;

    /// When the next is to be done.
    async fn next_registration(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Writes down what became of a try. Something that is to be done since stays due.
    async fn registration_tried(&self, tried: &DueRegistration, became: RegistrationTried) -> Result<(), StoreError>;

    /// Writes down what forges are to have of tasks of which nothing is written down.
    async fn adopt_registrations(&self, tasks: Vec<(TaskName, Vec<Registration>)>) -> Result<(), StoreError>;

    /// Has everything tried again that is not registered under this address of the server, and that there is a token for.
    async fn recall_registrations(&self, address: &str) -> Result<(), StoreError>;

    /// How far a task's registrations are.
    async fn registrations_of(&self, task: &TaskName) -> Result<Vec<RegistrationRecord>, StoreError>;
}
