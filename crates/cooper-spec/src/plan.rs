//! What a run is going to do: its placements and steps, validated, with every name resolved.
//!
//! Owns the plan's shape. It does not decide when a step runs (that is `cooper-engine`) nor how (that is the agent).
//! Secret values are never part of a plan: it names them, and the store keeps them encrypted.

mod command;
mod context_pins;
mod environment;
mod links;
mod nodes;
mod pins;
mod push;
mod rest;

use std::collections::BTreeSet;
use std::time::Duration;

pub use command::{CommandImage, CommandWork, Mount};
pub use context_pins::ContextPins;
pub use environment::{DEFAULT_NETWORK, Environment, Network, SecretFile, SecretVolume};
pub(crate) use nodes::{NodeIds, platform_tag, stage};
pub use pins::{Pins, with_digest};
pub use push::{IndexPart, PushWork, PushedFrom, PushedName};
pub use rest::Rest;

use cooper_types::{ContextId, Digest, ImageRef, Leave, Platform, StepId};
use serde::{Deserialize, Serialize};

use crate::source::{RemoteSource, SourcePin};

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
    /// What its steps share on the engine; a quick build's share nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
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
    /// How long one attempt may take, all its tries together. It begins when the step's delay and set-up are over.
    pub timeout: Duration,
    /// Whether the run goes on when it has failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_errors: bool,
    /// How often the user wants it tried and repeated.
    #[serde(default, skip_serializing_if = "Tries::is_plain")]
    pub tries: Tries,
    /// What it does.
    pub work: Work,
}

/// How often an attempt does its work (ACR contract §1.4, §1.7). The agent carries it out within one attempt, so that
/// a failure of the machinery spends none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tries {
    /// How long it waits before anything else; not part of the timeout.
    pub start_delay: Duration,
    /// How often a failure is tried again.
    pub retries: u32,
    /// The pause before each of these.
    pub retry_delay: Duration,
    /// Only failures whose output holds one of these are tried again; all, if empty.
    pub retry_on_errors: Vec<String>,
    /// How often the whole is done again, whether it failed or not.
    pub repeat: u32,
}

impl PlannedPlacement {
    /// A placement whose steps share nothing.
    pub fn new(platform: Platform) -> Self {
        Self { platform, environment: None }
    }
}

impl PlannedStep {
    /// A step that is done once, and whose failure ends the run.
    pub fn new(id: StepId, placement: usize, after: Vec<usize>, timeout: Duration, work: Work) -> Self {
        Self { id, placement, after, timeout, ignore_errors: false, tries: Tries::default(), work }
    }

    /// Indexes of the steps whose images it uses, or what they left for it.
    pub fn uses(&self) -> Vec<usize> {
        match &self.work {
            Work::Prepare(_) => Vec::new(),
            Work::Build(build) => {
                let staged = build.staged_bases.iter().map(|base| base.staged_by);
                build.own_bases.iter().map(|(_, built_by)| *built_by).chain(staged).collect()
            }
            Work::Push(push) => push.names.iter().flat_map(|name| name.from.steps()).collect(),
            Work::Command(command) => match command.image {
                CommandImage::Built { step } => vec![step],
                CommandImage::Named(_) | CommandImage::Pinned { .. } => Vec::new(),
            },
        }
    }
}

impl BuildWork {
    /// A build with nothing asked for beyond its files.
    pub fn new(context: BuildContext, dockerfile: &str) -> Self {
        Self {
            context,
            dockerfile: dockerfile.to_owned(),
            target: None,
            arguments: Vec::new(),
            labels: Vec::new(),
            no_cache: false,
            secrets: Vec::new(),
            secret_files: Vec::new(),
            secret_texts: Vec::new(),
            network: None,
            add_hosts: Vec::new(),
            cache: None,
            own_bases: Vec::new(),
            staged_bases: Vec::new(),
            pinned: Vec::new(),
        }
    }
}

impl Tries {
    /// Whether the work is done once, at once.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Work {
    /// Fetches a source and makes a context of it.
    Prepare(PrepareWork),
    /// Builds an image from a context.
    Build(BuildWork),
    /// Pushes images that earlier steps built.
    Push(PushWork),
    /// Runs a container.
    #[serde(rename = "cmd")]
    Command(CommandWork),
}

/// A `prepare` step: what comes after it is planned when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareWork {
    /// What is fetched.
    pub source: RemoteSource,
    /// The Dockerfile's path inside the source's folder: its own ignore rules count, and it stays in the context.
    /// Without one, everything goes in.
    pub dockerfile: Option<String>,
    /// Files inside the source's folder that the planning needs: their contents come with the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The task file inside the source's folder: it comes with the result, and so do the files that its aliases name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<String>,
    /// The place in the same repository that has the files above, where that is another one than the source: a branch, or a
    /// commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// A `build` step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildWork {
    /// Where its files come from.
    pub context: BuildContext,
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
    /// BuildKit secrets whose values are files of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_files: Vec<SecretFile>,
    /// BuildKit secrets whose values are texts of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_texts: Vec<(String, Text)>,
    /// The network of `RUN` instructions: `default`, `none` or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Additional lines of `/etc/hosts` for `RUN` instructions, as `name:address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_hosts: Vec<String>,
    /// Where the build's cache is kept in a registry, beside the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<ImageRef>,
    /// Names in `FROM` that stand for images of earlier steps of this run, and the index of the step that built each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_bases: Vec<(String, usize)>,
    /// Names in `FROM` that stand for images that other placements of this run built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged_bases: Vec<StagedBase>,
    /// Names of images that stand for these digests and for nothing that their registries have under them now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<(String, Digest)>,
}

/// A base that another placement built: it is read from where a stage left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedBase {
    /// The name in the Dockerfile.
    pub name: String,
    /// Where it is: a registry and a repository.
    pub image: ImageRef,
    /// Index of the stage that left it there.
    pub staged_by: usize,
}

/// Where the files of a build come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BuildContext {
    /// An uploaded context.
    Uploaded(ContextId),
    /// A folder of the placement's workspace.
    Workspace {
        /// Relative to the workspace's root; empty is the root itself.
        folder: String,
    },
    /// A source that the agent fetches for this step alone.
    Remote {
        /// As a user writes it.
        source: String,
        /// What it has to be, where another run is repeated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<SourcePin>,
    },
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
    /// Kept with the run's secrets as a text of this name.
    Kept(String),
}

/// A text of a task file that may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    /// Written in the plan.
    Plain(String),
    /// Kept with the run's secrets under this name.
    Secret(String),
}

impl Plan {
    /// Every image that a step of the plan pushes under a name of the user's.
    pub fn pushed_images(&self) -> impl Iterator<Item = &ImageRef> {
        self.pushes().filter(|push| !push.is_stage).flat_map(|push| push.names.iter().map(|name| &name.image))
    }

    /// Whether another step of the plan may say something at the same time as this one. What a detached container says is
    /// told from the others' anyway.
    pub fn speaks_beside(&self, step: usize) -> bool {
        let speaks = |index: usize| match &self.steps[index].work {
            Work::Build(_) => true,
            Work::Command(command) => !command.detach,
            Work::Push(push) => !push.is_stage,
            Work::Prepare(_) => false,
        };
        if !speaks(step) {
            return false;
        }
        // Steps stand behind those that they wait for.
        let (mut before, mut behind) = (vec![false; self.steps.len()], vec![false; self.steps.len()]);
        (before[step], behind[step]) = (true, true);
        for index in (0..=step).rev() {
            if before[index] {
                self.steps[index].after.iter().for_each(|earlier| before[*earlier] = true);
            }
        }
        for index in step + 1..self.steps.len() {
            behind[index] = self.steps[index].after.iter().any(|earlier| behind[*earlier]);
        }
        (0..self.steps.len()).any(|other| speaks(other) && !before[other] && !behind[other])
    }

    /// Whether a step of a placement takes images that stages of the run left in registries.
    pub fn takes_images(&self, placement: usize) -> bool {
        let own = self.steps.iter().filter(|step| step.placement == placement);
        own.map(|step| &step.work).any(|work| match work {
            Work::Build(build) => !build.staged_bases.is_empty(),
            Work::Push(push) => push.names.iter().any(|name| !matches!(name.from, PushedFrom::Built(_))),
            Work::Prepare(_) | Work::Command(_) => false,
        })
    }

    /// What the steps of a placement have only where the agent's operator allows it.
    pub fn leave(&self, placement: usize) -> BTreeSet<Leave> {
        let environment = self.placements[placement].environment.as_ref();
        let networks = environment.map_or(&[][..], |environment| &environment.networks);
        let of_step = |work: &CommandWork| {
            let machine =
                work.network.as_deref() == Some("host") && !networks.iter().any(|network| network.name == "host");
            [work.privileged.then_some(Leave::Privileged), machine.then(|| Leave::Network("host".to_owned()))]
        };
        let commands =
            self.steps.iter().filter(|step| step.placement == placement).filter_map(|step| match &step.work {
                Work::Command(command) => Some(command),
                Work::Prepare(_) | Work::Build(_) | Work::Push(_) => None,
            });
        let external = networks.iter().filter(|network| network.external);
        let external = external.map(|network| Leave::Network(network.name.clone()));
        commands.flat_map(of_step).flatten().chain(external).collect()
    }

    /// Every place that a step of the plan writes to: pushed images, and what stages leave for other placements.
    pub fn written_images(&self) -> impl Iterator<Item = &ImageRef> {
        self.pushes().flat_map(|push| push.names.iter().map(|name| &name.image))
    }

    fn pushes(&self) -> impl Iterator<Item = &PushWork> {
        self.steps.iter().filter_map(|step| match &step.work {
            Work::Push(push) => Some(push),
            Work::Prepare(_) | Work::Build(_) | Work::Command(_) => None,
        })
    }

    /// Whether what is pushed, or a part of it, is what this step built: a stage only carried it.
    pub fn is_made_by(&self, pushed: &PushedFrom, step: usize) -> bool {
        match pushed {
            PushedFrom::Built(built_by) => *built_by == step,
            PushedFrom::Staged(stage) => match self.steps.get(*stage).map(|stage| &stage.work) {
                Some(Work::Push(push)) => push.names.iter().any(|name| name.from == PushedFrom::Built(step)),
                _ => false,
            },
            PushedFrom::Index(parts) => parts.iter().any(|part| part.built_by == step),
        }
    }

    /// The step with this id.
    pub fn step_index(&self, id: &StepId) -> Option<usize> {
        self.steps.iter().position(|step| step.id == *id)
    }

    /// Adds the placements and steps of another plan behind the own ones. An id that both have is the other plan's, in which
    /// people named it: the own step gets one that nobody has.
    pub fn append(&mut self, next: Self) {
        let mut ids = NodeIds::beside(self.steps.iter().chain(&next.steps).map(|step| &step.id));
        for step in self.steps.iter_mut().filter(|step| next.step_index(&step.id).is_some()) {
            step.id = ids.of_source(&step.id);
        }
        let (placements, steps) = (self.placements.len(), self.steps.len());
        self.placements.extend(next.placements);
        self.steps.extend(next.steps.into_iter().map(|mut step| {
            step.placement += placements;
            step.after.iter_mut().for_each(|index| *index += steps);
            step.work.move_image_steps(|index| index + steps);
            step
        }));
    }
}
