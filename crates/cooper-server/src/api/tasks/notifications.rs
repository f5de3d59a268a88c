//! What a task tells others, for its owner: of an endpoint's address the host alone, and nothing of its answers and a forge's but their status, which
//! would let owners read where the server can.

use std::str::FromStr;

use axum::extract::State;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    DeliveryStatus, ListNotificationsQuery, NotificationInfo, NotificationKind, NotificationList, NotificationView,
};
use cooper_engine::delivery::State as DeliveryState;
use cooper_engine::task::Task;
use cooper_ports::access::Token;
use cooper_ports::outbox::{DeliveryRecord, Target};
use cooper_ports::statuses::StatusRecord;
use cooper_types::{EventId, IdError, RunId, TaskName};

use super::{find, owned, who_may};
use crate::api::runs::newest;
use crate::api::{ApiState, Caller, PathId, PathIds, Query};
use crate::hooks::statuses::{self, NO_TOKEN};
use crate::problem::{ApiError, ApiResult};

/// `GET /tasks/{id}/notifications`
pub(in crate::api) async fn list(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
    Query(query): Query<ListNotificationsQuery>,
) -> ApiResult<Json<NotificationList>> {
    let top = newest(query)?;
    let core = &state.core;
    let task = find(core, &name).await?.task;
    seen_by(&task, &token)?;
    let sent = core.webhooks.list_sent(&target(&task), top).await?;
    let told = core.statuses.list_statuses(&name, task.created, top).await?;
    // Who keeps no token has asked for none.
    let told = told.into_iter().filter(|one| one.fault.as_deref() != Some(NO_TOKEN));
    let mut value: Vec<_> = sent.into_iter().filter_map(of_endpoint).chain(told.map(of_forge)).collect();
    value.sort_by_key(|one| std::cmp::Reverse(one.timestamp));
    value.truncate(top as usize);
    Ok(Json(NotificationList { value }))
}

/// `POST /tasks/{id}/notifications/{event}/redeliver`
pub(in crate::api) async fn redeliver(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathIds(name, Told(told)): PathIds<TaskName, Told>,
) -> ApiResult<Json<NotificationInfo>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let task = find(&core, &name).await?.task;
            owned(&task, &token)?;
            let unknown = |what: String| {
                let hint = format!("`cooper task notifications {name}` shows those that are kept");
                ApiError::not_found(format!("{what} of task `{name}`")).with_hint(hint)
            };
            let event = match told {
                Either::Event(event) => event,
                Either::Status(run) => {
                    if !core.statuses.tell_again(&name, task.created, run).await? {
                        return Err(unknown(format!("commit status for run `{run}`")));
                    }
                    core.hooks.tell.notify_one();
                    return Ok(Json(NotificationInfo { id: run.to_string() }));
                }
            };
            if task.base_image.endpoint.is_none() {
                let detail = format!("task `{name}` has no endpoint to send it to");
                let hint = format!("`cooper task update {name} --update-trigger-endpoint URL` sets one");
                return Err(ApiError::new(ProblemCode::Conflict, detail).with_hint(hint));
            }
            if !core.webhooks.redeliver(&target(&task), &event).await? {
                return Err(unknown(format!("notification `{event}`")));
            }
            Ok(Json(NotificationInfo { id: event.to_string() }))
        })
        .await
}

/// What is told once more.
pub(in crate::api) struct Told(Either);

enum Either {
    /// The endpoint, of an event.
    Event(EventId),
    /// The forge, of a run.
    Status(RunId),
}

impl FromStr for Told {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match RunId::parse(text) {
            Ok(run) => Ok(Self(Either::Status(run))),
            Err(_) => EventId::parse(text).map(|event| Self(Either::Event(event))),
        }
    }
}

fn target(task: &Task) -> Target {
    Target::UpdateTrigger(task.name.key())
}

/// Lets the task's principal and administrators through.
fn seen_by(task: &Task, token: &Token) -> ApiResult<()> {
    if task.principal == token.principal || token.scopes.admin() {
        return Ok(());
    }
    let (name, owner) = (&task.name, &task.principal);
    let detail = format!("task `{name}` is {owner}'s: only that principal and administrators see what it tells");
    Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(who_may(owner)))
}

fn of_endpoint(record: DeliveryRecord) -> Option<NotificationView> {
    let (status, next) = match record.delivery.state {
        DeliveryState::Due { at } => (DeliveryStatus::Waiting, Some(at)),
        DeliveryState::Trying { .. } => (DeliveryStatus::Trying, None),
        DeliveryState::Delivered { .. } => (DeliveryStatus::Delivered, None),
        DeliveryState::Failed { .. } => (DeliveryStatus::Failed, None),
    };
    let last = record.last;
    Some(NotificationView {
        kind: NotificationKind::UpdateTrigger,
        id: Some(record.event),
        run_id: RunId::parse(&record.subject).ok()?,
        state: None,
        commit_id: None,
        timestamp: record.delivery.queued,
        status,
        attempts: record.delivery.tries,
        redelivery: record.redelivery,
        next_attempt_time: next,
        last_attempt_time: last.as_ref().map(|last| last.at),
        last_status_code: last.as_ref().and_then(|last| last.status),
        // With a status it is what the receiver says.
        reason: last.filter(|last| last.status.is_none()).map(|last| last.said),
    })
}

fn of_forge(record: StatusRecord) -> NotificationView {
    let status = match (&record.due, &record.fault) {
        (Some(_), _) => DeliveryStatus::Waiting,
        (None, None) => DeliveryStatus::Delivered,
        (None, Some(_)) => DeliveryStatus::Failed,
    };
    NotificationView {
        kind: NotificationKind::CommitStatus,
        id: None,
        run_id: record.run,
        state: Some(statuses::state(record.status).as_str().to_owned()),
        commit_id: Some(record.commit),
        timestamp: record.since,
        status,
        attempts: record.tries,
        redelivery: false,
        next_attempt_time: record.due,
        last_attempt_time: record.tried,
        last_status_code: None,
        reason: record.fault,
    }
}
