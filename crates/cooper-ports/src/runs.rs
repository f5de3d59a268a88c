//! Runs: accepted once, changed by events, listed.
//!
//! What an event does is decided by [`Run::apply`]; this port makes the new state and all that belongs to it durable
//! in one transaction. The row of a run is the queue: there is no list in memory that could disagree with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::message::BaseImage;
use cooper_engine::run::{Effect, KeptRequest, NewRun, PendingReason, Policy, Refusal, Run, RunEvent, RunStatus};
use cooper_spec::quick_build::PlanError;
use cooper_spec::task_request::{KeptTexts, TextDigest};
use cooper_types::{
    AgentName, AttemptNumber, ContextId, Digest, IdempotencyKey, ImageRef, PoolName, PrincipalName, RegistryName,
    RepositoryName, RunId, SecretString, StepId, Tag, TaskName, TimerName, Timestamp, WaveId,
};

use crate::hooks::SourceFiring;
use crate::logs::LogEnd;
use crate::store_error::StoreError;
use crate::tasks::Firing;
use crate::waves::MemberRun;

/// What kind of request made a run, in ACR's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunType {
    /// One Dockerfile, asked for directly.
    QuickBuild,
    /// A task file, asked for directly.
    QuickRun,
    /// A stored task with a Dockerfile.
    AutoBuild,
    /// A stored task with a task file.
    AutoRun,
}

impl RunType {
    /// All types.
    pub const ALL: [Self; 4] = [Self::QuickBuild, Self::QuickRun, Self::AutoBuild, Self::AutoRun];

    /// ACR's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuickBuild => "QuickBuild",
            Self::QuickRun => "QuickRun",
            Self::AutoBuild => "AutoBuild",
            Self::AutoRun => "AutoRun",
        }
    }
}

/// What a secret of a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// A BuildKit secret, by its id.
    Build,
    /// A secret build argument, by its name.
    Argument,
    /// A text of a task's plan that holds a secret, by the name that the plan has for it.
    Value,
}

impl SecretKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Build, Self::Argument, Self::Value];

    /// The name that is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Argument => "argument",
            Self::Value => "value",
        }
    }
}

/// A secret of a run, encrypted by the caller. The store never sees the value.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// What it is for.
    pub kind: SecretKind,
    /// Its name, unique among the run's secrets of its kind.
    pub name: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSecret({} {})", self.kind.as_str(), self.name)
    }
}

/// A request to start a run.
#[derive(Clone, Debug)]
pub struct AcceptRun {
    /// What is asked for, and by whom. Its context must be uploaded by the same principal.
    pub run: NewRun,
    /// What kind of request it is.
    pub run_type: RunType,
    /// The client's name for the request and a hash over the whole of it, secrets included.
    pub idempotency: Option<(IdempotencyKey, Digest)>,
    /// The run's secrets. They are deleted when the run ends.
    pub secrets: Vec<SealedSecret>,
    /// Seals the secret texts of a plan, which is made in the accepting transaction.
    pub seal: Seal,
    /// The run whose context it is, where a run of the same principal is repeated: whether the asker's token is enough for
    /// that is the caller's to know.
    pub context_of: Option<RunId>,
}

/// Encrypts a secret text of a plan under its name.
#[derive(Clone)]
pub struct Seal(pub Arc<SealText>);

/// From a name and a text to nonce and ciphertext.
pub type SealText = dyn Fn(&str, &SecretString) -> Vec<u8> + Send + Sync;

impl Seal {
    /// For runs whose plan can't hold secret texts: quick builds.
    pub fn nothing() -> Self {
        Self(Arc::new(|_, _| Vec::new()))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// An accepted run.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The run.
    pub record: RunRecord,
    /// Whether an earlier request of the same key had made it.
    pub repeated: bool,
}

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Runs, with all that was known of them.
    pub runs: u32,
    /// Logs of runs that stay.
    pub logs: u32,
}

/// Why a run was not accepted. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is no such context, it has expired, or it is another principal's, which looks the same.
    #[error("context `{0}` does not exist; upload it again")]
    UnknownContext(ContextId),
    /// The context has no bytes yet.
    #[error("context `{0}` has not been uploaded yet")]
    ContextNotUploaded(ContextId),
    /// There is no such pool.
    #[error("agent pool `{0}` does not exist: `cooper pool list` shows the pools")]
    UnknownPool(PoolName),
    /// The code is a stranger's, and the pool is not for such.
    #[error("agent pool `{0}` is not marked for untrusted work, and the code is a stranger's")]
    PoolNotForStrangers(PoolName),
    /// The pool is for the code of strangers, who leave things in its caches.
    #[error(
        "agent pool `{0}` is marked for untrusted work: pull requests of forks alone run there; choose another pool"
    )]
    PoolForStrangers(PoolName),
    /// The key was used for another request.
    #[error("idempotency key `{key}` was used for a different request, which made run {run}")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
        /// The run that it made.
        run: RunId,
    },
    /// A timer does not stand before the instant that the run is for: another server was first, or the timer was changed.
    #[error("timer `{timer}` of task `{task}` has moved on")]
    TimerMoved {
        /// The task.
        task: TaskName,
        /// The timer.
        timer: TimerName,
    },
    /// A member of a wave does not wait for its run: it has one, or the wave goes on no longer.
    #[error("member {member} of wave {wave} waits for no run")]
    MemberMoved {
        /// The wave.
        wave: WaveId,
        /// The member's place.
        member: usize,
    },
    /// The event has set off a run before.
    #[error("the same event has set off run {run}")]
    EventKnown {
        /// That run.
        run: RunId,
    },
    /// The task that the run executes was deleted in the meantime.
    #[error("task `{0}` does not exist any more")]
    TaskGone(TaskName),
    /// Two secrets of one kind have the same name.
    #[error("secret `{0}` is given twice")]
    SecretTwice(String),
    /// The request can't be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an event did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The run after it.
    pub run: Run,
    /// How often the run has been changed, its acceptance included: tells which of two states is the later one.
    pub generation: u64,
    /// What is to be sent to agents now. It may be lost: `Run::remind` says it again.
    pub send: Vec<Effect>,
    /// The new end of the log, if the event wrote to it: followers are to be woken.
    pub log_end: Option<LogEnd>,
}

/// Why a placement waits.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Its run.
    pub run: RunId,
    /// Its place in the run's plan.
    pub placement: usize,
    /// What it waits for.
    pub reason: PendingReason,
}

/// Why an event changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no such run.
    #[error("run {0} does not exist")]
    Unknown(RunId),
    /// The state machine refused it.
    #[error("run {run} takes no such event now")]
    Refused {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// A push was reported that the registry knows nothing of. The caller reports the attempt as lost instead.
    #[error("nothing was pushed to {repository}:{staging_tag} by attempt {attempt} of run {run}")]
    NotPushed {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: AttemptNumber,
        /// The repository.
        repository: RepositoryName,
        /// The tag that the attempt should have pushed.
        staging_tag: Tag,
    },
    /// A prepared source was reported that the attempt has not uploaded. The caller reports the attempt as lost instead.
    #[error("context `{context}` was not uploaded by attempt {attempt} of run {run}")]
    NotUploaded {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: AttemptNumber,
        /// What it says that it uploaded.
        context: ContextId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a run was asked to do, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    /// The request, without the texts that came with it.
    pub request: KeptRequest,
    /// What the planning read: kept as long as contexts are.
    pub texts: KeptTexts,
    /// What stays known of these.
    pub digests: Vec<TextDigest>,
    /// The uploaded context that the run began with, be it there or not.
    pub uploaded: Option<StoredContext>,
    /// The run's context, uploaded or prepared, if its bytes are still there.
    pub context: Option<ContextId>,
}

impl StoredRequest {
    /// Whether the texts that the run was planned from are still there, if there were any.
    pub fn has_texts(&self) -> bool {
        self.texts.0.len() == self.digests.len()
    }
}

/// What is known of a context's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContext {
    /// The archive's digest.
    pub digest: Digest,
    /// Bytes of the archive.
    pub size: u64,
}

/// A run as it is stored, with what was recorded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// The run.
    pub run: Run,
    /// What kind of request made it.
    pub run_type: RunType,
    /// When it changed last.
    pub updated: Timestamp,
    /// How far its log goes.
    pub log: LogEnd,
    /// Whether it outlives the clean-up of old runs.
    pub archived: bool,
    /// What it pushed, in the order of steps.
    pub output_images: Vec<OutputImage>,
    /// What its builds stood on, in the order of steps.
    pub base_images: Vec<StepBase>,
}

/// A tag that a step of a run moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputImage {
    /// The step.
    pub step: StepId,
    /// The registry.
    pub registry: RegistryName,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What the tag was moved to.
    pub digest: Digest,
}

/// A base image of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepBase {
    /// The step.
    pub step: StepId,
    /// The image.
    pub base: BaseImage,
}

/// Which runs to list.
#[derive(Clone, Debug)]
pub struct RunQuery {
    /// Of these statuses; of any, if empty.
    pub statuses: Vec<RunStatus>,
    /// Of this type.
    pub run_type: Option<RunType>,
    /// Of this task.
    pub task: Option<TaskName>,
    /// Started by this principal.
    pub principal: Option<PrincipalName>,
    /// That wrote this image: of any registry, tag and digest that it does not name.
    pub image: Option<ImageRef>,
    /// Older than this run: the last one of the page before.
    pub before: Option<RunId>,
    /// How many at most.
    pub limit: u32,
}

impl RunQuery {
    /// The newest of all runs.
    pub fn newest(limit: u32) -> Self {
        Self { statuses: Vec::new(), run_type: None, task: None, principal: None, image: None, before: None, limit }
    }
}

/// How the unfinished runs differ from what somebody knows. A generation grows with each change of a run.
#[derive(Clone, Debug, Default)]
pub struct UnfinishedChanges {
    /// Runs that are new or have changed, with their generation, oldest first.
    pub changed: Vec<(u64, Run)>,
    /// Runs that have ended.
    pub gone: Vec<RunId>,
    /// Runs that can't be read, with their generation. They are no reason not to go on with the others.
    pub unreadable: Vec<(RunId, u64, StoreError)>,
}

/// Why an attempt got nothing of what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The attempt is over or was never.
    #[error("attempt {attempt} of run {run} is over")]
    NotLive {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps runs.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Accepts a run: number, plan, secrets, context and idempotency key in one transaction.
    async fn accept_run(&self, request: AcceptRun) -> Result<Accepted, AcceptError>;

    /// The run that an earlier request of this principal and key made; an error if that was another request. What it says is
    /// of this moment alone: [`Self::accept_run`] decides.
    async fn run_of_request(
        &self,
        principal: &PrincipalName,
        key: &IdempotencyKey,
        request: &Digest,
    ) -> Result<Option<RunRecord>, AcceptError>;

    /// The same for a run that a timer sets off: the timer moves on in the same transaction, or there is no run.
    async fn accept_firing(&self, request: AcceptRun, firing: Firing) -> Result<Accepted, AcceptError>;

    /// The same for a run that an event of a repository sets off: it sets off no other.
    async fn accept_event(&self, request: AcceptRun, event: SourceFiring) -> Result<Accepted, AcceptError>;

    /// The same for the run of a wave's member: the member has it in the same transaction, or there is no run.
    async fn accept_member(&self, request: AcceptRun, member: MemberRun) -> Result<Accepted, AcceptError>;

    /// Removes so many runs and logs of tasks that have been kept long enough.
    async fn expire_runs(&self, limit: u32) -> Result<Expired, StoreError>;

    /// Has a run outlive the clean-up of old runs, or ends that; tells whether there is such a run.
    async fn archive_run(&self, run: RunId, archived: bool) -> Result<bool, StoreError>;

    /// Applies an event at the store's time. State, log lines, live attempts, published tags, records and the end of
    /// secrets are durable when this returns; what is to be sent to agents is returned.
    async fn apply_event(&self, run: RunId, event: RunEvent, policy: &Policy) -> Result<Applied, ApplyError>;

    /// Writes down why placements wait, as [`RunEvent::Explained`] does for one, in one change for all: a long queue has much
    /// to tell, and nothing else comes of it. Returns the runs that it changed, with the generations of their states; what
    /// waits no more is passed over.
    async fn explain_runs(&self, reasons: Vec<Explanation>, policy: &Policy) -> Result<Vec<(u64, Run)>, StoreError>;

    /// A run.
    async fn find_run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError>;

    /// The generation of an unfinished run's state, which grows with each change of it; none for a run that has ended.
    async fn unfinished_generation(&self, run: RunId) -> Result<Option<u64>, StoreError>;

    /// What a run was asked to do; nothing is known of runs that an older release accepted.
    async fn find_request(&self, run: RunId) -> Result<Option<StoredRequest>, StoreError>;

    /// Drops the texts of up to `limit` requests whose runs ended at least `kept` ago, and says how many it were: what is
    /// known of them stays.
    async fn drop_request_texts(&self, kept: Duration, limit: u32) -> Result<u64, StoreError>;

    /// Runs, newest first.
    async fn list_runs(&self, query: &RunQuery) -> Result<Vec<RunRecord>, StoreError>;

    /// What is new among the runs that have not ended, for somebody who knows them in these generations. What has not
    /// changed is not read: it costs little however long the queue is.
    async fn unfinished_changes(&self, known: &BTreeMap<RunId, u64>) -> Result<UnfinishedChanges, StoreError>;

    /// The unfinished runs of which an agent of this name holds a placement or is asked to, oldest first. It costs what
    /// that agent holds, however long the queue is.
    async fn runs_of_agent(&self, agent: &AgentName) -> Result<Vec<Run>, StoreError>;

    /// The unfinished runs of a pool, oldest first.
    async fn unfinished_of_pool(&self, pool: &PoolName) -> Result<Vec<RunId>, StoreError>;

    /// How many unfinished runs there are, by status; a status without runs may be left out.
    async fn count_unfinished(&self) -> Result<Vec<(RunStatus, u64)>, StoreError>;

    /// Whether the store answers, at the least cost.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The secrets of a run, for a live attempt of it.
    async fn run_secrets(&self, run: RunId, attempt: AttemptNumber) -> Result<Vec<SealedSecret>, AttemptError>;
}
