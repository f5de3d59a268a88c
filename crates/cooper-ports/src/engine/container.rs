//! What a step's container takes, tells and gives, and how it fails.

use std::net::IpAddr;

use bytes::Bytes;
use cooper_types::{Digest, NetworkName, Platform, SecretString, StepId, VolumeName};

use super::{EngineError, OutputStream};

/// One container of one step, in an open placement. See [`super::Placement::run`].
#[derive(Clone, Debug)]
pub struct ContainerRequest {
    /// The step: part of the container's name and a label, nothing that other steps could resolve.
    pub step: StepId,
    /// The image's id in the engine.
    pub image: Digest,
    /// What the image must be for; the engine runs whatever it is if absent.
    pub platform: Option<Platform>,
    /// Replaces the image's entry point; an empty list takes it away.
    pub entrypoint: Option<Vec<SecretString>>,
    /// The arguments; the image's own command if empty. Words may be secrets.
    pub arguments: Vec<SecretString>,
    /// Environment variables, over the image's; the last of a name counts. The engine keeps them on its disk as long as
    /// the container lives.
    pub environment: Vec<(String, SecretString)>,
    /// Where the command starts; the image's own folder if absent. A folder that is not there is made.
    pub working_directory: Option<String>,
    /// `user[:group]`, by name or number; the image's own if absent.
    pub user: Option<String>,
    /// What of the placement's volumes it sees, and where.
    pub mounts: Vec<VolumeMount>,
    /// What it reaches, and what reaches it.
    pub network: ContainerNetwork,
    /// What it may use of the machine.
    pub limits: ContainerLimits,
    /// What its root may do.
    pub privileges: Privileges,
    /// How a Windows container is kept apart; Linux knows none of it.
    pub isolation: Option<Isolation>,
    /// Return as soon as it runs. Its output still goes to the sink; it ends with the placement at the latest.
    pub detach: bool,
    /// Keep the container, its files and its end, until the placement's.
    pub keep: bool,
    /// Run the engine's own init as its first process, which reaps what the command leaves behind.
    pub init: bool,
    /// Give it a terminal: its output is one stream then, with the terminal's line ends.
    pub terminal: bool,
}

impl ContainerRequest {
    /// A step's container with the least: the image's own command, no network, no volume, no limit but on processes.
    pub fn new(step: StepId, image: Digest) -> Self {
        Self {
            step,
            image,
            platform: None,
            entrypoint: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: None,
            user: None,
            mounts: Vec::new(),
            network: ContainerNetwork::None,
            limits: ContainerLimits::default(),
            privileges: Privileges::Usual,
            isolation: None,
            detach: false,
            keep: false,
            init: false,
            terminal: false,
        }
    }
}

/// A volume of the placement in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Which one: the placement was opened with it.
    pub volume: VolumeName,
    /// Where: an absolute path in the container's form (`/workspace`, `c:\workspace`).
    pub path: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// What network a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// The namespace that all such containers of the placement share: they are one machine to the network, each has
    /// `127.0.0.1` and its ports together with the others.
    Shared,
    /// A namespace of its own.
    Own(OwnNetwork),
    /// The machine's own network: everything that the engine's host reaches, its loopback included. The pool's leave
    /// is the caller's to ask.
    Host,
    /// No network but a loopback of its own, without the registry.
    None,
}

/// A network namespace of a container's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// What it is on.
    pub on: NetworkChoice,
    /// Names by which the others on the network resolve it; on the default one nobody does.
    pub aliases: Vec<String>,
    /// Ports of the engine's host that lead to it.
    pub ports: Vec<PortMapping>,
    /// Ports that it says it serves, `port[/protocol]`: a note, and where mappings of all ports would lead.
    pub expose: Vec<String>,
}

/// Which network a namespace is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChoice {
    /// One of the placement's: it was opened with it.
    Placement(NetworkName),
    /// One that leads outwards only: nothing on it reaches anything else on it, and it knows no names. A Windows engine
    /// has its own default network for that, which does not keep containers apart.
    Default,
}

/// A port of the engine's host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The container's port.
    pub container: u16,
    /// Over what.
    pub protocol: PortProtocol,
    /// The host's port; one that the engine finds free if absent. One port is one container's in the whole engine.
    pub host: Option<u16>,
    /// The host's address; all of them if absent.
    pub address: Option<IpAddr>,
}

/// What a port is a port of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortProtocol {
    /// As the engine writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// What a container may use of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLimits {
    /// Processor time, in billionths of a processor; all of it if absent.
    pub nano_cpus: Option<u64>,
    /// Memory in bytes, swap included; all of it if absent.
    pub memory: Option<u64>,
    /// How many processes and threads at once.
    pub pids: Option<u32>,
}

impl Default for ContainerLimits {
    fn default() -> Self {
        // Enough for any build of a large project; a fork bomb stops here instead of at the machine's end.
        Self { nano_cpus: None, memory: None, pids: Some(16 * 1024) }
    }
}

/// What a container's root may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// Little: no capability but those that installing packages and dropping root takes, and no way to gain any by a
    /// setuid program. For work that is not trusted.
    Restricted,
    /// What the engine gives by default, without making device files. `sudo` works, as images for builds expect.
    Usual,
    /// Everything: the machine itself. The pool's leave is the caller's to ask.
    All,
}

/// How a Windows container is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// As the engine is set.
    Default,
    /// By namespaces.
    Process,
    /// By a small virtual machine.
    HyperV,
}

impl Isolation {
    /// As task files and the engine write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Process => "process",
            Self::HyperV => "hyperv",
        }
    }
}

/// What a container says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// Its command runs now; comes once, before any output.
    Started {
        /// The ports of the host that lead to it.
        ports: Vec<PublishedPort>,
    },
    /// Output: any bytes, cut anywhere. What comes on one stream is in order; across streams it is not.
    Output {
        /// Which stream; a terminal has standard output only.
        stream: OutputStream,
        /// The bytes.
        bytes: Bytes,
    },
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// The container's port.
    pub container: u16,
    /// Over what.
    pub protocol: PortProtocol,
    /// The host's port.
    pub host: u16,
}

/// How a container's run went, as far as it was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEnd {
    /// Its command ended.
    Exited {
        /// The exit code; 137 is a killed command.
        code: i64,
        /// Whether it was killed because its memory ran out.
        out_of_memory: bool,
    },
    /// It was to be detached, and runs.
    Detached,
}

/// Why a container did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// What was asked for cannot be run: the user's result, not an error of ours.
    #[error(transparent)]
    Failed(#[from] ContainerFailure),
    /// The engine failed.
    #[error("container failed for a reason of the machinery")]
    Machinery(#[from] EngineError),
    /// The caller cancelled, or closed the placement.
    #[error("container was cancelled")]
    Cancelled,
}

/// How the user's container failed to start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerFailure {
    /// The engine does not have the image (any more).
    #[error("image {image} is not in the container engine any more")]
    ImageMissing {
        /// Its id.
        image: Digest,
    },
    /// The image is for something else.
    #[error("image {image} is not for {wanted}: {message}")]
    WrongPlatform {
        /// Its id.
        image: Digest,
        /// What was asked for.
        wanted: Platform,
        /// The engine's words.
        message: String,
    },
    /// There is nothing to run.
    #[error("image has no command of its own: name one after the image")]
    NoCommand,
    /// The image has no such program.
    #[error("command `{command}` is not in the image, or not in its PATH")]
    CommandMissing {
        /// Its first word.
        command: String,
    },
    /// The program may not be executed, or is none.
    #[error("command `{command}` can't be executed: {message}")]
    NotExecutable {
        /// Its first word.
        command: String,
        /// The engine's words.
        message: String,
    },
    /// A user or group that the image does not have.
    #[error("user `{user}` is not in the image's /etc/passwd or /etc/group: use a number, or another user")]
    UserMissing {
        /// What was asked for.
        user: String,
    },
    /// Another container, or a program of the host, has the port.
    #[error("port {port} of the agent's machine is taken: choose another one, or leave the host's port out")]
    PortTaken {
        /// Which, as the engine writes it.
        port: String,
    },
    /// Anything else that the engine does not take.
    #[error("container can't be started: {message}")]
    Invalid {
        /// The engine's words.
        message: String,
    },
}
