//! `cooper task`: stored tasks, with the names and flags of `az acr task`.

mod apply;
mod credential;
mod define;
mod difference;
mod documents;
pub(crate) mod git_token;
mod hooks;
mod notifications;
mod runs;
mod source;
#[cfg(test)]
mod tests;
mod timer;
mod what;
mod yaml;

use clap::{Args, Subcommand};
use cooper_api::rest::{
    BaseImageTriggerSettings, RefusalView, StepSettings, TaskSettings, TaskStatus, TaskView, UpdatePayloadType,
};
use cooper_types::TaskName;

pub(super) use self::source::address;
use super::runs::short_time;
use crate::azure::AzureScope;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    command: TaskCommand,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    azure: AzureScope,
}

/// What `update --help` says of taking away.
const UPDATE_HELP: &str = "\
A list takes the place of the earlier one: --path a --path b leaves these two.
An empty value takes away what was there: --image '', --arg '' (with --secret-arg), --set '' (with --set-secret),
--values '', --target '', --platform '', --branch '', --git-tag '', --path '', --exclude-path '', --forge '',
--fork-pool '', --update-trigger-endpoint ''. Files come from nowhere with --context /dev/null, and a source trigger
that listens to nothing any more is gone.";

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Make a task
    Create(Box<define::CreateArgs>),
    /// Change a task: what is not named stays as it is
    #[command(after_help = UPDATE_HELP)]
    Update(Box<define::UpdateArgs>),
    /// Show a task, without the values of its secrets
    Show {
        #[command(flatten)]
        named: NamedOutput,
        /// Those are shown to nobody
        #[arg(long, hide = true)]
        with_secure_properties: bool,
    },
    /// List the tasks
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Delete a task with its timers, hooks, secrets and credentials; its runs stay
    Delete {
        #[command(flatten)]
        name: NameArgs,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let triggers start a task
    Enable(NameArgs),
    /// Let no trigger start a task; it can still be run by hand
    Disable(NameArgs),
    /// Run a task now
    Run(Box<runs::RunArgs>),
    /// Show the log of a task's last run, or of another one, until the run ends
    Logs(runs::LogsArgs),
    /// List runs of tasks, the newest first
    ListRuns(runs::ListRunsArgs),
    /// Show a run
    ShowRun(runs::ShowRunArgs),
    /// End a run early
    CancelRun(runs::ShowRunArgs),
    /// Keep a run from the clean-up of old runs, or end that
    UpdateRun(runs::UpdateRunArgs),
    /// Make tasks as a file says, and change those that differ; what differs is shown first
    Apply(apply::ApplyArgs),
    /// Write tasks in the form that `apply` takes, without the values of secrets
    Export(apply::ExportArgs),
    /// Show what did not start a task lately, and the rules that said no
    WhyNot(NamedOutput),
    /// Show what a task tells its update-trigger endpoint and its forge, and what came of that
    Notifications(notifications::NotificationsArgs),
    /// Show what the requests to a task's update-trigger endpoint are signed with
    UpdateTriggerSecret {
        #[command(flatten)]
        name: NameArgs,
        /// Make another one first, as when it has leaked; from then on it alone is signed with
        #[arg(long)]
        new_secret: bool,
    },
    /// Make, change, list and remove timers
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Timer(timer::TimerArgs),
    /// Show where forges send what happens, and what came of it
    Hooks(hooks::HooksArgs),
    /// Keep, list and forget what runs of a task show to registries and Git hosts
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Credential(credential::CredentialArgs),
}

/// A task's name, by its place or by az's flag.
#[derive(Args, Debug)]
struct NameArgs {
    /// The task's name: 5 to 50 letters, digits, `-` and `_`
    #[arg(value_name = "NAME")]
    task: Option<String>,
    /// The task's name
    #[arg(long, short, value_name = "NAME", conflicts_with = "task")]
    name: Option<String>,
}

#[derive(Args, Debug)]
struct NamedOutput {
    #[command(flatten)]
    name: NameArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

impl NameArgs {
    fn find(&self) -> Result<Option<TaskName>, Fault> {
        let text = self.task.as_deref().or(self.name.as_deref());
        text.map(task_name).transpose()
    }

    fn get(&self) -> Result<TaskName, Fault> {
        self.find()?
            .ok_or_else(|| Fault::usage("no task is named").with_hint("name it, such as `nightly` or `--name nightly`"))
    }
}

fn task_name(text: &str) -> Result<TaskName, Fault> {
    TaskName::parse(text).map_err(|error| Fault::usage(error.to_string()))
}

pub(crate) async fn run(args: &TaskArgs, environment: &Environment) -> Result<Exit, Stop> {
    let server = &args.server;
    for warning in args.azure.warnings() {
        output::warning(&warning);
    }
    match &args.command {
        TaskCommand::Create(args) => define::create(args, server, environment).await,
        TaskCommand::Update(args) => define::update(args, server, environment).await,
        TaskCommand::Show { with_secure_properties: true, .. } => {
            Err(Fault::usage("--with-secure-properties: the values of a task's secrets are shown to nobody")
                .with_hint("without it, `show` says which there are")
                .into())
        }
        TaskCommand::Show { named, .. } => {
            let name = named.name.get()?;
            show(&server.connect(environment)?.get_task(&name).await?, named.output)?;
            Ok(Exit::Success)
        }
        TaskCommand::List { output } => {
            let tasks = server.connect(environment)?.list_tasks().await?;
            match output {
                OutputForm::Json => output::json(&tasks)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 5]> = tasks.iter().map(row).collect();
                    let heading = ["NAME", "PLATFORM", "STATUS", "SOURCE REPOSITORY", "TRIGGERS"];
                    output::line(&table::table(heading, &rows))?;
                }
            }
            Ok(Exit::Success)
        }
        TaskCommand::Delete { name, yes } => delete(&name.get()?, *yes, server, environment).await,
        TaskCommand::Enable(name) => enable(&name.get()?, TaskStatus::Enabled, server, environment).await,
        TaskCommand::Disable(name) => enable(&name.get()?, TaskStatus::Disabled, server, environment).await,
        TaskCommand::Run(args) => runs::run(args, server, environment).await,
        TaskCommand::Logs(args) => runs::logs(args, server, environment).await,
        TaskCommand::ListRuns(args) => runs::list(args, server, environment).await,
        TaskCommand::ShowRun(args) => runs::show(args, server, environment).await,
        TaskCommand::CancelRun(args) => runs::cancel(args, server, environment).await,
        TaskCommand::UpdateRun(args) => runs::update(args, server, environment).await,
        TaskCommand::Apply(args) => apply::apply(args, server, environment).await,
        TaskCommand::Export(args) => apply::export(args, server, environment).await,
        TaskCommand::UpdateTriggerSecret { name, new_secret } => {
            let (name, client) = (name.get()?, server.connect(environment)?);
            let secret = match new_secret {
                true => client.renew_update_trigger_secret(&name).await?,
                false => client.update_trigger_secret(&name).await?,
            };
            output::line(&secret.secret)?;
            Ok(Exit::Success)
        }
        TaskCommand::Notifications(args) => notifications::run(args, server, environment).await,
        TaskCommand::WhyNot(args) => why_not(&args.name.get()?, args.output, server, environment).await,
        TaskCommand::Timer(args) => timer::run(args, server, environment).await,
        TaskCommand::Hooks(args) => hooks::run(args, server, environment).await,
        TaskCommand::Credential(args) => credential::run(args, server, environment).await,
    }
}

async fn delete(name: &TaskName, yes: bool, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = server.connect(environment)?;
    if !yes && !output::agreed(&format!("Delete task {name} with its timers, secrets and credentials?"))? {
        output::note("Nothing is deleted.");
        return Ok(Exit::Success);
    }
    client.delete_task(name).await?;
    output::note(&format!("Task {name} is deleted."));
    Ok(Exit::Success)
}

async fn why_not(
    name: &TaskName,
    form: OutputForm,
    server: &ServerArgs,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let refusals = server.connect(environment)?.list_refusals(name).await?.value;
    match form {
        OutputForm::Json => output::json(&refusals)?,
        OutputForm::Text if refusals.is_empty() => {
            output::note(&format!("Nothing that could have started task {name} is known to have been refused."));
        }
        OutputForm::Text => {
            let row = |one: &RefusalView| [short_time(one.time), plain(&one.event), plain(&one.rule)];
            let rows: Vec<[String; 3]> = refusals.iter().map(row).collect();
            output::line(&table::table(["TIME", "EVENT", "WHY NOT"], &rows))?;
        }
    }
    Ok(Exit::Success)
}

async fn enable(
    name: &TaskName,
    status: TaskStatus,
    server: &ServerArgs,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let change = TaskSettings { status: Some(status), ..TaskSettings::default() };
    server.connect(environment)?.update_task(name, &change).await?;
    let what = if status == TaskStatus::Enabled { "enabled" } else { "disabled" };
    output::note(&format!("Task {name} is {what}."));
    Ok(Exit::Success)
}

fn show(task: &TaskView, form: OutputForm) -> Result<(), Stop> {
    match form {
        OutputForm::Json => output::json(task),
        OutputForm::Text => output::line(&describe(task)),
    }
}

/// What others wrote, for a terminal: nothing that steers it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn context(task: &TaskSettings) -> Option<&str> {
    match task.step.as_ref()? {
        StepSettings::Docker(step) => step.context_path.as_deref(),
        StepSettings::FileTask(step) => step.context_path.as_deref(),
        StepSettings::EncodedTask(step) => step.context_path.as_deref(),
    }
}

fn row(task: &TaskView) -> [String; 5] {
    let settings = &task.settings;
    let timers = settings.timers.values().flatten();
    let has_timer = timers.into_iter().any(|timer| timer.status.unwrap_or_default() == TaskStatus::Enabled);
    let base_image = settings.base_image_trigger.as_ref();
    let has_base = base_image.is_some_and(|trigger| trigger.status.unwrap_or_default() == TaskStatus::Enabled);
    let mut sources = settings.source_triggers.values().flatten();
    let has_source = sources.any(|source| source.status.unwrap_or_default() == TaskStatus::Enabled);
    let triggers = [("BASE_IMAGE", has_base), ("SOURCE", has_source), ("TIMER", has_timer)];
    let triggers: Vec<&str> = triggers.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    [
        settings.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        settings.platforms.clone().unwrap_or_default().join(","),
        settings.status.map(|status| format!("{status:?}")).unwrap_or_default(),
        plain(context(settings).unwrap_or_default()),
        triggers.join(","),
    ]
}

/// A base image trigger for people.
fn base_image(trigger: &BaseImageTriggerSettings) -> String {
    if trigger.status == Some(TaskStatus::Disabled) {
        return "do not start it".to_owned();
    }
    let steps = if trigger.follows_steps == Some(true) { ", and those of cmd steps" } else { "" };
    format!("{:?}{steps}", trigger.base_image_trigger_type.unwrap_or_default())
}

/// Who is told of the runs that base images set off. What follows the host may be a secret, as chats' addresses are.
fn endpoint(trigger: &BaseImageTriggerSettings) -> Option<String> {
    // It is there for everybody, the address for some.
    let payload = trigger.update_trigger_payload_type?;
    let place = match &trigger.update_trigger_endpoint {
        None => "there is one; its principal and administrators see where".to_owned(),
        Some(uri) => {
            let (scheme, rest) = uri.split_once("://")?;
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            let is_all = rest.trim_end_matches('/') == host;
            if is_all { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/…") }
        }
    };
    Some(match payload {
        UpdatePayloadType::Default => place,
        UpdatePayloadType::Token => format!("{place}, a token alone"),
    })
}

/// A task for people.
fn describe(task: &TaskView) -> String {
    let settings = &task.settings;
    let mut lines = Vec::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{:<13} {}", format!("{name}:"), plain(&value)));
        }
    };
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    field("Task", settings.name.as_ref().map(ToString::to_string).unwrap_or_default());
    field("Status", settings.status.map(|status| format!("{status:?}")).unwrap_or_default());
    field("Context", context(settings).unwrap_or_default().to_owned());
    let values = |all: &Option<Vec<cooper_api::rest::TaskValue>>| {
        let value = |value: &cooper_api::rest::TaskValue| match &value.value {
            Some(text) => format!("{}={text}", value.name),
            None => format!("{}=***", value.name),
        };
        all.iter().flatten().map(value).collect::<Vec<_>>().join(" ")
    };
    match &settings.step {
        Some(StepSettings::Docker(step)) => {
            field("Dockerfile", step.docker_file_path.clone().unwrap_or_default());
            field("Images", step.image_names.clone().unwrap_or_default().join(" "));
            field(
                "Push",
                step.is_push_enabled.map(|push| if push { "yes" } else { "no" }.to_owned()).unwrap_or_default(),
            );
            field("Target", step.target.clone().unwrap_or_default());
            field("Arguments", values(&step.arguments));
        }
        Some(StepSettings::FileTask(step)) => {
            field("Task file", step.task_file_path.clone().unwrap_or_default());
            field("Values file", step.values_file_path.clone().unwrap_or_default());
            field("Values", values(&step.values));
        }
        Some(StepSettings::EncodedTask(step)) => {
            let lines = step.task_content.as_deref().unwrap_or_default().lines().count();
            field("Task file", format!("its own, {lines} lines: --output json shows it"));
            field("Values", values(&step.values));
        }
        None => {}
    }
    field("Platform", settings.platforms.clone().unwrap_or_default().join(", "));
    field("Pool", settings.agent_pool_name.clone().unwrap_or_default());
    field("CPUs", number(settings.cpu));
    field("Timeout", settings.timeout.map(|seconds| format!("{seconds} s")).unwrap_or_default());
    field("Priority", settings.priority.filter(|priority| *priority != 0).map(|n| n.to_string()).unwrap_or_default());
    field("At a time", number(settings.concurrency_limit.filter(|limit| *limit > 0)));
    let days = |days: Option<u32>| days.map(|days| format!("{days} days")).unwrap_or_default();
    field("Runs kept", days(settings.run_retention_days));
    field("Logs kept", days(settings.log_retention_days));
    for (name, timer) in &settings.timers {
        if let Some(timer) = timer {
            field("Timer", format!("{name} {}", timer::describe(timer)));
        }
    }
    if let Some(trigger) = &settings.base_image_trigger {
        field("Base images", base_image(trigger));
        field("Endpoint", endpoint(trigger).unwrap_or_default());
    }
    for (name, trigger) in &settings.source_triggers {
        if let Some(trigger) = trigger {
            field("Source", format!("{name} {}", source::describe(trigger)));
        }
    }
    for hook in &task.hooks {
        field("Hook", format!("{} {}", hook.path, hook.provider));
    }
    for credential in &task.credentials {
        field("Credential", format!("{} as {}", credential.login_server, credential.username));
    }
    field("Principal", task.principal.to_string());
    field("Created", task.creation_date.to_string());
    field("Updated", task.last_updated_time.to_string());
    lines.join("\n")
}
