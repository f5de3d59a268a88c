//! `cooper task run`, and what `az acr task` has for runs: the words of `cooper runs` for those who know az.

use clap::Args;
use cooper_api::rest::{ListRunsQuery, Run, TaskRunRequest};
use cooper_types::RunId;

use super::NameArgs;
use super::what::{arguments, values};
use crate::azure::{AzureRunFlags, boolean};
use crate::cli::OutputForm;
use crate::commands::logs::{self as log, run_id};
use crate::commands::runs as all_runs;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;
use crate::started::{WaitFlags, Whose, new_key, see_through};

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Where the files of this run come from
    #[arg(long, short, value_name = "SOURCE")]
    context: Option<String>,
    /// The Dockerfile or task file of this run, inside the context
    #[arg(long, short, value_name = "FILE")]
    file: Option<String>,
    /// A build argument, in place of the task's of this name; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    arg: Vec<String>,
    /// The same, kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret_arg: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// A value for templates, in place of the task's of this name; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The same, kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set_secret: Vec<String>,
    /// The pool whose agents may take this run
    #[arg(long, value_name = "POOL")]
    agent_pool: Option<String>,
    /// An endpoint's token is the id of the event that it is told of
    #[arg(long, value_name = "TOKEN", hide = true)]
    update_trigger_token: Option<String>,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    azure: AzureRunFlags,
}

#[derive(Args, Debug)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The run's id, such as ca1 [default: the newest run of the task, or of all]
    #[arg(long, value_name = "RUN")]
    run_id: Option<String>,
    /// The newest run that wrote this image, such as `app`, `app:v1` or `app@sha256:…`
    #[arg(long, short = 't', value_name = "IMAGE", conflicts_with = "run_id")]
    image: Option<String>,
    /// It goes on until the run ends in any case
    #[arg(long, hide = true)]
    follow: bool,
    /// A log is shown as it is in any case
    #[arg(long, hide = true)]
    no_format: bool,
}

#[derive(Args, Debug)]
pub(super) struct ListRunsArgs {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    list: all_runs::ListFlags,
}

#[derive(Args, Debug)]
pub(super) struct ShowRunArgs {
    #[command(flatten)]
    run: RunIdArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

#[derive(Args, Debug)]
pub(super) struct UpdateRunArgs {
    #[command(flatten)]
    run: RunIdArgs,
    /// `false` keeps the run from the clean-up of old runs, `true` ends that
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true", required = true)]
    no_archive: Option<bool>,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

/// A run's id, by its place or by az's flag.
#[derive(Args, Debug)]
struct RunIdArgs {
    /// The run's id, such as ca1
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// The run's id, such as ca1
    #[arg(long, value_name = "RUN", conflicts_with = "run")]
    run_id: Option<String>,
}

impl RunIdArgs {
    fn get(&self) -> Result<RunId, Fault> {
        match self.run.as_deref().or(self.run_id.as_deref()) {
            Some(text) => run_id(text),
            None => Err(Fault::usage("no run is named").with_hint("name it, such as `ca1` or `--run-id ca1`")),
        }
    }
}

pub(super) async fn run(args: &RunArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    for warning in args.azure.warnings() {
        output::warning(&warning);
    }
    if args.update_trigger_token.is_some() {
        return Err(Fault::usage("--update-trigger-token: a run by hand tells the task's endpoint nothing")
            .with_hint("it is told of runs that base images set off, each with a token of the event's own")
            .into());
    }
    let request = TaskRunRequest {
        context_path: args.context.clone(),
        file: args.file.clone(),
        target: args.target.clone(),
        arguments: arguments(&args.arg, &args.secret_arg, environment)?,
        values: values(&args.set, &args.set_secret)?,
        agent_pool_name: args.agent_pool.clone(),
    };
    let client = server.connect(environment)?;
    let run = client.run_task(&name, &request, &new_key()?).await?;
    output::note(&format!("Queued a run with ID: {}", run.run_id));
    see_through(&client, run, &args.wait, environment, Whose::Theirs).await
}

pub(super) async fn logs(args: &LogsArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = server.connect(environment)?;
    let run = match &args.run_id {
        Some(run) => client.get_run(run_id(run)?).await?,
        None => {
            let task_name = args.name.find()?;
            let image = args.image.clone();
            let query = ListRunsQuery { task_name, image, top: Some(1), ..ListRunsQuery::default() };
            let Some(run) = client.list_runs(&query).await?.value.pop() else {
                let of = query.task_name.map(|name| format!(" of task `{name}`")).unwrap_or_default();
                let wrote = query.image.map(|image| format!(" that wrote `{image}`")).unwrap_or_default();
                return Err(Fault::usage(format!("there is no run{of}{wrote}")).into());
            };
            output::note(&format!("Run {} is the newest.", run.run_id));
            run
        }
    };
    // The log of a run that has ended is shown as it is kept, to the byte.
    log::show(&client, run.run_id, !run.status.is_final()).await
}

pub(super) async fn list(args: &ListRunsArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let query = args.list.query(args.name.find()?)?;
    let list = server.connect(environment)?.list_runs(&query).await?;
    let heading = ["RUN ID", "TASK", "PLATFORM", "STATUS", "TRIGGER", "STARTED", "DURATION"];
    args.list.show(&list, heading, row)?;
    Ok(Exit::Success)
}

pub(super) async fn show(args: &ShowRunArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let run = args.run.get()?;
    let run = server.connect(environment)?.get_run(run).await?;
    all_runs::show(&run, args.output)?;
    Ok(Exit::Success)
}

pub(super) async fn cancel(args: &ShowRunArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let run = args.run.get()?;
    let run = server.connect(environment)?.cancel_run(run).await?;
    all_runs::show_cancelled(&run, args.output)?;
    Ok(Exit::Success)
}

pub(super) async fn update(args: &UpdateRunArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let run = args.run.get()?;
    let archived = !args.no_archive.unwrap_or_default();
    let run = server.connect(environment)?.archive_run(run, archived).await?;
    match args.output {
        OutputForm::Json => output::json(&run)?,
        OutputForm::Text if archived => output::note(&format!("Run {} is kept for ever.", run.run_id)),
        OutputForm::Text => output::note(&format!("Run {} is kept as long as other runs of its task.", run.run_id)),
    }
    Ok(Exit::Success)
}

/// What set a run off, in a word.
fn trigger(run: &Run) -> &'static str {
    match (&run.source_trigger, &run.timer_trigger, &run.image_update_trigger) {
        (Some(source), ..) => match source.event_type.as_str() {
            "pullrequest" => "PullRequest",
            "tag" => "Tag",
            _ => "Commit",
        },
        (None, Some(_), _) => "Timer",
        (None, None, Some(_)) => "Image Update",
        (None, None, None) => "Manual",
    }
}

fn row(run: &Run) -> [String; 7] {
    [
        run.run_id.to_string(),
        run.task.clone().unwrap_or_default(),
        run.platform.to_string(),
        run.status.to_string(),
        trigger(run).to_owned(),
        run.start_time.map_or_else(String::new, all_runs::short_time),
        all_runs::run_duration(run).unwrap_or_default(),
    ]
}
