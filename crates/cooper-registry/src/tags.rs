//! Listing tags, sorted and in pages (OCI Distribution 1.1, "Listing Tags").

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use cooper_types::RepositoryName;
use http::header::LINK;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::error::OciError;
use crate::identity::Identity;
use crate::query::Pairs;
use crate::service::RegistryService;

/// The most tags in an answer, and how many there are where the client names no number.
const PAGE: u32 = 1000;

/// `GET /v2/<name>/tags/list?n=…&last=…`
pub(crate) async fn list(
    service: &RegistryService,
    identity: &Identity,
    request: &Parts,
    repository: &RepositoryName,
) -> Result<Response, OciError> {
    let query = Pairs::of(&request.uri);
    let count = match query.get("n").map(str::parse::<u64>) {
        None => PAGE,
        Some(Ok(count)) => u32::try_from(count).unwrap_or(PAGE).min(PAGE),
        Some(Err(_)) => {
            return Err(OciError::bad_request("PAGINATION_NUMBER_INVALID", "n is not a number of tags"));
        }
    };
    // One more than asked for tells whether there are more.
    let mut tags =
        service.parts().store.tags(repository, query.get("last"), count + 1, identity.run()).await?.ok_or_else(
            || {
                let message = format!("repository {repository} is not known to the registry");
                OciError::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
            },
        )?;
    let more = tags.len() > count as usize;
    tags.truncate(count as usize);
    let mut response = Json(json!({ "name": repository, "tags": tags })).into_response();
    if let (true, Some(last)) = (more, tags.last()) {
        let link = format!("</v2/{repository}/tags/list?n={count}&last={last}>; rel=\"next\"");
        let link = HeaderValue::from_str(&link).expect("names and tags are visible ASCII");
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}
