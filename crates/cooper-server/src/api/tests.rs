//! The API's router over a real store: every route with every kind of token, and the forms of refusals.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use cooper_api::problem::{PROBLEM_MEDIA_TYPE, Problem};
use cooper_api::rest::{Auth, ROUTES};
use cooper_registry::SigningKey;
use cooper_store::{Store, StoreOptions};
use cooper_types::{PrincipalName, RegistryName, Scope, Scopes, SecretBytes, SecretString};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{ApiState, router};
use crate::access::Access;
use crate::contexts::ContextFiles;
use crate::core::{Core, CoreParts};
use crate::keys::ServerKey;

struct Fixture {
    core: Arc<Core>,
    router: axum::Router,
    _data: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let registry = RegistryName::parse("localhost:5000").expect("valid");
        let options = StoreOptions { registry_name: registry.clone(), clock: None };
        let store = Store::open(data.path(), options).await.expect("store");
        let core = Arc::new(Core::new(CoreParts {
            runs: Arc::new(store.clone()),
            logs: Arc::new(store.clone()),
            contexts: Arc::new(store.clone()),
            context_files: ContextFiles::open(data.path().join("contexts"), 1024).await.expect("contexts"),
            clock: store.clock().clone(),
            access: Access::new(Arc::new(store.clone()), store.clock().clone()),
            key: ServerKey::load_or_create(&data.path().join("key")).expect("key"),
            signing: SigningKey::new(&SecretBytes::new(vec![7; 32])).expect("key"),
            registry,
        }));
        let router = router(ApiState { core: core.clone(), shutdown: CancellationToken::new() });
        Self { core, router, _data: data }
    }

    async fn token(&self, scopes: &[&str]) -> SecretString {
        let scopes = Scopes(scopes.iter().map(|text| Scope::parse(text).expect(text)).collect());
        let principal = PrincipalName::parse("somebody").expect("valid");
        self.core.access.create(principal, scopes, None).await.expect("token").1
    }

    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |text| Body::from(text.to_owned()));
        self.router.clone().oneshot(request.body(body).expect("request")).await.expect("infallible")
    }

    async fn problem(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Problem {
        let response = self.call(method, path, token, body).await;
        let status = response.status();
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_MEDIA_TYPE, "{method} {path}");
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let problem: Problem = serde_json::from_slice(&bytes).expect("a problem");
        assert_eq!(problem.status, status.as_u16());
        problem
    }
}

#[tokio::test]
async fn every_route_asks_every_kind_of_token_for_its_scope() {
    let fixture = Fixture::new().await;
    let kinds: &[&[&str]] =
        &[&["read"], &["run"], &["admin"], &["agent"], &["repository:*:pull,push,delete"], &["read", "run"]];
    let revoked = fixture.token(&["admin"]).await;
    let revoked_id = revoked.expose().split('_').nth(1).expect("an id").parse().expect("valid");
    fixture.core.access.store().revoke_token(&revoked_id).await.expect("revoked");
    for route in ROUTES {
        let path = route.path.replace("{id}", "ca1");
        let call = async |token: Option<&str>| fixture.call(route.method.as_str(), &path, token, None).await.status();
        for token in [None, Some("garbage"), Some("cooper_aaaa_bbbb"), Some(revoked.expose())] {
            let refused = call(token).await == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, route.auth != Auth::Public, "{} {path} with {token:?}", route.method);
        }
        for scopes in kinds {
            let token = fixture.token(scopes).await;
            let parsed = Scopes(scopes.iter().map(|text| Scope::parse(text).expect(text)).collect());
            let status = call(Some(token.expose())).await;
            let allowed = route.auth.allows(Some(&parsed));
            assert_eq!(status != StatusCode::FORBIDDEN, allowed, "{} {path} with {scopes:?}: {status}", route.method);
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{} {path} with {scopes:?}", route.method);
        }
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let fixture = Fixture::new().await;
    let principal = PrincipalName::parse("somebody").expect("valid");
    let scopes = Scopes(vec![Scope::Admin]);
    let (_, token) = fixture.core.access.create(principal, scopes, Some(Duration::ZERO)).await.expect("token");
    let problem = fixture.problem("GET", "/api/v1/runs", Some(token.expose()), None).await;
    assert_eq!(problem.code.as_str(), "unauthorized");
    assert!(problem.hint.expect("a hint").contains("cooper login"));
}

#[tokio::test]
async fn basic_carries_a_token_as_its_password() {
    use base64::Engine as _;
    let fixture = Fixture::new().await;
    let token = fixture.token(&["read"]).await;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("anyone:{}", token.expose()));
    let request = Request::get("/api/v1/runs").header(header::AUTHORIZATION, format!("Basic {pair}"));
    let response = fixture.router.clone().oneshot(request.body(Body::empty()).expect("request")).await;
    assert_eq!(response.expect("infallible").status(), StatusCode::OK);
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let build = |rest: &str| format!(r#"{{"type":"DockerBuildRequest","sourceLocation":"none"{rest}}}"#);
    let check = async |method: &str, path: &str, body: Option<&str>, code: &str, part: &str| {
        let problem = fixture.problem(method, path, Some(token.expose()), body).await;
        assert_eq!(problem.code.as_str(), code, "{problem:?}");
        assert!(problem.detail.contains(part), "{problem:?}");
        assert!(!problem.detail.contains('\n'), "{problem:?}");
    };
    check("GET", "/api/v1/nothing", None, "not-found", "`/api/v1/nothing`").await;
    check("DELETE", "/api/v1/runs", None, "method-not-allowed", "DELETE").await;
    check("GET", "/api/v1/runs/ca1", None, "not-found", "ca1").await;
    check("GET", "/api/v1/runs/x-y", None, "not-found", "`x-y`").await;
    check("POST", "/api/v1/runs/ca1/cancel", None, "not-found", "ca1").await;
    check("GET", "/api/v1/runs/ca1/log", None, "not-found", "ca1").await;
    check("GET", "/api/v1/runs/ca1/log/events", None, "not-found", "ca1").await;
    check("GET", "/api/v1/runs?top=0", None, "invalid-request", "top is 0").await;
    check("GET", "/api/v1/runs?colour=red", None, "invalid-request", "colour").await;
    check("GET", "/api/v1/runs?status=Ready", None, "invalid-request", "Ready").await;
    check("POST", "/api/v1/runs", Some("{"), "invalid-request", "not valid").await;
    check("POST", "/api/v1/runs", None, "unsupported-media-type", "application/json").await;
    check("POST", "/api/v1/runs", Some(&build("")), "context-not-found", "`none`").await;
    check("POST", "/api/v1/runs", Some(&build(r#","timeout":0"#)), "invalid-request", "timeout is 0").await;
    let platform = build(r#","platform":{"os":"plan9"}"#);
    check("POST", "/api/v1/runs", Some(&platform), "unsupported-platform", "plan9").await;
    check("POST", "/api/v1/runs", Some(&build(r#","agentPoolName":"p""#)), "invalid-request", "`p`").await;
    check("POST", "/api/v1/tokens", Some(r#"{"principal":"p","scopes":[]}"#), "invalid-request", "no scopes").await;
    check("POST", "/api/v1/tokens", Some(r#"{"principal":"p","scopes":["root"]}"#), "invalid-request", "`root`").await;
    check("DELETE", "/api/v1/tokens/none", None, "not-found", "`none`").await;
    check("PUT", "/api/v1/contexts/none", None, "context-not-found", "`none`").await;
}

#[tokio::test]
async fn a_context_belongs_to_its_principal_and_has_a_limit() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let response = fixture.call("POST", "/api/v1/contexts", Some(token.expose()), None).await;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let created: cooper_api::rest::CreatedContext = serde_json::from_slice(&bytes).expect("created");
    assert_eq!(created.max_bytes, 1024);

    let principal = PrincipalName::parse("other").expect("valid");
    let (_, other) = fixture.core.access.create(principal, Scopes(vec![Scope::Run]), None).await.expect("token");
    let problem = fixture.problem("PUT", &created.upload_url, Some(other.expose()), Some("x")).await;
    assert_eq!(problem.code.as_str(), "context-not-found");

    let large = "x".repeat(1025);
    let problem = fixture.problem("PUT", &created.upload_url, Some(token.expose()), Some(&large)).await;
    assert_eq!(problem.code.as_str(), "context-too-large");
    let response = fixture.call("PUT", &created.upload_url, Some(token.expose()), Some("x")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let problem = fixture.problem("PUT", &created.upload_url, Some(token.expose()), Some("y")).await;
    assert_eq!(problem.code.as_str(), "conflict");
}
