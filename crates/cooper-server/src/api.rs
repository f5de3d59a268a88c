//! The REST API as an axum router: made from the table of routes, with one gate before every handler.

mod agents;
mod contexts;
mod credentials;
mod hooks;
mod info;
mod logs;
mod pools;
pub(crate) mod run_page;
mod runs;
mod secrets;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod view;
mod waves;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{self, MethodRouter};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{Auth, Method, ROUTES, Route};
use cooper_ports::access::Token;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::{ApiError, ApiResult};

/// The largest JSON body, in bytes: room for many secrets, none for an attack on memory.
const MAX_JSON_BYTES: usize = 8 << 20;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) core: Arc<Core>,
    /// Fires when the server stops: endless answers end then.
    pub(crate) shutdown: CancellationToken,
}

/// Whom a request comes from. The gate puts it there; on public routes there is none.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Token);

/// The router of all routes in [`ROUTES`].
pub(crate) fn router(state: ApiState) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let gate = middleware::from_fn_with_state((state.clone(), route.auth), authorize);
        router = router.route(route.path, handler(route).layer(gate));
    }
    router
        .method_not_allowed_fallback(async |request: Request| {
            let (method, path) = (request.method(), request.uri().path());
            ApiError::new(ProblemCode::MethodNotAllowed, format!("`{path}` does not take {method}"))
        })
        .fallback(async |request: Request| ApiError::not_found(format!("path `{}`", request.uri().path())))
        .with_state(state)
}

/// The handler of a route. A route without one is a fault that the first test of the router finds.
fn handler(route: &Route) -> MethodRouter<ApiState> {
    let method = match route.method {
        Method::Get => routing::MethodFilter::GET,
        Method::Post => routing::MethodFilter::POST,
        Method::Put => routing::MethodFilter::PUT,
        Method::Patch => routing::MethodFilter::PATCH,
        Method::Delete => routing::MethodFilter::DELETE,
    };
    match route.operation {
        "createContext" => routing::on(method, contexts::create),
        "uploadContext" => routing::on(method, contexts::upload),
        "createRun" => routing::on(method, runs::create),
        "listRuns" => routing::on(method, runs::list),
        "getRun" => routing::on(method, runs::show),
        "rerunRun" => routing::on(method, runs::rerun),
        "getRunLock" => routing::on(method, runs::lock),
        "cancelRun" => routing::on(method, runs::cancel),
        "updateRun" => routing::on(method, runs::update),
        "getRunPage" => routing::on(method, run_page::show),
        "getRunLog" => routing::on(method, logs::text),
        "followRunLog" => routing::on(method, logs::follow),
        "listTasks" => routing::on(method, tasks::list),
        "createTask" => routing::on(method, tasks::create),
        "getTask" => routing::on(method, tasks::show),
        "replaceTask" => routing::on(method, tasks::replace),
        "updateTask" => routing::on(method, tasks::update),
        "deleteTask" => routing::on(method, tasks::delete),
        "runTask" => routing::on(method, tasks::run),
        "listTimers" => routing::on(method, tasks::timers),
        "listRefusals" => routing::on(method, tasks::refusals),
        "listNotifications" => routing::on(method, tasks::notifications::list),
        "redeliverNotification" => routing::on(method, tasks::notifications::redeliver),
        "listWaves" => routing::on(method, waves::list),
        "getWave" => routing::on(method, waves::show),
        "pauseWave" => routing::on(method, waves::pause),
        "resumeWave" => routing::on(method, waves::resume),
        "cancelWave" => routing::on(method, waves::cancel),
        "retryWave" => routing::on(method, waves::retry),
        "getRegistryHook" => routing::on(method, waves::registry_hook),
        "tellRegistryNews" => routing::on(method, waves::registry_news),
        "getImpact" => routing::on(method, waves::impact),
        "setTaskCredential" => routing::on(method, tasks::set_credential),
        "deleteTaskCredential" => routing::on(method, tasks::delete_credential),
        "listHooks" => routing::on(method, hooks::list),
        "rotateHook" => routing::on(method, hooks::rotate),
        "deliver" => routing::on(method, hooks::deliver),
        "listTokens" => routing::on(method, tokens::list),
        "createToken" => routing::on(method, tokens::create),
        "revokeToken" => routing::on(method, tokens::revoke),
        "listAgents" => routing::on(method, agents::list),
        "getAgent" => routing::on(method, agents::show),
        "drainAgent" => routing::on(method, agents::drain),
        "removeAgent" => routing::on(method, agents::remove),
        "listPools" => routing::on(method, pools::list),
        "createPool" => routing::on(method, pools::create),
        "deletePool" => routing::on(method, pools::delete),
        "listCredentials" => routing::on(method, credentials::list),
        "setCredential" => routing::on(method, credentials::set),
        "deleteCredential" => routing::on(method, credentials::delete),
        "listSecrets" => routing::on(method, secrets::list),
        "setSecret" => routing::on(method, secrets::set),
        "checkSecrets" => routing::on(method, secrets::check),
        "deleteSecret" => routing::on(method, secrets::delete),
        "getUpdateTriggerSecret" => routing::on(method, tasks::update_trigger_secret),
        "renewUpdateTriggerSecret" => routing::on(method, tasks::renew_update_trigger_secret),
        "listWebhooks" => routing::on(method, webhooks::list),
        "createWebhook" => routing::on(method, webhooks::create),
        "getWebhook" => routing::on(method, webhooks::show),
        "updateWebhook" => routing::on(method, webhooks::update),
        "deleteWebhook" => routing::on(method, webhooks::delete),
        "getWebhookConfig" => routing::on(method, webhooks::config),
        "pingWebhook" => routing::on(method, webhooks::ping),
        "listWebhookEvents" => routing::on(method, webhooks::events),
        "redeliverWebhookEvent" => routing::on(method, webhooks::redeliver),
        "getInfo" => routing::on(method, info::info),
        "getOpenApi" => routing::on(method, info::openapi),
        "getHealth" => routing::on(method, info::health),
        "getReadiness" => routing::on(method, info::ready),
        "getMetrics" => routing::on(method, info::metrics),
        other => unreachable!("route `{other}` has no handler"),
    }
}

/// Lets a request through to its handler if its token may call the route.
async fn authorize(
    State((state, auth)): State<(ApiState, Auth)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if auth == Auth::Public {
        return Ok(next.run(request).await);
    }
    let hint = "log in with `cooper login`, or set COOPER_TOKEN";
    let Some(text) = shown_token(&request) else {
        return Err(ApiError::new(ProblemCode::Unauthorized, "no access token was sent").with_hint(hint));
    };
    let Some(token) = state.core.access.check(&text).await? else {
        let detail = "the access token is unknown, expired or revoked";
        return Err(ApiError::new(ProblemCode::Unauthorized, detail).with_hint(hint));
    };
    if !auth.allows(Some(&token.scopes)) {
        let scope = auth.scope().unwrap_or_default();
        let detail = format!("token `{}` of {} lacks the scope `{scope}`", token.id, token.principal);
        return Err(ApiError::new(ProblemCode::Forbidden, detail));
    }
    request.extensions_mut().insert(Caller(token));
    Ok(next.run(request).await)
}

/// The token of a request: as bearer, or as the password of Basic.
fn shown_token(request: &Request) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// A JSON body, refused with a problem that says what is wrong with it.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) bytes: bytes::Bytes,
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|text| text.split(';').next()).map(str::trim);
        if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
            return Err(ApiError::new(ProblemCode::UnsupportedMediaType, "the body must be application/json"));
        }
        let bytes = limited(request.into_body()).await?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::new(ProblemCode::InvalidRequest, body_fault(&error)))?;
        Ok(Self { value, bytes })
    }
}

/// What is wrong with a body, without the value that is: a secret that is a number instead of a text, or has slipped
/// into the field beside its own, must not come back in an answer and so in a log.
fn body_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let without_value = || {
        let rest = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?;
        // The value may hold these words too, what was expected is the last.
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let kind = found.split(['`', '"']).next().unwrap_or_default().trim();
        Some(format!("{} where {expected} was expected", if kind.is_empty() { "another value" } else { kind }))
    };
    format!("the body is not valid: {}", without_value().unwrap_or_else(|| text.clone()))
}

async fn limited(body: Body) -> ApiResult<bytes::Bytes> {
    match http_body_util::Limited::new(body, MAX_JSON_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::new(ProblemCode::RequestTooLarge, format!("the body is larger than {MAX_JSON_BYTES} bytes")))
        }
        Err(_) => Err(ApiError::new(ProblemCode::InvalidRequest, "the body was cut off")),
    }
}

/// A query, refused with a problem that says what is wrong with it.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> axum::extract::FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> ApiResult<Self> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(value)| Self(value)).map_err(|error| {
            ApiError::new(ProblemCode::InvalidRequest, format!("the query is not valid: {}", error.body_text()))
        })
    }
}

/// The `{id}` of a path. What can't be an id names nothing.
pub(crate) struct PathId<T>(pub(crate) T);

impl<T, S> axum::extract::FromRequestParts<S> for PathId<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> ApiResult<Self> {
        let axum::extract::Path(text) = axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::new(ProblemCode::InvalidRequest, error.body_text()))?;
        text.parse().map(Self).map_err(|error| ApiError::new(ProblemCode::NotFound, format!("{error}")))
    }
}

/// Two parts of a path.
pub(crate) struct PathIds<T, U>(pub(crate) T, pub(crate) U);

impl<T, U, S> axum::extract::FromRequestParts<S> for PathIds<T, U>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    U: std::str::FromStr<Err: std::fmt::Display>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> ApiResult<Self> {
        let axum::extract::Path((one, two)) = axum::extract::Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::new(ProblemCode::InvalidRequest, error.body_text()))?;
        let unknown = |error: &dyn std::fmt::Display| ApiError::new(ProblemCode::NotFound, error.to_string());
        Ok(Self(one.parse().map_err(|error| unknown(&error))?, two.parse().map_err(|error| unknown(&error))?))
    }
}

/// An answer that is JSON already.
pub(crate) fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
