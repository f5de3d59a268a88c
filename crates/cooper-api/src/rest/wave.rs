//! Base images on the wire: waves, what a change would rebuild, and what did not start a task.

use std::collections::BTreeMap;

use cooper_types::{RunId, TaskName, Timestamp, WaveId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::task::TaskStatus;
use super::time::{rfc3339, rfc3339_option};

/// Which changes of base images start a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseImageTriggerSettings {
    /// What the trigger is called; `defaultBaseimageTriggerName` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which bases of builds it follows: `Runtime` (the final stages') or `All`; `Runtime` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image_trigger_type: Option<BaseImageTriggerType>,
    /// Whether it starts the task at all; `Enabled` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Whether it follows the images of `cmd` steps too; `false` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows_steps: Option<bool>,
    /// The address that is told of the runs that it sets off; none if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_trigger_endpoint: Option<String>,
    /// How much that is told; `Default` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_trigger_payload_type: Option<UpdatePayloadType>,
}

/// How much the endpoint of a base image trigger is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum UpdatePayloadType {
    /// What was updated, the run, and a token.
    #[default]
    Default,
    /// The token alone.
    Token,
}

/// What the requests to a task's endpoint are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateTriggerSecret {
    /// The secret.
    pub secret: String,
}

/// Shows no secret.
impl std::fmt::Debug for UpdateTriggerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpdateTriggerSecret")
    }
}

/// Which bases of builds a base image trigger follows, in ACR's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum BaseImageTriggerType {
    /// What the final stages stand on.
    #[default]
    Runtime,
    /// All of them.
    All,
}

/// The images that set a run off, as ACR says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageUpdateTrigger {
    /// The wave that the run is a part of.
    #[schema(value_type = String)]
    pub id: WaveId,
    /// When the run was set off.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// The images.
    pub images: Vec<UpdatedImage>,
}

/// An image that was not what it had been when its task was last built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdatedImage {
    /// The registry.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What the tag stood for when the run was set off.
    pub digest: String,
    /// What the task had been built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<String>,
}

/// The runs that a change of base images sets off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveView {
    /// Its id.
    #[schema(value_type = String)]
    pub wave_id: WaveId,
    /// `Running`, `Paused`, `Canceling`: runs of it go on; `Canceled`; `Succeeded`: over, and no member failed or was skipped; or
    /// `Failed`.
    pub status: String,
    /// When it was opened.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub open_time: Timestamp,
    /// When its last member ended.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finish_time: Option<Timestamp>,
    /// How many runs of all waves go on at a time.
    pub concurrency_limit: u32,
    /// What set it off.
    pub changes: Vec<WaveChange>,
    /// How many members are in which state, by its name; states that nobody is in are left out.
    pub counts: BTreeMap<String, u32>,
    /// Where a circle of tasks was cut, in words.
    pub cuts: Vec<String>,
    /// The members, those that others wait for first; a list of waves holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<WaveMember>>,
}

/// A tag that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveChange {
    /// The image with its tag.
    pub image: String,
    /// What it stood for before, where that is known.
    pub previous_digest: Option<String>,
    /// What it stands for.
    pub digest: String,
}

/// A task in a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveMember {
    /// The task.
    #[schema(value_type = String)]
    pub task: TaskName,
    /// The longest way to it from what changed, from 0.
    pub level: u32,
    /// The tasks that it waits for.
    #[schema(value_type = Vec<String>)]
    pub after: Vec<TaskName>,
    /// `waiting`: its turn has not come; `running`: its run goes on, or waits for an agent; `done`: that succeeded; `unchanged`:
    /// when its turn came it stood on what is newest; `takenOver`: another wave does it; `failed`: its run failed, or there could be
    /// none; `skipped`: what it stands on was not built, or its task is gone or follows no base any more; `canceled`: the wave was
    /// cancelled before its turn.
    pub state: String,
    /// Its run.
    #[schema(value_type = Option<String>)]
    pub run_id: Option<RunId>,
    /// Why it is so, in a line: of one that waits, for what. Absent for those that are done, and those that an agent builds.
    pub reason: Option<String>,
}

/// What `GET /waves` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveList {
    /// The waves, the newest first.
    pub value: Vec<WaveView>,
}

/// What `GET /registry-hook` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryHookView {
    /// Where other registries tell of pushes, below the server's address. Who knows it can have registries asked sooner, and
    /// nothing else.
    pub path: String,
    /// The whole address, if the server was told by which it is reached (`--public-url`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What `GET /impact` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImpactQuery {
    /// The image that would change.
    pub image: String,
}

/// What a new image under a tag would rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImpactView {
    /// The image, or the images that the name may mean.
    pub images: Vec<String>,
    /// The tasks, in order.
    pub tasks: Vec<ImpactTask>,
    /// Where a circle of tasks would be cut, in words.
    pub cuts: Vec<String>,
    /// Tasks that stand on it and would not start.
    pub refused: Vec<ImpactRefusal>,
    /// Tasks that base images start and of which no run has succeeded yet: what they stand on is not known before; the first
    /// hundred.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub unknown: Vec<TaskName>,
    /// Whether there are more of those.
    #[serde(default)]
    pub unknown_more: bool,
    /// Tasks that stand on it and that the server can't read: they would not be built, and what stands on what they make is
    /// not known.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

/// A task that would be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImpactTask {
    /// The task.
    #[schema(value_type = String)]
    pub task: TaskName,
    /// The longest way to it, from 0.
    pub level: u32,
    /// The tasks that it would wait for.
    #[schema(value_type = Vec<String>)]
    pub after: Vec<TaskName>,
    /// What it stands on that would change.
    pub images: Vec<String>,
}

/// A task that would not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImpactRefusal {
    /// The task.
    #[schema(value_type = String)]
    pub task: TaskName,
    /// What it stands on.
    pub image: String,
    /// The rule that says no.
    pub rule: String,
}

/// What `GET /tasks/{id}/refusals` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusalList {
    /// What did not start the task lately, the newest first.
    pub value: Vec<RefusalView>,
}

/// Something that did not start a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusalView {
    /// When.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What happened.
    pub event: String,
    /// The rule that said no.
    pub rule: String,
}
