//! The steps of a run on the wire, and what their images stand on.

use cooper_types::{StepId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OutputImage;
use crate::rest::time::rfc3339_option;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStep {
    /// The step's id, unique in the run.
    #[schema(value_type = String, example = "build")]
    pub id: StepId,
    /// What the step does.
    #[serde(rename = "type")]
    pub step_type: StepType,
    /// Where it stands.
    pub status: StepStatus,
    /// How many attempts there were, the current one included.
    pub attempts: u32,
    /// How often its work was tried in the newest attempt, where it was more than once: by its retries and repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// When the first attempt began.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start_time: Option<Timestamp>,
    /// When the step reached its last state.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finish_time: Option<Timestamp>,
    /// The exit code of the user's process, where there was one.
    pub exit_code: Option<i32>,
    /// Why it did not succeed, in one line.
    pub reason: Option<String>,
    /// The agent of the last attempt.
    pub agent: Option<String>,
    /// What it runs for, as `os/architecture[/variant]`.
    #[serde(default)]
    pub platform: Option<String>,
    /// What a push wrote, by digest: the images, or the index of several platforms. What a build left for other placements,
    /// too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pushed: Vec<OutputImage>,
    /// While it is pending: the steps that it waits for.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub waits_for: Vec<StepId>,
    /// While it is pending, and no agent has its part of the run: why.
    #[serde(default)]
    pub pending_reason: Option<String>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepType {
    /// Fetches the source.
    Prepare,
    /// Builds an image.
    Build,
    /// Runs a container.
    Cmd,
    /// Pushes images.
    Push,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// An attempt is live.
    Running,
    /// Done.
    Succeeded,
    /// The user's step failed.
    Failed,
    /// Never begun, because the run ended before.
    Skipped,
    /// Ended by a cancel.
    Canceled,
    /// Lost to a failure of the machinery.
    Error,
    /// Took longer than it may.
    Timeout,
}

/// Which bases went into an image (contract §2.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dependency {
    /// The image that was built; `null` if it has no tag.
    pub image: Option<ImageDependency>,
    /// The base of its last stage; `null` for `scratch`.
    #[serde(rename = "runtime-dependency")]
    pub runtime_dependency: Option<ImageDependency>,
    /// The bases of its other stages.
    #[serde(rename = "buildtime-dependency")]
    pub buildtime_dependency: Option<Vec<ImageDependency>>,
    /// The commit that was built, where the source is a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitHead>,
}

/// An image with its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDependency {
    /// Host and port of the registry.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// The tag, where one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest's digest; empty where nothing was pushed.
    pub digest: String,
    /// The reference as it was written.
    pub reference: String,
}

/// The head of a source repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GitHead {
    /// The commit.
    #[serde(rename = "git-head-revision", default)]
    pub revision: String,
}
