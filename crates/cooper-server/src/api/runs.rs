//! Runs: started, listed, shown, cancelled.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    self, DockerBuildRequest, IDEMPOTENCY_KEY_HEADER, ListRunsQuery, MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, RunList,
    RunRequest,
};
use cooper_engine::run::{NewRun, RunEvent};
use cooper_ports::access::Token;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::{AcceptRun, RunQuery, RunType, SealedSecret, SecretKind};
use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_spec::source::SourceLocation;
use cooper_types::{ContextId, IdempotencyKey, Platform, PoolName, RunId, SecretBytes};

use super::view::{engine_status, ports_run_type, run_view};
use super::{ApiState, Caller, JsonBody, PathId, Query};
use crate::core::Core;
use crate::orders::sealing_purpose;
use crate::problem::{ApiError, ApiResult, chain};

/// The largest secret, in bytes: BuildKit takes no larger one.
const MAX_SECRET_BYTES: usize = 500 * 1024;

/// `POST /runs`
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody<RunRequest>,
) -> ApiResult<Response> {
    let core = &state.core;
    let RunRequest::DockerBuildRequest(request) = body.value;
    let idempotency = match headers.get(IDEMPOTENCY_KEY_HEADER) {
        None => None,
        Some(value) => {
            let invalid = |error: &dyn std::fmt::Display| {
                ApiError::new(ProblemCode::InvalidRequest, format!("header Idempotency-Key is not valid: {error}"))
            };
            let text = value.to_str().map_err(|error| invalid(&error))?;
            let key = IdempotencyKey::parse(text).map_err(|error| invalid(&error))?;
            // Over the bytes as they came: whoever repeats a request sends the same ones. The same values in another
            // form are another request; what a form means may change with the server, what was sent does not.
            Some((key, core.key.request_digest(&body.bytes)))
        }
    };
    let request = accept_request(core, token, request, idempotency)?;
    let core = core.clone();
    let accept = async move {
        let accepted = core.runs.accept_run(request).await?;
        failpoint::pass(Failpoint::RunAccepted);
        if !accepted.repeated {
            let run = &accepted.record.run;
            tracing::info!(run = %run.id, principal = %run.principal, "run accepted");
            core.run_accepted(run);
        }
        Ok(accepted)
    };
    let accepted = state.core.detached(accept).await?;
    let view = run_view(&accepted.record);
    let location = [(header::LOCATION, view.id.clone())];
    Ok((StatusCode::CREATED, location, Json(view)).into_response())
}

/// `GET /runs`
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListRunsQuery>,
) -> ApiResult<Json<RunList>> {
    let top = query.top.unwrap_or(ListRunsQuery::DEFAULT_TOP);
    if top == 0 || top > ListRunsQuery::MAX_TOP {
        let detail = format!("top is {top}; it must be 1 to {}", ListRunsQuery::MAX_TOP);
        return Err(ApiError::new(ProblemCode::InvalidRequest, detail));
    }
    let mut records = state
        .core
        .runs
        .list_runs(&RunQuery {
            statuses: query.status.map(engine_status).into_iter().collect(),
            run_type: query.run_type.map(ports_run_type),
            principal: None,
            before: query.before,
            // One more than is shown tells whether there is a next page.
            limit: top + 1,
        })
        .await?;
    let more = records.len() > top as usize;
    records.truncate(top as usize);
    let next_link = records.last().filter(|_| more).map(|last| {
        let mut link = format!("/api/v1/runs?top={top}&before={}", last.run.id);
        if let Some(status) = query.status {
            link.push_str(&format!("&status={status}"));
        }
        if let Some(run_type) = query.run_type {
            link.push_str(&format!("&runType={run_type}"));
        }
        link
    });
    Ok(Json(RunList { value: records.iter().map(run_view).collect(), next_link }))
}

/// `GET /runs/{id}`
pub(super) async fn show(State(state): State<ApiState>, PathId(id): PathId<RunId>) -> ApiResult<Json<rest::Run>> {
    let record = state.core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
    Ok(Json(run_view(&record)))
}

/// `POST /runs/{id}/cancel`
pub(super) async fn cancel(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<RunId>,
) -> ApiResult<(StatusCode, Json<rest::Run>)> {
    let core = state.core;
    core.clone()
        .detached(async move {
            core.apply(id, RunEvent::CancelRequested { by: token.principal }).await?;
            let record = core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
            Ok((StatusCode::ACCEPTED, Json(run_view(&record))))
        })
        .await
}

/// From the wire to what the store accepts: values are checked here, names inside the accepting transaction.
fn accept_request(
    core: &Core,
    token: Token,
    request: DockerBuildRequest,
    idempotency: Option<(IdempotencyKey, cooper_types::Digest)>,
) -> ApiResult<AcceptRun> {
    let invalid = |detail: String| ApiError::new(ProblemCode::InvalidRequest, detail);
    if !(MIN_TIMEOUT_SECONDS..=MAX_TIMEOUT_SECONDS).contains(&request.timeout) {
        let (given, min, max) = (request.timeout, MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS);
        return Err(invalid(format!("timeout is {given} s; it must be {min} to {max}")));
    }
    let pool = match &request.agent_pool_name {
        None => PoolName::default_pool(),
        Some(name) => PoolName::parse(name).map_err(|error| invalid(format!("agentPoolName is not valid: {error}")))?,
    };
    let platform = match &request.platform {
        None => Platform::LINUX_AMD64,
        Some(view) => Platform::try_from(view)
            .map_err(|error| ApiError::new(ProblemCode::UnsupportedPlatform, error.to_string()))?,
    };
    let source = build_source(&request.source_location)?;
    let mut secrets = Vec::new();
    let mut seal = |kind: SecretKind, name: &str, value: &SecretBytes| {
        if value.expose().len() > MAX_SECRET_BYTES {
            return Err(invalid(format!("secret `{name}` is larger than {MAX_SECRET_BYTES} bytes")));
        }
        let sealed = core.key.seal(&sealing_purpose(kind, name), value);
        secrets.push(SealedSecret { kind, name: name.to_owned(), sealed });
        Ok(())
    };
    for secret in &request.secrets {
        seal(SecretKind::Build, &secret.id, &secret.value.0)?;
    }
    let mut arguments = Vec::with_capacity(request.arguments.len());
    for argument in request.arguments {
        let value = if argument.is_secret {
            seal(SecretKind::Argument, &argument.name, &SecretBytes::new(argument.value.into_bytes()))?;
            ArgumentValue::Secret
        } else {
            ArgumentValue::Plain(argument.value)
        };
        arguments.push(BuildArgument { name: argument.name, value });
    }
    let build = QuickBuild {
        image_names: request.image_names,
        push: request.is_push_enabled,
        no_cache: request.no_cache,
        dockerfile: request.docker_file_path,
        target: request.target,
        arguments,
        labels: request.labels.into_iter().map(|label| (label.name, label.value)).collect(),
        secrets: request.secrets.into_iter().map(|secret| secret.id).collect(),
        platform,
    };
    let run = NewRun {
        principal: token.principal,
        scopes: token.scopes,
        registry: core.registry.clone(),
        pool,
        build,
        source,
        timeout: Duration::from_secs(request.timeout.into()),
    };
    Ok(AcceptRun { run, run_type: RunType::QuickBuild, idempotency, secrets })
}

/// What `sourceLocation` names: a place that an agent fetches, or an uploaded context by its id.
fn build_source(text: &str) -> ApiResult<BuildSource> {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Remote(source)) => Ok(BuildSource::Remote(source)),
        Ok(SourceLocation::Nothing | SourceLocation::Stdin) => {
            let detail =
                format!("sourceLocation `{text}` holds no Dockerfile; upload a context, or name a remote source");
            Err(ApiError::new(ProblemCode::InvalidRequest, detail))
        }
        Ok(SourceLocation::Local(id)) => ContextId::parse(&id).map(BuildSource::Context).map_err(|error| {
            ApiError::new(ProblemCode::ContextNotFound, format!("sourceLocation is not valid: {error}"))
        }),
        Err(error) => {
            Err(ApiError::new(ProblemCode::InvalidRequest, format!("sourceLocation is not valid: {}", chain(&error))))
        }
    }
}
