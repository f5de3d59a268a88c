//! Pools: named sets of agents, one of which a run is sent to.

use cooper_types::{PoolName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::rfc3339;

/// What `POST /pools` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePool {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PoolName,
    /// What it is for, in a line.
    #[serde(default)]
    pub description: String,
    /// Whether it is for the code of strangers: pull requests of forks run in such a pool alone.
    #[serde(default)]
    pub untrusted: bool,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PoolName,
    /// What it is for.
    pub description: String,
    /// Whether it is for the code of strangers.
    #[serde(default)]
    pub untrusted: bool,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
    /// How many agents serve in it, connected or not.
    pub agents: u64,
    /// How many of its runs have not ended.
    pub unfinished_runs: u64,
}

/// What `GET /pools` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolList {
    /// The pools, by name.
    pub value: Vec<PoolView>,
}

/// What `DELETE /pools/{id}` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeletePoolQuery {
    /// Deletes a pool with agents or unfinished runs as well: the agents are removed and the runs cancelled.
    #[serde(default)]
    pub force: bool,
}
