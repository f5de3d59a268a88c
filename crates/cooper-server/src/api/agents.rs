//! Agents: listed, shown, drained, removed.

use axum::Json;
use axum::extract::State;
use cooper_api::rest::{AgentList, AgentState, AgentView, DrainAgent};
use cooper_engine::run::{Refusal, RunEvent};
use cooper_ports::agents::AgentRecord;
use cooper_ports::runs::ApplyError;
use cooper_types::AgentName;

use super::{ApiState, JsonBody, PathId};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult};

/// `GET /agents`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<AgentList>> {
    let records = state.core.agent_store.list_agents().await?;
    Ok(Json(AgentList { value: records.into_iter().map(|record| view(&state.core, record)).collect() }))
}

/// `GET /agents/{id}`
pub(super) async fn show(State(state): State<ApiState>, PathId(name): PathId<AgentName>) -> ApiResult<Json<AgentView>> {
    let record = state.core.agent_store.find_agent(&name).await?;
    let record = record.ok_or_else(|| ApiError::not_found(format!("agent `{name}`")))?;
    Ok(Json(view(&state.core, record)))
}

/// `POST /agents/{id}/drain`
pub(super) async fn drain(
    State(state): State<ApiState>,
    PathId(name): PathId<AgentName>,
    body: JsonBody<DrainAgent>,
) -> ApiResult<Json<AgentView>> {
    let core = state.core;
    let DrainAgent { draining } = body.value;
    core.clone()
        .detached(async move {
            let _changes = core.agent_changes.write().await;
            let record = core.agent_store.drain_agent(name.clone(), draining).await?;
            core.agents.set_draining(&name, draining);
            core.wake.notify_one();
            tracing::info!(agent = %name, draining, "agent is told whether it gets new work");
            Ok(Json(view(&core, record)))
        })
        .await
}

/// `DELETE /agents/{id}`
pub(super) async fn remove(
    State(state): State<ApiState>,
    PathId(name): PathId<AgentName>,
) -> ApiResult<Json<AgentView>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let _changes = core.agent_changes.write().await;
            let record = core.agent_store.remove_agent(name).await?;
            Ok(Json(removed(&core, record).await?))
        })
        .await
}

/// Closes the stream of an agent whose row is gone: what it holds is lost. Returns what it was.
pub(super) async fn removed(core: &Core, record: AgentRecord) -> ApiResult<AgentView> {
    let name = record.name.clone();
    let last = view(core, record);
    core.agents.remove(&name);
    for run in core.runs.runs_of_agent(&name).await? {
        match core.apply(run.id, RunEvent::AgentRemoved { name: name.clone() }).await {
            Ok(_) | Err(ApplyError::Refused { refusal: Refusal::NothingToDo | Refusal::Over, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    core.wake.notify_one();
    tracing::info!(agent = %name, "agent removed");
    Ok(last)
}

fn view(core: &Core, record: AgentRecord) -> AgentView {
    let AgentRecord { name, principal, token, description, draining, runs, first_seen, last_seen } = record;
    let says = core.agents.says(&name);
    let connected = says.is_some();
    let (unavailable, disk) = says.map_or((None, None), |says| (says.unavailable, says.disk));
    let disk = disk.or(description.disk);
    let text = |platforms: &[cooper_types::Platform]| platforms.iter().map(ToString::to_string).collect();
    AgentView {
        name,
        pool: description.pool,
        state: if connected { AgentState::Connected } else { AgentState::Away },
        draining,
        platforms: text(&description.native),
        emulated_platforms: text(&description.emulated),
        slots: description.slots,
        runs,
        engine: description.engine,
        capabilities: description.capabilities,
        version: description.version,
        protocol: description.protocol,
        principal,
        token_id: token,
        first_seen,
        last_seen: if connected { core.clock.now() } else { last_seen },
        unavailable,
        disk_free_bytes: disk.map(|disk| disk.free),
        disk_total_bytes: disk.map(|disk| disk.total),
    }
}
