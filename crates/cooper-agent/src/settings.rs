//! What an agent must be told. Everything is resolved before an agent is made; nothing here reads files or the
//! environment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cooper_ports::engine::EngineOwner;
use cooper_source::{Names, UnpackLimits};
use cooper_types::{AgentName, Platform, PoolName, SecretString};

/// The settings of an agent.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Its name, unique among the agents of a registry.
    pub name: AgentName,
    /// The pool whose work it takes.
    pub pool: PoolName,
    /// The platforms that it takes work for, of those that the engine can do; all of them if empty.
    pub platforms: BTreeSet<Platform>,
    /// How many placements it holds at a time; at least 1.
    pub slots: u32,
    /// The folder for contexts and logs on their way. The agent alone uses it, and removes what it finds of its own.
    pub work_dir: PathBuf,
    /// A token with the scope `agent`.
    pub token: SecretString,
    /// Whose things its things are in the engine: the same in every life of this agent of this server.
    pub engine_owner: EngineOwner,
    /// What a context may be at most.
    pub unpack: UnpackLimits,
    /// The largest archive of a context, in bytes.
    pub max_archive_bytes: u64,
    /// Bytes of a step's log that may wait for the server in memory; a step that says more than that waits.
    pub log_memory_bytes: usize,
    /// Bytes of a step's log that may wait on disk while the server is away; what is said beyond them is lost.
    pub log_spool_bytes: u64,
    /// How soon a lost stream is opened again.
    pub reconnect: ReconnectWindow,
    /// How often the engine is asked whether it lives.
    pub engine_period: Duration,
    /// How often the engine is asked what it is: emulation may come and go while it runs.
    pub describe_period: Duration,
    /// What may be kept on disks, and what has to be free on them.
    pub disk: DiskSettings,
    /// What steps may do beyond the usual.
    pub steps: StepPolicy,
    /// Certificates in PEM that hosts of sources and of other registries are trusted by, besides the system's. The engine
    /// has its own.
    pub source_roots: Option<Vec<u8>>,
    /// Who knows the addresses of such hosts; the system if absent.
    pub names: Option<Names>,
    /// Where the server of this process takes connections in clear; none in other processes.
    pub server_here: Option<SocketAddr>,
    /// Who keeps the credentials of hosts: where a user gives one.
    pub credentials: CredentialKeeper,
    /// How long a shutdown may take to stop steps and to clean up.
    pub shutdown_grace: Duration,
}

/// Who keeps the credentials of hosts for the runs of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialKeeper {
    /// The server.
    #[default]
    Server,
    /// The Docker client of the one user that the server is there for. Its logins are for registries.
    DockerClient,
    /// Nobody: that user's logins are not for what comes from elsewhere, unless the user says so.
    Nobody,
}

/// What an agent's operator lets steps do beyond the usual, and what each may use of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPolicy {
    /// Containers with all privileges: they are as good as root of the engine's machine.
    pub privileged: bool,
    /// Ports of the engine's machine.
    pub ports: bool,
    /// Networks of the engine that are not made for the run, by their names; `host` is the machine's own.
    pub networks: BTreeSet<String>,
    /// Memory of a container in bytes, swap included; all that there is if absent.
    pub memory: Option<u64>,
    /// How many processes and threads a container has at once.
    pub pids: u32,
}

impl StepPolicy {
    /// Enough for any build of a large project; a fork bomb stops here instead of at the machine's end.
    pub const DEFAULT_PIDS: u32 = 16 * 1024;
}

impl Default for StepPolicy {
    fn default() -> Self {
        Self { privileged: false, ports: false, networks: BTreeSet::new(), memory: None, pids: Self::DEFAULT_PIDS }
    }
}

/// How an agent treats the disks that it and its engine use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// What the engine's build cache may take.
    pub cache_budget: CacheBudget,
    /// What has to be free before work is taken.
    pub min_free: MinFree,
    /// How often the disks are looked at, which costs next to nothing.
    pub period: Duration,
    /// How often the build cache is measured, besides after work.
    pub cache_period: Duration,
}

/// What the engine's build cache may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheBudget {
    /// 20 GiB, or half of the engine's disk where that is less.
    #[default]
    Auto,
    /// This many bytes.
    Bytes(u64),
    /// Whatever it wants: it is never touched, not even when the disk is full.
    Unlimited,
}

/// What has to be free on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinFree {
    /// 2 GiB, or a twentieth of the disk where that is less.
    #[default]
    Auto,
    /// This many bytes.
    Bytes(u64),
    /// This much of the disk, in percent.
    Percent(u8),
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self {
            cache_budget: CacheBudget::Auto,
            min_free: MinFree::Auto,
            period: Duration::from_secs(3),
            cache_period: Duration::from_secs(60),
        }
    }
}

/// Between which bounds the pauses between attempts to reach the server grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectWindow {
    /// The first pause is at most this long.
    pub shortest: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl ReconnectWindow {
    /// For a server in the same process: nothing else is hurt by asking often.
    pub const IN_PROCESS: Self = Self { shortest: Duration::from_millis(20), longest: Duration::from_secs(1) };
    /// For a server beyond a network: a thousand agents of a restarted server must not come at once.
    pub const REMOTE: Self = Self { shortest: Duration::from_secs(1), longest: Duration::from_secs(30) };
}

impl AgentSettings {
    /// Settings for an agent in the server's own process, with the usual limits.
    pub fn new(name: AgentName, slots: u32, work_dir: PathBuf, token: SecretString, engine_owner: EngineOwner) -> Self {
        Self {
            name,
            pool: PoolName::default_pool(),
            platforms: BTreeSet::new(),
            slots,
            work_dir,
            token,
            engine_owner,
            unpack: UnpackLimits::default(),
            max_archive_bytes: 16 << 30,
            log_memory_bytes: 4 << 20,
            log_spool_bytes: 256 << 20,
            reconnect: ReconnectWindow::IN_PROCESS,
            engine_period: Duration::from_secs(3),
            describe_period: Duration::from_secs(60),
            disk: DiskSettings::default(),
            steps: StepPolicy::default(),
            source_roots: None,
            names: None,
            server_here: None,
            credentials: CredentialKeeper::Server,
            shutdown_grace: Duration::from_secs(15),
        }
    }
}
