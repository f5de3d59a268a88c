//! A registry to send requests to: the router over files in a temporary directory and rows in memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cooper_blobs::FsBlobStore;
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::registry::{AttemptRef, Caller, CredentialVerifier, MemRegistryStore, RegistryStore, VerifyError};
use cooper_registry::{AttemptCredential, RegistryOptions, RegistryParts, RegistryService, SigningKey, router};
use cooper_types::{
    AttemptNumber, Digest, PrincipalName, RegistryName, RepositoryName, RunId, Scope, Scopes, SecretBytes,
    SecretString, StepId, Timestamp, TokenId,
};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How long these registries keep what no manifest refers to.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

/// The password of a token that may do anything.
pub(crate) const ADMIN: &str = "admin-token";
/// The password of a token that may pull from everywhere.
pub(crate) const READER: &str = "reader-token";
/// The password of a token that may pull from and push to `team/…`.
pub(crate) const TEAM: &str = "team-token";

/// The password of a token that may pull from and delete in `team/…`.
pub(crate) const KEEPER: &str = "keeper-token";

pub(crate) struct TestRegistry {
    pub(crate) service: RegistryService,
    pub(crate) router: Router,
    pub(crate) store: Arc<MemRegistryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) key: SigningKey,
    directory: tempfile::TempDir,
}

/// The access tokens that there are.
pub(crate) struct Tokens(Mutex<HashMap<&'static str, Caller>>);

impl Tokens {
    pub(crate) fn new() -> Self {
        let caller = |name: &str, scopes: &[&str]| Caller {
            principal: PrincipalName::parse(name).unwrap(),
            token: TokenId::parse(&format!("id0{name}")).unwrap(),
            scopes: Scopes(scopes.iter().map(|scope| Scope::parse(scope).unwrap()).collect()),
        };
        Self(Mutex::new(HashMap::from([
            (ADMIN, caller("admin", &["admin"])),
            (READER, caller("reader", &["repository:*:pull"])),
            (TEAM, caller("team", &["repository:team/*:pull,push"])),
            (KEEPER, caller("keeper", &["repository:team/*:pull,delete"])),
        ])))
    }

    pub(crate) fn revoke(&self, password: &str) {
        self.0.lock().unwrap().remove(password);
    }
}

#[async_trait]
impl CredentialVerifier for Tokens {
    async fn verify(&self, _username: &str, password: &SecretString) -> Result<Option<Caller>, VerifyError> {
        Ok(self.0.lock().unwrap().get(password.expose()).cloned())
    }

    async fn is_active(&self, token: &TokenId) -> Result<bool, VerifyError> {
        Ok(self.0.lock().unwrap().values().any(|caller| caller.token == *token))
    }
}

impl TestRegistry {
    pub(crate) fn new() -> Self {
        Self::build(|_| {}, None)
    }

    pub(crate) fn with_anonymous_pull() -> Self {
        Self::build(|options| options.anonymous_pull = true, None)
    }

    /// A registry whose files are in `blobs`.
    pub(crate) fn in_directory(blobs: PathBuf) -> Self {
        Self::build(|_| {}, Some(blobs))
    }

    fn build(set: impl FnOnce(&mut RegistryOptions), blobs: Option<PathBuf>) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = Arc::new(MemRegistryStore::new(clock.clone()));
        let directory = tempfile::tempdir().unwrap();
        let blobs = FsBlobStore::open(blobs.as_deref().unwrap_or(directory.path())).unwrap();
        let tokens = Arc::new(Tokens::new());
        let key = SigningKey::new(&SecretBytes::new(vec![7; 32])).unwrap();
        let parts = RegistryParts {
            blobs: Arc::new(blobs),
            store: store.clone() as Arc<dyn RegistryStore>,
            credentials: tokens.clone(),
            clock: clock.clone(),
            key: key.clone(),
        };
        let mut options = RegistryOptions {
            name: RegistryName::parse("registry.example:5000").unwrap(),
            anonymous_pull: false,
            blob_grace: GRACE,
        };
        set(&mut options);
        let service = RegistryService::new(parts, options);
        Self { router: router(service.clone()), service, store, clock, tokens, key, directory }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// Sends a request with an administrator's credential.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request(method, path).header(AUTHORIZATION, basic(ADMIN)).body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.admin(Method::GET, path, Body::empty()).await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.admin(Method::POST, &path, content.to_vec()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        digest
    }

    /// Pushes the blobs of an image, and returns its manifest.
    pub(crate) async fn push_image_blobs(&self, repository: &str, content: &str) -> Vec<u8> {
        let config = self.push_blob(repository, b"{}").await;
        let layer = self.push_blob(repository, content.as_bytes()).await;
        let document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": content.len(),
            }],
        });
        serde_json::to_vec_pretty(&document).unwrap()
    }

    pub(crate) async fn put_manifest(&self, path: &str, authorization: &str, manifest: &[u8]) -> Answer {
        let request = request(Method::PUT, path)
            .header(AUTHORIZATION, authorization)
            .header("content-type", OCI_MANIFEST)
            .body(Body::from(manifest.to_vec()))
            .unwrap();
        self.send(request).await
    }

    /// Starts an attempt that may push to one repository, and returns it with its password.
    pub(crate) fn start_attempt(&self, run: u64, attempt: u64, push: &str) -> (AttemptRef, String) {
        let credential = AttemptCredential {
            run: RunId::from_number(run),
            step: StepId::parse("build").unwrap(),
            attempt: AttemptNumber(attempt),
            principal: PrincipalName::parse("ann").unwrap(),
            push: vec![RepositoryName::parse(push).unwrap()],
            pull: Vec::new(),
            delete: Vec::new(),
            expires: self.clock.now().after(std::time::Duration::from_secs(3600)),
        };
        self.store.start_attempt(&credential.attempt_ref());
        (credential.attempt_ref(), self.key.mint_attempt(&credential).expose().to_owned())
    }

    /// The file of a blob.
    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.directory.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }

    /// The file of one of the uploads.
    pub(crate) fn some_upload_file(&self) -> PathBuf {
        std::fs::read_dir(self.directory.path().join("uploads")).unwrap().next().unwrap().unwrap().path()
    }

    /// How many uploads have files.
    pub(crate) fn upload_files(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("uploads")).unwrap().count()
    }
}

pub(crate) fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "registry.example:5000")
}

pub(crate) fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("anybody:{password}")))
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Self { status: head.status, headers: head.headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that this is an error of OCI's form.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.json()["errors"][0]["code"], code, "{self:?}");
        assert!(self.json()["errors"][0]["message"].is_string(), "{self:?}");
        self
    }
}
