//! Where a run comes from: its task, and what set it off.

use cooper_spec::template::RunVariables;
use cooper_types::{
    Digest, PrincipalName, RegistryName, RepositoryName, Tag, TaskName, TimerName, Timestamp, TriggerName, WaveId,
};
use serde::{Deserialize, Serialize};

use super::Retention;
use crate::schedule::Limit;
use crate::trigger::provider::Provider;
use crate::trigger::{Firing, FiringKind};

/// How far the priority of a wave's run is below its task's: further than tasks' priorities are from each other.
const WAVE_PRIORITY: i32 = 1000;
/// How far below its own a stranger's run of a task stands.
const STRANGER_PRIORITY: i32 = 10_000;

/// Where a run comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// What set it off.
    pub cause: Cause,
    /// The task that it executes; none for a quick run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<OfTask>,
    /// Whether its code is a stranger's: it has no secrets, no credentials, and pushes nothing. So have its reruns.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// What the event was that set off the run which this one repeats: its branch and its tag are this one's too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<FiringKind>,
    /// Where the task file or the Dockerfile is taken from, if not from what is built: a reference of the same repository, such
    /// as the branch that a fork's pull request asks to be merged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
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
        /// Whether that, and what came after it, was missed: no server could run it then, and it is made up for once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        missed: bool,
    },
    /// Images that its task stands on.
    BaseImage {
        /// The wave that it is a part of.
        wave: WaveId,
        /// Those that differ from what the task was last built on.
        images: Vec<ImageUpdate>,
    },
    /// Something happened in its task's repository.
    Source(Box<SourceCause>),
}

/// What happened in a repository, and how it came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceCause {
    /// The trigger that it set off.
    pub trigger: TriggerName,
    /// Whose hook told of it.
    pub provider: Provider,
    /// The repository, as the task names it.
    pub repository: String,
    /// The delivery that told of it; none where it was found by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// Whether a newer commit of the same pull request ends the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_superseded: bool,
    /// What is built, and why.
    pub firing: Firing,
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
            Self::Source(source) => match source.firing.kind {
                FiringKind::Commit { .. } => "Commit",
                FiringKind::PullRequest { .. } => "PullRequest",
                FiringKind::Tag { .. } => "Tag",
            },
        }
    }

    /// The wave that the run is a part of.
    pub fn wave(&self) -> Option<WaveId> {
        match self {
            Self::BaseImage { wave, .. } => Some(*wave),
            Self::Manual | Self::For { .. } | Self::Timer { .. } | Self::Source(_) => None,
        }
    }
}

/// How the runs of a task are put in order where they move the same tag. The order is that of their ids, which is the one
/// in which they were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagOrder {
    /// The task.
    pub task: TaskName,
    /// Which of its runs belong together: those of a branch, of a tag, of a pull request. Empty: with all of them.
    pub line: String,
    /// Whether a newer run's tag stays where it is. Whoever asks for a run by hand has it move the tag.
    pub yields: bool,
}

impl Origin {
    /// How the run is put in order. `branch` is the one that its source was found to be on.
    pub fn tag_order(&self, branch: Option<&str>) -> Option<TagOrder> {
        let task = self.task.as_ref()?.name.clone();
        match &self.cause {
            Cause::Source(source) => Some(TagOrder { task, line: source.firing.order(), yields: true }),
            Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::BaseImage { .. } => {
                // A rerun builds a commit and knows no branch of it: it stands in the way of all.
                let line = branch.map(|branch| format!("refs/heads/{branch}")).unwrap_or_default();
                // Nobody asked for this one by hand: what it read may be older than what a newer run has built.
                let yields = matches!(self.cause, Cause::Timer { .. } | Cause::BaseImage { .. });
                Some(TagOrder { task, line, yields })
            }
        }
    }

    /// The variables of a run whose source is there, with what the event says of it (contract §6.5): a commit that is
    /// fetched by its id lies on no branch by itself.
    #[must_use]
    pub fn of_event(&self, mut variables: RunVariables) -> RunVariables {
        let Some(kind) = self.event_kind() else { return variables };
        if let Some(branch) = kind.branch() {
            variables.branch = branch.to_string();
        }
        if let FiringKind::Tag { tag } = kind {
            variables.git_tag = tag.to_string();
        }
        variables
    }

    /// What happened in the repository, to this run or to the one that it repeats.
    pub fn event_kind(&self) -> Option<&FiringKind> {
        match &self.cause {
            Cause::Source(source) => Some(&source.firing.kind),
            Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::BaseImage { .. } => self.event.as_ref(),
        }
    }

    /// The priority of the run: that of its task; a wave's runs come after all that somebody waits for, and strangers' after
    /// these.
    pub fn priority(&self) -> i32 {
        let own = self.task.as_ref().map_or(0, |task| task.priority);
        match (self.untrusted, self.cause.wave()) {
            (true, _) => own.saturating_sub(STRANGER_PRIORITY),
            (false, Some(_)) => own.saturating_sub(WAVE_PRIORITY),
            (false, None) => own,
        }
    }

    /// What the run counts for among its task's runs, and the limit of that, if there is one. Strangers' runs count apart:
    /// theirs keep nobody else's waiting.
    pub fn limit(&self) -> Option<Limit> {
        let task = self.task.as_ref().filter(|task| task.concurrency > 0)?;
        let key = task.name.key();
        Some((if self.untrusted { format!("{key}/strangers") } else { key }, task.concurrency))
    }

    /// The origin of a run that somebody has repeat this one: of the same task and event, and as much a stranger's. What it
    /// stands on may be pinned, or this one's: it says nothing of the task.
    #[must_use]
    pub fn repeated(&self) -> Self {
        let task = self.task.clone().map(|task| OfTask { differs: true, ..task });
        // The branch anew: who wants what this one found says so.
        let definition = match self.event_kind() {
            Some(FiringKind::PullRequest { base, .. }) if self.untrusted => Some(format!("refs/heads/{base}")),
            _ => self.definition.clone(),
        };
        Self { cause: Cause::Manual, task, untrusted: self.untrusted, event: self.event_kind().cloned(), definition }
    }

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
