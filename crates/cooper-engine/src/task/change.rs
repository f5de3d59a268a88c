//! Making and changing a task: what is said of it, merged with what it was, and checked as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_spec::plan::BuildArgument;
use cooper_spec::quick_build::{BuildSource, PlanError, QuickBuild, is_inside};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::RequestedValue;
use cooper_spec::template::RunVariables;
use cooper_types::{
    Platform, PoolName, PrincipalName, RegistryName, RunId, Scopes, TaskName, TimerName, Timestamp, TriggerName,
};

use super::{
    BaseImageChange, BaseImageTrigger, DockerStep, EncodedStep, FileStep, Overrides, Retention, SourceFault,
    SourceSettings, TASK_VERSION, Task, TaskAsked, TaskStep, Timer,
};

/// How long a run may take where nothing is said, and the most that may be said.
const TIMEOUT: Duration = Duration::from_secs(3600);
const MAX_TIMEOUT: Duration = Duration::from_secs(28_800);
/// How many processors a run wants where nothing is said, as in ACR, and the most that may be said.
const CPU: u32 = 2;
const MAX_CPU: u32 = 1024;
/// Priorities are between the negative of this and this.
const MAX_PRIORITY: i32 = 100;
/// How many days runs and logs are kept where nothing is said, as in ACR, and the most that may be said.
const RETENTION_DAYS: u32 = 30;
const MAX_RETENTION_DAYS: u32 = 36_500;
/// The most timers of a task.
const MAX_TIMERS: usize = 64;
/// The most source triggers of a task.
const MAX_SOURCES: usize = 16;
/// The most build arguments, values or image names of a task.
const MAX_ITEMS: usize = 256;
/// The largest task, in bytes of its texts.
const MAX_TEXT: usize = 1 << 20;

/// What is said of a task. What is absent stays as it is, or has its default in a new task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// Whether triggers start it.
    pub enabled: Option<bool>,
    /// What it does.
    pub step: Option<StepChange>,
    /// Where its files come from; `Some(None)` is from nowhere.
    pub source: Option<Option<RemoteSource>>,
    /// What it is for; `linux/amd64` if the list is empty.
    pub platforms: Option<Vec<Platform>>,
    /// The pool.
    pub pool: Option<PoolName>,
    /// The number of processors.
    pub cpu: Option<u32>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// Its priority.
    pub priority: Option<i32>,
    /// How many of its runs may be with agents at a time.
    pub concurrency: Option<u32>,
    /// For how many days runs are kept.
    pub run_days: Option<u32>,
    /// For how many days logs are kept.
    pub log_days: Option<u32>,
    /// Timers by name: made, replaced, or removed.
    pub timers: BTreeMap<TimerName, Option<Timer>>,
    /// Its base image trigger.
    pub base_image: BaseImageChange,
    /// Source triggers by name: made, replaced, or removed.
    pub sources: BTreeMap<TriggerName, Option<SourceSettings>>,
}

/// What is said of a task's step. A step of another type than the task has replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepChange {
    /// It builds a Dockerfile.
    Docker(DockerChange),
    /// It runs a task file of its source.
    File(FileChange),
    /// It runs a task file that is part of the task.
    Encoded(EncodedChange),
}

/// See [`DockerStep`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the step's")]
pub struct DockerChange {
    pub dockerfile: Option<String>,
    pub image_names: Option<Vec<String>>,
    pub push: Option<bool>,
    pub no_cache: Option<bool>,
    pub target: Option<String>,
    pub arguments: Option<Vec<BuildArgument>>,
}

/// See [`FileStep`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the step's")]
pub struct FileChange {
    pub file: Option<String>,
    pub values: Option<String>,
    pub set: Option<Vec<RequestedValue>>,
}

/// See [`EncodedStep`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the step's")]
pub struct EncodedChange {
    pub text: Option<String>,
    pub values: Option<String>,
    pub set: Option<Vec<RequestedValue>>,
}

/// Why a task can't be as it is said to be, or a run of it can't be different in that way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskFault {
    /// Nothing says what it does.
    #[error("the task has no step: name a Dockerfile, a task file or a command")]
    NoStep,
    /// Its files come from nowhere.
    #[error("the task has no context: name a Git repository, an archive's URL or an artifact")]
    NoSource,
    /// A text that is needed is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A number is out of its range.
    #[error("{what} is {given}; it must be {min} to {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What was given.
        given: i64,
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// There is too much of something.
    #[error("{what}: there are {count}, at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most.
        max: usize,
    },
    /// Several platforms for what runs on one.
    #[error("a task file is for one platform; its steps name others themselves")]
    Platforms,
    /// Two timers fire at the same times.
    #[error("timers `{0}` and `{1}` have the same schedule")]
    SameSchedule(TimerName, TimerName),
    /// A timer that would never fire.
    #[error("timer `{0}` never fires: no date matches its schedule")]
    Never(TimerName),
    /// A timer that is not there is to be removed.
    #[error("the task has no timer `{0}`")]
    UnknownTimer(TimerName),
    /// A source trigger that is not there is to be removed.
    #[error("the task has no source trigger `{0}`")]
    UnknownTrigger(TriggerName),
    /// A source trigger can't be as it is.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// No run of its step could ever be planned.
    #[error(transparent)]
    Step(#[from] PlanError),
    /// The task file's path leaves the source.
    #[error("task file path `{0}` must be relative and stay inside the source")]
    FilePath(String),
    /// A name that is given twice.
    #[error("{what} `{name}` is given twice")]
    Twice {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// What a run is to have does not fit the task's step.
    #[error("{what} can't be given to a task that {step}")]
    OtherStep {
        /// What.
        what: &'static str,
        /// What the task does.
        step: &'static str,
    },
}

impl Task {
    /// A new task.
    pub fn new(
        name: TaskName,
        principal: PrincipalName,
        scopes: Scopes,
        change: TaskChange,
        now: Timestamp,
    ) -> Result<Self, TaskFault> {
        let step = change.step.clone().ok_or(TaskFault::NoStep)?.onto(None)?;
        let blank = Self {
            version: TASK_VERSION,
            name,
            principal,
            scopes,
            enabled: true,
            step,
            source: None,
            platforms: vec![Platform::LINUX_AMD64],
            pool: PoolName::default_pool(),
            cpu: CPU,
            timeout: TIMEOUT,
            priority: 0,
            concurrency: 0,
            retention: Retention { runs: RETENTION_DAYS, logs: RETENTION_DAYS },
            timers: BTreeMap::new(),
            base_image: BaseImageTrigger::default(),
            sources: BTreeMap::new(),
            created: now,
            updated: now,
            generation: 0,
        };
        let task = blank.changed(TaskChange { step: None, ..change }, now)?;
        task.check_step()?;
        Ok(task)
    }

    /// The task with a change. What it was is not touched.
    pub fn changed(&self, change: TaskChange, now: Timestamp) -> Result<Self, TaskFault> {
        let mut task = self.clone();
        let is_other_step = change.step.is_some();
        if let Some(step) = change.step {
            task.step = step.onto(Some(&self.step))?;
        }
        task.enabled = change.enabled.unwrap_or(task.enabled);
        task.source = change.source.unwrap_or(task.source);
        task.platforms = match change.platforms {
            Some(all) if all.is_empty() => vec![Platform::LINUX_AMD64],
            Some(all) => all,
            None => task.platforms,
        };
        task.pool = change.pool.unwrap_or(task.pool);
        task.cpu = change.cpu.unwrap_or(task.cpu);
        task.timeout = change.timeout.unwrap_or(task.timeout);
        task.priority = change.priority.unwrap_or(task.priority);
        task.concurrency = change.concurrency.unwrap_or(task.concurrency);
        task.retention.runs = change.run_days.unwrap_or(task.retention.runs);
        task.retention.logs = change.log_days.unwrap_or(task.retention.logs);
        for (name, timer) in change.timers {
            match timer {
                Some(timer) => drop(task.timers.insert(name, timer)),
                None if task.timers.contains_key(&name) => drop(task.timers.remove(&name)),
                None => return Err(TaskFault::UnknownTimer(name)),
            }
        }
        task.base_image = task.base_image.changed(change.base_image);
        for (name, settings) in change.sources {
            match settings {
                Some(settings) => drop(task.sources.insert(name, settings)),
                None if task.sources.contains_key(&name) => drop(task.sources.remove(&name)),
                None => return Err(TaskFault::UnknownTrigger(name)),
            }
        }
        task.check(now)?;
        // One that an earlier release took stays as it is until it is changed itself.
        if is_other_step {
            task.check_step()?;
        }
        task.updated = now;
        task.generation += 1;
        Ok(task)
    }

    fn check(&self, now: Timestamp) -> Result<(), TaskFault> {
        let needs_source = !matches!(self.step, TaskStep::Encoded(_));
        if needs_source && self.source.is_none() {
            return Err(TaskFault::NoSource);
        }
        if self.platforms.len() > 1 && !self.is_build() {
            return Err(TaskFault::Platforms);
        }
        let range = |what, given: i64, min: i64, max: i64| match (min..=max).contains(&given) {
            true => Ok(()),
            false => Err(TaskFault::Range { what, given, min, max }),
        };
        let seconds = i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX);
        range("timeout", seconds, 1, i64::try_from(MAX_TIMEOUT.as_secs()).unwrap_or(i64::MAX))?;
        range("cpu", self.cpu.into(), 1, MAX_CPU.into())?;
        range("priority", self.priority.into(), (-MAX_PRIORITY).into(), MAX_PRIORITY.into())?;
        range("concurrency", self.concurrency.into(), 0, 10_000)?;
        range("runRetentionDays", self.retention.runs.into(), 1, MAX_RETENTION_DAYS.into())?;
        range("logRetentionDays", self.retention.logs.into(), 1, MAX_RETENTION_DAYS.into())?;
        let few = |what, count, max| if count > max { Err(TaskFault::TooMany { what, count, max }) } else { Ok(()) };
        few("timers", self.timers.len(), MAX_TIMERS)?;
        few("platforms", self.platforms.len(), 16)?;
        self.check_timers(now)?;
        few("sourceTriggers", self.sources.len(), MAX_SOURCES)?;
        self.check_sources()?;
        match &self.step {
            TaskStep::Docker(step) => {
                few("imageNames", step.image_names.len(), MAX_ITEMS)?;
                few("arguments", step.arguments.len(), MAX_ITEMS)?;
                once("build argument", step.arguments.iter().map(|argument| argument.name.as_str()))?;
                not_empty("dockerFilePath", &step.dockerfile)?;
                few("bytes of names and arguments", text_size(step), MAX_TEXT)
            }
            TaskStep::File(step) => {
                few("values", step.set.len(), MAX_ITEMS)?;
                once("value", step.set.iter().map(|value| value.name.as_str()))?;
                not_empty("taskFilePath", &step.file)
            }
            TaskStep::Encoded(step) => {
                few("values", step.set.len(), MAX_ITEMS)?;
                once("value", step.set.iter().map(|value| value.name.as_str()))?;
                not_empty("the task's content", step.text.trim())?;
                few("bytes of the task file", step.text.len() + step.values.as_ref().map_or(0, String::len), MAX_TEXT)
            }
        }
    }

    /// Whether a run of the step could be planned, as far as that is known before there is one: which registry is the own one,
    /// what is in the source and who may push are not.
    fn check_step(&self) -> Result<(), TaskFault> {
        if let TaskStep::File(step) = &self.step
            && !is_inside(&step.file)
        {
            return Err(TaskFault::FilePath(step.file.escape_debug().take(160).collect()));
        }
        if let TaskAsked::Build { build, source } = self.asked(&Overrides::default())? {
            let some = RegistryName::parse("localhost").expect("a constant that is one");
            let variables = RunVariables::quick_build(RunId::from_number(1), &some, &build.platform, self.created);
            let source = BuildSource::Remote(source);
            // What a template makes of a name is known when something has set a run off; that it is one is known now.
            let (templates, names): (Vec<_>, Vec<_>) =
                build.image_names.iter().cloned().partition(|name| name.contains("{{"));
            let build = QuickBuild { elsewhere: true, image_names: names, ..build };
            build.plan_first(&source, &variables, &some)?;
            for name in templates {
                let named = QuickBuild { image_names: vec![name], ..build.clone() };
                if let Err(error @ PlanError::Template { .. }) = named.plan_first(&source, &variables, &some) {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn check_timers(&self, now: Timestamp) -> Result<(), TaskFault> {
        for (name, timer) in &self.timers {
            if timer.schedule.next_after(now).is_none() {
                return Err(TaskFault::Never(name.clone()));
            }
            let earlier = self.timers.iter().take_while(|(other, _)| *other != name);
            if let Some((other, _)) = earlier.into_iter().find(|(_, other)| other.schedule == timer.schedule) {
                return Err(TaskFault::SameSchedule(other.clone(), name.clone()));
            }
        }
        Ok(())
    }
}

fn not_empty(what: &'static str, text: &str) -> Result<(), TaskFault> {
    if text.is_empty() { Err(TaskFault::Empty(what)) } else { Ok(()) }
}

/// Refuses a name that is given twice, or empty.
pub(super) fn once<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), TaskFault> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        not_empty("the name of a value", name)?;
        if !seen.insert(name) {
            return Err(TaskFault::Twice { what, name: name.to_owned() });
        }
    }
    Ok(())
}

fn text_size(step: &DockerStep) -> usize {
    let plain = |argument: &BuildArgument| match &argument.value {
        cooper_spec::plan::ArgumentValue::Plain(text) => text.len(),
        cooper_spec::plan::ArgumentValue::Secret | cooper_spec::plan::ArgumentValue::Kept(_) => 0,
    };
    let arguments: usize = step.arguments.iter().map(|argument| argument.name.len() + plain(argument)).sum();
    arguments + step.image_names.iter().map(String::len).sum::<usize>()
}

impl StepChange {
    /// The step that it makes of an earlier one.
    fn onto(self, earlier: Option<&TaskStep>) -> Result<TaskStep, TaskFault> {
        match self {
            Self::Docker(change) => {
                let earlier = match earlier {
                    Some(TaskStep::Docker(step)) => step.clone(),
                    _ => DockerStep {
                        dockerfile: "Dockerfile".to_owned(),
                        image_names: Vec::new(),
                        push: true,
                        no_cache: false,
                        target: None,
                        arguments: Vec::new(),
                    },
                };
                Ok(TaskStep::Docker(DockerStep {
                    dockerfile: change.dockerfile.unwrap_or(earlier.dockerfile),
                    image_names: change.image_names.unwrap_or(earlier.image_names),
                    push: change.push.unwrap_or(earlier.push),
                    no_cache: change.no_cache.unwrap_or(earlier.no_cache),
                    target: optional(change.target, earlier.target),
                    arguments: change.arguments.unwrap_or(earlier.arguments),
                }))
            }
            Self::File(change) => {
                let earlier = match earlier {
                    Some(TaskStep::File(step)) => Some(step.clone()),
                    _ => None,
                };
                let (file, values, set) = match earlier {
                    Some(FileStep { file, values, set }) => (Some(file), values, set),
                    None => (None, None, Vec::new()),
                };
                Ok(TaskStep::File(FileStep {
                    file: change.file.or(file).ok_or(TaskFault::Empty("taskFilePath"))?,
                    values: optional(change.values, values),
                    set: change.set.unwrap_or(set),
                }))
            }
            Self::Encoded(change) => {
                let earlier = match earlier {
                    Some(TaskStep::Encoded(step)) => Some(step.clone()),
                    _ => None,
                };
                let (text, values, set) = match earlier {
                    Some(EncodedStep { text, values, set }) => (Some(text), values, set),
                    None => (None, None, Vec::new()),
                };
                Ok(TaskStep::Encoded(EncodedStep {
                    text: change.text.or(text).ok_or(TaskFault::Empty("the task's content"))?,
                    values: optional(change.values, values),
                    set: change.set.unwrap_or(set),
                }))
            }
        }
    }
}

/// A text that may be absent: an empty one takes it away.
fn optional(change: Option<String>, earlier: Option<String>) -> Option<String> {
    match change {
        Some(text) => Some(text).filter(|text| !text.is_empty()),
        None => earlier,
    }
}
