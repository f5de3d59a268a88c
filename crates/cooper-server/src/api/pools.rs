//! Pools: listed, made, deleted.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{CreatePool, DeletePoolQuery, PoolList, PoolView};
use cooper_engine::run::RunEvent;
use cooper_ports::agents::{Pool, PoolRecord};
use cooper_ports::runs::ApplyError;
use cooper_types::PoolName;

use super::{ApiState, Caller, JsonBody, PathId, Query, agents};
use crate::problem::{ApiError, ApiResult};

/// The longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 1024;

/// `GET /pools`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<PoolList>> {
    let records = state.core.agent_store.list_pools().await?;
    Ok(Json(PoolList { value: records.into_iter().map(view).collect() }))
}

/// `POST /pools`
pub(super) async fn create(
    State(state): State<ApiState>,
    body: JsonBody<CreatePool>,
) -> ApiResult<(StatusCode, Json<PoolView>)> {
    let CreatePool { name, description, untrusted } = body.value;
    if description.len() > MAX_DESCRIPTION_BYTES || description.chars().any(char::is_control) {
        let detail = format!("the pool's description must be one line of at most {MAX_DESCRIPTION_BYTES} bytes");
        return Err(ApiError::new(ProblemCode::InvalidRequest, detail));
    }
    let pool = state.core.agent_store.create_pool(name, description, untrusted).await?;
    Ok((StatusCode::CREATED, Json(view(PoolRecord { pool, agents: 0, unfinished_runs: 0 }))))
}

/// `DELETE /pools/{id}`
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<PoolName>,
    Query(query): Query<DeletePoolQuery>,
) -> ApiResult<Json<PoolView>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let _changes = core.agent_changes.write().await;
            let own = core.agent_store.list_agents().await?.into_iter().filter(|agent| agent.description.pool == name);
            let own: Vec<_> = own.collect();
            let record = core.agent_store.delete_pool(name.clone(), query.force).await?;
            // From here on no run and no agent comes to it. A crash before the end leaves runs that wait, say that their
            // pool has no agent, and end when they have waited too long.
            for run in core.runs.unfinished_of_pool(&name).await? {
                match core.apply(run, RunEvent::CancelRequested { by: token.principal.clone() }).await {
                    Ok(_) | Err(ApplyError::Refused { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for agent in own {
                agents::removed(&core, agent).await?;
            }
            Ok(Json(view(record)))
        })
        .await
}

fn view(record: PoolRecord) -> PoolView {
    let PoolRecord { pool: Pool { name, description, untrusted, created }, agents, unfinished_runs } = record;
    PoolView { name, description, untrusted, create_time: created, agents, unfinished_runs }
}
