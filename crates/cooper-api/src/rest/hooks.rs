//! Source triggers of tasks, hooks and what came to them.

use cooper_types::{HookId, RunId, Timestamp, TriggerName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::task::TaskStatus;
use super::time::{rfc3339, rfc3339_option};

/// What happens in a task's repository to start it. What is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceTriggerSettings {
    /// Whose hooks: `github`, `gitlab`, `gitea` (Forgejo too), `bitbucket-cloud`, `bitbucket-server`, `azure-devops` or
    /// `generic`. If absent or empty, it follows from the repository's host; `generic` where that says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// `commit`, `pullrequest` and `tag`; `commit` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<SourceEventType>>,
    /// Patterns of branches, `!` before those that don't count; the context's branch if absent, or `main` and `master`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// Patterns of tags; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Patterns of changed files, as in `.gitignore`; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Patterns of changed files that don't count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_paths: Vec<String>,
    /// Whether pull requests that are drafts count; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drafts: Option<bool>,
    /// Whether `[skip ci]` in a message is honoured; it is if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_ci: Option<bool>,
    /// The pool for pull requests of forks, which must be marked for untrusted work; they start nothing if it is absent or
    /// empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_pool: Option<String>,
    /// Whether a new commit of a pull request ends the runs of its earlier ones; not if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_superseded: Option<bool>,
    /// Whether it listens at all; `Enabled` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
}

/// What a source trigger listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceEventType {
    /// Pushed commits.
    Commit,
    /// Pull requests.
    PullRequest,
    /// Tags.
    Tag,
}

/// What happened in a repository to set a run off, as ACR says it, and more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceTriggerView {
    /// What told of it: the delivery's id.
    pub id: Option<String>,
    /// `commit`, `pullrequest` or `tag`.
    pub event_type: String,
    /// The commit that is built.
    pub commit_id: String,
    /// What the branch or the tag stood at before, where the forge says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_commit_id: Option<String>,
    /// The pull request's number.
    pub pull_request_id: Option<String>,
    /// The repository.
    pub repository_url: String,
    /// The branch; of a pull request, the one that it is to be merged into.
    pub branch_name: Option<String>,
    /// The tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_name: Option<String>,
    /// The kind of forge.
    pub provider_type: String,
    /// The trigger's name.
    #[schema(value_type = String)]
    pub trigger_name: TriggerName,
    /// What somebody who asks why it ran should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Where a forge sends what happens in a task's repository.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookView {
    /// Its id, which can't be guessed.
    #[schema(value_type = String)]
    pub id: HookId,
    /// Who sends to it.
    pub provider: String,
    /// Its path on this server.
    pub path: String,
    /// The whole address, if the server was told by which it is reached (`--public-url`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its secret, in the answer to the request that made it and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub creation_date: Timestamp,
    /// Until when the secret before this one is taken as well.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub previous_secret_until: Option<Timestamp>,
    /// Who sets it at the forge.
    #[serde(default)]
    pub setup: HookSetup,
    /// The repository's host, where the server asks its forge or would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge_host: Option<String>,
}

/// Who sets a hook at its forge, and what the server lacks to do it itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum HookSetup {
    /// The server, with the task's token.
    Server,
    /// A person, because the task keeps no token for the forge.
    LacksToken,
    /// A person, because the server can't say where it is (`--public-url`).
    LacksPublicUrl,
    /// A person: the task keeps a token for the host, but nobody has said what kind of forge that is, and its name tells nothing.
    LacksForge,
    /// A person: there is no forge that could be asked.
    #[default]
    Hand,
}

/// Shows no secret.
impl std::fmt::Debug for HookView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookView").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What `GET /tasks/{id}/hooks` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookList {
    /// The task's hooks.
    pub value: Vec<SeenHook>,
    /// The last deliveries that were kept, the newest first.
    pub deliveries: Vec<DeliveryView>,
    /// How the last looks at the repository went, for what no delivery told of.
    #[serde(default)]
    pub looks: Vec<LookView>,
}

/// How a look at a task's repository went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookView {
    /// What was looked for.
    pub kind: LookKind,
    /// When it was.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// When the next one is meant to be.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub next_time: Timestamp,
    /// Why it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What is looked for in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum LookKind {
    /// Branches and tags, as Git lists them.
    References,
    /// Open pull requests, as the forge lists them.
    PullRequests,
}

/// What `POST /tasks/{id}/hooks/{hook}/secret` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateHookQuery {
    /// Whether the secret before, and the one before that, are taken no more at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoke_old: bool,
}

/// A hook, and what came to it since the server's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenHook {
    /// The hook.
    #[serde(flatten)]
    pub hook: HookView,
    /// How many deliveries were kept.
    pub kept: u64,
    /// How many came again that were kept already.
    #[serde(default)]
    pub repeated: u64,
    /// How many were signed, and none of the task's triggers listens to what they told.
    pub passed_over: u64,
    /// How many were not believed, or not understood.
    pub refused: u64,
    /// When the last one came.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
    /// When the last one came that was passed over or refused.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_not_kept: Option<Timestamp>,
    /// Why it was.
    pub why: Option<String>,
    /// Whether the server has registered it at the forge; absent where it does not do that: for the generic form, and where
    /// the repository's URL leads to no forge's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationView>,
}

/// How far the registration of a hook at its forge is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationView {
    /// How far it is.
    pub status: RegistrationStatus,
    /// The repository.
    pub repository: String,
    /// When the forge took it last.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub registered: Option<Timestamp>,
    /// When it is tried next.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
    /// What went wrong last.
    pub fault: Option<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RegistrationStatus {
    /// The forge has it.
    Registered,
    /// It is tried in a moment, or again.
    Waiting,
    /// It is left until the task, its token or the server's address changes.
    Failed,
}

/// A delivery, and what it led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// The sender's id for it.
    pub id: String,
    /// The hook that it came to.
    #[schema(value_type = String)]
    pub hook: HookId,
    /// When it came.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub received: Timestamp,
    /// When it came again, of the last few that did since the server's start.
    #[serde(default, with = "rfc3339_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub again: Option<Timestamp>,
    /// What each of its events led to; `null` while it waits.
    pub outcomes: Option<Vec<EventOutcomeView>>,
}

/// What an event led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventOutcomeView {
    /// What happened.
    pub event: String,
    /// The run that it set off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub run_id: Option<RunId>,
    /// The run that the same event had set off before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub known_run_id: Option<RunId>,
    /// The rule that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why there is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What a forge is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAnswer {
    /// What became of the delivery.
    pub status: ReceiptStatus,
    /// Why it is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReceiptStatus {
    /// It is kept, and worked on in a moment.
    Kept,
    /// It was there before.
    Repeated,
    /// The task does not listen to it.
    PassedOver,
}
