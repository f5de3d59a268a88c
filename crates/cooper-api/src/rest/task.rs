//! Stored tasks: what is said of one, how it is shown, and runs of it. No answer holds a secret.
//!
//! One form, [`TaskSettings`], makes a task, replaces it and changes it, and is a document of `cooper task apply`.

use std::collections::BTreeMap;
use std::fmt;

use cooper_types::{PrincipalName, RunId, SourceHost, TaskName, TimerName, Timestamp, TriggerName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hooks::{HookView, SourceTriggerSettings};
use super::time::rfc3339;
use super::wave::BaseImageTriggerSettings;

/// What is said of a task. What is absent has its default in a new task, and stays as it is in a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSettings {
    /// Its name: 5 to 50 letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<TaskName>,
    /// Whether triggers start it: `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepSettings>,
    /// What it is for, as `os/architecture[/variant]`; several for a Dockerfile alone. `linux/amd64` if
    /// there are none in a new task, or in an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// The pool whose agents may take its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_pool_name: Option<String>,
    /// The number of processors that a run wants; 2 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// After how many seconds of work a run ends; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 28800)]
    pub timeout: Option<u32>,
    /// Which of two waiting runs goes first: the one of the higher number, from -100 to 100; 0 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// How many of its runs may be with agents at a time; any number if 0 or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<u32>,
    /// For how many days its runs are kept after their end; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_retention_days: Option<u32>,
    /// For how many days their logs are kept; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_retention_days: Option<u32>,
    /// Its timers, by name; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, TimerSettings>)]
    pub timers: BTreeMap<TimerName, Option<TimerSettings>>,
    /// Which changes of its base images start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_trigger: Option<BaseImageTriggerSettings>,
    /// What happens in its repository to start it, by name; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, SourceTriggerSettings>)]
    pub source_triggers: BTreeMap<TriggerName, Option<SourceTriggerSettings>>,
}

/// Whether triggers start a task, or a trigger does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum TaskStatus {
    /// They do.
    #[default]
    Enabled,
    /// They do not.
    Disabled,
}

/// What a task does, told apart by `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type")]
pub enum StepSettings {
    /// It builds a Dockerfile.
    Docker(DockerStepSettings),
    /// It runs a task file of its source.
    FileTask(FileStepSettings),
    /// It runs a task file that is part of the task.
    EncodedTask(EncodedStepSettings),
}

/// What a task builds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerStepSettings {
    /// Where its files come from: a Git repository, an archive's URL or an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_path: Option<String>,
    /// The Dockerfile's path inside the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_file_path: Option<String>,
    /// Names for the image; run variables work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_names: Option<Vec<String>>,
    /// Whether the names are pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_push_enabled: Option<bool>,
    /// Whether the build starts without a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// The stage to build; an empty text takes an earlier one away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<TaskValue>>,
}

/// Which task file a task runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileStepSettings {
    /// Where its files come from: a Git repository, an archive's URL or an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_path: Option<String>,
    /// The task file's path inside the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file_path: Option<String>,
    /// The values file's path inside the source; an empty text takes an earlier one away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_file_path: Option<String>,
    /// Values for `.Values`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<TaskValue>>,
}

/// The task file that a task runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncodedStepSettings {
    /// What the workspace begins with; `/dev/null` is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_path: Option<String>,
    /// The task file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_content: Option<String>,
    /// The values file itself; an empty text takes an earlier one away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_content: Option<String>,
    /// Values for `.Values`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<TaskValue>>,
}

/// A build argument, or a value of templates.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskValue {
    /// Its name.
    pub name: String,
    /// Its value. No answer holds a secret one; a secret one that is absent stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is kept out of logs and records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_secret: bool,
}

/// Shows no value: whether it is a secret is the user's word, and people forget.
impl fmt::Debug for TaskValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskValue")
            .field("name", &self.name)
            .field("is_secret", &self.is_secret)
            .finish_non_exhaustive()
    }
}

/// When a task starts by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimerSettings {
    /// Minute, hour, day, month and weekday, as NCrontab reads them.
    pub schedule: String,
    /// On whose walls; `UTC` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What becomes of instants that passed while no server ran; `Skip` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// Whether it fires at all; `Enabled` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
}

/// What becomes of a timer's instants that passed while no server ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CatchUp {
    /// Nothing.
    #[default]
    Skip,
    /// One run for all of them.
    Once,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// What it is, in the form in which it can be made again; values of secrets are absent.
    #[serde(flatten)]
    pub settings: TaskSettings,
    /// Who made it: its runs are that principal's.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub creation_date: Timestamp,
    /// When it was changed last.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_updated_time: Timestamp,
    /// How often it has been changed, its making included.
    pub generation: u64,
    /// What its runs may show to registries and Git hosts.
    pub credentials: Vec<TaskCredentialView>,
    /// Where forges send what happens; for its principal and administrators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookView>,
}

/// A credential of a task, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskCredentialView {
    /// The registry or Git host, with its port where that is not 443.
    #[schema(value_type = String)]
    pub login_server: SourceHost,
    /// The user name.
    pub username: String,
    /// When it was set last.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_updated_time: Timestamp,
}

/// What `PUT /tasks/{id}/credentials/{host}` takes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetTaskCredential {
    /// The user name; many forges take any with a token.
    pub username: String,
    /// The password or token. It is never shown again.
    pub password: String,
}

/// Shows no password.
impl fmt::Debug for SetTaskCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetTaskCredential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What `GET /tasks` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskList {
    /// The tasks, by name, without the contents of encoded files.
    pub value: Vec<TaskView>,
    /// The path and query of the next page, if there is one.
    pub next_link: Option<String>,
}

/// What `GET /tasks` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListTasksQuery {
    /// How many at most: 1 to [`ListTasksQuery::MAX_TOP`]. Where tasks are large a page may be shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
    /// Only tasks after the one of this name: for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskName>,
}

impl ListTasksQuery {
    /// How many tasks a page has when nothing is said.
    pub const DEFAULT_TOP: u32 = 100;
    /// How many tasks a page has at most.
    pub const MAX_TOP: u32 = 1000;
}

/// What is different in one run of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskRunRequest {
    /// Where its files come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_path: Option<String>,
    /// The Dockerfile or task file inside the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The stage to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments, in place of those of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<TaskValue>,
    /// Values for `.Values`, in place of those of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<TaskValue>,
    /// The pool to send the run to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_pool_name: Option<String>,
}

/// What `PATCH /runs/{id}` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateRun {
    /// Whether the run outlives the clean-up of old runs.
    pub is_archive_enabled: bool,
}

/// A timer, and the instants around now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimerView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: TimerName,
    /// What it is.
    #[serde(flatten)]
    pub settings: TimerSettings,
    /// The next instants; none while it or its task is disabled.
    #[schema(value_type = Vec<String>)]
    pub next: Vec<Moment>,
    /// What became of the last instants, the newest first.
    pub last: Vec<FiredView>,
}

/// A time on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "rfc3339")] pub Timestamp);

/// What became of an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FiredView {
    /// The instant.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub schedule_occurrence: Timestamp,
    /// The run that it set off.
    #[schema(value_type = Option<String>)]
    pub run_id: Option<RunId>,
    /// Why there is none.
    pub why_not: Option<String>,
}

/// What `PUT /tasks/{id}` takes beside its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplaceTaskQuery {
    /// Whether the answer is what would be, and nothing changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The generation that the task has, 0 if there is none: it is replaced if it has not been changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// When the task was made: another one that has taken its name meanwhile is not replaced, though its generation may be the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Moment>,
}

/// What `GET /tasks/{id}/timers` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListTimersQuery {
    /// How many next instants of each: 1 if absent, at most [`ListTimersQuery::MAX_COUNT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl ListTimersQuery {
    /// How many next instants are told at most.
    pub const MAX_COUNT: u32 = 100;
}

/// What `GET /tasks/{id}/timers` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimerList {
    /// The timers, by name.
    pub value: Vec<TimerView>,
    /// Whether triggers start the task at all.
    #[serde(default)]
    pub task_status: TaskStatus,
}

/// The timer that set a run off, as ACR says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimerTrigger {
    /// Its name.
    #[schema(value_type = String)]
    pub timer_trigger_name: TimerName,
    /// The instant that the run stands for.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub schedule_occurrence: Timestamp,
    /// Whether no server could run it then: the run makes up for that instant and the missed ones after it. Ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_catch_up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_said_and_shown_in_one_form() {
        let text = r#"{"name":"nightly","status":"Enabled","step":{"type":"EncodedTask","taskContent":"steps: []",
            "values":[{"name":"a","value":"b"},{"name":"c","isSecret":true}]},"timers":{"t1":{"schedule":"0 2 * * *"}}}"#;
        let settings: TaskSettings = serde_json::from_str(text).expect("valid");
        let view = TaskView {
            settings: settings.clone(),
            principal: PrincipalName::parse("ann").expect("valid"),
            creation_date: Timestamp::from_micros(0),
            last_updated_time: Timestamp::from_micros(0),
            generation: 1,
            credentials: Vec::new(),
            hooks: Vec::new(),
        };
        let shown = serde_json::to_value(&view).expect("json");
        assert_eq!(shown["step"]["type"], "EncodedTask");
        assert_eq!(serde_json::from_value::<TaskView>(shown).expect("valid"), view);
        for (json, name) in [
            (r#"{"name":"four"}"#, "four"),
            (r#"{"step":{"type":"Docker","dockerfile":"x"}}"#, "dockerfile"),
            (r#"{"step":{"type":"Windows"}}"#, "Windows"),
            (r#"{"timers":{"t 1":null}}"#, "t 1"),
            (r#"{"timeOut":3}"#, "timeOut"),
        ] {
            let error = serde_json::from_str::<TaskSettings>(json).expect_err(json).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn values_never_show() {
        let value = TaskValue { name: "A".to_owned(), value: Some("hunter2".to_owned()), is_secret: false };
        let set = SetTaskCredential { username: "git".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{value:?}{set:?}").contains("hunter2"));
    }
}
