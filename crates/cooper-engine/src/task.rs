//! Stored tasks: what they hold, how they change, and what a run of one asks for.
//!
//! Pure: the store keeps a [`Task`] as one document, the server turns what [`Task::asked`] says into a run like any other.
//! Values of secrets are never in it: the store keeps them sealed, by the names that [`Task::secrets`] says.

mod base_image;
mod change;
mod origin;
mod sources;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::quick_build::QuickBuild;
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::{RequestedValue, TaskRequest, TaskText};
use cooper_types::{Platform, PoolName, PrincipalName, Scopes, TaskName, TimerName, Timestamp, TriggerName};
use serde::{Deserialize, Serialize};

pub use base_image::{BaseImageChange, BaseImageTrigger, Follows, TaskEndpoint, UpdatePayload};
use change::once;
pub use change::{DockerChange, EncodedChange, FileChange, StepChange, TaskChange, TaskFault};
pub use origin::{Cause, ImageUpdate, OfTask, Origin, SourceCause, TagOrder};
pub use sources::{DEFAULT_BRANCHES, Fired, MAX_PATTERNS, SourceFault, SourceRules, SourceSettings};
pub use timers::{CatchUp, GRACE, Passed, Timer};

/// The form that tasks are kept in; a later one is not understood.
pub const TASK_VERSION: u32 = 1;

/// A stored task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The form: [`TASK_VERSION`] or an earlier one.
    pub version: u32,
    /// Its name.
    pub name: TaskName,
    /// Who made it: its runs are that principal's.
    pub principal: PrincipalName,
    /// What that principal's token allowed when it last said what the task is. Its runs never do more.
    pub scopes: Scopes,
    /// Whether triggers start it.
    pub enabled: bool,
    /// What it does.
    pub step: TaskStep,
    /// Where its files come from; a step with a text of its own needs none.
    pub source: Option<RemoteSource>,
    /// What it is for; never empty, and several for a Dockerfile alone.
    pub platforms: Vec<Platform>,
    /// The pool whose agents may take its runs.
    pub pool: PoolName,
    /// The number of processors that a run wants.
    pub cpu: u32,
    /// How long a run may take.
    pub timeout: Duration,
    /// Which of two waiting runs goes first: the one of the higher number.
    pub priority: i32,
    /// How many of its runs may be with agents at a time; any number if 0.
    pub concurrency: u32,
    /// How long what is over is kept.
    pub retention: Retention,
    /// When it starts by itself.
    pub timers: BTreeMap<TimerName, Timer>,
    /// Which changes of its base images start it.
    #[serde(default)]
    pub base_image: BaseImageTrigger,
    /// What happens in its repository to start it.
    #[serde(default)]
    pub sources: BTreeMap<TriggerName, SourceSettings>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was changed last.
    pub updated: Timestamp,
    /// How often it has been changed, its making included.
    pub generation: u64,
}

/// How long runs of a task are kept after their end, in days. Archived ones are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Their records.
    pub runs: u32,
    /// Their logs.
    pub logs: u32,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum TaskStep {
    /// It builds a Dockerfile.
    Docker(DockerStep),
    /// It runs a task file of its source.
    File(FileStep),
    /// It runs a task file that is part of the task.
    Encoded(EncodedStep),
}

/// What to build. Texts are as the user wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerStep {
    /// The Dockerfile's path inside the source.
    pub dockerfile: String,
    /// Image names.
    pub image_names: Vec<String>,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether the build cache is left unused.
    pub no_cache: bool,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub arguments: Vec<BuildArgument>,
}

/// Which task file to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStep {
    /// The task file's path inside the source.
    pub file: String,
    /// The values file's path inside the source.
    pub values: Option<String>,
    /// `--set` and `--set-secret`.
    pub set: Vec<RequestedValue>,
}

/// A task file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedStep {
    /// The task file itself.
    pub text: String,
    /// The values file itself.
    pub values: Option<String>,
    /// `--set` and `--set-secret`.
    pub set: Vec<RequestedValue>,
}

/// A secret that is kept with a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskSecret {
    /// A secret build argument of this name.
    Argument(String),
    /// A secret value of templates of this name.
    Value(String),
}

/// What is different in one run of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Where the files come from.
    pub source: Option<RemoteSource>,
    /// The Dockerfile or task file inside the source.
    pub file: Option<String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments, in place of those of the same name.
    pub arguments: Vec<BuildArgument>,
    /// Values of templates, in place of those of the same name.
    pub set: Vec<RequestedValue>,
    /// The pool.
    pub pool: Option<PoolName>,
}

impl Overrides {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run of a task asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskAsked {
    /// One Dockerfile.
    Build {
        /// What is built.
        build: QuickBuild,
        /// Where the files come from.
        source: RemoteSource,
    },
    /// A task file.
    Task {
        /// What is run.
        request: TaskRequest,
        /// Where the files come from; there are none if absent.
        source: Option<RemoteSource>,
    },
}

impl Task {
    /// Whether it builds a Dockerfile: the type of its runs is `AutoBuild` then, else `AutoRun`.
    pub fn is_build(&self) -> bool {
        matches!(self.step, TaskStep::Docker(_))
    }

    /// The names of the secrets that are kept with it.
    pub fn secrets(&self) -> BTreeSet<TaskSecret> {
        let of_values =
            |set: &[RequestedValue]| secret_names(set).map(|name| TaskSecret::Value(name.to_owned())).collect();
        match &self.step {
            TaskStep::Docker(step) => {
                let secret = step.arguments.iter().filter(|argument| argument.value == ArgumentValue::Secret);
                secret.map(|argument| TaskSecret::Argument(argument.name.clone())).collect()
            }
            TaskStep::File(step) => of_values(&step.set),
            TaskStep::Encoded(step) => of_values(&step.set),
        }
    }

    /// What its runs remember of it.
    pub fn of_run(&self) -> OfTask {
        let Self { name, priority, concurrency, cpu, generation, retention, .. } = self;
        OfTask {
            name: name.clone(),
            priority: *priority,
            concurrency: *concurrency,
            cpu: *cpu,
            generation: *generation,
            retention: *retention,
            differs: false,
        }
    }

    /// What a run of it asks for.
    pub fn asked(&self, overrides: &Overrides) -> Result<TaskAsked, TaskFault> {
        let source = overrides.source.as_ref().or(self.source.as_ref()).cloned();
        let (file, target) = (overrides.file.clone(), overrides.target.clone());
        let is_for_builds = target.is_some() || !overrides.arguments.is_empty();
        once("build argument", overrides.arguments.iter().map(|argument| argument.name.as_str()))?;
        once("value", overrides.set.iter().map(|value| value.name.as_str()))?;
        match &self.step {
            TaskStep::Docker(step) => {
                if !overrides.set.is_empty() {
                    return Err(TaskFault::OtherStep { what: "values", step: "builds a Dockerfile" });
                }
                let build = QuickBuild {
                    image_names: step.image_names.clone(),
                    push: step.push && !step.image_names.is_empty(),
                    no_cache: step.no_cache,
                    dockerfile: file.unwrap_or_else(|| step.dockerfile.clone()),
                    target: target.or_else(|| step.target.clone()),
                    arguments: replaced(&step.arguments, &overrides.arguments, |argument| &argument.name),
                    labels: Vec::new(),
                    secrets: Vec::new(),
                    platform: self.platform().clone(),
                    platforms: if self.platforms.len() > 1 { self.platforms.clone() } else { Vec::new() },
                    elsewhere: false,
                };
                Ok(TaskAsked::Build { build, source: source.ok_or(TaskFault::NoSource)? })
            }
            TaskStep::File(_) | TaskStep::Encoded(_) if is_for_builds => {
                Err(TaskFault::OtherStep { what: "a target or build arguments", step: "runs a task file" })
            }
            TaskStep::File(step) => {
                let file = TaskText::InSource(file.unwrap_or_else(|| step.file.clone()));
                let values = step.values.clone().map(TaskText::InSource);
                let request = self.request(file, values, &step.set, overrides);
                Ok(TaskAsked::Task { request, source: Some(source.ok_or(TaskFault::NoSource)?) })
            }
            TaskStep::Encoded(_) if file.is_some() => {
                Err(TaskFault::OtherStep { what: "a file", step: "has its task file in itself" })
            }
            TaskStep::Encoded(step) => {
                let given = |name: &str, text: &String| TaskText::Given { name: name.to_owned(), text: text.clone() };
                let values = step.values.as_ref().map(|text| given("values.yaml", text));
                let request = self.request(given("acr-task.yaml", &step.text), values, &step.set, overrides);
                Ok(TaskAsked::Task { request, source })
            }
        }
    }

    /// What it is for; the first of several.
    pub fn platform(&self) -> &Platform {
        self.platforms.first().unwrap_or(&Platform::LINUX_AMD64)
    }

    fn request(
        &self,
        file: TaskText,
        values: Option<TaskText>,
        set: &[RequestedValue],
        overrides: &Overrides,
    ) -> TaskRequest {
        TaskRequest {
            file,
            fallbacks: Vec::new(),
            values,
            set: replaced(set, &overrides.set, |value| &value.name),
            alias_files: BTreeMap::new(),
            platform: self.platform().clone(),
            working_directory: None,
        }
    }
}

/// The names of the values that are secret.
fn secret_names(set: &[RequestedValue]) -> impl Iterator<Item = &str> {
    set.iter().filter(|value| value.value.is_none()).map(|value| value.name.as_str())
}

/// A list with others in place of those of the same name.
fn replaced<T: Clone>(list: &[T], others: &[T], name: impl Fn(&T) -> &String) -> Vec<T> {
    let is_replaced = |item: &&T| others.iter().any(|other| name(other) == name(item));
    list.iter().filter(|item| !is_replaced(item)).chain(others).cloned().collect()
}
