//! `cooper task apply` and `export`: tasks as documents, applied until nothing differs any more.

use clap::Args;
use cooper_api::rest::{Moment, ReplaceTaskQuery, StepSettings, TaskSettings, TaskView};
use cooper_client::{Client, ClientError};
use cooper_types::TaskName;

use super::difference::difference;
use super::documents::{self, Document};
use super::{NameArgs, yaml};
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;
use crate::task::read_or_stdin;

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The file of tasks: YAML documents as `cooper task export` writes them; - is the standard input
    #[arg(long, short, value_name = "FILE")]
    file: String,
    /// Show what would change and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    name: NameArgs,
}

/// What is to become of a task.
struct Change {
    name: TaskName,
    settings: TaskSettings,
    before: Option<TaskView>,
    /// What differs, in lines; none is shown of a secret's value.
    diff: Vec<String>,
}

pub(super) async fn apply(args: &ApplyArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let documents = documents::read(&args.file, &read_or_stdin(&args.file, "file of tasks")?)?;
    let client = server.connect(environment)?;
    // All are looked at before one is changed: a file with a fault changes nothing.
    let (mut changes, mut faults) = (Vec::with_capacity(documents.len()), Vec::new());
    for document in documents {
        match compare(&client, document).await? {
            Ok(change) => changes.push(change),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(Stop::Faults(faults));
    }
    let all = changes.len();
    changes.retain(|change| !change.diff.is_empty());
    for change in &changes {
        let what = if change.before.is_some() { "changes" } else { "is new" };
        output::line(&format!("Task {} {what}:", change.name))?;
        for line in &change.diff {
            output::line(&format!("  {}", super::plain(line)))?;
        }
    }
    if changes.is_empty() {
        output::note(&match all {
            1 => "The task is as the file says.".to_owned(),
            all => format!("All {all} tasks are as the file says."),
        });
        return Ok(Exit::Success);
    }
    if args.dry_run {
        output::note(&format!("{} of {all} tasks would change.", changes.len()));
        return Ok(Exit::Success);
    }
    // The answer would be a part of the file.
    if !args.yes && args.file == "-" {
        return Err(output::nobody_to_ask().into());
    }
    if !args.yes && !output::agreed("Apply?")? {
        output::note("Nothing is changed.");
        return Ok(Exit::Success);
    }
    for change in &changes {
        // What was shown is what is changed.
        let generation = change.before.as_ref().map_or(0, |before| before.generation);
        let created = change.before.as_ref().map(|before| Moment(before.creation_date));
        let query = ReplaceTaskQuery { dry_run: false, generation: Some(generation), created };
        let task = client.replace_task(&change.name, &change.settings, query).await?;
        output::note(&format!("Task {} is applied.", change.name));
        super::source::tell_hooks(&task, client.server());
    }
    Ok(Exit::Success)
}

pub(super) async fn export(args: &ExportArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = server.connect(environment)?;
    let tasks = match args.name.find()? {
        Some(name) => vec![client.get_task(&name).await?],
        None => client.list_tasks().await?,
    };
    // Before a line is written: half of an export is none.
    let faults: Vec<Fault> = tasks.iter().filter_map(withheld).collect();
    if !faults.is_empty() {
        return Err(Stop::Faults(faults));
    }
    for task in &tasks {
        // A list is without the texts.
        let whole = match &task.settings {
            TaskSettings { name: Some(name), step: Some(StepSettings::EncodedTask(_)), .. }
                if args.name.find()?.is_none() =>
            {
                Some(client.get_task(name).await?)
            }
            _ => None,
        };
        let task = whole.as_ref().unwrap_or(task);
        output::data(format!("---\n{}{}", left_out(task), yaml::document(&value(&task.settings)?)).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// What is kept of a task from a token that may only read it. A file without that would take it away where it is applied.
fn withheld(task: &TaskView) -> Option<Fault> {
    let settings = &task.settings;
    let endpoint = settings.base_image_trigger.as_ref().is_some_and(|trigger| {
        // It is there for everybody, the address for some.
        trigger.update_trigger_payload_type.is_some() && trigger.update_trigger_endpoint.is_none()
    });
    // A query that is written out has no such character: it would be encoded.
    let query = super::context(settings).is_some_and(|context| context.contains("?…"));
    let what = match (endpoint, query) {
        (false, false) => return None,
        (true, false) => "the address of its update-trigger endpoint",
        (false, true) => "the query of its context",
        (true, true) => "the address of its update-trigger endpoint and the query of its context",
    };
    let name = settings.name.as_ref().map(TaskName::as_str).unwrap_or_default();
    let message =
        format!("task `{name}` can't be exported: {what} can't be shown, and would be lost by `cooper task apply`");
    Some(
        Fault::usage(message)
            .with_hint(format!("use a token of `{}`, whose task it is, or of an administrator", task.principal)),
    )
}

/// What an export does not hold: whoever applies it owns what comes of it, and keeps credentials and secrets anew.
fn left_out(task: &TaskView) -> String {
    let mut line = format!("# {}'s", task.principal);
    let hosts: Vec<String> = task.credentials.iter().map(|one| one.login_server.to_string()).collect();
    if !hosts.is_empty() {
        line.push_str(&format!(", who keeps credentials for {}", hosts.join(", ")));
    }
    line.push('\n');
    line
}

/// What a document changes, or what the server finds wrong with it.
async fn compare(client: &Client, document: Document) -> Result<Result<Change, Fault>, Stop> {
    let Document { name, settings, place } = document;
    let before = match client.get_task(&name).await {
        Ok(task) => Some(task),
        Err(ClientError::Refused { problem }) if problem.status == 404 => None,
        Err(error) => return Err(error.into()),
    };
    // The server says what the document comes to, with all defaults.
    let query = ReplaceTaskQuery { dry_run: true, ..ReplaceTaskQuery::default() };
    let after = match client.replace_task(&name, &settings, query).await {
        Ok(after) => after,
        Err(error) => {
            // Whoever may do nothing at all, or too much at once, is told so once.
            let is_of_task = matches!(
                &error,
                ClientError::Refused { problem } if matches!(problem.status, 400..500) && !matches!(problem.status, 401 | 403 | 429)
            );
            let fault = Fault::from(error);
            return match is_of_task {
                true => Ok(Err(Fault { message: format!("{place}: {}", fault.message), ..fault })),
                false => Err(fault.into()),
            };
        }
    };
    let earlier = match &before {
        Some(task) => yaml::document(&value(&task.settings)?),
        None => String::new(),
    };
    let mut diff = difference(&earlier, &yaml::document(&value(&after.settings)?));
    // It would be kept as it is: the server has compared the values, too.
    let is_same = before.as_ref().is_some_and(|before| before.generation == after.generation);
    if gives_secrets(&settings) && !is_same {
        diff.push("~ values of secrets are set".to_owned());
    }
    Ok(Ok(Change { name, settings, before, diff }))
}

fn value(settings: &TaskSettings) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(settings).map_err(|error| Fault::machinery(format!("a task can't be written: {error}")))
}

fn gives_secrets(settings: &TaskSettings) -> bool {
    let values = match &settings.step {
        Some(StepSettings::Docker(step)) => &step.arguments,
        Some(StepSettings::FileTask(step)) => &step.values,
        Some(StepSettings::EncodedTask(step)) => &step.values,
        None => return false,
    };
    values.iter().flatten().any(|value| value.is_secret && value.value.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_read_again() {
        let text = concat!(
            "name: nightly\nstatus: Disabled\nstep:\n  type: EncodedTask\n  contextPath: https://git.example/a.git#main\n",
            "  taskContent: |\n    version: v1.1.0\n    steps:\n      - cmd: \"busybox echo '#'\"\n  valuesContent: 'a: b'\n",
            "  values:\n    - {name: a, value: 'yes'}\n    - {name: b, isSecret: true}\n",
            "platforms: [linux/arm64]\nagentPoolName: arm\ncpu: 4\ntimeout: 60\npriority: -3\nconcurrencyLimit: 1\n",
            "runRetentionDays: 7\nlogRetentionDays: 3\n",
            "timers:\n  t1: {schedule: 0 2 * * *, timeZone: Europe/Berlin, catchUp: Once, status: Disabled}\n",
            "baseImageTrigger: {name: bases, baseImageTriggerType: All, status: Enabled, followsSteps: true,\n",
            "  updateTriggerEndpoint: 'https://chat.example/t0ken', updateTriggerPayloadType: Token}\n",
            "sourceTriggers:\n  pulls: {provider: gitea, events: [commit, pullrequest, tag], branches: [main, '!x'], tags: [v*],\n",
            "    paths: [src/**], excludePaths: ['*.md'], drafts: true, skipCi: false, forkPool: forks,\n",
            "    cancelSuperseded: true, status: Disabled}\n",
            "---\nname: other\nstep: {type: Docker, contextPath: 'https://git.example/a.git', dockerFilePath: Dockerfile,\n",
            "  imageNames: ['app:{{.Run.ID}}'], isPushEnabled: false, noCache: true, target: test, arguments: [{name: A, value: ''}]}\n",
        );
        let read = documents::read("f", text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(read.len(), 2);
        for Document { name, settings, .. } in read {
            let text = yaml::document(&value(&settings).expect("json"));
            let again = documents::read("f", &text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(
                again.into_iter().map(|again| (again.name, again.settings)).collect::<Vec<_>>(),
                [(name, settings)]
            );
        }
    }

    #[test]
    fn what_a_reader_is_not_shown_is_not_left_out_in_silence() {
        let task = |context: &str, trigger: serde_json::Value| -> TaskView {
            serde_json::from_value(serde_json::json!({
                "name": "nightly", "step": { "type": "Docker", "contextPath": context }, "baseImageTrigger": trigger,
                "principal": "ann", "creationDate": "2026-01-01T00:00:00Z", "lastUpdatedTime": "2026-01-01T00:00:00Z",
                "generation": 1, "credentials": [], "hooks": [],
            }))
            .expect("a task")
        };
        let none = serde_json::json!({});
        let whole = serde_json::json!({ "updateTriggerEndpoint": "https://a.example/x", "updateTriggerPayloadType": "Default" });
        let cut = serde_json::json!({ "updateTriggerPayloadType": "Default" });
        let (plain, query, hidden) =
            ("https://a.example/a.tar.gz#:b", "https://a.example/a.tar.gz?sig=x#:b", "https://a.example/a.tar.gz?…#:b");
        for (context, trigger, expect) in [
            (plain, &none, None),
            (query, &whole, None),
            (plain, &cut, Some("the address of its update-trigger endpoint can't")),
            (hidden, &whole, Some("the query of its context can't")),
            (hidden, &cut, Some("the address of its update-trigger endpoint and the query of its context can't")),
        ] {
            let fault = withheld(&task(context, trigger.clone()));
            match (&fault, expect) {
                (Some(fault), Some(expect)) => {
                    assert!(
                        fault.message.starts_with("task `nightly` ") && fault.message.contains(expect),
                        "{fault:?}"
                    );
                    assert!(fault.hint.as_ref().is_some_and(|hint| hint.contains("`ann`")), "{fault:?}");
                }
                (None, None) => {}
                _ => panic!("{context} {trigger}: {fault:?}"),
            }
        }
    }
}
