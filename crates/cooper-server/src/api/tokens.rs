//! Access tokens: made, listed, revoked.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{CreateToken, CreatedToken, TokenList, TokenView};
use cooper_types::{Scope, TokenId};

use super::{ApiState, JsonBody, PathId};
use crate::problem::{ApiError, ApiResult};

/// The longest scopes of a token, in bytes: the registry credentials of its runs repeat them, and go in a header.
const MAX_SCOPES_BYTES: usize = 4096;

/// `POST /tokens`
pub(super) async fn create(
    State(state): State<ApiState>,
    body: JsonBody<CreateToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    let CreateToken { principal, scopes, expires_in_seconds } = body.value;
    if scopes.0.is_empty() {
        let hint = "name scopes such as read, run or repository:NAME:pull,push";
        return Err(ApiError::new(ProblemCode::InvalidRequest, "the token has no scopes").with_hint(hint));
    }
    let length: usize = scopes.0.iter().map(|scope| scope.to_string().len()).sum();
    if length > MAX_SCOPES_BYTES {
        let hint = "use a pattern such as repository:TEAM/*:pull, or several tokens";
        let detail = format!("the token's scopes are {length} bytes long, at most {MAX_SCOPES_BYTES} are allowed");
        return Err(ApiError::new(ProblemCode::InvalidRequest, detail).with_hint(hint));
    }
    if expires_in_seconds == Some(0) {
        return Err(ApiError::new(ProblemCode::InvalidRequest, "expiresInSeconds is 0; the shortest is 1"));
    }
    // An agent with such a token would be refused, far from whoever made it.
    let pools = state.core.agent_store.list_pools().await?;
    let unknown = scopes.0.iter().find_map(|scope| match scope {
        Scope::AgentOf(pool) if pools.iter().all(|record| record.pool.name != *pool) => Some(pool),
        _ => None,
    });
    if let Some(pool) = unknown {
        let hint = format!("`cooper pool list` shows the pools, `cooper pool create {pool}` makes it");
        return Err(ApiError::not_found(format!("agent pool `{pool}`")).with_hint(hint));
    }
    let lifetime = expires_in_seconds.map(Duration::from_secs);
    let (token, secret) = state.core.access.create(principal, scopes, lifetime).await?;
    let created = CreatedToken {
        id: token.id,
        token: secret.expose().to_owned(),
        principal: token.principal,
        scopes: token.scopes,
        create_time: token.created,
        expire_time: token.expires,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `GET /tokens`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<TokenList>> {
    let now = state.core.clock.now();
    let tokens = state.core.access.store().list_tokens().await?;
    let value = tokens.into_iter().filter(|token| token.is_active(now)).map(|token| TokenView {
        id: token.id,
        principal: token.principal,
        scopes: token.scopes,
        create_time: token.created,
        expire_time: token.expires,
    });
    Ok(Json(TokenList { value: value.collect() }))
}

/// `DELETE /tokens/{id}`
pub(super) async fn revoke(State(state): State<ApiState>, PathId(id): PathId<TokenId>) -> ApiResult<StatusCode> {
    state.core.access.store().revoke_token(&id).await?;
    // An agent's stream looks at its token now and then; until then it would be offered what it can't do any more.
    state.core.agents.close_streams_of(&id);
    Ok(StatusCode::NO_CONTENT)
}
