//! Where a run comes from: its task, and what set it off.

use cooper_spec::template::RunVariables;
use cooper_types::{Digest, PrincipalName, RegistryName, RepositoryName, Tag, TaskName, TimerName, Timestamp, WaveId};
use serde::{Deserialize, Serialize};

use super::Retention;

/// Where a run comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// What set it off.
    pub cause: Cause,
    /// The task that it executes; none for a quick run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<OfTask>,
}

/// What a run remembers of its task, as that was when the run was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfTask {
    /// Its name.
    pub name: TaskName,
    /// The higher goes first.
    pub priority: i32,
    /// How many runs of it may be with agents at a time; any number if 0.
    pub concurrency: u32,
    /// The number of processors that the run wants.
    pub cpu: u32,
    /// How often the task had been changed.
    pub generation: u64,
    /// How long the run is kept.
    pub retention: Retention,
    /// Whether the run does something else than the task says: what it stands on says nothing of the task then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

/// What set a run off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "camelCase")]
pub enum Cause {
    /// Somebody asked for it.
    #[default]
    Manual,
    /// Somebody asked for a run of a task that is another principal's.
    For {
        /// Who.
        by: PrincipalName,
    },
    /// A timer of its task.
    Timer {
        /// Which.
        timer: TimerName,
        /// The instant that it stands for.
        occurrence: Timestamp,
    },
    /// Images that its task stands on.
    BaseImage {
        /// The wave that it is a part of.
        wave: WaveId,
        /// Those that differ from what the task was last built on.
        images: Vec<ImageUpdate>,
    },
}

/// An image that a task stands on, and that is not what it was when the task was last built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUpdate {
    /// The registry.
    pub registry: RegistryName,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What the task was last built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// What the tag stood for when the run was accepted.
    pub to: Digest,
}

impl Cause {
    /// The trigger in ACR's words (contract §6.4).
    pub fn trigger(&self) -> &'static str {
        match self {
            Self::Manual | Self::For { .. } => "Manual",
            Self::Timer { .. } => "Timer",
            Self::BaseImage { .. } => "Image Update",
        }
    }

    /// The wave that the run is a part of.
    pub fn wave(&self) -> Option<WaveId> {
        match self {
            Self::BaseImage { wave, .. } => Some(*wave),
            Self::Manual | Self::For { .. } | Self::Timer { .. } => None,
        }
    }
}

impl Origin {
    /// The variables of a run with what its origin gives to them.
    #[must_use]
    pub fn variables(&self, variables: RunVariables) -> RunVariables {
        match &self.task {
            None => variables,
            Some(task) => RunVariables {
                task_name: task.name.to_string(),
                triggered_by: self.cause.trigger().to_owned(),
                ..variables
            },
        }
    }
}
