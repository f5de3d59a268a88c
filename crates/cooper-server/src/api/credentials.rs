//! Credentials for Git hosts: set, listed, deleted. They are sealed here and shown to nobody.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{CredentialList, CredentialView, SetCredential};
use cooper_ports::credentials::{NewSourceCredential, SourceCredential, UsableBy};
use cooper_types::{SecretBytes, SourceHost};

use super::{ApiState, Caller, JsonBody, PathId};
use crate::orders::credential_purpose;
use crate::problem::{ApiError, ApiResult};

/// The longest user name or password, in bytes: they go in a header.
const MAX_LEN: usize = 4096;
/// The most principals that one credential may name.
const MAX_PRINCIPALS: usize = 256;

/// `GET /credentials`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<CredentialList>> {
    let credentials = state.core.credentials.list_credentials().await?;
    Ok(Json(CredentialList { value: credentials.into_iter().map(view).collect() }))
}

/// `PUT /credentials/{host}`
pub(super) async fn set(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(host): PathId<SourceHost>,
    body: JsonBody<SetCredential>,
) -> ApiResult<Json<CredentialView>> {
    let core = state.core;
    let SetCredential { username, password, principals, all_principals } = body.value;
    let invalid = |detail: &str| ApiError::new(ProblemCode::InvalidRequest, detail);
    if username.len() > MAX_LEN || username.chars().any(|c| c.is_control() || c == ':') {
        return Err(invalid("the user name is too long, or holds a `:` or a control character"));
    }
    if password.is_empty() || password.len() > MAX_LEN || password.chars().any(char::is_control) {
        return Err(invalid("the password is empty, too long, or holds a control character"));
    }
    if all_principals && !principals.is_empty() {
        return Err(invalid("principals and allPrincipals exclude each other"));
    }
    if principals.len() > MAX_PRINCIPALS {
        return Err(invalid("too many principals are named; use allPrincipals"));
    }
    let known = core.access.store().list_tokens().await?;
    if let Some(stranger) = principals.iter().find(|name| known.iter().all(|token| token.principal != **name)) {
        let hint = "`cooper token list` shows the principals; one begins to exist with its first token";
        return Err(ApiError::not_found(format!("principal `{stranger}`")).with_hint(hint));
    }
    let usable_by = match (all_principals, principals.is_empty()) {
        (true, _) => UsableBy::Everybody,
        (false, true) => UsableBy::Principals([token.principal.clone()].into()),
        (false, false) => UsableBy::Principals(principals.into_iter().collect()),
    };
    let sealed = core.key.seal(&credential_purpose(&host), &SecretBytes::new(password.into_bytes()));
    let new = NewSourceCredential { host, username, sealed, usable_by, set_by: token.principal };
    core.clone()
        .detached(async move {
            let set = core.credentials.put_credential(new).await?;
            tracing::info!(host = %set.host, by = %set.set_by, "credential set");
            Ok(Json(view(set)))
        })
        .await
}

/// `DELETE /credentials/{host}`
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(host): PathId<SourceHost>,
) -> ApiResult<StatusCode> {
    let core = state.core;
    core.clone()
        .detached(async move {
            if !core.credentials.delete_credential(&host).await? {
                return Err(ApiError::not_found(format!("credential for `{host}`")));
            }
            tracing::info!(host = %host, by = %token.principal, "credential deleted");
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

fn view(credential: SourceCredential) -> CredentialView {
    let (principals, all_principals) = match credential.usable_by {
        UsableBy::Everybody => (Vec::new(), true),
        UsableBy::Principals(principals) => (principals.into_iter().collect(), false),
    };
    CredentialView {
        host: credential.host,
        username: credential.username,
        principals,
        all_principals,
        set_by: credential.set_by,
        last_updated_time: credential.updated,
    }
}
