//! Waves: listed, shown, paused, resumed, cancelled; and what a change would rebuild.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    ImpactQuery, ImpactRefusal, ImpactTask, ImpactView, ListWavesQuery, RegistryHookView, WaveChange, WaveList,
    WaveMember, WaveView,
};
use cooper_engine::wave::{self, Apart, Change, Cut, ImageTag, Member, Wave, WaveEvent};
use cooper_ports::waves::BaseGraph;
use cooper_types::{ImageRef, TaskName, WaveId};
use http_body_util::BodyExt as _;

use super::runs::{invalid, newest};
use super::{ApiState, Caller, PathId, Query};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};
use crate::tasks::off_the_loop;
use crate::waves;

/// The largest message of a registry, in bytes.
const MAX_NEWS: usize = 256 << 10;

/// How many tasks are named of which nothing is known.
const UNKNOWN: u32 = 100;

/// `GET /waves`
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListWavesQuery>,
) -> ApiResult<Json<WaveList>> {
    let top = newest(query)?;
    let waves = state.core.waves.list_waves(top).await?;
    let limit = state.core.wave_concurrency;
    let value = waves.into_iter().map(|summary| view(&summary.wave, limit, summary.counts.into_iter().collect(), None));
    Ok(Json(WaveList { value: value.collect() }))
}

/// `GET /waves/{id}`
pub(super) async fn show(State(state): State<ApiState>, PathId(id): PathId<WaveId>) -> ApiResult<Json<WaveView>> {
    let stored = state.core.waves.find_wave(id).await?;
    Ok(Json(whole(&state.core, &stored.ok_or_else(|| waves::unknown(id))?.wave).await?))
}

/// `POST /waves/{id}/pause`
pub(super) async fn pause(
    state: State<ApiState>,
    caller: Extension<Caller>,
    id: PathId<WaveId>,
) -> ApiResult<Json<WaveView>> {
    steer(state, caller, id, WaveEvent::Pause).await
}

/// `POST /waves/{id}/resume`
pub(super) async fn resume(
    state: State<ApiState>,
    caller: Extension<Caller>,
    id: PathId<WaveId>,
) -> ApiResult<Json<WaveView>> {
    steer(state, caller, id, WaveEvent::Resume).await
}

/// `POST /waves/{id}/cancel`
pub(super) async fn cancel(
    state: State<ApiState>,
    caller: Extension<Caller>,
    id: PathId<WaveId>,
) -> ApiResult<(StatusCode, Json<WaveView>)> {
    let by = caller.0.0.principal.clone();
    Ok((StatusCode::ACCEPTED, steer(state, caller, id, WaveEvent::Cancel { by }).await?))
}

/// `POST /waves/{id}/retry`
pub(super) async fn retry(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<WaveId>,
) -> ApiResult<(StatusCode, Json<WaveView>)> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let stored = waves::retry(&core, id, &token.principal).await?;
            Ok((StatusCode::CREATED, Json(whole(&core, &stored.wave).await?)))
        })
        .await
}

/// `GET /registry-hook`
pub(super) async fn registry_hook(State(state): State<ApiState>) -> Json<RegistryHookView> {
    let path = format!("/hooks/registry/{}", state.core.key.registry_hook());
    Json(RegistryHookView { url: state.core.public(&path), path })
}

/// `POST /hooks/registry/{id}`
pub(super) async fn registry_news(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: JsonNews,
) -> ApiResult<StatusCode> {
    let JsonNews(message) = body;
    let core = state.core;
    // In constant time: what differs says nothing of where.
    let known = core.key.registry_hook();
    let differs = known.bytes().zip(id.bytes()).fold(known.len() ^ id.len(), |all, (a, b)| all | usize::from(a ^ b));
    if differs != 0 {
        return Err(ApiError::not_found("hook of that name".to_owned()));
    }
    let message: serde_json::Value = serde_json::from_slice(&message)
        .map_err(|_| ApiError::new(ProblemCode::InvalidRequest, "the body is no JSON"))?;
    let mut brought = 0;
    for (repository, tag) in waves::news::pushes(&message) {
        brought += core.waves.bring_forward(&repository, tag.as_ref()).await?;
    }
    if brought > 0 {
        core.poller_wake.notify_one();
    }
    Ok(StatusCode::ACCEPTED)
}

/// A message of a registry: registries have media types of their own for it.
pub(super) struct JsonNews(bytes::Bytes);

impl<S: Sync> FromRequest<S> for JsonNews {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        match http_body_util::Limited::new(request.into_body(), MAX_NEWS).collect().await {
            Ok(body) => Ok(Self(body.to_bytes())),
            Err(_) => {
                let detail = format!("the body is cut off, or larger than {MAX_NEWS} bytes");
                Err(ApiError::new(ProblemCode::RequestTooLarge, detail))
            }
        }
    }
}

async fn steer(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<WaveId>,
    event: WaveEvent,
) -> ApiResult<Json<WaveView>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let stored = waves::steer(&core, id, event, &token.principal).await?;
            Ok(Json(whole(&core, &stored.wave).await?))
        })
        .await
}

/// `GET /impact`
pub(super) async fn impact(
    State(state): State<ApiState>,
    Query(query): Query<ImpactQuery>,
) -> ApiResult<Json<ImpactView>> {
    let core = &state.core;
    let image = ImageRef::parse(&query.image).map_err(|error| invalid(format!("image: {}", chain(&error))))?;
    if image.digest.is_some() {
        return Err(invalid("image names a digest, which no new image changes; name a tag".to_owned()));
    }
    // A name without a registry is the embedded one's for us, and Docker Hub's for a Dockerfile.
    let own = image.clone().in_registry_by_default(&core.registry);
    let images: BTreeSet<ImageTag> = [own, image].map(|image| ImageTag::of(image, &core.registry).0).into();
    let asked: Vec<ImageTag> = images.iter().cloned().collect();
    let BaseGraph { graph, unreadable } = core.waves.base_graph(&asked).await?;
    let unreadable = waves::unread(unreadable);
    let changes: Vec<Change> = asked.into_iter().map(|image| Change { image, to: None }).collect();
    let plan = off_the_loop(move || wave::plan(&graph, &changes, &Apart::default())).await;
    let mut unknown = core.waves.unbuilt_tasks(UNKNOWN + 1).await?;
    let unknown_more = unknown.len() > UNKNOWN as usize;
    unknown.truncate(UNKNOWN as usize);
    let name = |place: &u32| plan.members.get(*place as usize).map(|member| member.task.clone());
    let task = |member: &wave::PlannedMember| ImpactTask {
        task: member.task.clone(),
        level: member.level,
        after: member.parents.iter().filter_map(name).collect(),
        images: member.images.iter().map(ToString::to_string).collect(),
    };
    let refusal = |refused: &wave::Refused| ImpactRefusal {
        task: refused.task.clone(),
        image: refused.image.to_string(),
        rule: refused.why(),
    };
    Ok(Json(ImpactView {
        images: images.iter().map(ToString::to_string).collect(),
        tasks: plan.members.iter().map(task).collect(),
        cuts: plan.cuts.iter().map(cut_text).collect(),
        refused: plan.refused.iter().map(refusal).collect(),
        unknown,
        unknown_more,
        unreadable,
    }))
}

/// A wave with its members.
async fn whole(core: &Core, wave: &Wave) -> ApiResult<WaveView> {
    let reasons = waves::reasons(core, wave).await?;
    let mut counts = BTreeMap::new();
    for member in &wave.members {
        *counts.entry(member.state.as_str().to_owned()).or_default() += 1;
    }
    let name = |place: &u32| wave.members.get(*place as usize).map(|member| member.task.clone());
    let member = |(member, reason): (&Member, Option<String>)| WaveMember {
        task: member.task.clone(),
        level: member.level,
        after: member.parents.iter().filter_map(name).collect::<Vec<TaskName>>(),
        state: member.state.as_str().to_owned(),
        run_id: member.state.run(),
        reason,
    };
    let members = wave.members.iter().zip(reasons).map(member).collect();
    Ok(view(wave, core.wave_concurrency, counts, Some(members)))
}

fn view(wave: &Wave, limit: usize, counts: BTreeMap<String, u32>, members: Option<Vec<WaveMember>>) -> WaveView {
    let any = |states: [&str; 2]| states.iter().any(|state| counts.contains_key(*state));
    let status = wave.phase.status(wave.finished.is_some(), any(["failed", "skipped"]));
    WaveView {
        wave_id: wave.id,
        status: status.to_owned(),
        open_time: wave.opened,
        finish_time: wave.finished,
        concurrency_limit: u32::try_from(limit).unwrap_or(u32::MAX),
        changes: wave
            .changes
            .iter()
            .map(|change| WaveChange {
                image: change.image.to_string(),
                previous_digest: change.from.as_ref().map(ToString::to_string),
                digest: change.to.to_string(),
            })
            .collect(),
        counts,
        cuts: wave.cuts.iter().map(cut_text).collect(),
        members,
    }
}

fn cut_text(cut: &Cut) -> String {
    let Cut { task, image, made_by } = cut;
    match task == made_by {
        true => format!("task {task} stands on {image}, which it makes itself: it is not built again for that"),
        false => format!(
            "task {task} stands on {image}, which task {made_by} makes after it: it is not built again for that"
        ),
    }
}
