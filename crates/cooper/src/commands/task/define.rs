//! `cooper task create` and `update`: what flags say of a task.

use std::collections::BTreeMap;

use clap::Args;
use cooper_api::rest::{EncodedStepSettings, SetTaskCredential, StepSettings, TaskSettings, TaskView, TimerSettings};
use cooper_client::Client;
use cooper_types::{Platform, SourceHost, TaskName, TimerName};

use super::source::tell_hooks;
use super::what::{WhatArgs, said};
use super::{NameArgs, show};
use crate::azure::AzureFlags;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;
use crate::task::{LocalTask, show_faults, show_warnings};

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

pub(super) async fn create(args: &CreateArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    warn(&args.azure);
    args.what.expect_no_empty_list()?;
    let step = args.what.step_of_new(environment)?;
    if let StepSettings::EncodedTask(step) = &step
        && !is_sound(&args.what, step)?
    {
        return Ok(Exit::Usage);
    }
    let mut settings = args.what.settings();
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
    let mut settings = args.what.settings();
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
        values: step.values_content.as_ref().filter(|it| !it.is_empty()).map(|values| text("the values file", values)),
        alias_files: BTreeMap::new(),
    };
    let platform = what.platform.first().and_then(|text| Platform::parse(text).ok());
    let (set, set_secret) = (said(&what.set).unwrap_or_default(), said(&what.set_secret).unwrap_or_default());
    match task.check(None, platform.as_ref(), &set, &set_secret, BTreeMap::new())? {
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
