//! `cooper task create` and `update`: what flags say of a task.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use cooper_api::rest::{
    BaseImageTriggerSettings, BaseImageTriggerType, DEFAULT_TIMEOUT_SECONDS, DockerStepSettings, EncodedStepSettings,
    FileStepSettings, MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, SetTaskCredential, StepSettings, TaskSettings,
    TaskStatus, TaskValue, TaskView, TimerSettings, UpdatePayloadType,
};
use cooper_client::Client;
use cooper_spec::source::{RemoteSource, SourceLocation};
use cooper_types::{Platform, SourceHost, TaskName, TimerName};

use super::source::{SourceArgs, tell_hooks};
use super::{NameArgs, show};
use crate::azure::AzureFlags;
use crate::build::argument;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;
use crate::task::{LocalTask, read_values, show_faults, show_warnings};

/// Endings of files that are task files; everything else is a Dockerfile, as in az.
const TASK_FILES: [&str; 16] =
    ["yaml", "yml", "toml", "json", "sh", "bash", "zsh", "ps1", "ps", "cmd", "bat", "ts", "js", "php", "py", "rb"];

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    what: WhatArgs,
    /// When it starts by itself, as MINUTE HOUR DAY MONTH WEEKDAY in UTC, after NAME: if it is to have a name; may be
    /// repeated. Other names are t1, t2 and so on where none is given
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Vec<String>,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    azure: AzureFlags,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    what: WhatArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    azure: AzureFlags,
}

/// Whether triggers start a task, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

/// What a task is.
#[derive(Args, Debug)]
struct WhatArgs {
    /// Where its files come from: `https://HOST/PATH.git#REFERENCE:FOLDER`, an archive's URL, `oci://HOST/REPOSITORY:TAG`, or
    /// /dev/null for nowhere
    #[arg(long, short, value_name = "SOURCE")]
    context: Option<String>,
    /// The Dockerfile or task file inside the context; a task file of this machine with /dev/null. What ends in .yaml, .yml
    /// and the like is a task file
    #[arg(long, short, value_name = "FILE")]
    file: Option<String>,
    /// Run one container instead of a file: an image and its arguments
    #[arg(long, value_name = "COMMAND", conflicts_with = "file", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// Name for the image; may be repeated, and may hold run variables such as {{.Run.ID}}
    #[arg(long, short = 't', value_name = "NAME[:TAG]")]
    image: Vec<String>,
    /// A build argument; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    arg: Vec<String>,
    /// A build argument that is kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret_arg: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build without pushing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    no_push: Option<bool>,
    /// Build without a cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    no_cache: Option<bool>,
    /// A value for templates; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value for templates that is kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set_secret: Vec<String>,
    /// A YAML file of values for templates; it is where the task file is
    #[arg(long, value_name = "FILE")]
    values: Option<String>,
    /// What it is for, as os[/architecture[/variant]]; several, with commas, for a Dockerfile [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<String>,
    /// The number of processors that a run wants [default: 2]
    #[arg(long, value_name = "N")]
    cpu: Option<u32>,
    /// After how many seconds of work a run ends [default: 3600]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(i64::from(MIN_TIMEOUT_SECONDS)..=i64::from(MAX_TIMEOUT_SECONDS)))]
    timeout: Option<u32>,
    /// Whether triggers start it [default: enabled]
    #[arg(long, value_enum, ignore_case = true)]
    status: Option<Status>,
    /// The pool whose agents may take its runs [default: default]
    #[arg(long, value_name = "POOL")]
    agent_pool: Option<String>,
    /// Which of two waiting runs goes first: the one of the higher number, from -100 to 100 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// How many of its runs may be with agents at a time; 0 is any number [default: 0]
    #[arg(long, value_name = "N")]
    concurrency_limit: Option<u32>,
    /// For how many days its runs are kept after their end [default: 30]
    #[arg(long, value_name = "DAYS")]
    run_retention: Option<u32>,
    /// For how many days their logs are kept [default: 30]
    #[arg(long, value_name = "DAYS")]
    log_retention: Option<u32>,
    /// A token for the context's Git host, kept with the task
    #[arg(long, value_name = "TOKEN", env = "COOPER_GIT_ACCESS_TOKEN", hide_env_values = true)]
    git_access_token: Option<String>,
    #[command(flatten)]
    base_image: BaseImageArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// Which changes of base images start a task.
#[derive(Args, Debug)]
struct BaseImageArgs {
    /// Whether a new image under a tag that its builds stand on starts it [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    base_image_trigger_enabled: Option<bool>,
    /// What the trigger is called [default: defaultBaseimageTriggerName]
    #[arg(long, value_name = "NAME")]
    base_image_trigger_name: Option<String>,
    /// Which bases it follows: those of final stages, or all [default: runtime]
    #[arg(long, value_enum, ignore_case = true, value_name = "TYPE")]
    base_image_trigger_type: Option<Follows>,
    /// Whether it follows the images of cmd steps too [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    base_image_trigger_steps: Option<bool>,
    /// The address that is told of the runs that base images set off; none if it is empty
    #[arg(long, value_name = "URL")]
    update_trigger_endpoint: Option<String>,
    /// How much that is told: what was updated, or a token alone [default: default]
    #[arg(long, value_enum, ignore_case = true, value_name = "TYPE")]
    update_trigger_payload_type: Option<Payload>,
}

/// How much an endpoint is told, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Payload {
    Default,
    Token,
}

/// Which bases a base image trigger follows, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Follows {
    Runtime,
    All,
}

impl BaseImageArgs {
    fn settings(&self) -> Option<BaseImageTriggerSettings> {
        let status = |enabled| if enabled { TaskStatus::Enabled } else { TaskStatus::Disabled };
        let settings = BaseImageTriggerSettings {
            name: self.base_image_trigger_name.clone(),
            base_image_trigger_type: self.base_image_trigger_type.map(|follows| match follows {
                Follows::Runtime => BaseImageTriggerType::Runtime,
                Follows::All => BaseImageTriggerType::All,
            }),
            status: self.base_image_trigger_enabled.map(status),
            follows_steps: self.base_image_trigger_steps,
            update_trigger_endpoint: self.update_trigger_endpoint.clone(),
            update_trigger_payload_type: self.update_trigger_payload_type.map(|payload| match payload {
                Payload::Default => UpdatePayloadType::Default,
                Payload::Token => UpdatePayloadType::Token,
            }),
        };
        (settings != BaseImageTriggerSettings::default()).then_some(settings)
    }
}

pub(super) async fn create(args: &CreateArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    warn(&args.azure);
    let step = args.what.step_of_new(environment)?;
    if let StepSettings::EncodedTask(step) = &step
        && !is_sound(&args.what, step)?
    {
        return Ok(Exit::Usage);
    }
    let mut settings = args.what.settings()?;
    settings.name = Some(name.clone());
    settings.step = Some(step);
    settings.timers = timers(&args.schedule)?;
    settings.source_triggers = args.what.source.of_new(args.what.context.as_deref())?;
    let client = server.connect(environment)?;
    let credential = args.what.git_credential()?;
    let mut task = client.create_task(&settings).await?;
    if let Some(kept) = keep_token(&client, &name, credential).await? {
        task = with_secrets(kept, task);
    }
    output::note(&format!("Task {name} is made."));
    if args.output == OutputForm::Text {
        tell_hooks(&task, client.server());
    }
    show(&task, args.output)?;
    Ok(Exit::Success)
}

pub(super) async fn update(args: &UpdateArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    warn(&args.azure);
    let client = server.connect(environment)?;
    let earlier = client.get_task(&name).await?;
    let mut settings = args.what.settings()?;
    settings.step = args.what.step_of(&earlier.settings, environment)?;
    settings.source_triggers = args.what.source.of_task(&earlier.settings)?;
    if let Some(StepSettings::EncodedTask(step)) = &settings.step
        && step.task_content.is_some()
        && !is_sound(&args.what, step)?
    {
        return Ok(Exit::Usage);
    }
    let credential = args.what.git_credential()?;
    let mut task = match settings == TaskSettings::default() {
        // What is to be switched off may be off.
        true if credential.is_none() && args.what.source.says_something() => earlier,
        true if credential.is_none() => return Err(Fault::usage("no flag says what to change").into()),
        true => earlier,
        false => client.update_task(&name, &settings).await?,
    };
    if let Some(kept) = keep_token(&client, &name, credential).await? {
        task = with_secrets(kept, task);
    }
    output::note(&format!("Task {name} is changed."));
    if args.output == OutputForm::Text {
        tell_hooks(&task, client.server());
    }
    show(&task, args.output)?;
    Ok(Exit::Success)
}

fn warn(azure: &AzureFlags) {
    for warning in azure.warnings() {
        output::warning(&warning);
    }
}

/// Whether nothing is wrong with a task file that becomes part of a task; what is, is shown.
fn is_sound(what: &WhatArgs, step: &EncodedStepSettings) -> Result<bool, Stop> {
    let text = |name: &str, text: &String| cooper_spec::task::NamedText { name: name.to_owned(), text: text.clone() };
    let name = what.file.as_deref().unwrap_or("--cmd");
    let mut task = LocalTask {
        file: text(name, step.task_content.as_ref().unwrap_or(&String::new())),
        values: step.values_content.as_ref().map(|values| text("the values file", values)),
        alias_files: BTreeMap::new(),
    };
    let platform = what.platform.first().and_then(|text| Platform::parse(text).ok());
    match task.check(None, platform.as_ref(), &what.set, &what.set_secret, BTreeMap::new())? {
        Ok(warnings) => {
            show_warnings(&warnings);
            Ok(true)
        }
        Err(faults) => {
            show_faults(&faults);
            Ok(false)
        }
    }
}

/// A task as it is now, with the secrets of its hooks that were told before.
fn with_secrets(mut task: TaskView, told: TaskView) -> TaskView {
    for hook in told.hooks {
        if let Some(own) = task.hooks.iter_mut().find(|own| own.id == hook.id) {
            own.secret = hook.secret;
        }
    }
    task
}

/// Keeps a token for a Git host with the task.
async fn keep_token(
    client: &Client,
    name: &TaskName,
    credential: Option<(SourceHost, SetTaskCredential)>,
) -> Result<Option<TaskView>, Stop> {
    match credential {
        Some((host, credential)) => Ok(Some(client.set_task_credential(name, &host, &credential).await?)),
        None => Ok(None),
    }
}

impl WhatArgs {
    /// All that is not the step.
    fn settings(&self) -> Result<TaskSettings, Fault> {
        let status = self.status.map(|status| match status {
            Status::Enabled => TaskStatus::Enabled,
            Status::Disabled => TaskStatus::Disabled,
        });
        Ok(TaskSettings {
            name: None,
            status,
            step: None,
            platforms: Some(self.platform.clone()).filter(|all| !all.is_empty()),
            agent_pool_name: self.agent_pool.clone(),
            cpu: self.cpu,
            timeout: self.timeout,
            priority: self.priority,
            concurrency_limit: self.concurrency_limit,
            run_retention_days: self.run_retention,
            log_retention_days: self.log_retention,
            timers: BTreeMap::new(),
            base_image_trigger: self.base_image.settings(),
            source_triggers: BTreeMap::new(),
        })
    }

    /// The step of a new task.
    fn step_of_new(&self, environment: &Environment) -> Result<StepSettings, Fault> {
        let context = self.context.clone().ok_or_else(|| {
            Fault::usage("no context is named")
                .with_hint("name a Git repository with --context, or /dev/null for a task without files")
        })?;
        let nowhere = context == "/dev/null";
        match (&self.file, &self.cmd) {
            (None, None) => Err(Fault::usage("neither a file nor a command is named")
                .with_hint("name the Dockerfile or task file with --file, or a command with --cmd")),
            (_, Some(_)) => self.encoded(Some(context)),
            (Some(_), None) if nowhere => self.encoded(Some(context)),
            (Some(file), None) if is_task_file(file) => self.file_task(Some(context), Some(file)),
            (Some(file), None) => self.docker(Some(context), Some(file), environment),
        }
    }

    /// What is said of the step of an existing task.
    fn step_of(&self, earlier: &TaskSettings, environment: &Environment) -> Result<Option<StepSettings>, Fault> {
        let says_docker = !self.image.is_empty()
            || !self.arg.is_empty()
            || !self.secret_arg.is_empty()
            || self.target.is_some()
            || self.no_push.is_some()
            || self.no_cache.is_some();
        let says_values = !self.set.is_empty() || !self.set_secret.is_empty() || self.values.is_some();
        let says = says_docker || says_values || self.context.is_some() || self.file.is_some() || self.cmd.is_some();
        if !says {
            return Ok(None);
        }
        let context = self.context.clone();
        let stays_nowhere = || match &earlier.step {
            Some(StepSettings::EncodedTask(step)) => step.context_path.is_none(),
            _ => false,
        };
        let nowhere = context.as_ref().map_or_else(stays_nowhere, |context| context == "/dev/null");
        let step = match (&self.file, &self.cmd, &earlier.step) {
            (_, Some(_), _) => self.encoded(context)?,
            (Some(_), None, _) if nowhere => self.encoded(context)?,
            (Some(file), None, _) if is_task_file(file) => self.file_task(context, Some(file))?,
            (Some(file), None, _) => self.docker(context, Some(file), environment)?,
            (None, None, Some(StepSettings::EncodedTask(_))) => self.encoded(context)?,
            (None, None, Some(StepSettings::FileTask(_))) => self.file_task(context, None)?,
            (None, None, Some(StepSettings::Docker(_)) | None) => self.docker(context, None, environment)?,
        };
        let fits = match &step {
            StepSettings::Docker(_) => !says_values,
            StepSettings::FileTask(_) | StepSettings::EncodedTask(_) => !says_docker,
        };
        match fits {
            true => Ok(Some(step)),
            false => Err(Fault::usage("flags of a Dockerfile and of a task file are given together")),
        }
    }

    fn docker(
        &self,
        context_path: Option<String>,
        file: Option<&String>,
        environment: &Environment,
    ) -> Result<StepSettings, Fault> {
        Ok(StepSettings::Docker(DockerStepSettings {
            context_path,
            docker_file_path: file.cloned(),
            image_names: some(self.image.clone()),
            is_push_enabled: self.no_push.map(|no_push| !no_push),
            no_cache: self.no_cache,
            target: self.target.clone(),
            arguments: some(arguments(&self.arg, &self.secret_arg, environment)?),
        }))
    }

    fn file_task(&self, context_path: Option<String>, file: Option<&String>) -> Result<StepSettings, Fault> {
        Ok(StepSettings::FileTask(FileStepSettings {
            context_path,
            task_file_path: file.cloned(),
            values_file_path: self.values.clone(),
            values: some(values(&self.set, &self.set_secret)?),
        }))
    }

    fn encoded(&self, context_path: Option<String>) -> Result<StepSettings, Fault> {
        let local = match (&self.cmd, &self.file) {
            (Some(command), _) => Some(LocalTask::of_command(command, self.timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS))),
            (None, Some(file)) => Some(LocalTask::read(file, self.values.as_deref())?),
            (None, None) => None,
        };
        let (text, values_text) = match local {
            Some(local) => (Some(local.file.text), local.values.map(|values| values.text)),
            None => (None, None),
        };
        Ok(StepSettings::EncodedTask(EncodedStepSettings {
            context_path,
            task_content: text,
            values_content: values_text,
            values: some(values(&self.set, &self.set_secret)?),
        }))
    }

    /// The token for the context's Git host.
    fn git_credential(&self) -> Result<Option<(SourceHost, SetTaskCredential)>, Fault> {
        let Some(token) = &self.git_access_token else { return Ok(None) };
        let source = self.context.as_deref().map(SourceLocation::parse);
        let Some(Ok(SourceLocation::Remote(RemoteSource::Git(source)))) = source else {
            return Err(Fault::usage("--git-access-token is for the Git repository that --context names")
                .with_hint("other hosts' credentials are kept with `cooper task credential add`"));
        };
        let host = SourceHost::parse(&source.url.host()).map_err(|error| Fault::usage(chain(&error)))?;
        Ok(Some((host, SetTaskCredential { username: "git".to_owned(), password: token.clone() })))
    }
}

fn is_task_file(file: &str) -> bool {
    file.rsplit_once('.').is_some_and(|(_, ending)| TASK_FILES.contains(&ending.to_ascii_lowercase().as_str()))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The build arguments of `--arg` and `--secret-arg`.
pub(super) fn arguments(
    plain: &[String],
    secret: &[String],
    environment: &Environment,
) -> Result<Vec<TaskValue>, Fault> {
    let all = plain.iter().map(|text| ("--arg", text, false));
    let all = all.chain(secret.iter().map(|text| ("--secret-arg", text, true)));
    all.map(|(flag, text, is_secret)| {
        let argument = argument(flag, text, is_secret, environment)?;
        Ok(TaskValue { name: argument.name, value: Some(argument.value), is_secret })
    })
    .collect()
}

/// The values of `--set` and `--set-secret`.
pub(super) fn values(set: &[String], set_secret: &[String]) -> Result<Vec<TaskValue>, Fault> {
    let values = read_values(set, set_secret)?.into_iter();
    Ok(values.map(|set| TaskValue { name: set.name, value: Some(set.value), is_secret: set.secret }).collect())
}

/// The timers of `--schedule`.
fn timers(schedules: &[String]) -> Result<BTreeMap<TimerName, Option<TimerSettings>>, Fault> {
    let mut timers = BTreeMap::new();
    for (index, text) in schedules.iter().enumerate() {
        let (name, schedule) = match text.split_once(':') {
            Some((name, schedule)) => (name.trim().to_owned(), schedule.trim()),
            None => (format!("t{}", index + 1), text.trim()),
        };
        let name = TimerName::parse(&name).map_err(|error| Fault::usage(format!("--schedule: {error}")))?;
        let schedule = schedule.to_owned();
        let timer = TimerSettings { schedule, time_zone: None, catch_up: None, status: None };
        if timers.insert(name.clone(), Some(timer)).is_some() {
            return Err(Fault::usage(format!("--schedule: timer `{name}` is given twice")));
        }
    }
    Ok(timers)
}
