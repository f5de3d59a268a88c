//! Deleting tags, manifests and blobs (OCI Distribution 1.1, "Content Management").
//!
//! What something refers to stays: that is said with 405, which the specification has for what can't be deleted.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use cooper_ports::registry::{DeleteError, ManifestKey, Writer};
use cooper_types::{Digest, RepositoryName, Timestamp};
use http::header::{ALLOW, CONTENT_LENGTH, IF_MATCH};
use http::request::Parts;
use http::{StatusCode, response};
use serde_json::json;

use crate::error::OciError;
use crate::query::Pairs;
use crate::route::parse_digest;
use crate::service::RegistryService;

/// How many manifests of a repository are looked at together.
const PAGE: u32 = 100;

/// What is deleted, by whom, and under which conditions.
pub(crate) struct Delete {
    pub(crate) repository: RepositoryName,
    pub(crate) writer: Writer,
    conditions: Conditions,
}

/// Conditions of a request. They are looked at in the transaction that deletes: who has listed something and deletes it then
/// can't hit what was pushed in between.
struct Conditions {
    /// `If-Match` with an entity tag as reading answers it: where the tag must point.
    digest: Option<Digest>,
    /// `?untagged=true`: the manifest must have no tag.
    untagged: bool,
    /// `?updated=` with a `lastUpdateTime` as listing answers it: the tag or manifest must not have been pushed since, not
    /// even with the same content.
    updated: Option<Timestamp>,
}

impl Delete {
    pub(crate) fn new(request: &Parts, repository: RepositoryName, writer: Writer) -> Result<Self, OciError> {
        let query = Pairs::of(&request.uri);
        let untagged = match query.get("untagged") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(OciError::bad_request("UNSUPPORTED", "untagged is neither true nor false")),
        };
        let updated = query.get("updated").map(|text| text.parse::<jiff::Timestamp>()).transpose();
        let updated = updated.map_err(|_| OciError::bad_request("UNSUPPORTED", "updated is not a time of RFC 3339"))?;
        let updated = updated.map(|time| Timestamp::from_micros(time.as_microsecond()));
        let digest = match request.headers.get(IF_MATCH).map(|value| value.to_str().unwrap_or_default().trim()) {
            None | Some("*") => None,
            Some(value) => {
                let tag = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                let tag = tag.ok_or_else(|| OciError::bad_request("UNSUPPORTED", "If-Match is not one entity tag"))?;
                Some(parse_digest(tag)?)
            }
        };
        Ok(Self { repository, writer, conditions: Conditions { digest, untagged, updated } })
    }
}

/// `DELETE /v2/<name>/manifests/<reference>`
pub(crate) async fn manifest(service: RegistryService, delete: Delete, key: ManifestKey) -> Result<Response, OciError> {
    let Delete { repository, writer, conditions: Conditions { digest: expected, untagged, updated } } = delete;
    let store = &service.parts().store;
    match &key {
        ManifestKey::Tag(_) if untagged => return Err(no_condition("untagged", "a tag")),
        // The digest is the entity tag.
        ManifestKey::Digest(digest) if expected.as_ref().is_some_and(|expected| expected != digest) => {
            return Err(failed(DeleteError::Moved(digest.clone()), &format!("manifest {key}"), ""));
        }
        ManifestKey::Tag(_) | ManifestKey::Digest(_) => {}
    }
    let deleted = match &key {
        ManifestKey::Tag(tag) => store.delete_tag(&repository, tag, expected.as_ref(), updated, &writer).await,
        ManifestKey::Digest(digest) => store.delete_manifest(&repository, digest, untagged, updated, &writer).await,
    };
    deleted.map_err(|error| match error {
        DeleteError::Unknown(_) => {
            let message = format!("repository {repository} holds no manifest {key}");
            OciError::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
        }
        other => failed(other, &format!("manifest {key}"), "GET, HEAD, PUT"),
    })?;
    Ok(accepted())
}

/// `DELETE /v2/<name>/blobs/<digest>`
pub(crate) async fn blob(service: RegistryService, delete: Delete, digest: Digest) -> Result<Response, OciError> {
    let Delete { repository, writer, conditions: Conditions { digest: expected, untagged, updated } } = delete;
    if untagged || updated.is_some() {
        return Err(no_condition("untagged or updated", "a blob"));
    }
    if expected.is_some_and(|expected| expected != digest) {
        return Err(failed(DeleteError::Moved(digest.clone()), &format!("blob {digest}"), ""));
    }
    let deleted = service.parts().store.delete_blob(&repository, &digest, &writer).await;
    deleted.map_err(|error| match error {
        DeleteError::Unknown(_) => {
            let message = format!("repository {repository} holds no blob {digest}");
            OciError::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message)
        }
        other => failed(other, &format!("blob {digest}"), "GET, HEAD"),
    })?;
    Ok(accepted())
}

/// How often what is left of a repository is gone through: an index makes room for its manifests, at four levels at most.
const PASSES: u32 = 5;

/// `DELETE /acr/v1/<name>`: all manifests of a repository, and their tags. What a run has staged stays, and is said.
pub(crate) async fn repository(
    service: RegistryService,
    name: RepositoryName,
    writer: Writer,
) -> Result<Response, OciError> {
    let store = &service.parts().store;
    let (mut manifests, mut tags, mut stays) = (Vec::new(), Vec::new(), None);
    for _ in 0..PASSES {
        let mut after: Option<String> = None;
        stays = None;
        loop {
            let page = store.manifest_details(&name, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.digest.to_string());
            for manifest in page {
                match store.delete_manifest(&name, &manifest.digest, false, None, &writer).await {
                    Ok(()) => {
                        manifests.push(manifest.digest);
                        tags.extend(manifest.tags);
                    }
                    // It went with another one.
                    Err(DeleteError::Unknown(_)) => {}
                    Err(error @ (DeleteError::Needed(_) | DeleteError::Staged(_))) => {
                        stays = Some(failed(error, &format!("manifest {}", manifest.digest), "GET, HEAD"));
                    }
                    Err(error) => return Err(failed(error, &format!("repository {name}"), "GET, HEAD")),
                }
            }
        }
        if stays.is_none() {
            break;
        }
    }
    if let Some(error) = stays {
        return Err(error);
    }
    if manifests.is_empty() {
        let message = format!("repository {name} is not known to the registry");
        return Err(OciError::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "manifestsDeleted": manifests, "tagsDeleted": tags }))).into_response())
}

/// What it means to the client that something was not deleted.
fn failed(error: DeleteError, what: &str, allowed: &'static str) -> OciError {
    let message = format!("{what} was not deleted: {error}");
    match error {
        DeleteError::Unknown(_) => OciError::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message),
        DeleteError::Needed(_) | DeleteError::Staged(_) => {
            OciError::new(StatusCode::METHOD_NOT_ALLOWED, "DENIED", message).with_header(ALLOW, allowed)
        }
        DeleteError::Moved(_) | DeleteError::Updated(_) | DeleteError::Tagged(_) => {
            OciError::new(StatusCode::PRECONDITION_FAILED, "DENIED", message)
        }
        DeleteError::AttemptOver(attempt) => OciError::attempt_over(&attempt),
        DeleteError::Store(error) => error.into(),
    }
}

/// A condition that is not looked at must not be taken for one that holds.
fn no_condition(name: &str, what: &str) -> OciError {
    OciError::bad_request("UNSUPPORTED", format!("{name} is no condition for deleting {what}"))
}

fn accepted() -> Response {
    response::Response::builder()
        .status(StatusCode::ACCEPTED)
        .header(CONTENT_LENGTH, 0)
        .body(Body::empty())
        .expect("a status and a number make a response")
}
