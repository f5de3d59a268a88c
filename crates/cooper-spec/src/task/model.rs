//! What a task file says, with every default applied: the shape that planning works on.
//!
//! Owns the types alone. Everything here has been checked; what was written, and where, is in the file's faults.

use std::collections::BTreeMap;
use std::time::Duration;

pub use crate::plan::DEFAULT_NETWORK;
use cooper_types::{ImageRef, Platform, SecretBytes, StepId};

use super::build_line::BuildLine;
use super::cmd_line::CmdLine;
use super::inputs::WantedSecret;

/// A task file's steps and what they stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the file is written in.
    pub version: TaskVersion,
    /// The steps in the file's order.
    pub steps: Vec<TaskStep>,
    /// The networks that the file declares; if it declares none, the run has one of its own, `acb_default_network`.
    pub networks: Vec<TaskNetwork>,
    /// The volumes of secret files.
    pub volumes: Vec<TaskVolume>,
    /// The secrets that the file names.
    pub secrets: Vec<WantedSecret>,
}

/// The versions of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskVersion {
    /// `1.0-preview-1`: read as v1.0.0.
    Preview1,
    /// `v1.0.0`, and files that name none.
    V1_0_0,
    /// `v1.1.0`: aliases count.
    V1_1_0,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStep {
    /// `acb_step_N` where the file names none; N counts from 0.
    pub id: StepId,
    /// Indexes of the steps that must have ended well before; each is smaller than the own one, and none is there twice.
    pub after: Vec<usize>,
    /// Where it runs: empty for the run's own platform, one, or for a `build` step several, each built.
    pub platforms: Vec<Platform>,
    /// How long all its tries may take together.
    pub timeout: Duration,
    /// The pause before it begins, which the timeout does not count.
    pub start_delay: Duration,
    /// Tries after the first one that fails.
    pub retries: u32,
    /// The pause between two tries.
    pub retry_delay: Duration,
    /// If not empty, only a try whose output holds one of these is repeated.
    pub retry_on_errors: Vec<String>,
    /// Rounds after the first, whether it succeeds or not; each has its own tries.
    pub repeat: u32,
    /// Whether its failure counts as success.
    pub ignore_errors: bool,
    /// Whether its container stays until the placement ends.
    pub keep: bool,
    /// Whether it has succeeded as soon as its container has started.
    pub detach: bool,
    /// Whether its container has all privileges; a matter of the agent's operator.
    pub privileged: bool,
    /// The container's user.
    pub user: Option<String>,
    /// The container's network.
    pub network: StepNetwork,
    /// How a Windows container is kept apart.
    pub isolation: Option<Isolation>,
    /// How many CPUs the container may use, as the file writes it: a decimal number above 0.
    pub cpus: Option<String>,
    /// The program that replaces the image's own.
    pub entry_point: Option<String>,
    /// The environment: the step's own, then what the task and the run add. No name is there twice.
    pub env: Vec<(String, String)>,
    /// Ports that are open to the step's network, `PORT[/PROTOCOL]`.
    pub expose: Vec<String>,
    /// Ports that are opened on the agent's machine, in Docker's form.
    pub ports: Vec<String>,
    /// Where volumes are mounted.
    pub volume_mounts: Vec<VolumeMount>,
    /// Where it starts: an absolute path, cleaned. The workspace is `/workspace`, on Windows `c:\workspace`.
    pub working_directory: String,
    /// Whether the image's own directory counts instead.
    pub disable_working_directory_override: bool,
    /// Whether the image is pulled even if the engine has it.
    pub pull: bool,
    /// Tries of that pull after the first.
    pub cmd_download_retries: u32,
    /// The pause between two of them.
    pub cmd_download_retry_delay: Duration,
    /// Whether the build's cache is kept in a registry.
    pub cache: Cache,
    /// Reserved: names of files that the step leaves for others.
    pub outputs: Vec<String>,
    /// What it does.
    pub work: TaskWork,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskWork {
    /// Builds an image.
    Build(BuildLine),
    /// Runs a container.
    Cmd(CmdLine),
    /// Pushes images, in this order.
    Push(Vec<ImageRef>),
}

/// Which network a step's container is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepNetwork {
    /// The run's own, on which steps reach each other by their ids.
    Run,
    /// A network by its name: one of the task's, or of those that an engine always has.
    Named(String),
    /// The engine's default bridge, without names: the task declares networks and no default one.
    Bridge,
}

/// How a Windows container is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The engine decides.
    Default,
    /// As a process.
    Process,
    /// In a small virtual machine.
    Hyperv,
}

/// Whether a build's cache is kept in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Only on the engine.
    Disabled,
    /// Also in a registry, under this name; the name is absent where the step has no tag to make it from.
    Enabled(Option<ImageRef>),
}

/// A mount of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Index into the task's volumes.
    pub volume: usize,
    /// The directory in the container.
    pub mount_path: String,
}

/// A network that the file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNetwork {
    /// How steps name it.
    pub name: String,
    /// The engine's driver; its default if absent.
    pub driver: Option<String>,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Whether it exists already, and stays.
    pub skip_creation: bool,
    /// Whether steps that name no network are in it; the last such network counts.
    pub is_default: bool,
}

/// A volume of secret files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskVolume {
    /// How mounts name it.
    pub name: String,
    /// The files by name, decoded.
    pub files: BTreeMap<String, SecretBytes>,
}

impl Task {
    /// For each step, which steps have ended when it begins.
    pub(crate) fn ancestors(steps: &[TaskStep]) -> Vec<Vec<bool>> {
        let mut all: Vec<Vec<bool>> = Vec::with_capacity(steps.len());
        for step in steps {
            let mut own = vec![false; steps.len()];
            for parent in &step.after {
                own[*parent] = true;
                for (index, is_before) in all[*parent].iter().enumerate() {
                    own[index] |= is_before;
                }
            }
            all.push(own);
        }
        all
    }
}

impl TaskVersion {
    /// As it stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preview1 => "1.0-preview-1",
            Self::V1_0_0 => "v1.0.0",
            Self::V1_1_0 => "v1.1.0",
        }
    }

    /// Whether aliases count.
    pub fn has_aliases(self) -> bool {
        self == Self::V1_1_0
    }

    /// Reads a version in any letter case; none is v1.0.0.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "v1.0.0" => Some(Self::V1_0_0),
            "1.0-preview-1" => Some(Self::Preview1),
            "v1.1.0" => Some(Self::V1_1_0),
            _ => None,
        }
    }
}

impl TaskWork {
    /// The property that says it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Cmd(_) => "cmd",
            Self::Push(_) => "push",
        }
    }
}

impl Isolation {
    /// As it stands in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Process => "process",
            Self::Hyperv => "hyperv",
        }
    }
}
