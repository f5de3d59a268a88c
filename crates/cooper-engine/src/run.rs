//! The state of a run: its steps, its placements and how it ends.
//!
//! ```text
//! placement:  Waiting ──offer──▶ Offered ──accepted──▶ Accepted ──step started──▶ Running ──▶ Done
//!                ▲                  │ declined, expired     │ lease expired, agent gone  │
//!                ├──────────────────┘                       │ (a loss, fewer than 3)     │
//!                └──────────────────────────────────────────┴────────────────────────────┘
//!             any held state ──the run ends early──▶ Stopping ──stopped, expired──▶ Done
//!
//! step:       Waiting ──released──▶ Running ──▶ Succeeded | Failed | Cancelled        (a loss: back to Waiting)
//!
//!             (a run whose source is to be fetched begins with a `prepare` step alone; its success adds the others)
//!
//! run:        Live ──last step succeeded──▶ Finished
//!               └──failure, cancel, timeout, losses──▶ Ending ──all placements done──▶ Finished
//! ```
//!
//! This file owns the data; `apply` owns the transitions, `view` what a run shows of itself. The row of a run in the
//! database is this structure: it is the queue, and there is no other.

mod apply;
mod event;
mod expect;
mod image;
mod loss;
mod new_run;
mod outcome;
mod provenance;
mod replay;
mod source;
mod stream;
mod task;
mod view;

use std::fmt;
use std::time::Duration;

use cooper_spec::plan::Plan;
use cooper_types::{
    AgentName, AttemptNumber, Fence, Platform, PoolName, PrincipalName, RegistryName, RunId, Scopes, Timestamp,
};
use serde::{Deserialize, Serialize};

pub use event::{Effect, Refusal, RunEvent, TagTarget};
pub use new_run::{AcceptedRun, Asked, NewRun};
pub use provenance::{Host, KeptAsked, KeptRequest, KeptSource, Provenance, REQUEST_VERSION, RequestSecret};
pub use replay::{NewReplay, Replay};
pub use source::{RunSource, of_source};
pub use task::{AskedTask, KnownVariables, PlannedRun, SealedText, TaskError, TaskSource, notes};
pub use view::{AgentWait, RunStatus, StepStatus, StepWait};

use crate::message::StepOutput;
use crate::task::Origin;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Who started it: its registry access never exceeds that principal's.
    pub principal: PrincipalName,
    /// What the token that started it allowed.
    pub scopes: Scopes,
    /// The registry's name at the time, as references of the run spell it.
    pub registry: RegistryName,
    /// The pool whose agents may take it.
    #[serde(default = "PoolName::default_pool")]
    pub pool: PoolName,
    /// The platform that was asked for, which steps have that name none; runs of earlier releases don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Where it comes from.
    #[serde(default)]
    pub origin: Origin,
    /// What it does.
    pub plan: Plan,
    /// How long it may take from its first start on an agent.
    pub timeout: Duration,
    /// When it was accepted.
    pub created: Timestamp,
    /// When an agent first took it.
    pub started: Option<Timestamp>,
    /// The newest fence that was given out.
    pub last_fence: Fence,
    /// The newest attempt number that was given out.
    pub last_attempt: AttemptNumber,
    /// What the machinery lost, in order.
    pub losses: Vec<Loss>,
    /// How far it is.
    pub phase: Phase,
    /// One for each planned placement.
    pub placements: Vec<Placement>,
    /// One for each planned step.
    pub steps: Vec<Step>,
    /// Where the files come from, if an agent fetches them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RunSource>,
    /// What else its results come from.
    #[serde(default)]
    pub provenance: Provenance,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum Phase {
    /// Steps are still to be run.
    Live,
    /// Decided, but an agent may still be at work.
    Ending {
        /// How it will have ended.
        verdict: Verdict,
    },
    /// Over.
    Finished {
        /// How it ended.
        verdict: Verdict,
        /// When.
        at: Timestamp,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// All steps succeeded.
    Succeeded,
    /// A step failed by the user's own doing.
    Failed {
        /// What failed, in a line.
        reason: String,
    },
    /// Somebody cancelled it.
    Canceled {
        /// Who.
        by: PrincipalName,
    },
    /// A newer run of the same took its place.
    Superseded {
        /// Which.
        by: RunId,
    },
    /// The run's timeout passed.
    TimedOut,
    /// The machinery failed.
    Error {
        /// What happened, in a line.
        reason: String,
    },
}

/// A process that serves as an agent: a name, and an incarnation that changes when the process does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentRef {
    /// The agent's name.
    pub name: AgentName,
    /// Which life of it.
    pub incarnation: String,
}

/// The state of a placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Placement {
    /// No agent has it.
    Waiting {
        /// Why.
        reason: PendingReason,
    },
    /// An agent is being asked.
    Offered(Lease),
    /// An agent took it and none of its steps has begun.
    Accepted(Lease),
    /// At least one of its steps has begun.
    Running(Lease),
    /// An agent has been told to stop it.
    Stopping(Lease),
    /// No agent has it, and none will.
    Done,
}

/// An agent's right to a placement, for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who.
    pub agent: AgentRef,
    /// The number of the offer.
    pub fence: Fence,
    /// Until when, by the store's clock.
    pub until: Timestamp,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How often it was begun.
    pub attempts: u32,
    /// Which try the newest attempt is at, or was, where it said so: there were retries or repeats.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Whose the newest attempt is or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// How far it is.
    pub state: StepState,
}

/// The state of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum StepState {
    /// Not begun, or begun and lost.
    Waiting,
    /// One attempt is live.
    Running {
        /// Which.
        attempt: AttemptNumber,
        /// When the server released it.
        released: Timestamp,
        /// When the agent began it, if it said so.
        started: Option<Timestamp>,
        /// When the server gives up waiting for the agent, which enforces the step's timeout itself.
        deadline: Timestamp,
    },
    /// Done.
    Succeeded {
        /// The attempt that did it.
        attempt: AttemptNumber,
        /// When it began.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// What it made.
        output: StepOutput,
    },
    /// The user's work failed.
    Failed {
        /// The attempt that failed.
        attempt: AttemptNumber,
        /// When it began.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// The failing process's exit code, where there was one.
        exit_code: Option<i32>,
        /// What failed.
        reason: String,
        /// Whether the run goes on nevertheless: its file says so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ignored: bool,
    },
    /// Stopped because the run ended, after it had begun.
    Cancelled {
        /// The attempt that was stopped.
        attempt: AttemptNumber,
        /// When it began.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
    },
    /// Never begun, because the run ended first.
    Skipped,
}

/// Something that the machinery lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When.
    pub at: Timestamp,
    /// Index of the placement.
    pub placement: usize,
    /// On which agent.
    pub agent: AgentName,
    /// What happened, in a line.
    pub reason: String,
}

/// Why a placement waits for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "camelCase")]
pub enum PendingReason {
    /// The scheduler has not looked at it yet.
    New,
    /// There is no agent in the default pool.
    NoAgent,
    /// There is no agent in the run's pool.
    NoAgentInPool {
        /// The pool.
        pool: PoolName,
    },
    /// There are agents in the pool, and none can do this platform.
    NoAgentForPlatform {
        /// What is needed.
        platform: String,
        /// What there is.
        available: Vec<String>,
    },
    /// It takes images that other agents leave for it, and the agents that could do it are too old for that.
    AgentsTooOld {
        /// Which; the first few.
        agents: Vec<String>,
    },
    /// As many runs of its task are with agents as may be at a time.
    TaskBusy {
        /// How many may be.
        limit: u32,
    },
    /// All agents that could do it are being drained: they take nothing new.
    AllDraining {
        /// Which; the first few.
        agents: Vec<String>,
    },
    /// All agents that could do it are at their limit.
    AllBusy {
        /// How many placements they hold.
        held: u32,
        /// How many they can hold.
        slots: u32,
        /// How many runs are before this one; from ten on rounded down to its first digit.
        ahead: u32,
    },
    /// The agent that was asked declined.
    Declined {
        /// Who.
        agent: AgentName,
        /// Why.
        why: String,
    },
    /// The agent that was asked did not answer.
    NoAnswer {
        /// Who.
        agent: AgentName,
    },
    /// It was lost and waits for another agent.
    Lost {
        /// Where.
        agent: AgentName,
        /// Why.
        why: String,
    },
}

/// The times that the state machine works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long an agent may take to answer an offer.
    pub offer_lease: Duration,
    /// How long an agent may be silent before its placements are lost.
    pub lease: Duration,
    /// How much longer than a step's timeout the server waits for the agent that enforces it.
    pub step_grace: Duration,
    /// How long an agent may take to set up what a placement's steps share, before a step begins.
    pub set_up: Duration,
    /// How long a placement may wait for an agent.
    pub queue_timeout: Duration,
    /// The loss of one placement that ends a run as `Error`. Counted by placement, because one agent's end may be the
    /// loss of several.
    pub max_losses: usize,
    /// How long a placement pauses after its first loss; four times as long after each further one.
    pub loss_pause: Duration,
}

impl Policy {
    /// The values that the server runs with. Agents renew every 5 s, so a lease survives three lost renewals.
    pub const DEFAULT: Self = Self {
        offer_lease: Duration::from_secs(5),
        lease: Duration::from_secs(20),
        step_grace: Duration::from_secs(30),
        set_up: Duration::from_secs(1800),
        queue_timeout: Duration::from_secs(24 * 3600),
        max_losses: 3,
        loss_pause: Duration::from_secs(2),
    };
}

impl Placement {
    /// The lease, where an agent has one.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Offered(lease) | Self::Accepted(lease) | Self::Running(lease) | Self::Stopping(lease) => Some(lease),
            Self::Waiting { .. } | Self::Done => None,
        }
    }
}

impl Step {
    /// A step that was never begun.
    pub const NEW: Self = Self { attempts: 0, tries: 0, agent: None, state: StepState::Waiting };
}

impl StepState {
    /// Whether the steps that wait for this one may begin.
    pub fn lets_go_on(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::Failed { ignored: true, .. } => true,
            Self::Waiting
            | Self::Running { .. }
            | Self::Failed { ignored: false, .. }
            | Self::Cancelled { .. }
            | Self::Skipped => false,
        }
    }

    /// The live attempt, if there is one.
    pub fn live_attempt(&self) -> Option<AttemptNumber> {
        match self {
            Self::Running { attempt, .. } => Some(*attempt),
            Self::Waiting | Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled { .. } | Self::Skipped => {
                None
            }
        }
    }
}

impl fmt::Display for PendingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("the scheduler has not looked at it yet"),
            Self::NoAgent => {
                f.write_str("no agent is connected; start one, or start the server beside a container engine")
            }
            Self::NoAgentInPool { pool } => {
                write!(f, "no agent of pool {pool} is connected; start one with `cooper agent --pool {pool}`")
            }
            Self::NoAgentForPlatform { platform, available } => {
                write!(f, "no connected agent builds {platform} (connected: {})", available.join("; "))
            }
            Self::AgentsTooOld { agents } => write!(
                f,
                "it takes images of other agents, and those that could run it are too old for that ({}): upgrade them",
                agents.join(", ")
            ),
            Self::TaskBusy { limit: 1 } => {
                f.write_str("a run of its task is with agents, and no more may be at a time")
            }
            Self::TaskBusy { limit } => {
                write!(f, "{limit} runs of its task are with agents, and no more may be at a time")
            }
            Self::AllDraining { agents } => write!(
                f,
                "all agents that could take it are being drained ({}); `cooper agent drain NAME --undo` ends that",
                agents.join(", ")
            ),
            Self::AllBusy { held, slots, ahead } => {
                let ahead = match ahead {
                    0 => "it is the next".to_owned(),
                    1 => "1 run is ahead".to_owned(),
                    2..10 => format!("{ahead} runs are ahead"),
                    10.. => format!("{ahead} or more runs are ahead"),
                };
                write!(f, "all agents that could take it are busy ({held} of {slots} slots in use, {ahead})")
            }
            Self::Declined { agent, why } => write!(f, "agent {agent} declined: {why}"),
            Self::NoAnswer { agent } => write!(f, "agent {agent} did not answer an offer"),
            Self::Lost { agent, why } => {
                write!(f, "lost on agent {agent} ({why}); waiting for an agent to start again")
            }
        }
    }
}

impl fmt::Display for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}
