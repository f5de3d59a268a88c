//! What a run was made from, and the request to run it again.

use std::fmt;

use cooper_types::{RunId, StepId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BuildSecret, RunType, StepType};

/// The form that lockfiles have.
pub const LOCKFILE_VERSION: u32 = 1;

/// Everything that decides what a run makes, as far as it is known. What is not known yet is absent. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lockfile {
    /// The form: 1.
    pub version: u32,
    /// The run.
    #[schema(value_type = String, example = "ca1")]
    pub run_id: RunId,
    /// What kind of request made it.
    pub run_type: RunType,
    /// The run that it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<RunId>,
    /// Where its files came from, if an agent fetched them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LockedSource>,
    /// The archive with its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<LockedContext>,
    /// The task file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file: Option<LockedText>,
    /// The values file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_file: Option<LockedText>,
    /// The files and URLs that aliases came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alias_files: Vec<LockedText>,
    /// Values that came with the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<LockedValue>,
    /// Secrets that the task file names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<LockedSecret>,
    /// Who ran it: one for each platform.
    pub placements: Vec<LockedPlacement>,
    /// Its steps in file order.
    pub steps: Vec<LockedStep>,
}

/// A source that an agent fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedSource {
    /// What was asked for, without what may be secret.
    pub location: String,
    /// The commit of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch that it was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The tag that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest of an archive as it came, or of an artifact's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// An archive with a run's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedContext {
    /// The archive's digest.
    pub digest: String,
    /// Bytes of the archive.
    pub size: u64,
}

/// A text that the planning read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedText {
    /// What it is called.
    pub name: String,
    /// The digest of what it holds.
    pub digest: String,
}

/// A value or a build argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedValue {
    /// Its name.
    pub name: String,
    /// Its value; absent if it is secret, and for those whose run it is not: only its principal and administrators see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_secret: bool,
}

/// A secret that a task file names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedSecret {
    /// Its name in the file.
    pub id: String,
    /// Who gave it.
    pub provider: String,
    /// Where it is.
    pub place: String,
    /// Which version it had, where the place has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Elsewhere a text that differs when the value does, and tells nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Who ran the steps of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedPlacement {
    /// The platform.
    pub platform: String,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The agent's engine, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// What a step was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedStep {
    /// Its id.
    #[schema(value_type = String)]
    pub id: StepId,
    /// What it does.
    #[serde(rename = "type")]
    pub step_type: StepType,
    /// What it runs for.
    pub platform: String,
    /// Where a build's context came from, if the step fetched one for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<LockedSource>,
    /// The images that a build stood on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<LockedImage>,
    /// What read a build's Dockerfile: an image that it names, or the engine's `built-in` frontend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<LockedImage>,
    /// The image of a container, where it is not the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<LockedImage>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<LockedValue>,
    /// The ids of a build's secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

/// An image as a step found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockedImage {
    /// How it is named.
    pub reference: String,
    /// What that was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Asks for a run to be run again. Secrets that came with its request are not kept: they come again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RerunRequest {
    /// Whether only what did not succeed is repeated, with what that needs.
    pub failed: bool,
    /// Whether references, images and secrets are resolved anew. Where only a part is repeated, the source stays.
    pub fresh: bool,
    /// Secrets for `RUN --mount=type=secret`.
    pub secrets: Vec<BuildSecret>,
    /// Secret build arguments.
    pub arguments: Vec<NamedSecret>,
    /// Secret values for templates.
    pub values: Vec<NamedSecret>,
}

/// A secret with its name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedSecret {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Shows no value.
impl fmt::Debug for NamedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedSecret").field("name", &self.name).finish_non_exhaustive()
    }
}
