//! `cooper task timer`: when a task starts by itself.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use cooper_api::rest::{CatchUp, ListTimersQuery, TaskSettings, TaskStatus, TimerList, TimerSettings, TimerView};
use cooper_types::{TaskName, TimerName};

use super::{NameArgs, task_name};
use crate::azure::boolean;
use crate::cli::OutputForm;
use crate::commands::runs::short_time;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(super) struct TimerArgs {
    #[command(subcommand)]
    command: TimerCommand,
}

/// What `add --help` and `update --help` say of time zones.
const CLOCKS_HELP: &str = "\
When the clocks of the time zone change: a time that is left out fires once, at the moment of
the change; a time that comes twice fires the first time; a schedule for every hour fires in
each hour that passes.";

#[derive(Debug, Subcommand)]
enum TimerCommand {
    /// Make a timer
    #[command(after_help = CLOCKS_HELP)]
    Add(ChangeArgs),
    /// Change a timer: what is not named stays as it is
    #[command(after_help = CLOCKS_HELP)]
    Update(ChangeArgs),
    /// List a task's timers
    List {
        #[command(flatten)]
        name: NameArgs,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Remove a timer
    Remove {
        #[command(flatten)]
        name: NameArgs,
        /// The timer's name
        #[arg(long, value_name = "NAME")]
        timer_name: String,
    },
    /// Show when a task's timers fire next
    Next {
        /// The task's name
        #[arg(value_name = "NAME", required_unless_present = "name")]
        task: Option<String>,
        /// The task's name
        #[arg(long, value_name = "NAME", conflicts_with = "task")]
        name: Option<String>,
        /// Only this timer
        #[arg(long, value_name = "NAME")]
        timer_name: Option<String>,
        /// How many times
        #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = count)]
        count: u32,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
}

#[derive(Args, Debug)]
struct ChangeArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The timer's name
    #[arg(long, value_name = "NAME")]
    timer_name: String,
    /// When it fires, as MINUTE HOUR DAY MONTH WEEKDAY; a day of the month and a weekday must both match, Sunday is 0
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<String>,
    /// Whether it fires at all [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    enabled: Option<bool>,
    /// The time zone of the schedule, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// What becomes of times that pass while no server runs: nothing, or one run for all of them [default: skip]
    #[arg(long, value_enum)]
    catch_up: Option<CatchUpArg>,
}

/// What becomes of times that pass while no server runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CatchUpArg {
    Skip,
    Once,
}

pub(super) async fn run(args: &TimerArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        TimerCommand::Add(change) => add(change, server, environment).await,
        TimerCommand::Update(change) => update(change, server, environment).await,
        TimerCommand::List { name, output } => {
            let name = name.get()?;
            let timers = server.connect(environment)?.list_timers(&name, 1).await?;
            match output {
                OutputForm::Json => output::json(&timers.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 7]> =
                        timers.value.iter().map(|timer| row(timer, timers.task_status)).collect();
                    let heading = ["NAME", "STATUS", "SCHEDULE", "TIME ZONE", "CATCH-UP", "NEXT", "LAST"];
                    output::line(&table::table(heading, &rows))?;
                    if timers.task_status == TaskStatus::Disabled && !rows.is_empty() {
                        output::note(&disabled(&name));
                    }
                }
            }
            Ok(Exit::Success)
        }
        TimerCommand::Remove { name, timer_name } => {
            let (task, timer) = (name.get()?, timer_of(timer_name)?);
            let timers = BTreeMap::from([(timer.clone(), None)]);
            let change = TaskSettings { timers, ..TaskSettings::default() };
            server.connect(environment)?.update_task(&task, &change).await?;
            output::note(&format!("Timer {timer} of task {task} is removed."));
            Ok(Exit::Success)
        }
        TimerCommand::Next { task, name, timer_name, count, output } => {
            let text = task.as_deref().or(name.as_deref()).unwrap_or_default();
            let only = timer_name.as_deref().map(timer_of).transpose()?;
            next(&task_name(text)?, only.as_ref(), *count, *output, server, environment).await
        }
    }
}

/// How many instants are shown; in other commands `-n` is the task's name.
fn count(text: &str) -> Result<u32, String> {
    let most = ListTimersQuery::MAX_COUNT;
    text.parse().ok().filter(|count| (1..=most).contains(count)).ok_or_else(|| {
        format!(
            "it is no number from 1 to {most}; the task is named as in `cooper task timer next NAME` or with --name"
        )
    })
}

fn timer_of(text: &str) -> Result<TimerName, Fault> {
    TimerName::parse(text).map_err(|error| Fault::usage(error.to_string()))
}

async fn add(args: &ChangeArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let (task, timer) = (args.name.get()?, timer_of(&args.timer_name)?);
    let Some(schedule) = args.schedule.clone() else {
        return Err(Fault::usage("no schedule is named").with_hint("such as --schedule '0 2 * * *'").into());
    };
    let client = server.connect(environment)?;
    if client.get_task(&task).await?.settings.timers.contains_key(&timer) {
        return Err(Fault::usage(format!("task `{task}` has a timer `{timer}`"))
            .with_hint("change it with `cooper task timer update`")
            .into());
    }
    let blank = TimerSettings { schedule, time_zone: None, catch_up: None, status: None };
    put(args, &task, &timer, blank, &client).await?;
    output::note(&format!("Timer {timer} of task {task} is made."));
    Ok(Exit::Success)
}

async fn update(args: &ChangeArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let (task, timer) = (args.name.get()?, timer_of(&args.timer_name)?);
    let ChangeArgs { name: _, timer_name: _, schedule, enabled, time_zone, catch_up } = args;
    if schedule.is_none() && enabled.is_none() && time_zone.is_none() && catch_up.is_none() {
        return Err(Fault::usage("no flag says what to change").into());
    }
    let client = server.connect(environment)?;
    let Some(earlier) = client.get_task(&task).await?.settings.timers.remove(&timer).flatten() else {
        return Err(Fault::usage(format!("task `{task}` has no timer `{timer}`"))
            .with_hint("`cooper task timer list` shows its timers")
            .into());
    };
    put(args, &task, &timer, earlier, &client).await?;
    output::note(&format!("Timer {timer} of task {task} is changed."));
    Ok(Exit::Success)
}

async fn put(
    args: &ChangeArgs,
    task: &TaskName,
    name: &TimerName,
    earlier: TimerSettings,
    client: &cooper_client::Client,
) -> Result<(), Stop> {
    let timer = TimerSettings {
        schedule: args.schedule.clone().unwrap_or(earlier.schedule),
        time_zone: args.time_zone.clone().or(earlier.time_zone),
        catch_up: match args.catch_up {
            Some(CatchUpArg::Skip) => Some(CatchUp::Skip),
            Some(CatchUpArg::Once) => Some(CatchUp::Once),
            None => earlier.catch_up,
        },
        status: match args.enabled {
            Some(true) => Some(TaskStatus::Enabled),
            Some(false) => Some(TaskStatus::Disabled),
            None => earlier.status,
        },
    };
    let timers = BTreeMap::from([(name.clone(), Some(timer))]);
    client.update_task(task, &TaskSettings { timers, ..TaskSettings::default() }).await?;
    Ok(())
}

async fn next(
    task: &TaskName,
    only: Option<&TimerName>,
    count: u32,
    form: OutputForm,
    server: &ServerArgs,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let TimerList { value: mut timers, task_status } = server.connect(environment)?.list_timers(task, count).await?;
    if let Some(only) = only {
        timers.retain(|timer| timer.name == *only);
        if timers.is_empty() {
            return Err(Fault::usage(format!("task `{task}` has no timer `{only}`")).into());
        }
    }
    let mut instants: Vec<_> =
        timers.iter().flat_map(|timer| timer.next.iter().map(|next| (next.0, &timer.name))).collect();
    instants.sort();
    instants.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    match form {
        OutputForm::Json => {
            let json = |(at, name): &(cooper_types::Timestamp, &TimerName)| serde_json::json!({ "timer": name, "scheduleOccurrence": at.to_string() });
            output::json(&instants.iter().map(json).collect::<Vec<_>>())?;
        }
        OutputForm::Text => {
            for (at, name) in &instants {
                output::line(&format!("{}   {name}", short_time(*at)))?;
            }
            if task_status == TaskStatus::Disabled {
                output::note(&disabled(task));
            } else if instants.is_empty() {
                output::note(&format!("No timer that is enabled starts task {task}."));
            }
        }
    }
    Ok(Exit::Success)
}

/// A timer in a line.
pub(super) fn describe(timer: &TimerSettings) -> String {
    let mut text = timer.schedule.clone();
    if let Some(zone) = timer.time_zone.as_ref().filter(|zone| *zone != "UTC") {
        text.push_str(&format!(" in {zone}"));
    }
    if timer.catch_up == Some(CatchUp::Once) {
        text.push_str(", once for missed times");
    }
    if timer.status == Some(TaskStatus::Disabled) {
        text.push_str(", disabled");
    }
    text
}

/// What is said of the timers of a task that no trigger starts.
fn disabled(task: &TaskName) -> String {
    format!("Task {task} is disabled: no timer of it fires. `cooper task enable {task}` ends that.")
}

fn row(timer: &TimerView, task_status: TaskStatus) -> [String; 7] {
    let settings = &timer.settings;
    let last = timer.last.first().map(|fired| match (&fired.run_id, &fired.why_not) {
        (Some(run), _) => run.to_string(),
        (None, why) => format!("no run: {}", super::plain(why.as_deref().unwrap_or_default())),
    });
    [
        timer.name.to_string(),
        settings.status.map(|status| format!("{status:?}")).unwrap_or_default(),
        settings.schedule.clone(),
        settings.time_zone.clone().unwrap_or_default(),
        settings.catch_up.map(|catch_up| format!("{catch_up:?}")).unwrap_or_default(),
        match (task_status, timer.next.first()) {
            (TaskStatus::Disabled, _) => "none: the task is disabled".to_owned(),
            (TaskStatus::Enabled, next) => next.map(|next| short_time(next.0)).unwrap_or_default(),
        },
        last.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timer_of_a_disabled_task_says_why_it_never_fires() {
        let timer = json!({ "name": "t1", "schedule": "0 2 * * *", "status": "Enabled", "next": [], "last": [] });
        let timer: TimerView = serde_json::from_value(timer).expect("a timer");
        assert_eq!(row(&timer, TaskStatus::Disabled)[5], "none: the task is disabled");
        assert_eq!(row(&timer, TaskStatus::Enabled)[5], "");
    }
}
