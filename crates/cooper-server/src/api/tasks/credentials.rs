//! What a task keeps to show others: credentials for hosts, and the secret that its endpoint knows it by.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{SetTaskCredential, TaskView, UpdateTriggerSecret};
use cooper_engine::task::{Task, TaskChange};
use cooper_types::{SecretBytes, SourceHost, TaskName};

use super::{ApiState, Caller, JsonBody, PathId, SECRET_LENGTH, find, invalid, owned, put, settings, unknown};
use crate::access::random_text;
use crate::api::PathIds;
use crate::core::Core;
use crate::orders::task_credential_purpose;
use crate::outbox::endpoint::Endpoint;
use crate::problem::{ApiError, ApiResult, chain};

/// The longest user name or password, in bytes: they go in a header.
const MAX_CREDENTIAL: usize = 4096;

/// `PUT /tasks/{id}/credentials/{host}`
pub(in crate::api) async fn set_credential(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathIds(name, host): PathIds<TaskName, SourceHost>,
    body: JsonBody<SetTaskCredential>,
) -> ApiResult<Json<TaskView>> {
    let SetTaskCredential { username, password } = body.value;
    if username.len() > MAX_CREDENTIAL || username.chars().any(|c| c.is_control() || c == ':') {
        return Err(invalid("the user name is too long, or holds a `:` or a control character".to_owned()));
    }
    if password.is_empty() || password.len() > MAX_CREDENTIAL || password.chars().any(char::is_control) {
        return Err(invalid("the password is empty, too long, or holds a control character".to_owned()));
    }
    let core = state.core;
    core.clone()
        .detached(async move {
            let task = find(&core, &name).await?.task;
            owned(&task, &token)?;
            let purpose = task_credential_purpose(&name.key(), &host);
            let sealed = core.key.seal(&purpose, &SecretBytes::new(password.into_bytes()));
            if !core.tasks.put_task_credential(&task, &host, username, sealed).await? {
                return Err(unknown(&name));
            }
            core.hooks.register.notify_one();
            tracing::info!(task = %name, host = %host, by = %token.principal, "credential of a task set");
            Ok(Json(settings::view(&core, &find(&core, &name).await?, &token)))
        })
        .await
}

/// `GET /tasks/{id}/update-trigger-secret`
pub(in crate::api) async fn update_trigger_secret(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<Json<UpdateTriggerSecret>> {
    let task = find(&state.core, &name).await?.task;
    owned(&task, &token)?;
    Ok(Json(UpdateTriggerSecret { secret: endpoint_of(&state.core, &task)?.secret }))
}

/// `POST /tasks/{id}/update-trigger-secret`
pub(in crate::api) async fn renew_update_trigger_secret(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<Json<UpdateTriggerSecret>> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let earlier = find(&core, &name).await?.task;
            owned(&earlier, &token)?;
            let endpoint = Endpoint { secret: random_text(SECRET_LENGTH), ..endpoint_of(&core, &earlier)? };
            let mut task = earlier.changed(TaskChange::default(), core.clock.now())?;
            task.base_image.endpoint = Some(endpoint.kept(&core.key, &task.name));
            put(&core, &token, task, BTreeMap::new(), Some(earlier.generation)).await?;
            Ok(Json(UpdateTriggerSecret { secret: endpoint.secret }))
        })
        .await
}

fn endpoint_of(core: &Core, task: &Task) -> ApiResult<Endpoint> {
    let hint = format!("`cooper task update {} --update-trigger-endpoint URL` sets one", task.name);
    match Endpoint::of_task(&core.key, task) {
        Ok(Some(endpoint)) => Ok(endpoint),
        Ok(None) => {
            let what = format!("endpoint of task `{}` for updates of base images", task.name);
            Err(ApiError::not_found(what).with_hint(hint))
        }
        Err(error) => Err(ApiError::new(ProblemCode::Conflict, chain(&error)).with_hint(hint)),
    }
}

/// `DELETE /tasks/{id}/credentials/{host}`
pub(in crate::api) async fn delete_credential(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathIds(name, host): PathIds<TaskName, SourceHost>,
) -> ApiResult<StatusCode> {
    let core = state.core;
    core.clone()
        .detached(async move {
            let task = find(&core, &name).await?.task;
            owned(&task, &token)?;
            if !core.tasks.delete_task_credential(&task, &host).await? {
                return Err(ApiError::not_found(format!("credential of task `{name}` for `{host}`")));
            }
            tracing::info!(task = %name, host = %host, by = %token.principal, "credential of a task deleted");
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
