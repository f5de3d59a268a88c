//! Runs: started, listed, shown, cancelled. What a request of each kind asks for stands in the modules below.

mod docker;
mod lock;
mod rerun;
mod task;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    self, IDEMPOTENCY_KEY_HEADER, ListRunsQuery, MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, NewestQuery, PlatformView,
    RerunRequest, RunList, RunRequest,
};
use cooper_engine::run::{Asked, NewReplay, NewRun, RunEvent};
use cooper_ports::access::Token;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::{AcceptRun, Accepted, RunQuery, RunType, Seal, SealedSecret, SecretKind};
use cooper_types::{Digest, IdempotencyKey, ImageRef, Platform, PoolName, RunId, SecretBytes};

use self::rerun::Rerun;
use super::view::{engine_status, ports_run_type, run_view};
use super::{ApiState, Caller, JsonBody, PathId, Query};
use crate::core::Core;
use crate::orders::sealing_purpose;
use crate::problem::{ApiError, ApiResult};

/// The largest secret, in bytes: BuildKit takes no larger one.
pub(super) const MAX_SECRET_BYTES: usize = 500 * 1024;

/// `POST /runs`
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody<RunRequest>,
) -> ApiResult<Response> {
    let core = &state.core;
    // Over the bytes as they came: whoever repeats a request sends the same ones. The same values in another form are
    // another request; what a form means may change with the server, what was sent does not.
    let idempotency = idempotency_key(&headers)?.map(|key| (key, core.key.request_digest(&body.bytes)));
    let core = core.clone();
    let accept = async move {
        if let Some(earlier) = repeated(&core, &token, idempotency.as_ref()).await? {
            return Ok(earlier);
        }
        let asked = match body.value {
            RunRequest::DockerBuildRequest(request) => docker::asked(&core, request)?,
            RunRequest::EncodedTaskRunRequest(request) => task::encoded(&core, &token, request).await?,
            RunRequest::FileTaskRunRequest(request) => task::file(&core, &token, request)?,
        };
        started(&core, asked.accept(&core, token, idempotency)?).await
    };
    created(&state.core.detached(accept).await?)
}

/// `POST /runs/{id}/rerun`
pub(super) async fn rerun(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<RunId>,
    headers: HeaderMap,
    body: JsonBody<RerunRequest>,
) -> ApiResult<Response> {
    let key = idempotency_key(&headers)?;
    let asked = format!("rerun {id}\n").into_bytes().into_iter().chain(body.bytes.iter().copied());
    let idempotency = key.map(|key| (key, state.core.key.request_digest(&asked.collect::<Vec<u8>>())));
    let core = state.core.clone();
    let accept = async move {
        if let Some(earlier) = repeated(&core, &token, idempotency.as_ref()).await? {
            return Ok(earlier);
        }
        let again = async || {
            let Rerun { asked, token, origin } = rerun::asked(&core, token.clone(), id, body.value.clone()).await?;
            let mut request = asked.accept(&core, token, idempotency.clone())?;
            request.run.origin = origin;
            started(&core, request).await
        };
        match again().await {
            // What was kept went when its time had come, between the look at it and now: it is fetched, or said to be gone.
            Err(error) if error.0.code == ProblemCode::ContextNotFound => again().await,
            answer => answer,
        }
    };
    created(&state.core.detached(accept).await?)
}

/// `GET /runs/{id}/lock`
pub(super) async fn lock(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<RunId>,
) -> ApiResult<Json<rest::Lockfile>> {
    let record = state.core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
    let request = state.core.runs.find_request(id).await?;
    let with_values = record.run.principal == token.principal || token.scopes.admin();
    Ok(Json(lock::lockfile(&record, request.as_ref(), with_values)))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<IdempotencyKey>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY_HEADER) else { return Ok(None) };
    let invalid = |error: &dyn std::fmt::Display| invalid(format!("header Idempotency-Key is not valid: {error}"));
    let text = value.to_str().map_err(|error| invalid(&error))?;
    IdempotencyKey::parse(text).map(Some).map_err(|error| invalid(&error))
}

/// What an earlier request of this key was answered with. Looked up before anything is fetched: a repetition needs nothing
/// of what its request names, which may be gone by now.
async fn repeated(
    core: &Core,
    token: &Token,
    idempotency: Option<&(IdempotencyKey, Digest)>,
) -> ApiResult<Option<Accepted>> {
    let Some((key, request)) = idempotency else { return Ok(None) };
    let record = core.runs.run_of_request(&token.principal, key, request).await?;
    Ok(record.map(|record| Accepted { record, repeated: true }))
}

/// Accepts a run and tells whom it concerns.
async fn started(core: &Arc<Core>, request: AcceptRun) -> ApiResult<Accepted> {
    let accepted = core.runs.accept_run(request).await?;
    failpoint::pass(Failpoint::RunAccepted);
    if !accepted.repeated {
        let run = &accepted.record.run;
        tracing::info!(run = %run.id, principal = %run.principal, "run accepted");
        core.run_accepted(run);
    }
    Ok(accepted)
}

pub(super) fn created(accepted: &Accepted) -> ApiResult<Response> {
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
            task: query.task_name.clone(),
            principal: None,
            image: query.image.as_deref().map(written).transpose()?,
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
        if let Some(task) = &query.task_name {
            link.push_str(&format!("&taskName={task}"));
        }
        if let Some(run_type) = query.run_type {
            link.push_str(&format!("&runType={run_type}"));
        }
        // Nothing in an image's name has to be escaped in a query.
        if let Some(image) = &query.image {
            link.push_str(&format!("&image={image}"));
        }
        link
    });
    Ok(Json(RunList { value: records.iter().map(run_view).collect(), next_link }))
}

/// The image of which runs are wanted that wrote it.
fn written(text: &str) -> ApiResult<ImageRef> {
    ImageRef::parse(text).map_err(|error| invalid(format!("image: {error}")))
}

/// `GET /runs/{id}`
pub(super) async fn show(State(state): State<ApiState>, PathId(id): PathId<RunId>) -> ApiResult<Json<rest::Run>> {
    let record = state.core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
    Ok(Json(run_view(&record)))
}

/// `PATCH /runs/{id}`
pub(super) async fn update(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<RunId>,
    body: JsonBody<rest::UpdateRun>,
) -> ApiResult<Json<rest::Run>> {
    let core = state.core;
    let archived = body.value.is_archive_enabled;
    core.clone()
        .detached(async move {
            let record = core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
            if record.run.principal != token.principal && !token.scopes.admin() {
                let owner = &record.run.principal;
                let detail = format!("run {id} is a run of {owner}: only that principal and administrators change it");
                return Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(super::tasks::who_may(owner)));
            }
            core.runs.archive_run(id, archived).await?;
            Ok(Json(run_view(&cooper_ports::runs::RunRecord { archived, ..record })))
        })
        .await
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

/// What a request asks for, checked as far as that goes without the store.
struct AskedRun {
    asked: Asked,
    run_type: RunType,
    secrets: Vec<SealedSecret>,
    timeout: u32,
    pool: Option<String>,
    /// The run that is repeated, if one is.
    replay: Option<Box<NewReplay>>,
}

impl AskedRun {
    /// What the store accepts: names are checked inside the accepting transaction.
    fn accept(
        self,
        core: &Arc<Core>,
        token: Token,
        idempotency: Option<(IdempotencyKey, Digest)>,
    ) -> ApiResult<AcceptRun> {
        if !(MIN_TIMEOUT_SECONDS..=MAX_TIMEOUT_SECONDS).contains(&self.timeout) {
            let (given, min, max) = (self.timeout, MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS);
            return Err(invalid(format!("timeout is {given} s; it must be {min} to {max}")));
        }
        let pool = match &self.pool {
            None => PoolName::default_pool(),
            Some(name) => {
                PoolName::parse(name).map_err(|error| invalid(format!("agentPoolName is not valid: {error}")))?
            }
        };
        let run = NewRun {
            origin: Default::default(),
            principal: token.principal,
            scopes: token.scopes,
            registry: core.registry.clone(),
            pool,
            asked: self.asked,
            timeout: Duration::from_secs(self.timeout.into()),
            replay: self.replay,
        };
        // Who may repeat a run may have its context.
        let again = run.replay.as_ref().map(|replay| replay.replay.of);
        let seal = Seal(Arc::new({
            let core = Arc::clone(core);
            move |name, text| core.seal_text(name, text)
        }));
        Ok(AcceptRun { run, run_type: self.run_type, idempotency, secrets: self.secrets, seal, context_of: again })
    }
}

pub(super) fn invalid(detail: String) -> ApiError {
    ApiError::new(ProblemCode::InvalidRequest, detail)
}

/// How many of the newest are listed.
pub(super) fn newest<const DEFAULT_TOP: u32>(query: NewestQuery<DEFAULT_TOP>) -> ApiResult<u32> {
    let max = NewestQuery::<DEFAULT_TOP>::MAX_TOP;
    query.top().map_err(|top| invalid(format!("top is {top}; it must be 1 to {max}")))
}

/// What a run is for; `linux/amd64` if nothing is said.
fn platform_of(view: Option<&PlatformView>) -> ApiResult<Platform> {
    match view {
        None => Ok(Platform::LINUX_AMD64),
        Some(view) => {
            Platform::try_from(view).map_err(|error| ApiError::new(ProblemCode::UnsupportedPlatform, error.to_string()))
        }
    }
}

/// Seals a secret that came with a request.
fn seal(core: &Core, kind: SecretKind, name: &str, value: &SecretBytes) -> ApiResult<SealedSecret> {
    if value.expose().len() > MAX_SECRET_BYTES {
        return Err(invalid(format!("secret `{name}` is larger than {MAX_SECRET_BYTES} bytes")));
    }
    let sealed = core.key.seal(&sealing_purpose(kind, name), value);
    Ok(SealedSecret { kind, name: name.to_owned(), sealed })
}
