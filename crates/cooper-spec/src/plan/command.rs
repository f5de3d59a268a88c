//! What a `cmd` step runs.

use std::time::Duration;

use cooper_types::Digest;
use serde::{Deserialize, Serialize};

use super::Text;

/// A `cmd` step: a container from an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandWork {
    /// What it runs in.
    pub image: CommandImage,
    /// What stands behind the image's name: never a shell's line, but its words.
    pub arguments: Vec<Text>,
    /// Environment variables, in order; `HOME` has a default before them.
    pub environment: Vec<(String, Text)>,
    /// In place of the image's entry point.
    pub entry_point: Option<String>,
    /// Absolute; the image's own if absent.
    pub working_directory: Option<String>,
    /// `user[:group]` in place of the image's.
    pub user: Option<String>,
    /// The run's network that it is in; none means the namespace that the placement's steps share.
    pub network: Option<String>,
    /// Ports of the engine's host, as `[[address:]host:]container[/protocol]`.
    pub ports: Vec<String>,
    /// Ports that the container announces.
    pub expose: Vec<String>,
    /// Secret volumes.
    pub mounts: Vec<Mount>,
    /// How many processors it may use, as a decimal number.
    pub cpus: Option<String>,
    /// Windows: `process`, `hyperv` or `default`.
    pub isolation: Option<String>,
    /// Whether it has all privileges: the pool must allow that.
    pub privileged: bool,
    /// Whether the container stays until the run's end.
    pub keep: bool,
    /// Whether the step is done when the container has started. It is stopped at the run's end.
    pub detach: bool,
    /// Whether its standard streams are a terminal (`-t`).
    #[serde(default)]
    pub terminal: bool,
    /// Whether the image is pulled even if the engine has it.
    pub pull: bool,
    /// How often a failed pull is tried again.
    pub pull_retries: u32,
    /// The pause before each of these.
    pub pull_retry_delay: Duration,
}

impl CommandWork {
    /// A container as its image says, in the namespace that the placement's steps share.
    pub fn new(image: CommandImage) -> Self {
        Self {
            image,
            arguments: Vec::new(),
            environment: Vec::new(),
            entry_point: None,
            working_directory: None,
            user: None,
            network: None,
            ports: Vec::new(),
            expose: Vec::new(),
            mounts: Vec::new(),
            cpus: None,
            isolation: None,
            privileged: false,
            keep: false,
            detach: false,
            terminal: false,
            pull: false,
            pull_retries: 0,
            pull_retry_delay: Duration::ZERO,
        }
    }
}

/// What a `cmd` step runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CommandImage {
    /// An image by its name, at its registry.
    Named(String),
    /// What an earlier run found under a name, whatever its registry has under it now.
    Pinned {
        /// The name.
        name: String,
        /// What it stands for.
        digest: Digest,
    },
    /// What an earlier step of the run built.
    Built {
        /// Index of that step.
        step: usize,
    },
}

/// A secret volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The volume.
    pub volume: String,
    /// Where it is; absolute.
    pub path: String,
}
