//! What a run is going to do: its placements and steps, validated, with every name resolved.
//!
//! Owns the plan's shape. It does not decide when a step runs (that is `cooper-engine`) nor how (that is the agent).
//! Secret values are never part of a plan: it names them, and the store keeps them encrypted.

use std::time::Duration;

use cooper_types::{ContextId, ImageRef, Platform, StepId};
use serde::{Deserialize, Serialize};

use crate::source::GitSource;

/// The steps of a run and where they are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One placement for each platform of the run: all its steps run on one agent.
    pub placements: Vec<PlannedPlacement>,
    /// All steps in file order; a step depends on earlier ones only, so that no cycle can be written.
    pub steps: Vec<PlannedStep>,
}

/// A part of a run that one agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPlacement {
    /// What the steps of this placement are for.
    pub platform: Platform,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Unique in the run.
    pub id: StepId,
    /// Index of the placement that runs it.
    pub placement: usize,
    /// Indexes of the steps that must have succeeded before; each is smaller than the step's own.
    pub after: Vec<usize>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What it does.
    pub work: Work,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Work {
    /// Fetches a source and makes a context of it.
    Prepare(PrepareWork),
    /// Builds an image from a context.
    Build(BuildWork),
    /// Pushes the image that an earlier step built.
    Push(PushWork),
}

/// A `prepare` step: what comes after it is planned when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareWork {
    /// What is fetched.
    pub source: GitSource,
    /// The Dockerfile's path inside the source's folder: its own ignore rules count, and it stays in the context.
    pub dockerfile: String,
}

/// A `build` step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildWork {
    /// The uploaded context.
    pub context: ContextId,
    /// The Dockerfile's path inside the context.
    pub dockerfile: String,
    /// The stage to build, the last one if absent.
    pub target: Option<String>,
    /// Build arguments in the order that they were given.
    pub arguments: Vec<BuildArgument>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// Whether the engine's build cache is left unused.
    pub no_cache: bool,
    /// Ids of the BuildKit secrets that the build may mount.
    pub secrets: Vec<String>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildArgument {
    /// Its name.
    pub name: String,
    /// Its value, or where the value is kept.
    pub value: ArgumentValue,
}

/// A build argument's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgumentValue {
    /// Written in the plan.
    Plain(String),
    /// Kept with the run's secrets under the argument's name.
    Secret,
}

/// A `push` step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushWork {
    /// Index of the step that built the image.
    pub built_by: usize,
    /// Where the image goes: every reference names its registry and its tag.
    pub images: Vec<ImageRef>,
}

impl Plan {
    /// Every image that a step of the plan pushes.
    pub fn pushed_images(&self) -> impl Iterator<Item = &ImageRef> {
        self.steps.iter().flat_map(|step| match &step.work {
            Work::Push(push) => push.images.as_slice(),
            Work::Prepare(_) | Work::Build(_) => &[],
        })
    }

    /// The step with this id.
    pub fn step_index(&self, id: &StepId) -> Option<usize> {
        self.steps.iter().position(|step| step.id == *id)
    }

    /// Adds the placements and steps of another plan behind the own ones.
    pub fn append(&mut self, next: Self) {
        let (placements, steps) = (self.placements.len(), self.steps.len());
        self.placements.extend(next.placements);
        self.steps.extend(next.steps.into_iter().map(|mut step| {
            step.placement += placements;
            step.after.iter_mut().for_each(|index| *index += steps);
            if let Work::Push(push) = &mut step.work {
                push.built_by += steps;
            }
            step
        }));
    }
}
