//! Pushing and pulling manifests (OCI Distribution 1.1, "Pushing Manifests" and "Pulling manifests").

use axum::body::Body;
use axum::response::Response;
use cooper_ports::registry::{Manifest, ManifestKey, NewManifest, Writer};
use cooper_types::{Digest, DigestAlgorithm, Hasher, RepositoryName};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::request::Parts;
use http::{StatusCode, response};

use crate::blobs::CONTENT_DIGEST;
use crate::error::OciError;
use crate::identity::Identity;
use crate::incoming::{self, Untaken};
use crate::manifest_view::ManifestView;
use crate::service::RegistryService;

/// The longest manifest, in bytes: what the specification asks registries to take at least.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// `GET` and `HEAD /v2/<name>/manifests/<reference>`
pub(crate) async fn get(
    service: &RegistryService,
    identity: &Identity,
    repository: &RepositoryName,
    key: &ManifestKey,
) -> Result<Response, OciError> {
    let found = service.parts().store.manifest(repository, key, identity.run()).await?;
    let manifest = found.ok_or_else(|| {
        let message = format!("repository {repository} holds no manifest {key}");
        OciError::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
    })?;
    // The server leaves the body out where the method is HEAD.
    Ok(response::Response::builder()
        .header(CONTENT_TYPE, manifest.media_type)
        .header(CONTENT_LENGTH, manifest.bytes.len())
        .header(CONTENT_DIGEST, manifest.digest.as_str())
        .header(ETAG, format!("\"{}\"", manifest.digest))
        .body(Body::from(manifest.bytes))
        .expect("media types were checked, and the rest are digests and numbers"))
}

/// Which manifest is put, and by whom.
pub(crate) struct Put {
    pub(crate) repository: RepositoryName,
    pub(crate) key: ManifestKey,
    pub(crate) writer: Writer,
}

/// `PUT /v2/<name>/manifests/<reference>`
pub(crate) async fn put(service: RegistryService, put: Put, request: Parts, body: Body) -> Result<Response, OciError> {
    let Put { repository, key, writer } = put;
    let bytes = incoming::whole(&request.headers, body, MAX_MANIFEST).await.map_err(|untaken| match untaken {
        Untaken::TooLong => {
            let message = format!("the manifest has more than {MAX_MANIFEST} bytes");
            OciError::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
        }
        Untaken::CutOff => OciError::bad_request("MANIFEST_INVALID", "the manifest was cut off"),
    })?;
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let view = ManifestView::parse(&bytes, content_type)
        .map_err(|error| OciError::bad_request("MANIFEST_INVALID", error.to_string()))?;
    let (digest, tag) = match key {
        ManifestKey::Tag(tag) => (hash(DigestAlgorithm::Sha256, &bytes), Some(tag)),
        ManifestKey::Digest(expected) => {
            let actual = hash(expected.algorithm(), &bytes);
            if actual != expected {
                let message = format!("the manifest has the digest {actual}, not {expected}");
                return Err(OciError::bad_request("DIGEST_INVALID", message));
            }
            (actual, None)
        }
    };
    let location = format!("/v2/{repository}/manifests/{digest}");
    let manifest = Manifest { digest: digest.clone(), media_type: view.media_type.to_owned(), bytes };
    let new = NewManifest { repository, manifest, references: view.references, tag };
    service.parts().store.put_manifest(new, &writer).await?;
    Ok(response::Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, location)
        .header(CONTENT_DIGEST, digest.as_str())
        .header(CONTENT_LENGTH, 0)
        .body(Body::empty())
        .expect("names and digests are header values"))
}

fn hash(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}
