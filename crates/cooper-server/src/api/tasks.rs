//! Stored tasks: made, changed, shown, deleted and run. What a request says of a task stands in `settings`, what its runs show
//! others in `credentials`, and what started it or did not in `fired`.

mod credentials;
mod fired;
pub(super) mod notifications;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    API_PREFIX, ListTasksQuery, Moment, ReplaceTaskQuery, TaskList, TaskRunRequest, TaskSettings, TaskView,
};
use cooper_engine::task::{Cause, Task, TaskEndpoint, TaskSecret};
use cooper_ports::access::Token;
use cooper_ports::hooks::NewHook;
use cooper_ports::runs::{Accepted, SealedSecret};
use cooper_ports::tasks::{PutTask, PutTaskError, TaskRecord};
use cooper_types::{PrincipalName, SecretBytes, SecretString, TaskName};

pub(super) use credentials::{delete_credential, renew_update_trigger_secret, set_credential, update_trigger_secret};
pub(super) use fired::{refusals, timers};

use super::hooks;
use super::runs::{created, idempotency_key, invalid};
use super::{ApiState, Caller, JsonBody, PathId, Query};
use crate::access::random_text;
use crate::core::Core;
use crate::orders::task_secret_purpose;
use crate::outbox::endpoint::Endpoint;
use crate::problem::{ApiError, ApiResult};
use crate::stored_tasks::{self, For, Given, kept_as};

/// The length of an endpoint's secret: 5 bits each.
const SECRET_LENGTH: usize = 52;

/// `GET /tasks`
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    Query(query): Query<ListTasksQuery>,
) -> ApiResult<Json<TaskList>> {
    let top = query.top.unwrap_or(ListTasksQuery::DEFAULT_TOP);
    if top == 0 || top > ListTasksQuery::MAX_TOP {
        return Err(invalid(format!("top is {top}; it must be 1 to {}", ListTasksQuery::MAX_TOP)));
    }
    let tasks = &state.core.tasks;
    let records = tasks.list_tasks(query.after.as_ref(), top).await?;
    // It may be shorter than it was asked for.
    let last = records.last().map(|record| &record.task.name);
    let next_link = match last {
        Some(last) if !tasks.list_tasks(Some(last), 1).await?.is_empty() => {
            Some(format!("{API_PREFIX}/tasks?top={top}&after={last}"))
        }
        _ => None,
    };
    let value = records.iter().map(|record| settings::line(&state.core, record, &token)).collect();
    Ok(Json(TaskList { value, next_link }))
}

/// `GET /tasks/{id}`
pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<Json<TaskView>> {
    let record = find(&state.core, &name).await?;
    Ok(Json(settings::view(&state.core, &record, &token)))
}

/// `POST /tasks`
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    body: JsonBody<TaskSettings>,
) -> ApiResult<Response> {
    let Some(name) = body.value.name.clone() else { return Err(invalid("the task has no name".to_owned())) };
    let (change, given) = settings::change(body.value, None)?;
    let core = state.core;
    let view = core
        .clone()
        .detached(async move {
            let now = core.clock.now();
            let mut task = Task::new(name, token.principal.clone(), token.scopes.clone(), change, now)?;
            seal_endpoint(&core, &mut task, None);
            put(&core, &token, task, given, None).await
        })
        .await?;
    let name = view.settings.name.as_ref().map(TaskName::as_str).unwrap_or_default();
    let location = [(header::LOCATION, format!("{API_PREFIX}/tasks/{name}"))];
    Ok((StatusCode::CREATED, location, Json(view)).into_response())
}

/// `PUT /tasks/{id}`
pub(super) async fn replace(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
    Query(query): Query<ReplaceTaskQuery>,
    body: JsonBody<TaskSettings>,
) -> ApiResult<Json<TaskView>> {
    same_name(&name, &body.value)?;
    let (change, given) = settings::change(body.value, None)?;
    let core = state.core;
    core.clone()
        .detached(async move {
            let now = core.clock.now();
            let mut task = Task::new(name.clone(), token.principal.clone(), token.scopes.clone(), change, now)?;
            let earlier = core.tasks.find_task(&name).await?;
            let found = earlier.as_ref().map_or(0, |earlier| earlier.task.generation);
            let made = earlier.as_ref().map(|earlier| Moment(earlier.task.created));
            let is_another = query.created.is_some_and(|expected| Some(expected) != made);
            if is_another || query.generation.is_some_and(|expected| expected != found) {
                return Err(PutTaskError::Changed(name).into());
            }
            if let Some(record @ TaskRecord { task: earlier, .. }) = &earlier {
                owned(earlier, &token)?;
                may_show(record, &token, task.secrets().iter().any(|secret| !given.contains_key(secret)))?;
                task.name = earlier.name.clone();
                task.created = earlier.created;
                task.generation = earlier.generation + 1;
                if earlier.principal != token.principal {
                    task.principal = earlier.principal.clone();
                    task.scopes = earlier.scopes.clone();
                }
            }
            seal_endpoint(&core, &mut task, earlier.as_ref().map(|earlier| &earlier.task));
            if let Some(record) = &earlier
                && is_as_it_was(&core, record, &task, &given, &token).await?
            {
                return Ok(Json(settings::view(&core, record, &token)));
            }
            let replaces = earlier.map(|earlier| earlier.task.generation);
            if query.dry_run {
                let (put, _) = to_put(&core, task, given, replaces)?;
                let record = core.tasks.try_task(put).await?;
                // Hooks that would be made have no address yet.
                return Ok(Json(settings::view(&core, &TaskRecord { hooks: Vec::new(), ..record }, &token)));
            }
            put(&core, &token, task, given, replaces).await.map(Json)
        })
        .await
}

/// `PATCH /tasks/{id}`
pub(super) async fn update(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
    body: JsonBody<TaskSettings>,
) -> ApiResult<Json<TaskView>> {
    same_name(&name, &body.value)?;
    let core = state.core;
    core.clone()
        .detached(async move {
            let record = find(&core, &name).await?;
            let earlier = &record.task;
            owned(earlier, &token)?;
            let (change, given) = settings::change(body.value, earlier.source.as_ref())?;
            // Who has a hook's secret says which commit is built.
            let says_what =
                change.step.is_some() || change.source.is_some() || change.pool.is_some() || !change.sources.is_empty();
            let mut task = earlier.changed(change, core.clock.now())?;
            if says_what {
                may_show(&record, &token, task.secrets().iter().any(|secret| !given.contains_key(secret)))?;
                // A token that may less makes no task that does more; and the rest of what the task does, which may be
                // another token's work, is given no rights by this one.
                if task.principal == token.principal {
                    task.scopes = earlier.scopes.within(&token.scopes);
                }
            }
            seal_endpoint(&core, &mut task, Some(earlier));
            put(&core, &token, task, given, Some(earlier.generation)).await.map(Json)
        })
        .await
}

/// `DELETE /tasks/{id}`
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<StatusCode> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let record = find(&core, &name).await?;
            owned(&record.task, &token)?;
            if !core.tasks.delete_task(&record.task).await? {
                return Err(unknown(&name));
            }
            core.hooks.register.notify_one();
            tracing::info!(task = %record.task.name, by = %token.principal, "task deleted");
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `POST /tasks/{id}/runs`
pub(super) async fn run(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
    headers: HeaderMap,
    body: JsonBody<TaskRunRequest>,
) -> ApiResult<Response> {
    let core = &state.core;
    let asked = format!("task {}\n", name.key()).into_bytes().into_iter().chain(body.bytes.iter().copied());
    let digest = core.key.request_digest(&asked.collect::<Vec<u8>>());
    let idempotency = idempotency_key(&headers)?.map(|key| (key, digest));
    let core = core.clone();
    let accept = async move {
        let record = find(&core, &name).await?;
        let task = &record.task;
        owned(task, &token)?;
        if let Some((key, request)) = &idempotency
            && let Some(record) = core.runs.run_of_request(&task.principal, key, request).await?
        {
            return Ok(Accepted { record, repeated: true });
        }
        let (overrides, secrets) = settings::overrides(body.value)?;
        // Who changes what is done does no more with it than their own token allows.
        let limit = (!overrides.is_empty()).then(|| token.scopes.clone());
        if limit.is_some() {
            may_show(&record, &token, task.secrets().iter().any(|secret| !secrets.contains_key(secret)))?;
        }
        let given = Given { overrides, secrets, limit };
        let cause = match task.principal == token.principal {
            true => Cause::Manual,
            false => Cause::For { by: token.principal },
        };
        let request = stored_tasks::request(&core, task, given, cause, idempotency).await?;
        Ok(stored_tasks::accept(&core, request, For::Asker).await?)
    };
    created(&state.core.detached(accept).await?)
}

/// Seals the endpoint that a task is given. One that was there before keeps its secret, whatever its address is now.
fn seal_endpoint(core: &Core, task: &mut Task, earlier: Option<&Task>) {
    let Some(TaskEndpoint::Plain(uri)) = &task.base_image.endpoint else { return };
    let before = earlier.and_then(|earlier| Endpoint::of_task(&core.key, earlier).ok().flatten());
    let kept = earlier.and_then(|earlier| earlier.base_image.endpoint.clone());
    task.base_image.endpoint = match (before, kept) {
        (Some(before), Some(kept @ TaskEndpoint::Sealed { .. })) if before.uri == *uri => Some(kept),
        (before, _) => {
            let secret = before.map_or_else(|| random_text(SECRET_LENGTH), |before| before.secret);
            let endpoint = Endpoint { uri: uri.clone(), headers: BTreeMap::new(), secret };
            Some(endpoint.kept(&core.key, &task.name))
        }
    };
}

pub(super) async fn find(core: &Core, name: &TaskName) -> ApiResult<TaskRecord> {
    core.tasks.find_task(name).await?.ok_or_else(|| unknown(name))
}

fn unknown(name: &TaskName) -> ApiError {
    ApiError::not_found(format!("task `{name}`")).with_hint("`cooper task list` shows the tasks")
}

/// Lets the task's principal and administrators through: a task's runs act as that principal.
pub(super) fn owned(task: &Task, token: &Token) -> ApiResult<()> {
    if task.principal == token.principal || token.scopes.admin() {
        return Ok(());
    }
    let (name, owner) = (&task.name, &task.principal);
    let detail = format!("task `{name}` is {owner}'s: only that principal and administrators run and change it");
    Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(who_may(owner)))
}

/// The way out for who asks for something of somebody else's: no scope of their own token would do.
pub(super) fn who_may(owner: &PrincipalName) -> String {
    format!("use a token of {owner}'s, or one with the scope `admin`")
}

/// Lets nobody change what a task's secrets and credentials are shown to whose token may less than the task: another token
/// of the same principal gave them.
pub(super) fn may_show(record: &TaskRecord, token: &Token, keeps_secrets: bool) -> ApiResult<()> {
    let Some(missing) = token.scopes.first_missing(&record.task.scopes) else { return Ok(()) };
    if !keeps_secrets && record.credentials.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "task `{}` has secrets or credentials, and your token lacks its scope `{missing}`: it can't change what they are shown to",
        record.task.name
    );
    let hint = "use a token with the task's scopes, or make a task of your own";
    Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(hint))
}

fn same_name(name: &TaskName, settings: &TaskSettings) -> ApiResult<()> {
    match &settings.name {
        Some(other) if other.key() != name.key() => {
            Err(invalid(format!("task `{name}` can't be renamed to `{other}`; make another one")))
        }
        _ => Ok(()),
    }
}

/// Whether a task is there already as it is to be, the values of its secrets included. That a value is the same is told to
/// nobody who could not have the task show it anyway: others could ask until they have found it.
async fn is_as_it_was(
    core: &Core,
    record: &TaskRecord,
    task: &Task,
    given: &BTreeMap<TaskSecret, SecretString>,
    token: &Token,
) -> ApiResult<bool> {
    let earlier = &record.task;
    let is_same = Task { updated: earlier.updated, generation: earlier.generation, ..task.clone() } == *earlier;
    let all = task.secrets();
    let gives = given.keys().any(|secret| all.contains(secret));
    if !is_same || !gives {
        return Ok(is_same);
    }
    if may_show(record, token, true).is_err() {
        return Ok(false);
    }
    let kept = core.tasks.task_secrets(earlier).await?;
    for (secret, value) in given {
        let (kind, name) = kept_as(secret);
        let Some(kept) = kept.iter().find(|kept| kept.kind == kind && kept.name == name) else { return Ok(false) };
        // One that can't be read any more is given anew.
        let opened = core.key.unseal(&task_secret_purpose(&task.name, kind, &name), &kept.sealed);
        if !opened.is_ok_and(|opened| opened.expose() == value.expose().as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps a task with the secrets that were given for it.
async fn put(
    core: &Core,
    token: &Token,
    task: Task,
    given: BTreeMap<TaskSecret, SecretString>,
    replaces: Option<u64>,
) -> ApiResult<TaskView> {
    let (put, made) = to_put(core, task, given, replaces)?;
    let record = core.tasks.put_task(put).await?;
    core.hooks.register.notify_one();
    tracing::info!(task = %record.task.name, by = %token.principal, generation = record.task.generation, "task kept");
    core.timers.notify_one();
    let mut view = settings::view(core, &record, token);
    hooks::tell_secrets(&mut view.hooks, &made);
    Ok(view)
}

/// A task as the store takes it, and the hooks that are made for it, with their secrets.
fn to_put(
    core: &Core,
    task: Task,
    given: BTreeMap<TaskSecret, SecretString>,
    replaces: Option<u64>,
) -> ApiResult<(PutTask, Vec<(NewHook, SecretString)>)> {
    let all = task.secrets();
    let mut secrets = Vec::with_capacity(given.len());
    for (secret, value) in given.into_iter().filter(|(secret, _)| all.contains(secret)) {
        let (kind, name) = kept_as(&secret);
        let bytes = SecretBytes::new(value.expose().as_bytes().to_vec());
        let sealed = core.key.seal(&task_secret_purpose(&task.name, kind, &name), &bytes);
        secrets.push(SealedSecret { kind, name, sealed });
    }
    let all_secrets: BTreeSet<_> = all.iter().map(kept_as).collect();
    let made: Vec<_> = task.providers().into_iter().map(|provider| crate::hooks::new_hook(core, provider)).collect();
    let hooks = made.iter().map(|(hook, _)| hook.clone()).collect();
    let registrations = crate::hooks::registering::wanted(&task);
    Ok((PutTask { task, secrets, all_secrets, replaces, hooks, registrations }, made))
}
