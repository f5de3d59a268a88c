//! Webhooks: made, changed, shown, deleted, tried, and the log of what was sent to them. For administrators: they are told of all
//! repositories and runs.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    API_PREFIX, DeliveryStatus, ListWebhookEventsQuery, WebhookAttempt, WebhookConfig, WebhookEvent, WebhookEventInfo,
    WebhookEventList, WebhookList, WebhookSettings, WebhookStatus, WebhookView,
};
use cooper_engine::delivery::State as DeliveryState;
use cooper_engine::webhook::{Action, Scope};
use cooper_ports::outbox::{DeliveryRecord, PutWebhook, Target, Webhook};
use cooper_types::{EventId, WebhookName};

use super::runs::{invalid, newest};
use super::{ApiState, Caller, JsonBody, PathId, PathIds, Query};
use crate::access::random_text;
use crate::core::Core;
use crate::outbox::endpoint::Endpoint;
use crate::problem::{ApiError, ApiResult, chain};

/// The length of a secret that the server makes: 5 bits each.
const SECRET_LENGTH: usize = 52;

/// `GET /webhooks`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<WebhookList>> {
    let webhooks = state.core.webhooks.list_webhooks().await?;
    Ok(Json(WebhookList { value: webhooks.into_iter().map(|webhook| view(webhook, None)).collect() }))
}

/// `POST /webhooks`
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    body: JsonBody<WebhookSettings>,
) -> ApiResult<Response> {
    let settings = body.value;
    let Some(name) = settings.name.clone() else { return Err(invalid("the webhook has no name".to_owned())) };
    let Some(uri) = &settings.service_uri else { return Err(invalid("the webhook has no service URI".to_owned())) };
    let Some(actions) = &settings.actions else { return Err(invalid("the webhook has no actions".to_owned())) };
    let secret = settings.secret.clone().unwrap_or_else(|| random_text(SECRET_LENGTH));
    let endpoint = Endpoint::new(uri, settings.custom_headers.clone().unwrap_or_default(), secret)
        .map_err(|error| invalid(error.to_string()))?;
    let core = state.core;
    let put = PutWebhook {
        host: endpoint.host(),
        sealed: endpoint.seal(&core.key, &Target::Webhook(name.clone())),
        actions: parse_actions(actions)?,
        scope: scope(settings.scope.as_deref().unwrap_or_default())?,
        enabled: settings.status.unwrap_or_default() == WebhookStatus::Enabled,
        set_by: token.principal,
        replaces: None,
        name,
    };
    let webhook = keep(core, put).await?;
    let location = [(header::LOCATION, format!("{API_PREFIX}/webhooks/{}", webhook.name))];
    Ok((StatusCode::CREATED, location, Json(view(webhook, Some(endpoint.secret)))).into_response())
}

/// `GET /webhooks/{id}`
pub(super) async fn show(
    State(state): State<ApiState>,
    PathId(name): PathId<WebhookName>,
) -> ApiResult<Json<WebhookView>> {
    let (webhook, _) = find(&state.core, &name).await?;
    Ok(Json(view(webhook, None)))
}

/// `PATCH /webhooks/{id}`
pub(super) async fn update(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<WebhookName>,
    body: JsonBody<WebhookSettings>,
) -> ApiResult<Json<WebhookView>> {
    let settings = body.value;
    if let Some(other) = settings.name.as_ref().filter(|other| !other.as_str().eq_ignore_ascii_case(name.as_str())) {
        return Err(invalid(format!("webhook `{name}` can't be renamed to `{other}`; make another one")));
    }
    if settings.new_secret && settings.secret.is_some() {
        return Err(invalid("secret and newSecret exclude each other".to_owned()));
    }
    let core = state.core;
    let (webhook, sealed) = find(&core, &name).await?;
    let target = Target::Webhook(webhook.name.clone());
    let new_secret = settings.secret.or_else(|| settings.new_secret.then(|| random_text(SECRET_LENGTH)));
    // What can't be read is not needed where all of it is said anew.
    let earlier = match (&settings.service_uri, &settings.custom_headers, &new_secret) {
        (Some(_), Some(_), Some(_)) => None,
        _ => Some(unseal(&core, &target, &sealed)?),
    };
    let (uri, headers, secret) = earlier.map(|one| (one.uri, one.headers, one.secret)).unwrap_or_default();
    let endpoint = Endpoint::new(
        settings.service_uri.as_deref().unwrap_or(&uri),
        settings.custom_headers.unwrap_or(headers),
        new_secret.clone().unwrap_or(secret),
    );
    let endpoint = endpoint.map_err(|error| invalid(error.to_string()))?;
    let put = PutWebhook {
        host: endpoint.host(),
        sealed: endpoint.seal(&core.key, &target),
        actions: settings.actions.as_deref().map(parse_actions).transpose()?.unwrap_or(webhook.actions),
        scope: settings.scope.as_deref().map(scope).transpose()?.unwrap_or(webhook.scope),
        enabled: settings.status.map_or(webhook.enabled, |status| status == WebhookStatus::Enabled),
        set_by: token.principal,
        replaces: Some(webhook.generation),
        name: webhook.name,
    };
    Ok(Json(view(keep(core, put).await?, new_secret)))
}

/// `DELETE /webhooks/{id}`
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<WebhookName>,
) -> ApiResult<StatusCode> {
    let core = state.core;
    core.clone()
        .detached(async move {
            if !core.webhooks.delete_webhook(&name).await? {
                return Err(unknown(&name));
            }
            tracing::info!(webhook = %name, by = %token.principal, "webhook deleted");
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `GET /webhooks/{id}/config`
pub(super) async fn config(
    State(state): State<ApiState>,
    PathId(name): PathId<WebhookName>,
) -> ApiResult<Json<WebhookConfig>> {
    let (webhook, sealed) = find(&state.core, &name).await?;
    let endpoint = unseal(&state.core, &Target::Webhook(webhook.name), &sealed)?;
    let custom_headers = endpoint.headers.into_keys().map(|name| (name, "***".to_owned())).collect();
    Ok(Json(WebhookConfig { service_uri: endpoint.uri, custom_headers }))
}

/// `POST /webhooks/{id}/ping`
pub(super) async fn ping(
    State(state): State<ApiState>,
    PathId(name): PathId<WebhookName>,
) -> ApiResult<Json<WebhookEventInfo>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let id = core.webhooks.ping_webhook(&name).await?.ok_or_else(|| unknown(&name))?;
            Ok(Json(WebhookEventInfo { id }))
        })
        .await
}

/// `GET /webhooks/{id}/events`
pub(super) async fn events(
    State(state): State<ApiState>,
    PathId(name): PathId<WebhookName>,
    Query(query): Query<ListWebhookEventsQuery>,
) -> ApiResult<Json<WebhookEventList>> {
    let top = newest(query)?;
    let (webhook, _) = find(&state.core, &name).await?;
    let records = state.core.webhooks.list_sent(&Target::Webhook(webhook.name), top).await?;
    Ok(Json(WebhookEventList { value: records.into_iter().map(event_view).collect() }))
}

/// `POST /webhooks/{id}/events/{event}/redeliver`
pub(super) async fn redeliver(
    State(state): State<ApiState>,
    PathIds(name, event): PathIds<WebhookName, EventId>,
) -> ApiResult<Json<WebhookEventInfo>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let (webhook, _) = find(&core, &name).await?;
            if !core.webhooks.redeliver(&Target::Webhook(webhook.name), &event).await? {
                let hint = format!("`cooper webhook list-events {name}` shows those that are kept");
                return Err(ApiError::not_found(format!("event `{event}` of webhook `{name}`")).with_hint(hint));
            }
            Ok(Json(WebhookEventInfo { id: event }))
        })
        .await
}

async fn keep(core: std::sync::Arc<Core>, put: PutWebhook) -> ApiResult<Webhook> {
    core.clone()
        .detached(async move {
            let webhook = core.webhooks.put_webhook(put).await?;
            tracing::info!(webhook = %webhook.name, by = %webhook.set_by, generation = webhook.generation, "webhook kept");
            Ok(webhook)
        })
        .await
}

async fn find(core: &Core, name: &WebhookName) -> ApiResult<(Webhook, Vec<u8>)> {
    core.webhooks.find_webhook(name).await?.ok_or_else(|| unknown(name))
}

fn unknown(name: &WebhookName) -> ApiError {
    ApiError::not_found(format!("webhook `{name}`")).with_hint("`cooper webhook list` shows the webhooks")
}

fn unseal(core: &Core, target: &Target, sealed: &[u8]) -> ApiResult<Endpoint> {
    Endpoint::unseal(&core.key, target, sealed).map_err(|error| {
        let hint = "say its address, headers and secret anew with `cooper webhook update`";
        ApiError::new(ProblemCode::Conflict, chain(&error)).with_hint(hint)
    })
}

fn parse_actions<T: AsRef<str>>(actions: &[T]) -> ApiResult<BTreeSet<Action>> {
    let mut parsed = BTreeSet::new();
    for text in actions {
        let action = Action::parse(text.as_ref()).map_err(|error| invalid(error.to_string()))?;
        if !Action::ASKED_FOR.contains(&action) {
            let named = Action::ASKED_FOR.map(Action::as_str).join(", ");
            return Err(invalid(format!("action `{action}` is none that webhooks are told of: these are {named}")));
        }
        parsed.insert(action);
    }
    if parsed.is_empty() {
        return Err(invalid(
            "the webhook has no actions; name some of push, delete, run_finished, wave_finished".to_owned(),
        ));
    }
    Ok(parsed)
}

fn scope(text: &str) -> ApiResult<Scope> {
    Scope::parse(text).map_err(|error| invalid(error.to_string()))
}

fn view(webhook: Webhook, secret: Option<String>) -> WebhookView {
    WebhookView {
        name: webhook.name,
        host: webhook.host,
        actions: webhook.actions.iter().map(|action| action.as_str().to_owned()).collect(),
        scope: webhook.scope.to_string(),
        status: if webhook.enabled { WebhookStatus::Enabled } else { WebhookStatus::Disabled },
        set_by: webhook.set_by,
        create_time: webhook.created,
        generation: webhook.generation,
        secret,
    }
}

fn event_view(record: DeliveryRecord) -> WebhookEvent {
    let (status, next) = match record.delivery.state {
        DeliveryState::Due { at } => (DeliveryStatus::Waiting, Some(at)),
        DeliveryState::Trying { .. } => (DeliveryStatus::Trying, None),
        DeliveryState::Delivered { .. } => (DeliveryStatus::Delivered, None),
        DeliveryState::Failed { .. } => (DeliveryStatus::Failed, None),
    };
    WebhookEvent {
        id: record.event,
        action: record.action.to_string(),
        subject: record.subject,
        timestamp: record.delivery.queued,
        status,
        attempts: record.delivery.tries,
        redelivery: record.redelivery,
        next_attempt_time: next,
        last_attempt: record.last.map(|last| WebhookAttempt {
            time: last.at,
            status_code: last.status,
            answer: last.said,
        }),
        content: serde_json::from_str(&record.body).unwrap_or_default(),
    }
}
