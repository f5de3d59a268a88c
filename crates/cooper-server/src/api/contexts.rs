//! Uploads of contexts: an id first, then the bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{CreatedContext, UploadedContext};
use cooper_ports::contexts::{ContextState, UploadContextError};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::{ContextId, PrincipalName};

use super::{ApiState, Caller, PathId};
use crate::contexts::{ReceiveError, Received};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};

/// How long a context is kept for runs to start from; a run that needs it keeps it longer.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// `POST /contexts`
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
) -> ApiResult<(StatusCode, Json<CreatedContext>)> {
    let core = &state.core;
    let id = ContextId::parse(&uuid::Uuid::new_v4().to_string()).expect("a UUID is made of digits, letters and `-`");
    let context = core.contexts.create_context(id, token.principal, core.clock.now().after(LIFETIME)).await?;
    let created = CreatedContext {
        upload_url: format!("/api/v1/contexts/{}", context.id),
        max_bytes: core.context_files.max_bytes(),
        context_id: context.id,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `PUT /contexts/{id}`
pub(super) async fn upload(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(id): PathId<ContextId>,
    body: Body,
) -> ApiResult<(StatusCode, Json<UploadedContext>)> {
    let core = state.core;
    check_waits(&core, &id, &token.principal).await?;
    // Refused by its announced length, before anything is written; what announces none is counted as it comes.
    if body.size_hint().lower() > core.context_files.max_bytes() {
        return Err(receive_problem(&id, &ReceiveError::TooLarge(core.context_files.max_bytes())));
    }
    let received = core.context_files.receive(&id, body.into_data_stream()).await;
    let received = received.map_err(|error| receive_problem(&id, &error))?;
    core.metrics.context_received(received.size);
    // All bytes are here: from now on a client that goes away changes nothing.
    core.clone().detached(record(core, id, token.principal, received)).await
}

/// Makes an upload the context, unless another one was first.
async fn record(
    core: Arc<Core>,
    id: ContextId,
    principal: PrincipalName,
    received: Received,
) -> ApiResult<(StatusCode, Json<UploadedContext>)> {
    let _turn = core.context_files.turn().await;
    check_waits(&core, &id, &principal).await?;
    let (size, digest) = (received.size, received.digest.clone());
    core.context_files.keep(&id, received).await.map_err(|error| receive_problem(&id, &error))?;
    failpoint::pass(Failpoint::ContextRenamed);
    match core.contexts.mark_uploaded(&id, &principal, size, &digest).await {
        Ok(_) => {
            failpoint::pass(Failpoint::ContextRecorded);
            Ok((StatusCode::CREATED, Json(UploadedContext { context_id: id, size, digest })))
        }
        Err(error) => {
            // It has expired a moment ago: nobody else would ever remove the file.
            if let UploadContextError::Unknown(_) | UploadContextError::Expired(_) = &error
                && let Err(left) = core.context_files.remove(&id).await
            {
                tracing::warn!(context = %id, error = %left, "expired context can't be removed");
            }
            Err(error.into())
        }
    }
}

/// Whether the context waits for its bytes.
async fn check_waits(core: &Core, id: &ContextId, principal: &PrincipalName) -> ApiResult<()> {
    match core.contexts.find_context(id, principal).await?.map(|context| context.state) {
        None | Some(ContextState::Deleted) => Err(UploadContextError::Unknown(id.clone()).into()),
        Some(ContextState::Uploaded { .. }) => Err(UploadContextError::Uploaded(id.clone()).into()),
        Some(ContextState::Created) => Ok(()),
    }
}

fn receive_problem(id: &ContextId, error: &ReceiveError) -> ApiError {
    match error {
        ReceiveError::TooLarge(_) => ApiError::new(ProblemCode::ContextTooLarge, error.to_string())
            .with_hint("leave files out with a .dockerignore"),
        ReceiveError::Interrupted(_) => ApiError::new(ProblemCode::InvalidRequest, error.to_string()),
        ReceiveError::StorageFull => ApiError::new(ProblemCode::StorageFull, error.to_string())
            .with_hint("free space on the server's disk, then try again"),
        ReceiveError::Io(_) => {
            tracing::error!(context = %id, error = chain(error), "context can't be kept");
            ApiError::new(ProblemCode::Internal, format!("context `{id}` can't be kept; the server's log says why"))
        }
    }
}
