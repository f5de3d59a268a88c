//! Hooks of tasks: what forges send to them, how they are shown, and new secrets for them.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    DeliveryView, EventOutcomeView, HookList, HookSetup, HookView, LookKind, LookView, RegistrationStatus,
    RegistrationView, RotateHookQuery, SeenHook, SourceEventType, SourceTriggerSettings, TaskStatus,
};
use cooper_engine::task::SourceSettings;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::hooks::{DeliveryRecord, EventOutcome, HookRecord, NewHook, Outcome};
use cooper_ports::references::{LookRecord, LookWay};
use cooper_ports::registrations::RegistrationRecord;
use cooper_ports::tasks::TaskRecord;
use cooper_spec::source::RemoteSource;
use cooper_types::{HookId, PoolName, SecretString, SourceHost, TaskName, TriggerName};

use super::runs::invalid;
use super::tasks::{find, owned};
use super::{ApiState, Caller, PathId, PathIds, Query};
use crate::core::Core;
use crate::hooks;
use crate::problem::{ApiError, ApiResult};

/// So many deliveries are told of a task.
const DELIVERIES: u32 = 100;
/// For how long the secret before a new one is taken as well.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// `POST /hooks/{id}`
pub(super) async fn deliver(State(state): State<ApiState>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let error = match hooks::receive(&state.core, &id, parts.headers, body).await {
        Ok(answer) => return (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Err(error) => error,
    };
    let pause = match error.0.code {
        ProblemCode::TooManyRequests => Some("60"),
        ProblemCode::Unavailable | ProblemCode::Internal | ProblemCode::StorageFull => Some("10"),
        _ => None,
    };
    let mut response = error.into_response();
    if let Some(pause) = pause {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(pause));
    }
    response
}

/// `GET /tasks/{id}/hooks`
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<Json<HookList>> {
    let core = &state.core;
    let record = find(core, &name).await?;
    owned(&record.task, &token)?;
    let registrations = core.registrations.registrations_of(&name).await?;
    let seen = |hook: &HookRecord| {
        let own = registrations.iter().find(|one| one.hook == hook.id && !one.removing);
        let seen = core.hooks.seen(&hook.id);
        SeenHook {
            hook: hook_view(core, &record, hook),
            kept: seen.kept,
            repeated: seen.repeated,
            passed_over: seen.passed_over,
            refused: seen.refused,
            last: seen.last,
            last_not_kept: seen.why.as_ref().map(|(at, _)| *at),
            why: seen.why.map(|(_, why)| why),
            registration: own.map(registration_view),
        }
    };
    let deliveries = core.hook_store.list_deliveries(&name, DELIVERIES).await?;
    Ok(Json(HookList {
        value: record.hooks.iter().map(seen).collect(),
        deliveries: deliveries.into_iter().map(|delivery| delivery_view(core, delivery)).collect(),
        looks: looks(core, &record).await?.into_iter().map(look_view).collect(),
    }))
}

/// `POST /tasks/{id}/hooks/{hook}/secret`
pub(super) async fn rotate(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathIds(name, id): PathIds<TaskName, HookId>,
    Query(query): Query<RotateHookQuery>,
) -> ApiResult<Json<HookView>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let unknown = || ApiError::not_found(format!("this hook of task `{name}`"));
            let record = find(&core, &name).await?;
            owned(&record.task, &token)?;
            // Who has the secret says which commit is built, with all that the task has.
            if let Some(missing) = token.scopes.first_missing(&record.task.scopes) {
                let detail = format!("your token lacks the scope `{missing}` of task `{name}`, whose hook this is");
                let error = ApiError::new(ProblemCode::Forbidden, detail);
                return Err(error.with_hint("use a token that may do what the task does"));
            }
            let hook = record.hooks.iter().find(|hook| hook.id == id).ok_or_else(unknown)?;
            let (secret, sealed) = hooks::new_secret(&core, &id);
            let until = (!query.revoke_old).then(|| core.clock.now().after(OVERLAP));
            if !core.hook_store.rotate_hook(&id, sealed, until).await? {
                return Err(unknown());
            }
            core.hooks.register.notify_one();
            tracing::info!(task = %name, provider = %hook.provider, by = %token.principal, "secret of a hook replaced");
            let view = hook_view(&core, &record, &HookRecord { previous_until: until, ..hook.clone() });
            Ok(Json(HookView { secret: Some(secret.expose().to_owned()), ..view }))
        })
        .await
}

/// A hook as it is shown.
pub(super) fn hook_view(core: &Core, record: &TaskRecord, hook: &HookRecord) -> HookView {
    let (setup, forge_host) = setup(core, record, hook.provider);
    let path = format!("/hooks/{}", hook.id);
    HookView {
        setup,
        forge_host: forge_host.map(|host| host.to_string()),
        id: hook.id.clone(),
        provider: hook.provider.to_string(),
        url: core.public(&path),
        path,
        secret: None,
        creation_date: hook.created,
        previous_secret_until: hook.previous_until,
    }
}

/// Who sets a task's hook for a kind of forge there, and the forge's host.
fn setup(core: &Core, record: &TaskRecord, provider: Provider) -> (HookSetup, Option<SourceHost>) {
    let repository = record.task.source.as_ref().and_then(|source| source.repository());
    let Some(repository) = repository else { return (HookSetup::Hand, None) };
    let has_token = |host: &SourceHost| record.credentials.iter().any(|credential| credential.host == *host);
    if provider == Provider::Generic {
        let host = SourceHost::parse(&repository.host()).ok().filter(has_token);
        return (if host.is_some() { HookSetup::LacksForge } else { HookSetup::Hand }, host);
    }
    match hooks::forge_host(provider, &repository.to_string()) {
        None => (HookSetup::Hand, None),
        Some(host) if !has_token(&host) => (HookSetup::LacksToken, Some(host)),
        Some(host) if !core.is_public => (HookSetup::LacksPublicUrl, Some(host)),
        Some(host) => (HookSetup::Server, Some(host)),
    }
}

/// Adds the secrets of the hooks that were made just now.
pub(super) fn tell_secrets(views: &mut [HookView], made: &[(NewHook, SecretString)]) {
    for view in views {
        let own = made.iter().find(|(hook, _)| hook.id == view.id);
        view.secret = own.map(|(_, secret)| secret.expose().to_owned());
    }
}

/// How the last looks at a task's repository went, as far as it is looked at now.
pub(super) async fn looks(core: &Core, record: &TaskRecord) -> ApiResult<Vec<(LookWay, LookRecord)>> {
    let looks = core.references.looks(&record.task.name).await?;
    let now = core.clock.now();
    let looks = looks.into_iter().filter(|(way, _)| hooks::missed::is_looked_at(record, *way));
    let looks = looks.map(|(way, look)| (way, LookRecord { next: core.hooks.next_look(way, look.next, now), ..look }));
    Ok(looks.collect())
}

fn look_view((way, look): (LookWay, LookRecord)) -> LookView {
    let kind = match way {
        LookWay::Git => LookKind::References,
        LookWay::Forge => LookKind::PullRequests,
    };
    LookView { kind, time: look.at, next_time: look.next, fault: look.fault }
}

fn registration_view(record: &RegistrationRecord) -> RegistrationView {
    let status = match record {
        RegistrationRecord { due: Some(_), .. } => RegistrationStatus::Waiting,
        RegistrationRecord { fault: Some(_), .. } => RegistrationStatus::Failed,
        _ => RegistrationStatus::Registered,
    };
    RegistrationView {
        status,
        repository: record.repository.clone(),
        registered: record.registered,
        next_try: record.due,
        fault: record.fault.clone(),
    }
}

fn delivery_view(core: &Core, record: DeliveryRecord) -> DeliveryView {
    let outcome = |EventOutcome { what, outcome }: EventOutcome| {
        let blank = EventOutcomeView { event: what, run_id: None, known_run_id: None, rule: None, why_not: None };
        match outcome {
            Outcome::Started(run) => EventOutcomeView { run_id: Some(run), ..blank },
            Outcome::Known(run) => EventOutcomeView { known_run_id: Some(run), ..blank },
            Outcome::Refused(refusal) => {
                EventOutcomeView { rule: Some(refusal.rule.to_string()), why_not: Some(refusal.text), ..blank }
            }
            Outcome::Failed(why) => EventOutcomeView { why_not: Some(why), ..blank },
        }
    };
    DeliveryView {
        again: core.hooks.again(&record.hook, &record.delivery),
        id: record.delivery,
        hook: record.hook,
        received: record.received,
        outcomes: record.outcomes.map(|outcomes| outcomes.into_iter().map(outcome).collect()),
    }
}

/// A source trigger from the wire. Whose hooks it takes follows from the context where nothing is said.
pub(super) fn of_trigger(
    trigger: SourceTriggerSettings,
    name: &TriggerName,
    context: Option<&RemoteSource>,
) -> ApiResult<SourceSettings> {
    let wrong = |error: &dyn std::fmt::Display| invalid(format!("source trigger `{name}`: {error}"));
    let provider = match (trigger.provider.as_deref().filter(|text| !text.is_empty()), context) {
        (Some(text), _) => Provider::parse(text).map_err(|error| wrong(&error))?,
        (None, Some(RemoteSource::Git(source))) => Provider::of_host(source.url.host().split(':').next().unwrap_or("")),
        (None, _) => Provider::Generic,
    };
    let pool = trigger.fork_pool.as_deref().filter(|pool| !pool.is_empty()).map(PoolName::parse);
    let events = trigger.events.unwrap_or_else(|| vec![SourceEventType::Commit]);
    Ok(SourceSettings {
        provider,
        enabled: trigger.status.unwrap_or_default() == TaskStatus::Enabled,
        commits: events.contains(&SourceEventType::Commit),
        pull_requests: events.contains(&SourceEventType::PullRequest),
        tags: events.contains(&SourceEventType::Tag),
        branches: trigger.branches,
        tag_names: trigger.tags,
        paths: trigger.paths,
        exclude_paths: trigger.exclude_paths,
        drafts: trigger.drafts.unwrap_or(false),
        skip_ci: trigger.skip_ci.unwrap_or(true),
        fork_pool: pool.transpose().map_err(|error| wrong(&error))?,
        cancel_superseded: trigger.cancel_superseded.unwrap_or(false),
    })
}

/// A source trigger as it is shown.
pub(super) fn trigger_view(settings: &SourceSettings) -> SourceTriggerSettings {
    let events = [
        (settings.commits, SourceEventType::Commit),
        (settings.pull_requests, SourceEventType::PullRequest),
        (settings.tags, SourceEventType::Tag),
    ];
    SourceTriggerSettings {
        provider: Some(settings.provider.to_string()),
        events: Some(events.into_iter().filter(|(listens, _)| *listens).map(|(_, event)| event).collect()),
        branches: settings.branches.clone(),
        tags: settings.tag_names.clone(),
        paths: settings.paths.clone(),
        exclude_paths: settings.exclude_paths.clone(),
        drafts: Some(settings.drafts),
        skip_ci: Some(settings.skip_ci),
        fork_pool: settings.fork_pool.as_ref().map(ToString::to_string),
        cancel_superseded: Some(settings.cancel_superseded),
        status: Some(if settings.enabled { TaskStatus::Enabled } else { TaskStatus::Disabled }),
    }
}
