//! `cooper task create` and `update`: what flags say of a task.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use cooper_api::rest::{EncodedStepSettings, SetTaskCredential, StepSettings, TaskSettings, TaskView, TimerSettings};
use cooper_client::Client;
use cooper_types::{Platform, SourceHost, TaskName, TimerName};

use super::source::tell_hooks;
use super::what::{WhatArgs, said};
use super::{NameArgs, context, git_token, show};
use crate::azure::AzureRunFlags;
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
    /// There are no managed identities
    #[arg(long, value_name = "ID", num_args = 0.., hide = true)]
    assign_identity: Option<Vec<String>>,
    /// There are no tasks of the registry's own
    #[arg(long, hide = true)]
    is_system_task: bool,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    azure: AzureRunFlags,
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
    azure: AzureRunFlags,
}

pub(super) async fn create(args: &CreateArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    warn(&args.azure);
    refuse_what_is_azures(args)?;
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
    let credential = git_token::credential(token(&args.what), args.what.context.as_deref(), None, environment)?;
    let mut task = client.create_task(&settings).await?;
    if let Some(kept) = keep_token(&client, &name, credential).await? {
        task = with_secrets(kept, task);
    }
    output::note(&format!("Task {name} is made."));
    if let Some(StepSettings::Docker(step)) = &task.settings.step
        && step.is_push_enabled != Some(false)
        && step.image_names.as_ref().is_none_or(Vec::is_empty)
    {
        output::warning(
            "no image is named: its runs build and push nothing; `cooper task update --image NAME` names one",
        );
    }
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
    let (named, had) = (args.what.context.as_deref(), context(&earlier.settings));
    let credential = git_token::credential(token(&args.what), named, had, environment)?;
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

fn token(what: &WhatArgs) -> Option<&str> {
    what.git_access_token.as_deref()
}

fn warn(azure: &AzureRunFlags) {
    for warning in azure.warnings() {
        output::warning(&warning);
    }
}

/// Refuses what makes another task in Azure, and would be missed by what comes after it in a script.
fn refuse_what_is_azures(args: &CreateArgs) -> Result<(), Fault> {
    if args.assign_identity.is_some() {
        return Err(Fault::usage("--assign-identity: there are no managed identities here").with_hint(
            "a task acts as who makes it; what it shows other registries is kept with `cooper task credential add`",
        ));
    }
    if args.is_system_task {
        return Err(Fault::usage("--is-system-task: there are no tasks of the registry's own here")
            .with_hint("leave it out, and name a context and a file"));
    }
    Ok(())
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

/// The timers of `--schedule`: one without a name has that of its place, or the next that is free.
fn timers(schedules: &[String]) -> Result<BTreeMap<TimerName, Option<TimerSettings>>, Fault> {
    let parts = |text: &'_ String| match text.split_once(':') {
        Some((name, schedule)) => (Some(name.trim().to_owned()), schedule.trim().to_owned()),
        None => (None, text.trim().to_owned()),
    };
    let parts: Vec<_> = schedules.iter().map(parts).collect();
    let mut taken: BTreeSet<String> = parts.iter().filter_map(|(name, _)| name.clone()).collect();
    let mut timers = BTreeMap::new();
    for (index, (name, schedule)) in parts.into_iter().enumerate() {
        let free = || (index + 1..).map(|number| format!("t{number}")).find(|name| !taken.contains(name));
        let name = name.or_else(free).expect("there is a number that is free");
        taken.insert(name.clone());
        let name = TimerName::parse(&name).map_err(|error| Fault::usage(format!("--schedule: {error}")))?;
        let timer = TimerSettings { schedule, time_zone: None, catch_up: None, status: None };
        if timers.insert(name.clone(), Some(timer)).is_some() {
            return Err(Fault::usage(format!("--schedule: timer `{name}` is given twice")));
        }
    }
    Ok(timers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_without_a_name_takes_one_that_is_free() {
        let names = |schedules: &[&str]| {
            let schedules: Vec<String> = schedules.iter().map(|text| format!("{text}0 2 * * *")).collect();
            timers(&schedules).map(|timers| timers.into_keys().map(|name| name.to_string()).collect::<Vec<_>>())
        };
        for (schedules, expect) in [
            (&["", ""][..], &["t1", "t2"][..]),
            (&["t2:", ""], &["t2", "t3"]),
            (&["", "t1:"], &["t1", "t2"]),
            (&["", "t2:", "", "t3:"], &["t1", "t2", "t3", "t4"]),
            (&["nightly : ", ""], &["nightly", "t2"]),
        ] {
            assert_eq!(names(schedules).expect("sound"), expect, "{schedules:?}");
        }
        assert!(names(&["a:", "a:"]).expect_err("twice").message.contains("`a` is given twice"));
    }
}
