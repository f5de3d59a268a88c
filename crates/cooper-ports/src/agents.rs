//! Pools, and the agents that have ever served in them.
//!
//! What an agent is connected with stands in the server's memory; here is what outlives a connection: whose name it is,
//! which pool it serves in, what it said of itself, whether it is being drained.

use async_trait::async_trait;
use cooper_types::{AgentName, Platform, PoolName, PrincipalName, Timestamp, TokenId};

use crate::store_error::StoreError;

/// A named set of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// What it is for, in its maker's words.
    pub description: String,
    /// Whether it is for the code of strangers: pull requests of forks. Its agents keep nothing that others trust.
    pub untrusted: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// A pool, and what depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRecord {
    /// The pool.
    pub pool: Pool,
    /// Agents that have served in it last, connected or not.
    pub agents: u64,
    /// Runs of it that have not ended.
    pub unfinished_runs: u64,
}

/// Space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What is free.
    pub free: u64,
    /// What there is.
    pub total: u64,
}

/// What an agent says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDescription {
    /// The pool that it serves in.
    pub pool: PoolName,
    /// Which life of it.
    pub incarnation: String,
    /// What it runs without emulation.
    pub native: Vec<Platform>,
    /// What it emulates.
    pub emulated: Vec<Platform>,
    /// How many placements it takes at a time.
    pub slots: u32,
    /// Its engine, with its version.
    pub engine: String,
    /// What the engine can do beyond the least.
    pub capabilities: Vec<String>,
    /// The agent's own version.
    pub version: String,
    /// The version of the protocol that its last stream was in.
    pub protocol: u32,
    /// Where its engine keeps its data, if it said so.
    pub disk: Option<DiskSpace>,
}

/// An agent that connects.
#[derive(Clone, Debug)]
pub struct RegisterAgent {
    /// Its name.
    pub name: AgentName,
    /// Whom its token speaks for.
    pub principal: PrincipalName,
    /// The token.
    pub token: TokenId,
    /// What it says of itself.
    pub description: AgentDescription,
}

/// An agent as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its name.
    pub name: AgentName,
    /// Whose name it is: the principal that registered it first.
    pub principal: PrincipalName,
    /// The token that it showed last.
    pub token: TokenId,
    /// What it said of itself last.
    pub description: AgentDescription,
    /// Whether it is being drained: it ends what it holds and is offered nothing.
    pub draining: bool,
    /// Unfinished runs of which it holds a placement or is asked to.
    pub runs: u64,
    /// When it was first connected.
    pub first_seen: Timestamp,
    /// When it is known to have been connected last; of a connected one up to minutes ago.
    pub last_seen: Timestamp,
}

/// Why a pool was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreatePoolError {
    /// There is one of this name.
    #[error("pool `{0}` exists already")]
    Exists(PoolName),
    /// Runs of a pool of this name that is gone have not ended, and are for a pool with the other mark.
    #[error(
        "{runs} unfinished runs are for a pool `{pool}` that is gone and whose mark for untrusted work was another: cancel \
         them, or take another name"
    )]
    RunsOfOtherKind {
        /// The pool.
        pool: PoolName,
        /// How many runs wait for it.
        runs: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a pool was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeletePoolError {
    /// There is none of this name.
    #[error("pool `{0}` does not exist")]
    Unknown(PoolName),
    /// It is the one that always exists.
    #[error("pool `{0}` is the default pool, which always exists")]
    Default(PoolName),
    /// Something depends on it.
    #[error("pool `{pool}` has {agents} agents and {unfinished_runs} unfinished runs")]
    InUse {
        /// The pool.
        pool: PoolName,
        /// Its agents.
        agents: u64,
        /// Its runs.
        unfinished_runs: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterAgentError {
    /// The name is another principal's.
    #[error(
        "agent name `{0}` belongs to another principal's agent: choose another name, or let an administrator free it with \
         `cooper agent remove {0}`"
    )]
    NameTaken(AgentName),
    /// There is no such pool.
    #[error("agent pool `{0}` does not exist: `cooper pool list` shows the pools, `cooper pool create {0}` makes it")]
    UnknownPool(PoolName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeAgentError {
    /// There is none of this name.
    #[error("agent `{0}` does not exist")]
    Unknown(AgentName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps pools and agents.
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// Makes a pool. Where runs wait for a former one of its name, it has that one's mark: what strangers sent is not to come to
    /// agents that others trust.
    async fn create_pool(&self, name: PoolName, description: String, untrusted: bool) -> Result<Pool, CreatePoolError>;

    /// All pools, by name; the default pool is always among them.
    async fn list_pools(&self) -> Result<Vec<PoolRecord>, StoreError>;

    /// Deletes a pool; one with agents or unfinished runs only by `force`, which forgets its agents too. No run is accepted
    /// for it any more once this returns.
    async fn delete_pool(&self, name: PoolName, force: bool) -> Result<PoolRecord, DeletePoolError>;

    /// Writes down that an agent is connected, and returns what is known of it. A name belongs to the principal that
    /// registered it first until the agent is removed.
    async fn register_agent(&self, agent: RegisterAgent) -> Result<AgentRecord, RegisterAgentError>;

    /// Writes down that these agents are connected now, or were until now. Unknown ones are left out.
    async fn agents_seen(&self, agents: Vec<AgentName>) -> Result<(), StoreError>;

    /// All agents, by name.
    async fn list_agents(&self) -> Result<Vec<AgentRecord>, StoreError>;

    /// An agent.
    async fn find_agent(&self, name: &AgentName) -> Result<Option<AgentRecord>, StoreError>;

    /// Begins or ends the draining of an agent. A second time changes nothing.
    async fn drain_agent(&self, name: AgentName, draining: bool) -> Result<AgentRecord, ChangeAgentError>;

    /// Forgets an agent: its name is free. Returns what was known of it.
    async fn remove_agent(&self, name: AgentName) -> Result<AgentRecord, ChangeAgentError>;
}
