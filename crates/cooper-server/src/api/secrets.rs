//! Named secrets: set, listed, deleted. They are sealed here and shown to nobody.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    CheckSecrets, CheckedSecret, CheckedSecrets, DeleteSecretQuery, SecretList, SecretVersionView, SecretView,
    SetSecret,
};
use cooper_ports::credentials::UsableBy;
use cooper_ports::secrets::{Asker, NamedSecret, PutSecret};
use cooper_types::{SecretBytes, SecretName};

use super::{ApiState, Caller, JsonBody, PathId, Query};
use crate::problem::{ApiError, ApiResult};
use crate::secrets::{MAX_VALUE_BYTES, ResolvedVersion, Wanted, secret_purpose};

/// The most principals that one secret may name.
const MAX_PRINCIPALS: usize = 256;
/// The most secrets that are looked for at once.
const MAX_CHECKED: usize = 64;

/// `GET /secrets`
pub(super) async fn list(State(state): State<ApiState>) -> ApiResult<Json<SecretList>> {
    let secrets = state.core.secret_store.list_secrets().await?;
    Ok(Json(SecretList { value: secrets.into_iter().map(view).collect() }))
}

/// `PUT /secrets/{name}`
pub(super) async fn set(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<SecretName>,
    body: JsonBody<SetSecret>,
) -> ApiResult<Json<SecretView>> {
    let core = state.core;
    let SetSecret { value, principals, all_principals } = body.value;
    let invalid = |detail: String| ApiError::new(ProblemCode::InvalidRequest, detail);
    if let Some(value) = &value {
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(invalid(format!("the value of a secret must have 1 to {MAX_VALUE_BYTES} bytes")));
        }
        // Neither an argument nor a variable can hold it.
        if value.contains('\0') {
            return Err(invalid("the value holds a NUL character; encode it, as base64 for example".to_owned()));
        }
    }
    if all_principals && !principals.is_empty() {
        return Err(invalid("principals and allPrincipals exclude each other".to_owned()));
    }
    if principals.len() > MAX_PRINCIPALS {
        return Err(invalid(format!("more than {MAX_PRINCIPALS} principals are named; use allPrincipals")));
    }
    let usable_by = match (all_principals, principals.is_empty()) {
        (true, _) => Some(UsableBy::Everybody),
        (false, true) => None,
        (false, false) => Some(UsableBy::Principals(principals.into_iter().collect())),
    };
    if value.is_none() && usable_by.is_none() {
        return Err(invalid("nothing is to be changed: give a value, principals or allPrincipals".to_owned()));
    }
    let sealed = value.map(|value| core.key.seal(&secret_purpose(&name), &SecretBytes::new(value.into_bytes())));
    let put = PutSecret { name, sealed, usable_by, set_by: token.principal.clone() };
    core.clone()
        .detached(async move {
            let has_value = put.sealed.is_some();
            let secret = core.secret_store.put_secret(put).await?;
            let (version, by) = (secret.versions.first().map(|newest| newest.version), token.principal);
            tracing::info!(secret = %secret.name, version, has_value, by = %by, "secret changed");
            Ok(Json(view(secret)))
        })
        .await
}

/// `DELETE /secrets/{name}`
pub(super) async fn delete(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    PathId(name): PathId<SecretName>,
    Query(query): Query<DeleteSecretQuery>,
) -> ApiResult<StatusCode> {
    let core = state.core;
    core.clone()
        .detached(async move {
            if !core.secret_store.delete_secret(&name, query.version).await? {
                return Err(ApiError::not_found(match query.version {
                    Some(version) => format!("version {version} of secret `{name}`"),
                    None => format!("secret `{name}`"),
                }));
            }
            tracing::info!(secret = %name, version = query.version, by = %token.principal, "secret deleted");
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `POST /secret-checks`
pub(super) async fn check(
    State(state): State<ApiState>,
    Extension(Caller(token)): Extension<Caller>,
    body: JsonBody<CheckSecrets>,
) -> ApiResult<Json<CheckedSecrets>> {
    let places = body.value.places;
    if places.len() > MAX_CHECKED {
        let detail = format!("{} places are named, at most {MAX_CHECKED} are looked for at once", places.len());
        return Err(ApiError::new(ProblemCode::InvalidRequest, detail));
    }
    let wanted: Vec<Wanted> = places.into_iter().map(|place| Wanted { id: place.clone(), place }).collect();
    let asker = Asker { principal: token.principal, scopes: token.scopes };
    let found = state.core.secrets.resolve(&asker, &wanted).await?;
    let value = found.into_iter().map(|secret| {
        let (version, is_kept) = match secret.version {
            ResolvedVersion::Kept(version) => (version, true),
            ResolvedVersion::Fingerprint(print) => (print, false),
        };
        CheckedSecret { place: secret.place.to_string(), version, is_kept }
    });
    Ok(Json(CheckedSecrets { value: value.collect() }))
}

fn view(secret: NamedSecret) -> SecretView {
    let (principals, all_principals) = match secret.usable_by {
        UsableBy::Everybody => (Vec::new(), true),
        UsableBy::Principals(principals) => (principals.into_iter().collect(), false),
    };
    let versions = secret.versions.into_iter().map(|version| SecretVersionView {
        version: version.version,
        set_by: version.set_by,
        create_time: version.created,
    });
    SecretView { name: secret.name, principals, all_principals, versions: versions.collect() }
}
