//! What an agent must be told. Everything is resolved before an agent is made; nothing here reads files or the
//! environment.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use cooper_ports::engine::EngineOwner;
use cooper_source::UnpackLimits;
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
    /// How long a shutdown may take to stop steps and to clean up.
    pub shutdown_grace: Duration,
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
    /// The pool of an agent that names none.
    pub const DEFAULT_POOL: &str = "default";

    /// Settings for an agent in the server's own process, with the usual limits.
    pub fn new(name: AgentName, slots: u32, work_dir: PathBuf, token: SecretString, engine_owner: EngineOwner) -> Self {
        Self {
            name,
            pool: PoolName::parse(Self::DEFAULT_POOL).expect("a name of letters is a pool's name"),
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
            shutdown_grace: Duration::from_secs(15),
        }
    }
}
