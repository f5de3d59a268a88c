//! The API's router over a real store: every route with every kind of token, and the forms of refusals.

mod reruns;
mod task_runs;
mod tasks;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use cooper_api::problem::{PROBLEM_MEDIA_TYPE, Problem};
use cooper_api::rest::{Auth, IDEMPOTENCY_KEY_HEADER, ROUTES};
use cooper_types::{PrincipalName, Scope, Scopes, SecretName, SecretString};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{ApiState, router};
use crate::core::Core;
use crate::testing;

struct Fixture {
    core: Arc<Core>,
    router: axum::Router,
    _data: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let (core, data) = testing::core().await;
        let router = router(ApiState { core: core.clone(), shutdown: CancellationToken::new() });
        Self { core, router, _data: data }
    }

    async fn token(&self, scopes: &[&str]) -> SecretString {
        testing::token(&self.core, "somebody", scopes).await
    }

    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Response {
        self.keyed_call(method, path, token, body, None).await
    }

    async fn keyed_call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&str>,
        key: Option<&str>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY_HEADER, key);
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
    check("POST", "/api/v1/runs", Some(&build(r#","agentPoolName":"p""#)), "not-found", "`p`").await;
    check("POST", "/api/v1/tokens", Some(r#"{"principal":"p","scopes":[]}"#), "invalid-request", "no scopes").await;
    check("POST", "/api/v1/tokens", Some(r#"{"principal":"p","scopes":["root"]}"#), "invalid-request", "`root`").await;
    let many = format!(r#"{{"principal":"p","scopes":[{}"read"]}}"#, r#""repository:a:pull","#.repeat(300));
    check("POST", "/api/v1/tokens", Some(&many), "invalid-request", "at most 4096").await;
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

#[tokio::test]
async fn no_answer_repeats_a_value_of_a_body() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let check = async |fields: &str, expect: &str| {
        let body = format!(r#"{{"type":"DockerBuildRequest","sourceLocation":"none",{fields}}}"#);
        let problem = fixture.problem("POST", "/api/v1/runs", Some(token.expose()), Some(&body)).await;
        assert!(problem.detail.contains(expect), "{problem:?}");
        assert!(!problem.detail.contains("271828"), "{problem:?}");
    };
    check(r#""secrets":[{"id":"s","value":271828}]"#, "integer where a string was expected").await;
    check(r#""secrets":[{"id":"s","value":271828.5}]"#, "floating point where a string was expected").await;
    check(r#""secrets":"271828, expected nothing""#, "string where a sequence was expected").await;
    check(r#""secrets":["271828"]"#, "string where struct BuildSecret was expected").await;
    check(r#""arguments":[{"name":"A","value":"v","isSecret":"271828"}]"#, "string where a boolean was expected").await;
    check(r#""timeout":"271828""#, "string where u32 was expected").await;
    check(r#""secrets":[{"id":"s","value":"271828!"}]"#, "base64").await;
}

#[tokio::test]
async fn of_two_uploads_at_once_one_is_the_context() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let response = fixture.call("POST", "/api/v1/contexts", Some(token.expose()), None).await;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let created: cooper_api::rest::CreatedContext = serde_json::from_slice(&bytes).expect("created");
    let upload = || {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let request = Request::put(&created.upload_url)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
            .body(body)
            .expect("request");
        (sender, tokio::spawn(fixture.router.clone().oneshot(request)))
    };
    let (first, first_answer) = upload();
    let (second, second_answer) = upload();
    // Both are taken: the second message of each goes through once the first has been read.
    for sender in [&first, &second] {
        sender.send(Ok(bytes::Bytes::from_static(b"the "))).await.expect("taken");
        sender.send(Ok(bytes::Bytes::from_static(b"same "))).await.expect("taken");
    }
    second.send(Ok(bytes::Bytes::from_static(b"second"))).await.expect("taken");
    drop(second);
    assert_eq!(second_answer.await.expect("no panic").expect("infallible").status(), StatusCode::CREATED);
    first.send(Ok(bytes::Bytes::from_static(b"first"))).await.expect("taken");
    drop(first);
    assert_eq!(first_answer.await.expect("no panic").expect("infallible").status(), StatusCode::CONFLICT);
    let files: Vec<_> =
        std::fs::read_dir(fixture.core.context_files.path(&created.context_id).parent().expect("folder"))
            .expect("readable")
            .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let kept = std::fs::read(fixture.core.context_files.path(&created.context_id)).expect("kept");
    assert_eq!(kept, b"the same second");
}

#[tokio::test]
async fn an_upload_that_says_it_is_too_large_is_not_begun() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let response = fixture.call("POST", "/api/v1/contexts", Some(token.expose()), None).await;
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let created: cooper_api::rest::CreatedContext = serde_json::from_slice(&bytes).expect("created");
    struct Announced;
    impl axum::body::HttpBody for Announced {
        type Data = bytes::Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>> {
            panic!("nobody may read it");
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            hyper::body::SizeHint::with_exact(1025)
        }
    }
    let request = Request::put(&created.upload_url).header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    let response = fixture.router.clone().oneshot(request.body(Body::new(Announced)).expect("request")).await;
    assert_eq!(response.expect("infallible").status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_the_gate() {
    let fixture = Fixture::new().await;
    for path in [
        "/api/v1/runs/",
        "/api/v1//runs",
        "//api/v1/runs",
        "/api/v1/%72uns",
        "/api/v1/runs/%2e%2e/tokens",
        "/API/v1/runs",
        "/api/v1/runs/ca1%2flog",
        "/api/v1/tokens;x",
        "/healthz/../api/v1/tokens",
    ] {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "TRACE", "PATCH", "BREW"] {
            let status = fixture.call(method, path, None, None).await.status();
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
            assert!(refused.contains(&status), "{method} {path}: {status}");
        }
    }
    let request = Request::post("/api/v1/runs").header("x-http-method-override", "GET").body(Body::empty());
    let response = fixture.router.clone().oneshot(request.expect("request")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.call("HEAD", "/api/v1/runs", None, None).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.call("GET", "/readyz", None, None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_server_whose_last_admin_is_gone_makes_a_new_one() {
    let fixture = Fixture::new().await;
    let file = fixture._data.path().join("admin-token");
    let access = &fixture.core.access;
    assert!(access.ensure_admin(&file).await.expect("made"));
    let first = std::fs::read_to_string(&file).expect("file");
    assert!(!access.ensure_admin(&file).await.expect("there"), "one is enough");
    let token = access.check(first.trim()).await.expect("store").expect("works");
    access.store().revoke_token(&token.id).await.expect("revoked");
    assert!(access.ensure_admin(&file).await.expect("made"));
    let second = std::fs::read_to_string(&file).expect("file");
    assert!(access.check(second.trim()).await.expect("store").is_some_and(|token| token.scopes.admin()));
    assert!(access.check(first.trim()).await.expect("store").is_none());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("file").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn secrets_are_kept_sealed_and_never_shown() {
    let fixture = Fixture::new().await;
    let token = testing::token(&fixture.core, "boss", &["admin"]).await;
    let token = Some(token.expose());
    let path = "/api/v1/secrets/npm-token";
    let text = async |response: Response| {
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    };
    let set = text(fixture.call("PUT", path, token, Some(r#"{"value":"hunter2"}"#)).await).await;
    assert!(set.contains(r#""version":1"#) && set.contains(r#""principals":["boss"]"#), "{set}");
    let body = r#"{"value":"hunter3","principals":["ci"]}"#;
    text(fixture.call("PUT", path, token, Some(body)).await).await;
    let listed = text(fixture.call("GET", "/api/v1/secrets", token, None).await).await;
    assert!(listed.contains(r#""principals":["ci"]"#) && !listed.contains("hunter"), "{listed}");

    let name = SecretName::parse("npm-token").expect("valid");
    let sealed = fixture.core.secret_store.secret_for(&testing::principal("ci"), &name, None).await.expect("usable");
    assert!(!sealed.sealed.windows(6).any(|part| part == b"hunter"));
    let opened = fixture.core.key.unseal(&crate::secrets::secret_purpose(&name), &sealed.sealed).expect("opens");
    assert_eq!((sealed.version, opened.expose()), (2, &b"hunter3"[..]));

    let check = async |method: &str, path: &str, body: Option<&str>, code: &str, part: &str| {
        let problem = fixture.problem(method, path, token, body).await;
        assert_eq!(problem.code.as_str(), code, "{problem:?}");
        assert!(problem.detail.contains(part) && !problem.detail.contains("hunter"), "{problem:?}");
    };
    check("PUT", "/api/v1/secrets/UPPER", Some("{}"), "not-found", "`UPPER`").await;
    check("PUT", path, Some("{}"), "invalid-request", "nothing is to be changed").await;
    check("PUT", path, Some(r#"{"value":""}"#), "invalid-request", "1 to 65536 bytes").await;
    check("PUT", path, Some(r#"{"value":"hunter\u0000"}"#), "invalid-request", "NUL").await;
    check("PUT", path, Some(r#"{"value":["hunter2"]}"#), "invalid-request", "not valid").await;
    let both = r#"{"principals":["a"],"allPrincipals":true}"#;
    check("PUT", path, Some(both), "invalid-request", "exclude").await;
    check("PUT", "/api/v1/secrets/other", Some(r#"{"allPrincipals":true}"#), "not-found", "`other`").await;
    check("DELETE", "/api/v1/secrets/npm-token?version=9", None, "not-found", "version 9").await;
    assert_eq!(fixture.call("DELETE", path, token, None).await.status(), StatusCode::NO_CONTENT);
    check("DELETE", path, None, "not-found", "npm-token").await;
}

#[tokio::test]
async fn who_wants_no_log_is_sent_none() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let run = testing::accept(&fixture.core, Vec::new()).await;
    let by = PrincipalName::parse("somebody").expect("valid");
    fixture.core.apply(run, cooper_engine::run::RunEvent::CancelRequested { by }).await.expect("cancelled");
    for (query, has_log) in [("", true), ("?statusOnly=true", false)] {
        let path = format!("/api/v1/runs/{run}/log/events{query}");
        let answer = fixture.call("GET", &path, Some(token.expose()), None).await;
        let body = answer.into_body().collect().await.expect("a stream that ends").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(text.contains("event: log"), has_log, "{text}");
        assert!(text.contains("event: status") && text.contains("event: end"), "{text}");
    }
}
