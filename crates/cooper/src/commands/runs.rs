//! `cooper runs`: what ran, how one run stands, what it was made from, running it again, and ending one early.

mod diff;
mod rerun;
mod why;

use clap::{Args, Subcommand};
use cooper_api::rest::{ListRunsQuery, Run, RunList, RunStatus, RunStep, RunType, SourceTriggerView};
use cooper_types::TaskName;

use super::logs::run_id;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};
use diff::Diff;
use rerun::{RerunFlags, rerun};
use why::why;

#[derive(Args, Debug)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List runs, the newest first
    List(ListFlags),
    /// Show a run
    Show {
        /// The run's id, such as ca1
        #[arg(value_name = "RUN")]
        run: String,
        /// The form of the answer
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Say what set a run off
    Why {
        /// The run's id, such as ca1
        #[arg(value_name = "RUN")]
        run: String,
    },
    /// Run a run of your own again, with the source and the images that it had
    Rerun {
        /// The run's id, such as ca1
        #[arg(value_name = "RUN")]
        run: String,
        #[command(flatten)]
        flags: Box<RerunFlags>,
    },
    /// Show what a run was made from, as JSON
    Lock {
        /// The run's id, such as ca1
        #[arg(value_name = "RUN")]
        run: String,
    },
    /// Show what moved between two runs: source, images, arguments, secrets, engines
    Diff {
        /// The earlier run's id, such as ca1
        #[arg(value_name = "A")]
        from: String,
        /// The later run's id, such as ca2
        #[arg(value_name = "B")]
        to: String,
        /// The form of the answer
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// End a run early
    Cancel {
        /// The run's id, such as ca1
        #[arg(value_name = "RUN")]
        run: String,
        /// The form of the answer
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
}

/// Which runs a list shows, and how.
#[derive(Args, Debug)]
pub(super) struct ListFlags {
    /// Only runs with this status, such as Failed
    #[arg(long, visible_alias = "run-status", value_name = "STATUS")]
    status: Option<RunStatus>,
    /// Only runs of this type, such as QuickBuild
    #[arg(long, value_name = "TYPE")]
    run_type: Option<RunType>,
    /// Only runs that wrote this image, such as `app`, `app:v1` or `app@sha256:…`
    #[arg(long, short = 't', value_name = "IMAGE")]
    image: Option<String>,
    /// How many at most
    #[arg(long, visible_alias = "last", value_name = "N", default_value_t = ListRunsQuery::DEFAULT_TOP,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(ListRunsQuery::MAX_TOP)))]
    top: u32,
    /// Only runs that are older than this one
    #[arg(long, value_name = "RUN")]
    before: Option<String>,
    /// The form of the list
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

impl ListFlags {
    /// What is asked for, of one task or of all.
    pub(super) fn query(&self, task_name: Option<TaskName>) -> Result<ListRunsQuery, Fault> {
        let before = self.before.as_deref().map(run_id).transpose()?;
        let (status, run_type, image) = (self.status, self.run_type, self.image.clone());
        Ok(ListRunsQuery { status, task_name, run_type, image, top: Some(self.top), before })
    }

    /// Shows what came of it, for people with these columns.
    pub(super) fn show(&self, list: &RunList, heading: [&str; 7], row: fn(&Run) -> [String; 7]) -> Result<(), Stop> {
        if self.output == OutputForm::Json {
            return output::json(&list.value);
        }
        let rows: Vec<[String; 7]> = list.value.iter().map(row).collect();
        output::line(&table::table(heading, &rows))?;
        if let (Some(_), Some(last)) = (&list.next_link, list.value.last()) {
            output::note(&format!("There are more: see --top N and --before {}.", last.run_id));
        }
        Ok(())
    }
}

pub(crate) async fn run(args: &RunsArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        RunsCommand::List(flags) => {
            let list = args.server.connect(environment)?.list_runs(&flags.query(None)?).await?;
            let heading = ["RUN ID", "TYPE", "PLATFORM", "STATUS", "STARTED", "DURATION", "IMAGES"];
            flags.show(&list, heading, row)?;
        }
        RunsCommand::Show { run, output } => {
            let run = run_id(run)?;
            let run = args.server.connect(environment)?.get_run(run).await?;
            show(&run, *output)?;
        }
        RunsCommand::Rerun { run, flags } => {
            let run = run_id(run)?;
            return rerun(&args.server.connect(environment)?, run, flags, environment).await;
        }
        RunsCommand::Lock { run } => {
            let run = run_id(run)?;
            output::json(&args.server.connect(environment)?.get_lock(run).await?)?;
        }
        RunsCommand::Diff { from, to, output } => {
            let (from, to) = (run_id(from)?, run_id(to)?);
            let client = args.server.connect(environment)?;
            let diff = Diff::between(&client.get_lock(from).await?, &client.get_lock(to).await?);
            match output {
                OutputForm::Json => output::json(&diff)?,
                OutputForm::Text => output::line(&diff.text())?,
            }
        }
        RunsCommand::Why { run } => {
            let run = run_id(run)?;
            let run = args.server.connect(environment)?.get_run(run).await?;
            output::line(&why(&run))?;
        }
        RunsCommand::Cancel { run, output } => {
            let run = run_id(run)?;
            let run = args.server.connect(environment)?.cancel_run(run).await?;
            show_cancelled(&run, *output)?;
        }
    }
    Ok(Exit::Success)
}

/// Says how far a cancel is.
pub(super) fn show_cancelled(run: &Run, form: OutputForm) -> Result<(), Stop> {
    match form {
        OutputForm::Json => output::json(run)?,
        // One that no agent had yet ends at once.
        OutputForm::Text if run.status == RunStatus::Canceled => {
            output::note(&format!("Run {} is cancelled.", run.run_id));
        }
        OutputForm::Text if run.status.is_final() => {
            output::note(&format!("Run {} has already ended: {}.", run.run_id, run.status));
        }
        OutputForm::Text => output::note(&format!("Run {} is being cancelled.", run.run_id)),
    }
    Ok(())
}

/// Shows a run.
pub(super) fn show(run: &Run, form: OutputForm) -> Result<(), Stop> {
    match form {
        OutputForm::Json => output::json(run),
        OutputForm::Text => output::line(&describe(run)),
    }
}

fn row(run: &Run) -> [String; 7] {
    [
        run.run_id.to_string(),
        run.run_type.to_string(),
        run.platform.to_string(),
        run.status.to_string(),
        run.start_time.map_or_else(String::new, short_time),
        run_duration(run).unwrap_or_default(),
        plain(&run.image_names.join(" ")),
    ]
}

pub(super) fn run_duration(run: &Run) -> Option<String> {
    Some(output::duration(run.finish_time?.since(run.start_time?)))
}

/// To the second: a list is for people.
pub(super) fn short_time(time: cooper_types::Timestamp) -> String {
    let text = time.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// What others wrote, for a terminal: nothing that steers it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A step of a run for people, in a line: what became of it, where, when, and why, or what it waits for.
fn step_line(step: &RunStep) -> String {
    let mut line = format!("{} {:?}", step.id, step.status);
    if let Some(agent) = &step.agent {
        line.push_str(&format!(" on {agent}"));
    }
    if let Some(tries) = step.tries {
        line.push_str(&format!(" in {tries} tries"));
    }
    if step.attempts > 1 {
        line.push_str(&format!(" in attempt {}", step.attempts));
    }
    let mut parts = Vec::new();
    if let Some(start) = step.start_time {
        parts.push(format!("began {}", short_time(start)));
    }
    if let Some((start, finish)) = step.start_time.zip(step.finish_time) {
        parts.push(format!("took {}", output::duration(finish.since(start))));
    }
    parts.extend(step.exit_code.map(|code| format!("exit code {code}")));
    if !step.waits_for.is_empty() {
        let ids: Vec<String> = step.waits_for.iter().map(ToString::to_string).collect();
        parts.push(format!("waits for {}", ids.join(", ")));
    }
    parts.extend(step.pending_reason.clone());
    for part in parts {
        line.push_str(&format!(", {part}"));
    }
    if let Some(reason) = &step.reason {
        line.push_str(&format!(": {reason}"));
    }
    line
}

/// What happened in a repository, in a few words.
fn trigger(source: &SourceTriggerView) -> String {
    let (repository, branch) = (&source.repository_url, source.branch_name.as_deref().unwrap_or_default());
    match (&source.pull_request_id, &source.tag_name) {
        (Some(number), _) => format!("pull request {number} into {branch} of {repository}"),
        (None, Some(tag)) => format!("tag {tag} of {repository}"),
        (None, None) => format!("commit on {branch} of {repository}"),
    }
}

/// A run for people.
fn describe(run: &Run) -> String {
    let mut lines = Vec::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{:<13} {}", format!("{name}:"), plain(&value)));
        }
    };
    field("Run", run.run_id.to_string());
    field("Status", run.status.to_string());
    field("Pending", run.pending_reason.clone().unwrap_or_default());
    field("Error", run.run_error_message.clone().unwrap_or_default());
    field("Type", run.run_type.to_string());
    field("Rerun of", run.rerun_of.map(|of| of.to_string()).unwrap_or_default());
    field("Task", run.task.clone().unwrap_or_default());
    if let Some(timer) = &run.timer_trigger {
        field("Trigger", format!("timer {} of {}", timer.timer_trigger_name, short_time(timer.schedule_occurrence)));
    }
    if let Some(trigger) = &run.image_update_trigger {
        let images = trigger.images.iter().map(|image| format!("{}:{}", image.repository, image.tag));
        let images: Vec<String> = images.collect();
        field("Trigger", format!("base image {} in wave {}", images.join(", "), trigger.id));
    }
    if let Some(source) = &run.source_trigger {
        field("Trigger", trigger(source));
    }
    field("Asked for by", run.requested_by.as_ref().map(ToString::to_string).unwrap_or_default());
    field("Platform", run.platform.to_string());
    field("Principal", run.principal.to_string());
    field("Created", run.create_time.to_string());
    field("Started", run.start_time.map(|time| time.to_string()).unwrap_or_default());
    field("Finished", run.finish_time.map(|time| time.to_string()).unwrap_or_default());
    field("Duration", run_duration(run).unwrap_or_default());
    field("Source", run.source_location.clone().unwrap_or_default());
    field("Commit", run.source_commit.clone().unwrap_or_default());
    field("Branch", run.source_branch.clone().unwrap_or_default());
    field("Names", run.image_names.join(" "));
    for image in &run.output_images {
        let tag = image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = image.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        field("Image", format!("{}/{}{tag}{digest}", image.registry, image.repository));
    }
    // There is a dependency for each tag, and the tags of an image stand on the same bases.
    let mut bases = Vec::new();
    for dependency in &run.dependencies {
        let runtime = dependency.runtime_dependency.iter();
        for base in runtime.chain(dependency.buildtime_dependency.iter().flatten()) {
            let text = format!("{}@{}", base.reference, base.digest);
            if !bases.contains(&text) {
                bases.push(text);
            }
        }
    }
    bases.into_iter().for_each(|base| field("Base", base));
    for step in &run.steps {
        field("Step", step_line(step));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_happened_in_a_repository_is_told_with_its_number() {
        let told = |more: serde_json::Value| {
            let mut view = json!({
                "id": "1", "eventType": "commit", "commitId": "abc", "pullRequestId": null, "providerType": "gitea",
                "repositoryUrl": "https://git.example/a.git", "branchName": "main", "triggerName": "pulls"
            });
            let map = view.as_object_mut().expect("a map");
            map.extend(more.as_object().expect("a map").clone());
            trigger(&serde_json::from_value(view).expect("a trigger"))
        };
        assert_eq!(told(json!({})), "commit on main of https://git.example/a.git");
        assert_eq!(told(json!({"pullRequestId": "12"})), "pull request 12 into main of https://git.example/a.git");
        assert_eq!(told(json!({"branchName": null, "tagName": "v1"})), "tag v1 of https://git.example/a.git");
    }

    #[test]
    fn a_step_is_told_in_a_line() {
        let line = |more: serde_json::Value| {
            let mut step = json!({
                "id": "test", "type": "cmd", "status": "Pending", "attempts": 0, "exitCode": null, "reason": null, "agent": null
            });
            let map = step.as_object_mut().expect("a map");
            more.as_object()
                .expect("a map")
                .iter()
                .for_each(|(key, value)| drop(map.insert(key.clone(), value.clone())));
            step_line(&serde_json::from_value(step).expect("a step"))
        };
        assert_eq!(line(json!({"waitsFor": ["build", "lint"]})), "test Pending, waits for build, lint");
        assert_eq!(line(json!({"pendingReason": "no agent is connected"})), "test Pending, no agent is connected");
        let failed = json!({
            "status": "Failed", "attempts": 2, "tries": 3, "exitCode": 7, "reason": "container exited with code 7", "agent": "one",
            "startTime": "2026-01-31T12:00:01.000000Z", "finishTime": "2026-01-31T12:00:03.500000Z"
        });
        let expect = "test Failed on one in 3 tries in attempt 2, began 2026-01-31T12:00:01Z, took 2.5s, exit code 7: container exited \
                      with code 7";
        assert_eq!(line(failed), expect);
    }
}
