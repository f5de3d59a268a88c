//! Agents: who has ever served, what each said of itself, and what administrators do to them.

use cooper_types::{AgentName, PoolName, PrincipalName, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::rfc3339;

/// Whether an agent has a stream to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// It has one.
    Connected,
    /// It has none: it is down, or can't reach the server.
    Away,
}

impl AgentState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Away => "away",
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: AgentName,
    /// The pool that it serves in.
    #[schema(value_type = String)]
    pub pool: PoolName,
    /// Whether it is connected.
    pub state: AgentState,
    /// Whether it only ends what it holds and is offered nothing.
    pub draining: bool,
    /// What it builds for without emulation.
    pub platforms: Vec<String>,
    /// What it builds for by emulation.
    pub emulated_platforms: Vec<String>,
    /// How many runs it takes at a time.
    pub slots: u32,
    /// How many unfinished runs it holds or is asked to take.
    pub runs: u64,
    /// Its container engine, with its version.
    pub engine: String,
    /// What the engine can do beyond the least.
    pub capabilities: Vec<String>,
    /// The agent's own version.
    pub version: String,
    /// The version of the agents' protocol that its last stream was in.
    pub protocol: u32,
    /// Whose name it is.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// The id of the token that it showed last.
    #[schema(value_type = String)]
    pub token_id: TokenId,
    /// When it was first connected.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
    /// When it was connected last; now, if it is.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_seen: Timestamp,
    /// Why it takes no work at the moment, if it is connected and takes none.
    #[serde(default)]
    pub unavailable: Option<String>,
    /// What was free where its engine keeps its data, in bytes, when it was last heard.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// How large that file system is, in bytes.
    #[serde(default)]
    pub disk_total_bytes: Option<u64>,
}

/// What `GET /agents` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentList {
    /// The agents, by name.
    pub value: Vec<AgentView>,
}

/// What `POST /agents/{id}/drain` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainAgent {
    /// Whether the agent is to be offered nothing; `false` ends that.
    pub draining: bool,
}
