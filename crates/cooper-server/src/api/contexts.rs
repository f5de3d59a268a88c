//! Uploads of contexts: an id first, then the bytes.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{CreatedContext, UploadedContext};
use cooper_ports::contexts::{ContextState, UploadContextError};
use cooper_types::ContextId;
use std::time::Duration;

use super::{ApiState, Caller, PathId};
use crate::contexts::ReceiveError;
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
    let core = &state.core;
    let context = core.contexts.find_context(&id, &token.principal).await?;
    match context.map(|context| context.state) {
        None | Some(ContextState::Deleted) => return Err(UploadContextError::Unknown(id).into()),
        Some(ContextState::Uploaded { .. }) => return Err(UploadContextError::Uploaded(id).into()),
        Some(ContextState::Created) => {}
    }
    let (size, digest) = core.context_files.receive(&id, body.into_data_stream()).await.map_err(|error| {
        let code = match &error {
            ReceiveError::TooLarge(_) => ProblemCode::ContextTooLarge,
            ReceiveError::Interrupted(_) => ProblemCode::InvalidRequest,
            ReceiveError::StorageFull => ProblemCode::StorageFull,
            ReceiveError::Io(_) => {
                tracing::error!(context = %id, error = chain(&error), "context can't be kept");
                return ApiError::new(
                    ProblemCode::Internal,
                    format!("context `{id}` can't be kept; the server's log says why"),
                );
            }
        };
        let problem = ApiError::new(code.clone(), error.to_string());
        match code {
            ProblemCode::ContextTooLarge => problem.with_hint("leave files out with a .dockerignore"),
            ProblemCode::StorageFull => problem.with_hint("free space on the server's disk, then try again"),
            _ => problem,
        }
    })?;
    core.metrics.context_received(size);
    core.contexts.mark_uploaded(&id, &token.principal, size, &digest).await?;
    Ok((StatusCode::CREATED, Json(UploadedContext { context_id: id, size, digest })))
}
