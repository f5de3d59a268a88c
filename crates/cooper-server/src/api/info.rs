//! What the server says of itself.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::openapi;
use cooper_api::rest::{Health, Info};

use super::{ApiState, Caller, json_text};
use crate::problem::ApiResult;

/// `GET /info`
pub(super) async fn info(State(state): State<ApiState>, Extension(Caller(token)): Extension<Caller>) -> Json<Info> {
    Json(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        registry_name: state.core.registry.clone(),
        principal: token.principal,
        scopes: token.scopes,
    })
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> Response {
    json_text(openapi::document_json())
}

/// `GET /healthz`
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// `GET /readyz`
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let answer = |code: StatusCode, status: &str| (code, Json(Health { status: status.to_owned() }));
    if state.shutdown.is_cancelled() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
    }
    match state.core.runs.unfinished_runs().await {
        Ok(_) => answer(StatusCode::OK, "ok"),
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, "the store can't be read"),
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<ApiState>) -> ApiResult<Response> {
    let unfinished = state.core.runs.unfinished_runs().await?;
    let text = state.core.metrics.text(&unfinished, state.core.agents.views().len());
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}
