//! Errors as they leave the REST API: the one place where failures become HTTP (RFC 9457).
//!
//! What went wrong inside is logged here, once, with its whole chain; the client is told what concerns it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cooper_api::problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemCode};
use cooper_engine::run::Refusal;
use cooper_engine::task::TaskFault;
use cooper_ports::access::{CreateTokenError, RevokeTokenError};
use cooper_ports::agents::{ChangeAgentError, CreatePoolError, DeletePoolError};
use cooper_ports::contexts::UploadContextError;
use cooper_ports::logs::ReadLogError;
use cooper_ports::outbox::PutWebhookError;
use cooper_ports::runs::{AcceptError, ApplyError};
use cooper_ports::secrets::PutSecretError;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::PutTaskError;
use cooper_spec::quick_build::PlanError;

use crate::secrets::ResolveError;

/// An error answer of the API.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Box<Problem>);

/// The result of a handler.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self(Box::new((*self.0).with_hint(hint)))
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(ProblemCode::NotFound, format!("{what} does not exist"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Who sends to a hook has no token: it signs.
        let challenge = match self.0.code {
            ProblemCode::Unauthorized => Some("Bearer realm=\"cooper\""),
            ProblemCode::Unsigned => Some("Signature realm=\"cooper hook\""),
            _ => None,
        };
        let mut response = (status, Json(*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// An error and its sources in one line, for logs and records.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::StorageFull { .. } => Self::new(ProblemCode::StorageFull, error.to_string())
                .with_hint("free space on the server's disk, then try again"),
            StoreError::Newer { .. } => Self::new(ProblemCode::Conflict, error.to_string()),
            StoreError::Closed => Self::new(ProblemCode::Unavailable, "the server is shutting down"),
            StoreError::Commit(_) => {
                tracing::error!(error = chain(&error), "store failed");
                Self::new(ProblemCode::Unavailable, "the server could not store the change")
            }
            StoreError::Database { .. } | StoreError::Corrupt { .. } | StoreError::Panicked => {
                tracing::error!(error = chain(&error), "store failed");
                Self::new(ProblemCode::Internal, "the server's store failed; its log says why")
            }
        }
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        let code = match &error {
            PlanError::Template { .. } => ProblemCode::InvalidTemplate,
            PlanError::Image { .. } | PlanError::ImageDigest(_) | PlanError::ForeignRegistry { .. } => {
                ProblemCode::InvalidReference
            }
            PlanError::Platform(_) => ProblemCode::UnsupportedPlatform,
            PlanError::PushDenied { .. } | PlanError::OnlyPushes | PlanError::NeedsPush(_) => ProblemCode::Forbidden,
            PlanError::Empty(_)
            | PlanError::DockerfilePath(_)
            | PlanError::Twice { .. }
            | PlanError::TooMany { .. }
            | PlanError::Name { .. }
            | PlanError::Nul(_)
            | PlanError::Task(_)
            | PlanError::Missing(_) => ProblemCode::InvalidRequest,
        };
        Self::new(code, chain(&error))
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::UnknownContext(_) | AcceptError::ContextNotUploaded(_) => {
                Self::new(ProblemCode::ContextNotFound, error.to_string())
            }
            AcceptError::KeyReused { .. } => Self::new(ProblemCode::IdempotencyConflict, error.to_string()),
            AcceptError::TimerMoved { .. } | AcceptError::MemberMoved { .. } | AcceptError::EventKnown { .. } => {
                Self::new(ProblemCode::Conflict, error.to_string())
            }
            AcceptError::TaskGone(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            AcceptError::SecretTwice(_) => Self::new(ProblemCode::InvalidRequest, error.to_string()),
            AcceptError::PoolNotForStrangers(_) | AcceptError::PoolForStrangers(_) => {
                Self::new(ProblemCode::InvalidRequest, error.to_string())
            }
            AcceptError::UnknownPool(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            AcceptError::Plan(error) => error.into(),
            AcceptError::Store(error) => error.into(),
        }
    }
}

impl From<ResolveError> for ApiError {
    fn from(error: ResolveError) -> Self {
        let code = if error.may_pass() { ProblemCode::Unavailable } else { ProblemCode::InvalidRequest };
        Self::new(code, chain(&error))
    }
}

impl From<PutTaskError> for ApiError {
    fn from(error: PutTaskError) -> Self {
        let code = match &error {
            PutTaskError::Exists(_) | PutTaskError::Changed(_) | PutTaskError::TooMany { .. } => ProblemCode::Conflict,
            PutTaskError::NoValue(_) | PutTaskError::TooLarge { .. } | PutTaskError::PoolForStrangers(_) => {
                ProblemCode::InvalidRequest
            }
            PutTaskError::UnknownPool(_) => ProblemCode::NotFound,
            PutTaskError::Store(_) => ProblemCode::Internal,
        };
        match error {
            PutTaskError::Store(error) => error.into(),
            error => Self::new(code, error.to_string()),
        }
    }
}

impl From<TaskFault> for ApiError {
    fn from(error: TaskFault) -> Self {
        Self::new(ProblemCode::InvalidRequest, error.to_string())
    }
}

impl From<PutWebhookError> for ApiError {
    fn from(error: PutWebhookError) -> Self {
        match error {
            PutWebhookError::Exists(_) | PutWebhookError::Changed(_) | PutWebhookError::TooMany => {
                Self::new(ProblemCode::Conflict, error.to_string())
            }
            PutWebhookError::Store(error) => error.into(),
        }
    }
}

impl From<PutSecretError> for ApiError {
    fn from(error: PutSecretError) -> Self {
        match error {
            PutSecretError::Unknown(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            PutSecretError::Store(error) => error.into(),
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Unknown(run) => Self::not_found(format!("run {run}")),
            ApplyError::Refused { run, refusal: Refusal::Over } => {
                Self::new(ProblemCode::Conflict, format!("run {run} is over"))
            }
            ApplyError::Refused { .. } | ApplyError::NotPushed { .. } | ApplyError::NotUploaded { .. } => {
                Self::new(ProblemCode::Conflict, chain(&error))
            }
            ApplyError::Store(error) => error.into(),
        }
    }
}

impl From<UploadContextError> for ApiError {
    fn from(error: UploadContextError) -> Self {
        match error {
            UploadContextError::Unknown(_) | UploadContextError::Expired(_) => {
                Self::new(ProblemCode::ContextNotFound, error.to_string())
            }
            UploadContextError::Uploaded(_) => Self::new(ProblemCode::Conflict, error.to_string()),
            UploadContextError::Store(error) => error.into(),
        }
    }
}

impl From<ReadLogError> for ApiError {
    fn from(error: ReadLogError) -> Self {
        match error {
            ReadLogError::UnknownRun(run) => Self::not_found(format!("run {run}")),
            ReadLogError::Offset { .. } => Self::new(ProblemCode::InvalidRequest, error.to_string()),
            ReadLogError::Store(error) => error.into(),
        }
    }
}

impl From<CreatePoolError> for ApiError {
    fn from(error: CreatePoolError) -> Self {
        match error {
            CreatePoolError::Exists(_) | CreatePoolError::RunsOfOtherKind { .. } => {
                Self::new(ProblemCode::Conflict, error.to_string())
            }
            CreatePoolError::Store(error) => error.into(),
        }
    }
}

impl From<DeletePoolError> for ApiError {
    fn from(error: DeletePoolError) -> Self {
        match error {
            DeletePoolError::Unknown(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            DeletePoolError::Default(_) => Self::new(ProblemCode::Conflict, error.to_string()),
            DeletePoolError::InUse { .. } => Self::new(ProblemCode::Conflict, error.to_string()).with_hint(
                "let the runs end and remove the agents, or delete all with it: `cooper pool delete NAME --force`",
            ),
            DeletePoolError::Store(error) => error.into(),
        }
    }
}

impl From<ChangeAgentError> for ApiError {
    fn from(error: ChangeAgentError) -> Self {
        match error {
            ChangeAgentError::Unknown(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            ChangeAgentError::Store(error) => error.into(),
        }
    }
}

impl From<CreateTokenError> for ApiError {
    fn from(error: CreateTokenError) -> Self {
        match error {
            CreateTokenError::Taken(_) => Self::new(ProblemCode::Conflict, error.to_string()),
            CreateTokenError::Store(error) => error.into(),
        }
    }
}

impl From<RevokeTokenError> for ApiError {
    fn from(error: RevokeTokenError) -> Self {
        match error {
            RevokeTokenError::Unknown(_) => Self::new(ProblemCode::NotFound, error.to_string()),
            RevokeTokenError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_asks_for_a_token_and_a_hook_for_a_signature() {
        let challenge = |code: ProblemCode| {
            let response = ApiError::new(code, "no").into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            response.headers()[header::WWW_AUTHENTICATE].to_str().expect("a text").to_owned()
        };
        assert!(challenge(ProblemCode::Unauthorized).starts_with("Bearer "));
        assert!(challenge(ProblemCode::Unsigned).starts_with("Signature "));
    }
}
