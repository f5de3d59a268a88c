//! Waves: what the change of a base image rebuilds, in which order, and how far that is.
//!
//! ```text
//! member:  Waiting ──its run is accepted──▶ Running ──▶ Done | Failed
//!             ├── nothing that it stands on differs any more ──▶ Unchanged
//!             ├── a newer wave has it as well and this one is not paused, or is cancelled ──▶ TakenOver
//!             └── its run can't be made ──▶ Failed │ a member before it failed, or it is gone ──▶ Skipped │ cancel ──▶ Canceled
//!
//! wave:    Running ◀──pause, resume──▶ Paused;  either ──cancel──▶ Canceled;  over when no member waits or runs
//! ```
//!
//! Whoever waits in a paused wave begins in no other one ([`Pauses`]): it waits there, too, until nothing holds it any more.
//!
//! [`plan`](fn@plan) says who takes part and in which order; [`Wave`] says what may begin now, and what an event makes of it. Both are
//! pure. What a task stands on is what its last run resolved ([`Dependent`]), digest by digest.

mod image;
mod pause;
mod plan;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use cooper_types::{Digest, PrincipalName, RunId, TaskName, Timestamp, WaveId};
use serde::{Deserialize, Serialize};

pub use image::ImageTag;
pub use pause::Pauses;
pub use plan::{Apart, Base, Change, Dependent, Graph, Plan, PlannedMember, Refused, Rule, plan};
pub use state::{RunFailure, WaveEvent, WaveRefusal};

/// The runs that one change sets off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Its id.
    pub id: WaveId,
    /// When it was opened.
    pub opened: Timestamp,
    /// Whether members begin.
    pub phase: WavePhase,
    /// When its last member ended.
    pub finished: Option<Timestamp>,
    /// Who has cancelled it.
    pub canceled_by: Option<PrincipalName>,
    /// What set it off.
    pub changes: Vec<Moved>,
    /// The tasks, by their keys, whose runs led to it, one after the other: none of them has its turn again in what follows,
    /// or a circle of tasks would go round for ever.
    pub origins: BTreeSet<String>,
    /// Where a circle of tasks was cut.
    pub cuts: Vec<Cut>,
    /// Its members: those that others wait for come first.
    pub members: Vec<Member>,
}

/// Whether members of a wave begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WavePhase {
    /// They do, in their turn.
    Running,
    /// Somebody has stopped that for now.
    Paused,
    /// Somebody has stopped that for good.
    Canceled,
}

/// A task in a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The task.
    pub task: TaskName,
    /// The longest way to it from what changed, from 0.
    pub level: u32,
    /// The members that it waits for, by their places in the wave.
    pub parents: Vec<u32>,
    /// Since when its task has waited, in older waves that this one took it over from included.
    pub since: Timestamp,
    /// How far it is.
    pub state: MemberState,
}

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Its turn has not come, or there is no room.
    Waiting,
    /// Its run goes on.
    Running {
        /// The run.
        run: RunId,
    },
    /// Its run succeeded.
    Done {
        /// The run.
        run: RunId,
    },
    /// Nothing was left to do: its bases are what they were when it was last built.
    Unchanged,
    /// Another wave does it.
    TakenOver {
        /// Which.
        by: WaveId,
    },
    /// Its run failed, or there could be none.
    Failed {
        /// The run, if there is one.
        run: Option<RunId>,
        /// What happened, in a line.
        reason: String,
    },
    /// It never began.
    Skipped {
        /// Why, in a line.
        reason: String,
    },
    /// The wave was cancelled before its turn.
    Canceled,
}

/// A tag that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The tag.
    pub image: ImageTag,
    /// What it stood for before, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// What it stands for.
    pub to: Digest,
    /// The task whose run moved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_task: Option<TaskName>,
    /// The wave that this run was of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_wave: Option<WaveId>,
}

/// A task that is not built again although it stands on what a member makes: it comes before that member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// The task.
    pub task: TaskName,
    /// What it stands on.
    pub image: ImageTag,
    /// Who makes that.
    pub made_by: TaskName,
}

/// How a task used a base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BaseKind {
    /// The final stage of an image stands on it.
    Runtime,
    /// Another stage stands on it, or something is copied from it.
    Buildtime,
    /// A `cmd` step ran in it.
    Step,
}

impl BaseKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Runtime, Self::Buildtime, Self::Step];

    /// The name that is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Buildtime => "buildtime",
            Self::Step => "step",
        }
    }
}

impl MemberState {
    /// The name that is written down.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running { .. } => "running",
            Self::Done { .. } => "done",
            Self::Unchanged => "unchanged",
            Self::TakenOver { .. } => "takenOver",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more becomes of it.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running { .. })
    }

    /// Whether the members that wait for it may begin.
    pub fn lets_go_on(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Unchanged | Self::TakenOver { .. })
    }

    /// Its run.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Running { run } | Self::Done { run } => Some(*run),
            Self::Failed { run, .. } => *run,
            Self::Waiting | Self::Unchanged | Self::TakenOver { .. } | Self::Skipped { .. } | Self::Canceled => None,
        }
    }
}

impl WavePhase {
    /// How a wave in this phase stands, in a word: whether it is over, and whether a member failed or was left out.
    pub fn status(self, is_over: bool, any_failed: bool) -> &'static str {
        match (is_over, self) {
            (false, Self::Running) => "Running",
            (false, Self::Paused) => "Paused",
            (false, Self::Canceled) => "Canceling",
            (true, Self::Canceled) => "Canceled",
            (true, Self::Running | Self::Paused) if any_failed => "Failed",
            (true, Self::Running | Self::Paused) => "Succeeded",
        }
    }

    /// The name that is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
        }
    }
}
