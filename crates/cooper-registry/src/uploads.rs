//! Pushing blobs: uploads in one request, in two, or in many, and mounts (OCI Distribution 1.1, "Pushing blobs").

use axum::body::Body;
use axum::response::Response;
use cooper_ports::blobs::{AppendAt, UploadError, UploadId};
use cooper_ports::registry::{Upload, Writer};
use cooper_types::{Access, Digest, RepositoryName};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderMap, StatusCode, response};
use http_body::Body as _;

use crate::blobs::{CONTENT_DIGEST, is_whole};
use crate::error::OciError;
use crate::identity::{Decision, Identity};
use crate::query::Pairs;
use crate::route::parse_digest;
use crate::service::RegistryService;
use crate::{incoming, range};

/// Docker's name of an upload, beside its location.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Where an upload is to begin, and for whom.
pub(crate) struct Begin {
    pub(crate) repository: RepositoryName,
    pub(crate) writer: Writer,
    pub(crate) identity: Identity,
}

/// `POST /v2/<name>/blobs/uploads/`: begins an upload, takes a whole blob, or mounts one.
pub(crate) async fn begin(
    service: RegistryService,
    begin: Begin,
    request: Parts,
    body: Body,
) -> Result<Response, OciError> {
    let Begin { repository, writer, identity } = begin;
    let query = Pairs::of(&request.uri);
    if let Some(digest) = query.get("mount") {
        let digest = parse_digest(digest)?;
        if mount(&service, &identity, &repository, &writer, &digest, query.get("from")).await? {
            return Ok(created(&repository, &digest));
        }
    }
    let digest = query.get("digest").map(parse_digest).transpose()?;
    let id = UploadId::from_bits(uuid::Uuid::new_v4().as_u128());
    let upload = Upload { id, repository, writer };
    // The row comes first: whatever fails after it, the sweep knows of the upload.
    service.parts().store.begin_upload(&upload).await?;
    service.parts().blobs.begin_upload(id).await?;
    let Some(digest) = digest else { return Ok(progress(StatusCode::ACCEPTED, &upload, 0)) };
    let whole = AppendAt { offset: Some(0), length: incoming::length(&request.headers) };
    let stored = async {
        service.parts().blobs.append(id, whole, incoming::bytes(body)).await?;
        complete(&service, &upload, &digest).await
    };
    match stored.await {
        Ok(()) => Ok(created(&upload.repository, &digest)),
        Err(error) => {
            // Nobody knows this upload's name, so nobody can go on with it.
            end(&service, &upload).await;
            Err(error)
        }
    }
}

/// Mounts a blob from a repository that the caller may pull from. `false` if that cannot be done: the client then
/// uploads, and learns nothing about what it may not see.
async fn mount(
    service: &RegistryService,
    identity: &Identity,
    to: &RepositoryName,
    writer: &Writer,
    digest: &Digest,
    from: Option<&str>,
) -> Result<bool, OciError> {
    let Some(Ok(from)) = from.map(RepositoryName::parse) else { return Ok(false) };
    if identity.decide(&from, Access::Pull) != Decision::Allowed {
        return Ok(false);
    }
    match service.parts().store.blob_size(&from, digest).await? {
        Some(size) if is_whole(service, digest, size).await? => {
            Ok(service.parts().store.mount_blob(&from, to, digest, writer).await?)
        }
        _ => Ok(false),
    }
}

/// Finds an upload that the writer has begun.
pub(crate) async fn find(
    service: &RegistryService,
    repository: &RepositoryName,
    id: UploadId,
    writer: &Writer,
) -> Result<Upload, OciError> {
    let upload = service.parts().store.find_upload(repository, id).await?;
    upload.filter(|upload| upload.writer == *writer).ok_or_else(OciError::unknown_upload)
}

/// `GET /v2/<name>/blobs/uploads/<id>`: how far the upload is.
pub(crate) async fn status(service: &RegistryService, upload: Upload) -> Result<Response, OciError> {
    let size = service.parts().blobs.upload_size(upload.id).await?;
    Ok(progress(StatusCode::NO_CONTENT, &upload, size))
}

/// `PATCH /v2/<name>/blobs/uploads/<id>`: the next bytes, as a stream or as a chunk with its range.
pub(crate) async fn patch(
    service: RegistryService,
    upload: Upload,
    request: Parts,
    body: Body,
) -> Result<Response, OciError> {
    let size = append(&service, &upload, place(&request.headers)?, body).await?;
    Ok(progress(StatusCode::ACCEPTED, &upload, size))
}

/// `PUT /v2/<name>/blobs/uploads/<id>?digest=…`: the last bytes, if there are any, and the digest of them all.
pub(crate) async fn finish(
    service: RegistryService,
    upload: Upload,
    request: Parts,
    body: Body,
) -> Result<Response, OciError> {
    let query = Pairs::of(&request.uri);
    let digest =
        query.get("digest").ok_or_else(|| OciError::bad_request("DIGEST_INVALID", "the query lacks digest"))?;
    let digest = parse_digest(digest)?;
    let at = place(&request.headers)?;
    if at.offset.is_some() || !body.is_end_stream() {
        append(&service, &upload, at, body).await?;
    }
    complete(&service, &upload, &digest).await?;
    Ok(created(&upload.repository, &digest))
}

/// `DELETE /v2/<name>/blobs/uploads/<id>`
pub(crate) async fn cancel(service: RegistryService, upload: Upload) -> Result<Response, OciError> {
    service.parts().blobs.discard(upload.id).await?;
    service.parts().store.forget_uploads(&[upload.id]).await?;
    Ok(response::Response::builder()
        .status(StatusCode::NO_CONTENT)
        .body(Body::empty())
        .expect("a status alone makes a response"))
}

async fn append(service: &RegistryService, upload: &Upload, at: AppendAt, body: Body) -> Result<u64, OciError> {
    let appended = service.parts().blobs.append(upload.id, at, incoming::bytes(body)).await;
    match appended {
        Ok(size) => Ok(size),
        Err(error) => Err(failed(service, upload, error).await),
    }
}

/// From bytes to a blob that the repository holds: the bytes are durable before the row says so, and the row before
/// the client hears of it.
async fn complete(service: &RegistryService, upload: &Upload, digest: &Digest) -> Result<(), OciError> {
    let _committing = service.committing(digest).await;
    let size = match service.parts().blobs.commit(upload.id, digest).await {
        Ok(size) => size,
        Err(error) => return Err(failed(service, upload, error).await),
    };
    Ok(service.parts().store.complete_upload(upload, digest, size).await?)
}

/// What an upload's failure means to the client, and to the upload's row.
async fn failed(service: &RegistryService, upload: &Upload, error: UploadError) -> OciError {
    match &error {
        UploadError::DigestMismatch { .. } | UploadError::StorageFull(_) => end(service, upload).await,
        UploadError::OutOfOrder { size, .. } => {
            let (location, range) = (location(upload), received(*size));
            return OciError::from(error).with_header(LOCATION, location).with_header(RANGE, range);
        }
        _ => {}
    }
    error.into()
}

/// Ends an upload that is of no more use. What fails here is left to the sweep.
async fn end(service: &RegistryService, upload: &Upload) {
    if let Err(error) = service.parts().blobs.discard(upload.id).await {
        tracing::warn!(upload = %upload.id, %error, "failed to remove an upload; the sweep will");
        return;
    }
    if let Err(error) = service.parts().store.forget_uploads(&[upload.id]).await {
        tracing::warn!(upload = %upload.id, %error, "failed to forget an upload; the sweep will");
    }
}

/// Where a body says that it belongs. A stream names no range and goes to the end; a body's announced length must be
/// the range's.
fn place(headers: &HeaderMap) -> Result<AppendAt, OciError> {
    let length = incoming::length(headers);
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(AppendAt { offset: None, length }) };
    let invalid = |message| OciError::bad_request("BLOB_UPLOAD_INVALID", message);
    let (offset, chunk) = value
        .to_str()
        .ok()
        .and_then(range::chunk)
        .ok_or_else(|| invalid("Content-Range is not `first-last`, the chunk's first and last byte"))?;
    if length.is_some_and(|length| length != chunk) {
        return Err(invalid("Content-Range and Content-Length do not fit each other"));
    }
    Ok(AppendAt { offset: Some(offset), length: Some(chunk) })
}

fn location(upload: &Upload) -> String {
    format!("/v2/{}/blobs/uploads/{}", upload.repository, upload.id)
}

/// The range of what was received, where the last byte is named. Nothing is written like one byte: clients expect it.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, upload: &Upload, size: u64) -> Response {
    let mut response = response::Response::builder()
        .status(status)
        .header(LOCATION, location(upload))
        .header(RANGE, received(size))
        .header(UPLOAD_UUID, upload.id.to_string());
    if status != StatusCode::NO_CONTENT {
        response = response.header(CONTENT_LENGTH, 0);
    }
    response.body(Body::empty()).expect("names, numbers and ids are header values")
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    response::Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{repository}/blobs/{digest}"))
        .header(CONTENT_DIGEST, digest.as_str())
        .header(CONTENT_LENGTH, 0)
        .body(Body::empty())
        .expect("names and digests are header values")
}
