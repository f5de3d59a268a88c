//! Pulling blobs: HEAD and GET, whole or in part (OCI Distribution 1.1, "Pulling blobs").

use axum::body::Body;
use axum::response::Response;
use cooper_ports::blobs::OutgoingBytes;
use cooper_types::{Digest, RepositoryName};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_RANGE, RANGE,
};
use http::request::Parts;
use http::{HeaderValue, StatusCode, response};

use crate::error::OciError;
use crate::range::{Wanted, wanted};
use crate::service::RegistryService;

/// The header that says what the body's digest is.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Content under a digest never changes; it is still private to those who may pull.
const FOREVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// `HEAD /v2/<name>/blobs/<digest>`. Whoever asks may count on the answer: the blob is kept for a push that is to come.
/// Clients ask before they log in, so it does not matter who asks.
pub(crate) async fn head(
    service: &RegistryService,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response, OciError> {
    let stale = service.parts().clock.now().before(service.options().blob_grace / 2);
    service.parts().store.renew_blob(repository, digest, stale).await?;
    let size = size(service, repository, digest).await?;
    Ok(respond(StatusCode::OK, digest, size, Body::empty(), None))
}

/// `GET /v2/<name>/blobs/<digest>`
pub(crate) async fn get(
    service: &RegistryService,
    request: &Parts,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response, OciError> {
    let size = size(service, repository, digest).await?;
    let header = |name| request.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // A range of something else than the client thinks it has is of no use to it.
    let unchanged = header(IF_RANGE).is_none_or(|tag| tag == etag(digest));
    match wanted(header(RANGE).filter(|_| unchanged), size) {
        Wanted::Whole => {
            let bytes = service.parts().blobs.read(digest, 0..size).await?;
            Ok(respond(StatusCode::OK, digest, size, body(bytes), None))
        }
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let bytes = service.parts().blobs.read(digest, part.clone()).await?;
            Ok(respond(StatusCode::PARTIAL_CONTENT, digest, part.end - part.start, body(bytes), Some(range)))
        }
        Wanted::NotSatisfiable => {
            let message = format!("blob {digest} has {size} bytes, the range asked for lies outside them");
            Err(OciError::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                .with_header(CONTENT_RANGE, format!("bytes */{size}")))
        }
    }
}

async fn size(service: &RegistryService, repository: &RepositoryName, digest: &Digest) -> Result<u64, OciError> {
    match service.parts().store.blob_size(repository, digest).await? {
        Some(size) if is_whole(service, digest, size).await? => Ok(size),
        _ => {
            let message = format!("repository {repository} holds no blob {digest}");
            Err(OciError::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", message))
        }
    }
}

/// Whether the bytes that the rows tell of are there. Where they are not, somebody has damaged the store, and a client
/// that hears so pushes them again.
pub(crate) async fn is_whole(service: &RegistryService, digest: &Digest, size: u64) -> Result<bool, OciError> {
    let found = service.parts().blobs.size(digest).await?;
    if found != Some(size) {
        tracing::error!(%digest, size, ?found, "a blob's file is missing or cut; pushing the blob again repairs it");
    }
    Ok(found == Some(size))
}

fn body(bytes: OutgoingBytes) -> Body {
    Body::from_stream(bytes)
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn respond(status: StatusCode, digest: &Digest, length: u64, body: Body, range: Option<String>) -> Response {
    let mut response = response::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, length)
        .header(CONTENT_DIGEST, digest.as_str())
        .header(ETAG, etag(digest))
        .header(CACHE_CONTROL, FOREVER)
        .header(ACCEPT_RANGES, "bytes");
    if let Some(range) = range {
        response = response.header(CONTENT_RANGE, range);
    }
    response.body(body).expect("digests, numbers and constants are header values")
}
