//! What can happen to a run, what is to be done then, and why an event changes nothing.

use cooper_spec::plan::PushedFrom;
use cooper_spec::task_request::KeptTexts;
use cooper_types::{AgentName, AttemptNumber, ContextId, Digest, Fence, PrincipalName, RepositoryName, RunId, Tag};

use super::task::{PlannedRun, SealedText};
use super::{AgentRef, Host, PendingReason};
use crate::message::{BaseImage, PlacementKey, PreparedSource, Resolved, StepResult};

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The scheduler chose an agent for a waiting placement.
    Offer {
        /// Index of the placement.
        placement: usize,
        /// Who is asked.
        agent: AgentRef,
    },
    /// The agent does not take it.
    Declined {
        /// Of which offer.
        fence: Fence,
        /// Why.
        why: String,
    },
    /// The agent takes it.
    Accepted {
        /// Which offer.
        fence: Fence,
        /// What the agent said of itself, for the run's lockfile.
        host: Option<Host>,
    },
    /// An attempt began on the agent.
    StepStarted {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
    },
    /// An attempt has resolved names.
    Resolved {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// What they stood for.
        resolved: Resolved,
    },
    /// An attempt ended.
    StepEnded {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// How.
        result: StepResult,
    },
    /// An attempt at the source of a task file ended well, and the shell planned what it found, or could not.
    SourcePlanned {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// What it found.
        found: Box<PreparedSource>,
        /// The plan, or why there is none.
        planned: Box<Result<PlannedRun, String>>,
    },
    /// The agent has nothing of the placement any more.
    Stopped {
        /// Of which offer.
        fence: Fence,
    },
    /// The agent is alive and holds the placement.
    Renewed {
        /// Which offer.
        fence: Fence,
    },
    /// A new life of an agent appeared: what its earlier lives held is lost.
    AgentReplaced {
        /// The new life.
        agent: AgentRef,
    },
    /// An agent was removed: what any life of it holds is lost.
    AgentRemoved {
        /// Its name.
        name: AgentName,
    },
    /// An agent's stream ended or is open again, while the agent lives on as far as anybody knows. The log says so.
    Stream {
        /// Which life of which agent.
        agent: AgentRef,
        /// Whether there is one now.
        open: bool,
    },
    /// Somebody wants the run to end.
    CancelRequested {
        /// Who.
        by: PrincipalName,
    },
    /// A newer run of the same takes the run's place.
    Superseded {
        /// Which.
        by: RunId,
    },
    /// The scheduler says why a placement waits.
    Explained {
        /// Index of the placement.
        placement: usize,
        /// Why.
        reason: PendingReason,
    },
    /// The server was down, so nobody could renew: leases begin anew.
    ServerStarted,
    /// Time passed.
    Tick,
}

/// What follows from an event. The first group belongs into the transaction that stores the new state; the second
/// is sent after it, and may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An attempt is live from now on.
    AttemptBegan {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// Under which offer.
        fence: Fence,
    },
    /// An attempt is over. What it staged and was neither published nor kept is dropped.
    AttemptEnded {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
    },
    /// The staged tags of an attempt become real. Comes before the attempt's end.
    PublishTags {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What each staging tag stands for.
        targets: Vec<TagTarget>,
    },
    /// What a stage left stays until it expires: the attempt's end does not drop it. Comes before that end.
    KeepStaged {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What must be there.
        targets: Vec<TagTarget>,
    },
    /// What a build wrote under its cache's name in the embedded registry becomes real, if it wrote anything. Comes before
    /// the attempt's end.
    KeepCache {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// The repository.
        repository: RepositoryName,
        /// The cache's name in it.
        tag: Tag,
    },
    /// A build resolved these base images.
    BasesResolved {
        /// Index of the step.
        step: usize,
        /// The images.
        bases: Vec<BaseImage>,
    },
    /// An attempt has prepared the source: what it uploaded is the run's context. Comes before the attempt's end.
    Planned {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What it says that it uploaded.
        context: ContextId,
        /// The digest that it says that has.
        digest: Digest,
        /// The bytes that it says that has.
        size: u64,
    },
    /// Secret texts of the plan that was made; they are deleted when the run ends.
    KeepSecrets(Vec<SealedText>),
    /// What the planning read, for those who run it again.
    KeepTexts(KeptTexts),
    /// A line of the run's log, from the service.
    LogLine(String),
    /// Output may be missing from here on.
    LogGap(String),
    /// The run is over: its secrets are deleted, its log is complete.
    Finished,

    /// Ask an agent.
    SendOffer {
        /// Who.
        agent: AgentRef,
        /// What.
        key: PlacementKey,
        /// Index of the placement.
        placement: usize,
    },
    /// Let an agent start an attempt.
    SendStart {
        /// Who.
        agent: AgentRef,
        /// Of what.
        key: PlacementKey,
        /// Which.
        attempt: AttemptNumber,
        /// Index of the step.
        step: usize,
    },
    /// Let an agent forget an attempt, and stop what runs of it.
    SendResultStored {
        /// Who.
        agent: AgentRef,
        /// Of what.
        key: PlacementKey,
        /// Which.
        attempt: AttemptNumber,
    },
    /// Let an agent stop and clean up.
    SendStop {
        /// Who.
        agent: AgentRef,
        /// What.
        key: PlacementKey,
    },
}

/// What a staging tag stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTarget {
    /// The repository.
    pub repository: RepositoryName,
    /// What goes there.
    pub from: PushedFrom,
    /// The tag that the attempt pushes under.
    pub staging_tag: Tag,
    /// The tags that it stands for; a stage's stands for none.
    pub tags: Vec<Tag>,
    /// What the agent says that it left, where others are told to take that: a stage's, when it has ended.
    pub digest: Option<Digest>,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The run has been decided.
    #[error("the run is over")]
    Over,
    /// The offer is not the placement's newest, or nobody holds it.
    #[error("placement {0} is over")]
    StaleFence(Fence),
    /// The attempt is not live.
    #[error("attempt {0} is over")]
    StaleAttempt(AttemptNumber),
    /// The placement does not wait for an agent.
    #[error("the placement is not waiting")]
    NotWaiting,
    /// The state says already what the event says.
    #[error("nothing to do")]
    NothingToDo,
}
