//! A run as the API shows it: ACR's record, and our own fields after it.

mod step;

use std::fmt;
use std::str::FromStr;

use cooper_types::{Platform, PlatformError, PrincipalName, RunId, TaskName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hooks::SourceTriggerView;
use super::task::TimerTrigger;
use super::time::{rfc3339, rfc3339_option};
use super::wave::ImageUpdateTrigger;
pub use step::{Dependency, GitHead, ImageDependency, RunStep, StepStatus, StepType};

/// One run. The fields down to `provisioningState` are ACR's; absent values are `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The run's id, such as `ca1`.
    #[schema(value_type = String, example = "ca1")]
    pub run_id: RunId,
    /// The same as `runId`.
    pub name: String,
    /// The run's path under this server: `/api/v1/runs/ca1`.
    pub id: String,
    /// Where the run stands.
    pub status: RunStatus,
    /// What kind of request made it.
    pub run_type: RunType,
    /// When the run was accepted.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
    /// When an agent began with it.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start_time: Option<Timestamp>,
    /// When it reached its last state.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finish_time: Option<Timestamp>,
    /// When anything of the record last changed.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_updated_time: Timestamp,
    /// The task that the run executes; `null` for quick builds and quick runs.
    pub task: Option<String>,
    /// What the run pushed.
    #[serde(default)]
    pub output_images: Vec<OutputImage>,
    /// What the run builds for.
    pub platform: PlatformView,
    /// The share of a machine that the run may use.
    pub agent_configuration: Option<AgentConfiguration>,
    /// The pool that the run was sent to.
    pub agent_pool_name: Option<String>,
    /// Why the run did not succeed, in one line.
    pub run_error_message: Option<String>,
    /// Whether the run outlives the clean-up of old runs.
    pub is_archive_enabled: bool,
    /// Whether the record itself is in order; always `Succeeded` once a run is accepted.
    pub provisioning_state: ProvisioningState,

    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<RunId>,
    /// How it repeats that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<RerunView>,
    /// What happened in a repository to set the run off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_trigger: Option<SourceTriggerView>,
    /// The timer that set the run off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer_trigger: Option<TimerTrigger>,
    /// The base images that set the run off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_update_trigger: Option<ImageUpdateTrigger>,
    /// Who asked for a run of somebody else's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub requested_by: Option<PrincipalName>,
    /// While the run waits: what it waits for.
    pub pending_reason: Option<String>,
    /// Who started it.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// After how many seconds of work the run ends as `Timeout`.
    pub timeout: u32,
    /// Its steps in file order.
    #[serde(default)]
    pub steps: Vec<RunStep>,
    /// Which bases went into which image, by digest.
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    /// The names that the request asked for, with registry, tag and variables filled in.
    #[serde(default)]
    pub image_names: Vec<String>,
    /// Where an agent fetched the source, as it was asked for; `null` for an uploaded context.
    #[serde(default)]
    pub source_location: Option<String>,
    /// The commit that the source was found to be.
    #[serde(default)]
    pub source_commit: Option<String>,
    /// The branch, where one was named or the default one was taken.
    #[serde(default)]
    pub source_branch: Option<String>,
}

/// How a run repeats another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RerunView {
    /// Whether only what did not succeed is repeated, with the steps that this needs.
    #[serde(default)]
    pub failed: bool,
    /// Whether references, images and secrets were resolved anew.
    #[serde(default)]
    pub fresh: bool,
}

/// Where a run stands. The last five are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum RunStatus {
    /// Waits for an agent.
    Queued,
    /// An agent has it and prepares.
    Started,
    /// A step runs.
    Running,
    /// Every step succeeded.
    Succeeded,
    /// A step failed: the user's result.
    Failed,
    /// Somebody cancelled it.
    Canceled,
    /// The machinery failed: not the user's doing.
    Error,
    /// The run or a step took longer than it may.
    Timeout,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Started,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Error,
        Self::Timeout,
    ];

    /// Whether nothing follows this status.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Started | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Canceled | Self::Error | Self::Timeout => true,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Started => "Started",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Error => "Error",
            Self::Timeout => "Timeout",
        }
    }
}

/// What kind of request made a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum RunType {
    /// One Dockerfile, asked for directly.
    QuickBuild,
    /// A task file, asked for directly.
    QuickRun,
    /// A stored task with a Dockerfile.
    AutoBuild,
    /// A stored task with a task file.
    AutoRun,
}

impl RunType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::QuickBuild, Self::QuickRun, Self::AutoBuild, Self::AutoRun];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickBuild => "QuickBuild",
            Self::QuickRun => "QuickRun",
            Self::AutoBuild => "AutoBuild",
            Self::AutoRun => "AutoRun",
        }
    }
}

/// A name that is none of the names it could be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} `{text}` is none of {known}")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
    known: String,
}

macro_rules! named {
    ($type:ty, $kind:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        /// Takes the name in any letter case, because people type it.
        impl FromStr for $type {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|value| value.name().eq_ignore_ascii_case(text)).ok_or_else(|| UnknownName {
                    kind: $kind,
                    text: text.chars().take(40).collect(),
                    known: Self::ALL.map(Self::name).join(", "),
                })
            }
        }
    };
}
named!(RunStatus, "run status");
named!(RunType, "run type");

/// Whether a record is in order, as ACR says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ProvisioningState {
    /// Being made.
    Creating,
    /// Being changed.
    Updating,
    /// Being deleted.
    Deleting,
    /// In order.
    Succeeded,
    /// Could not be made.
    Failed,
    /// Its making was cancelled.
    Canceled,
}

/// An image that a run pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputImage {
    /// Host and port of the registry.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// The tag, if the push was by tag.
    pub tag: Option<String>,
    /// The manifest's digest.
    pub digest: Option<String>,
}

/// A platform in ACR's form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformView {
    /// `linux` or `windows`, in any letter case.
    pub os: String,
    /// `amd64`, `x86`, `386`, `arm` or `arm64`; `amd64` if absent.
    #[serde(default)]
    pub architecture: Option<String>,
    /// `v6`, `v7` or `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl From<&Platform> for PlatformView {
    fn from(platform: &Platform) -> Self {
        Self {
            os: platform.os().to_owned(),
            architecture: Some(platform.architecture().to_owned()),
            variant: platform.variant().map(str::to_owned),
        }
    }
}

impl TryFrom<&PlatformView> for Platform {
    type Error = PlatformError;
    fn try_from(view: &PlatformView) -> Result<Self, PlatformError> {
        Platform::parse(&view.to_string())
    }
}

impl fmt::Display for PlatformView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A variant without an architecture must not slide into the architecture's place.
        let default = self.variant.as_ref().map(|_| "amd64");
        let parts = [Some(self.os.as_str()), self.architecture.as_deref().or(default), self.variant.as_deref()];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
    }
}

/// The share of a machine that a run may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfiguration {
    /// Number of CPUs.
    pub cpu: Option<u32>,
}

/// What `GET /runs` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListRunsQuery {
    /// Only runs with this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// Only runs of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_name: Option<TaskName>,
    /// Only runs of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_type: Option<RunType>,
    /// Only runs that wrote this image, of any registry, tag and digest that it does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How many at most: 1 to [`ListRunsQuery::MAX_TOP`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
    /// Only runs that are older than this one: for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RunId>,
}

impl ListRunsQuery {
    /// How many runs a page has when nothing is said, as `az acr task list-runs` shows.
    pub const DEFAULT_TOP: u32 = 15;
    /// How many runs a page has at most.
    pub const MAX_TOP: u32 = 1000;
}

/// A page of runs, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunList {
    /// The runs.
    pub value: Vec<Run>,
    /// The path and query of the next page, if there is one.
    pub next_link: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The record's names and forms are what other clients are written against: ACR's, the last ten ours.
    #[test]
    fn a_run_has_acrs_form() {
        let json = json!({
            "runId": "ca1",
            "name": "ca1",
            "id": "/api/v1/runs/ca1",
            "status": "Succeeded",
            "runType": "QuickBuild",
            "createTime": "2026-01-31T12:00:00.000001Z",
            "startTime": "2026-01-31T12:00:01.000000Z",
            "finishTime": null,
            "lastUpdatedTime": "2026-01-31T12:00:02.000000Z",
            "task": null,
            "outputImages": [
                {"registry": "localhost:5000", "repository": "app", "tag": "v1", "digest": "sha256:1"}
            ],
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
            "agentConfiguration": {"cpu": 2},
            "agentPoolName": null,
            "runErrorMessage": null,
            "isArchiveEnabled": false,
            "provisioningState": "Succeeded",
            "pendingReason": null,
            "principal": "dev",
            "timeout": 3600,
            "steps": [{
                "id": "build", "type": "build", "status": "Succeeded", "attempts": 1, "startTime": null,
                "finishTime": null, "exitCode": 0, "reason": null, "agent": "local",
                "platform": null, "waitsFor": [], "pendingReason": null
            }],
            "dependencies": [{
                "image": {
                    "registry": "localhost:5000", "repository": "app", "tag": "v1", "digest": "sha256:1",
                    "reference": "localhost:5000/app:v1"
                },
                "runtime-dependency": {
                    "registry": "registry.hub.docker.com", "repository": "library/alpine", "digest": "sha256:2",
                    "reference": "alpine"
                },
                "buildtime-dependency": null,
                "git": {"git-head-revision": "0a1b"}
            }],
            "imageNames": ["localhost:5000/app:v1"],
            "sourceLocation": "https://git.example/app.git#main",
            "sourceCommit": "0a1b",
            "sourceBranch": "main"
        });
        let run: Run = serde_json::from_value(json.clone()).expect("a run");
        assert_eq!(serde_json::to_value(&run).expect("json"), json);
    }

    #[test]
    fn platforms_survive_the_wire() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64", "linux/386"] {
            let platform = Platform::parse(text).expect(text);
            assert_eq!(Platform::try_from(&PlatformView::from(&platform)), Ok(platform));
        }
        let view: PlatformView = serde_json::from_value(json!({"os": "Linux"})).expect("a platform");
        assert_eq!(Platform::try_from(&view).map(|platform| platform.to_string()), Ok("linux/amd64".to_owned()));
        let view: PlatformView = serde_json::from_value(json!({"os": "linux", "variant": "v7"})).expect("a platform");
        assert!(Platform::try_from(&view).is_err(), "amd64 has no v7");
    }

    #[test]
    fn names_are_taken_in_any_case() {
        for status in RunStatus::ALL {
            assert_eq!(status.name().to_uppercase().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).expect("json"), json!(status.name()));
        }
        let error = "Done".parse::<RunType>().expect_err("no type");
        assert_eq!(error.to_string(), "run type `Done` is none of QuickBuild, QuickRun, AutoBuild, AutoRun");
    }
}
