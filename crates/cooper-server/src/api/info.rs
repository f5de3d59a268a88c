//! What the server says of itself.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cooper_api::openapi;
use cooper_api::rest::{Health, IDENTITY_HEADER, Info};

use super::{ApiState, Caller, json_text};
use crate::problem::ApiResult;

/// `GET /info`
pub(super) async fn info(State(state): State<ApiState>, Extension(Caller(token)): Extension<Caller>) -> Json<Info> {
    Json(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        registry_name: state.core.registry.clone(),
        principal: token.principal,
        scopes: token.scopes,
        image_aliases: state.core.image_aliases.clone(),
    })
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> Response {
    // Everybody may ask for it, so it is made once.
    static DOCUMENT: LazyLock<String> = LazyLock::new(openapi::document_json);
    json_text(DOCUMENT.clone())
}

/// `GET /healthz`; the header tells this server from others.
pub(super) async fn health(State(state): State<ApiState>) -> impl IntoResponse {
    ([(IDENTITY_HEADER, state.core.key.identity())], Json(Health { status: "ok".to_owned() }))
}

/// `GET /readyz`
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let answer = |code: StatusCode, status: &str| (code, Json(Health { status: status.to_owned() }));
    if state.shutdown.is_cancelled() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
    }
    match state.core.runs.ping().await {
        Ok(_) => answer(StatusCode::OK, "ok"),
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, "the store can't be read"),
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<ApiState>) -> ApiResult<Response> {
    let unfinished = state.core.runs.count_unfinished().await?;
    let text = state.core.metrics.text(&unfinished, state.core.agents.views().len());
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}
