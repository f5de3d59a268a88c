//! The registry's errors as OCI writes them (Distribution 1.1, "Error Codes"), in the one place that makes responses of
//! them.

use std::io::ErrorKind;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cooper_ports::blobs::{BlobReadError, UploadError};
use cooper_ports::registry::{AttemptRef, BeginUploadError, PutManifestError, RegistryWriteError, VerifyError};
use cooper_ports::store_error::StoreError;
use http::header::{ALLOW, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// How many missing things an error's detail names at most.
const MAX_DETAILS: usize = 100;

/// An error answer. What a client need not know is logged when the answer is made, not sent.
#[derive(Debug)]
pub(crate) struct OciError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    detail: serde_json::Value,
    headers: Vec<(HeaderName, HeaderValue)>,
    internal: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl OciError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let (detail, headers, internal) = (serde_json::Value::Null, Vec::new(), None);
        Self { status, code, message: message.into(), detail, headers, internal }
    }

    pub(crate) fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }

    /// Adds a header. A value that is not one is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    /// Something of ours failed.
    fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let mut error =
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry failed; its log says why");
        error.internal = Some(Box::new(source));
        error
    }

    fn storage_full(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let message = "the registry's storage is full; its operator must free space";
        let mut error = Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNAVAILABLE", message);
        error.internal = Some(Box::new(source));
        error
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "the registry has no such endpoint")
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the registry does not support this operation")
            .with_header(ALLOW, allowed)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(crate) fn attempt_over(attempt: &AttemptRef) -> Self {
        Self::denied(format!("{attempt} is over"))
    }

    pub(crate) fn unknown_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "upload is not known to the registry; begin a new one")
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }
}

impl From<StoreError> for OciError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::StorageFull { .. } => Self::storage_full(error),
            StoreError::Closed => {
                let message = "the registry is shutting down";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
            }
            _ => Self::internal(error),
        }
    }
}

impl From<VerifyError> for OciError {
    fn from(error: VerifyError) -> Self {
        Self::internal(error)
    }
}

impl From<RegistryWriteError> for OciError {
    fn from(error: RegistryWriteError) -> Self {
        match error {
            RegistryWriteError::AttemptOver(attempt) => Self::attempt_over(&attempt),
            RegistryWriteError::Store(error) => error.into(),
        }
    }
}

impl From<BeginUploadError> for OciError {
    fn from(error: BeginUploadError) -> Self {
        match error {
            BeginUploadError::TooMany(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", error.to_string())
            }
            BeginUploadError::AttemptOver(attempt) => Self::attempt_over(&attempt),
            BeginUploadError::Store(error) => error.into(),
        }
    }
}

impl From<PutManifestError> for OciError {
    fn from(error: PutManifestError) -> Self {
        match error {
            PutManifestError::Missing { ref missing, .. } => {
                let detail = json!({ "missing": &missing[..missing.len().min(MAX_DETAILS)] });
                Self::bad_request("MANIFEST_BLOB_UNKNOWN", error.to_string()).with_detail(detail)
            }
            PutManifestError::AttemptOver(attempt) => Self::attempt_over(&attempt),
            PutManifestError::Store(error) => error.into(),
        }
    }
}

impl From<UploadError> for OciError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Unknown(_) => Self::unknown_upload(),
            UploadError::Busy(_) => Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", message),
            UploadError::OutOfOrder { .. } => {
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            }
            UploadError::WrongLength { .. } => Self::bad_request("SIZE_INVALID", message),
            UploadError::Interrupted { .. } => Self::bad_request("BLOB_UPLOAD_INVALID", message),
            UploadError::DigestMismatch { .. } => Self::bad_request("DIGEST_INVALID", message),
            UploadError::StorageFull(_) => Self::storage_full(error),
            // Such as a file system without a free inode.
            UploadError::Io { ref source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Self::storage_full(error)
            }
            UploadError::Io { .. } => Self::internal(error),
        }
    }
}

impl From<BlobReadError> for OciError {
    fn from(error: BlobReadError) -> Self {
        // The rows say that the repository holds the blob: that its bytes are not there is never the client's doing.
        Self::internal(error)
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response<Body> {
        if let Some(internal) = &self.internal {
            tracing::error!(error = Chain(internal.as_ref()).to_string(), "registry request failed");
        }
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let mut response = (self.status, Json(json!({ "errors": [error] }))).into_response();
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// An error with all that it came from, in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_ports::blobs::UploadId;
    use cooper_types::{Digest, RepositoryName};

    #[test]
    fn a_full_disk_is_told_wherever_it_was_met() {
        let io =
            |kind: ErrorKind| UploadError::Io { operation: "begin", id: UploadId::from_bits(1), source: kind.into() };
        for (error, expect) in [
            (io(ErrorKind::StorageFull), StatusCode::INSUFFICIENT_STORAGE),
            (io(ErrorKind::QuotaExceeded), StatusCode::INSUFFICIENT_STORAGE),
            (UploadError::StorageFull(UploadId::from_bits(1)), StatusCode::INSUFFICIENT_STORAGE),
            (io(ErrorKind::PermissionDenied), StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            assert_eq!(OciError::from(error).status, expect);
        }
    }

    #[test]
    fn an_error_is_small_whatever_is_missing() {
        let missing: Vec<Digest> = (0..2000_u32).map(|n| Digest::sha256(&n.to_be_bytes())).collect();
        let repository = RepositoryName::parse("a").unwrap();
        let error = OciError::from(PutManifestError::Missing { repository, missing });
        assert!(error.message.len() < 600, "{}", error.message);
        assert_eq!(error.detail["missing"].as_array().map(Vec::len), Some(MAX_DETAILS));
    }
}
