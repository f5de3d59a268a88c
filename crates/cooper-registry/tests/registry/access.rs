//! Who may do what: challenges, Basic, Bearer, scopes, and credentials that stop being good.

use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};

use crate::harness::{ADMIN, Answer, READER, TEAM, TestRegistry, basic, request};

const WRONG: &str = "wrong-token";

async fn with(registry: &TestRegistry, method: Method, path: &str, authorization: &str) -> Answer {
    let request = request(method, path).header(AUTHORIZATION, authorization);
    registry.send(request.body(Body::empty()).unwrap()).await
}

async fn without(registry: &TestRegistry, method: Method, path: &str) -> Answer {
    registry.send(request(method, path).body(Body::empty()).unwrap()).await
}

/// A bearer token for `scope`, as an authorization.
async fn bearer(registry: &TestRegistry, password: &str, scope: &str) -> String {
    let path = format!("/oauth2/token?service=registry.example:5000&scope={scope}");
    let answer = with(registry, Method::GET, &path, &basic(password)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["expires_in"], 240);
    assert_eq!(answer.json()["token"], answer.json()["access_token"]);
    assert_eq!(answer.header("cache-control"), "no-store");
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_challenge_names_the_way_to_a_token() {
    let registry = TestRegistry::new();
    let challenge = |scope: &str| {
        format!("Bearer realm=\"http://registry.example:5000/oauth2/token\",service=\"registry.example:5000\"{scope}")
    };
    let ping = without(&registry, Method::GET, "/v2/").await;
    assert_eq!(ping.is_error(401, "UNAUTHORIZED").header("www-authenticate"), challenge(""));
    let pull = without(&registry, Method::GET, "/v2/team/app/manifests/v1").await;
    assert_eq!(pull.header("www-authenticate"), challenge(",scope=\"repository:team/app:pull\""));
    let push = without(&registry, Method::POST, "/v2/team/app/blobs/uploads/").await;
    assert_eq!(push.header("www-authenticate"), challenge(",scope=\"repository:team/app:pull,push\""));
    assert_eq!(with(&registry, Method::GET, "/v2/", &basic(READER)).await.body, "{}");
    let empty = with(&registry, Method::GET, "/v2/", "Basic Og==").await;
    assert_eq!(empty.header("www-authenticate"), challenge(""), "no name and no password is no credential");
}

#[tokio::test]
async fn the_realm_is_where_the_client_is() {
    let registry = TestRegistry::new();
    for (host, proto, expect) in [
        ("localhost:7000", None, "http://localhost:7000/"),
        ("cooper.example", Some("https"), "https://cooper.example/"),
        ("cooper.example", Some("HTTPS, http"), "https://cooper.example/"),
        ("cooper.example", Some("gopher"), "http://cooper.example/"),
        ("[::1]:5000", None, "http://[::1]:5000/"),
        ("evil\",x=\"y", None, "http://registry.example:5000/"),
        ("user@host", None, "http://registry.example:5000/"),
    ] {
        let mut request = Request::builder().uri("/v2/").header("host", host);
        if let Some(proto) = proto {
            request = request.header("x-forwarded-proto", proto);
        }
        let answer = registry.send(request.body(Body::empty()).unwrap()).await;
        assert!(answer.header("www-authenticate").starts_with(&format!("Bearer realm=\"{expect}")), "{answer:?}");
    }
}

#[tokio::test]
async fn every_wrong_credential_looks_the_same() {
    let registry = TestRegistry::new();
    let token = bearer(&registry, ADMIN, "repository:a:pull").await;
    let unsigned = token.rsplit_once('.').unwrap().0;
    for authorization in [
        basic(WRONG),
        basic(""),
        format!("{unsigned}.{}", "A".repeat(43)),
        format!("{unsigned}."),
        "Bearer".into(),
        "Bearer x.y.z".into(),
        "Basic %%%".into(),
        "Basic YQ==".into(),
        "Negotiate x".into(),
        format!("Bearer {}", "x".repeat(20_000)),
        basic(&"x".repeat(20_000)),
    ] {
        let answer = with(&registry, Method::GET, "/v2/", &authorization).await;
        answer.is_error(401, "UNAUTHORIZED");
        assert_eq!(answer.json()["errors"][0]["message"], "the credential is not valid");
        assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
        let token = with(&registry, Method::GET, "/oauth2/token", &authorization).await;
        assert_eq!(
            token.is_error(401, "UNAUTHORIZED").header("www-authenticate"),
            "Basic realm=\"registry.example:5000\""
        );
    }
    let twice = request(Method::GET, "/v2/").header(AUTHORIZATION, basic(ADMIN)).header(AUTHORIZATION, basic(ADMIN));
    registry.send(twice.body(Body::empty()).unwrap()).await.is_error(401, "UNAUTHORIZED");
    with(&registry, Method::GET, "/oauth2/token", &token).await.is_error(401, "UNAUTHORIZED");
    without(&registry, Method::GET, "/oauth2/token").await.is_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn basic_credentials_do_what_their_scopes_say() {
    let registry = TestRegistry::new();
    registry.push_blob("other", b"x").await;
    registry.push_blob("team/app", b"x").await;
    let status = async |password: &str, method: Method, path: &str| {
        with(&registry, method, path, &basic(password)).await.status.as_u16()
    };
    assert_eq!(status(READER, Method::GET, "/v2/other/tags/list").await, 200);
    assert_eq!(status(READER, Method::POST, "/v2/other/blobs/uploads/").await, 403);
    assert_eq!(status(TEAM, Method::POST, "/v2/team/app/blobs/uploads/").await, 202);
    assert_eq!(status(TEAM, Method::POST, "/v2/other/blobs/uploads/").await, 403);
    // Whether a repository exists is nothing to those who may not pull it.
    for repository in ["other", "none"] {
        let answer = with(&registry, Method::GET, &format!("/v2/{repository}/tags/list"), &basic(TEAM)).await;
        answer.is_error(403, "DENIED");
    }
}

#[tokio::test]
async fn a_bearer_token_is_what_was_asked_for_and_is_allowed() {
    let registry = TestRegistry::new();
    registry.push_blob("team/app", b"x").await;
    registry.push_blob("other", b"x").await;
    let token = bearer(&registry, TEAM, "repository:team/app:pull&scope=repository:other:pull,push").await;
    assert_eq!(with(&registry, Method::GET, "/v2/", &token).await.status, StatusCode::OK);
    assert_eq!(with(&registry, Method::GET, "/v2/team/app/tags/list", &token).await.status, StatusCode::OK);
    let push = with(&registry, Method::POST, "/v2/team/app/blobs/uploads/", &token).await;
    push.is_error(401, "UNAUTHORIZED");
    let expect = ",scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\"";
    assert!(push.header("www-authenticate").ends_with(expect), "another token would do: {push:?}");
    for (method, path) in [(Method::GET, "/v2/other/tags/list"), (Method::POST, "/v2/other/blobs/uploads/")] {
        with(&registry, method, path, &token).await.is_error(403, "DENIED");
    }
    let token = bearer(&registry, TEAM, "repository:team/app:pull,push").await;
    let push = with(&registry, Method::POST, "/v2/team/app/blobs/uploads/", &token).await;
    assert_eq!(push.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_form_buys_a_token_too() {
    let registry = TestRegistry::new();
    let post = async |form: String| {
        let request =
            request(Method::POST, "/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
        registry.send(request.body(Body::from(form)).unwrap()).await
    };
    let form = |password: &str| {
        format!("grant_type=password&service=x&client_id=x&scope=repository:a:pull&username=me&password={password}")
    };
    let answer = post(form(ADMIN)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let token = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    with(&registry, Method::GET, "/v2/a/tags/list", &token).await.is_error(404, "NAME_UNKNOWN");
    post(form(WRONG)).await.is_error(401, "UNAUTHORIZED");
    post("grant_type=refresh_token&refresh_token=x".into()).await.is_error(400, "UNSUPPORTED");
    post("username=me".into()).await.is_error(400, "UNSUPPORTED");
    post("grant_type=password".into()).await.is_error(400, "UNSUPPORTED");
    post("x".repeat(100_000)).await.is_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn no_token_is_made_that_would_be_refused() {
    let registry = TestRegistry::new();
    for (count, long) in [(20, false), (64, true)] {
        let scopes: Vec<String> =
            (10..10 + count).map(|n| format!("repository:team/{}{n}:pull,push", "x".repeat(200))).collect();
        let path = format!("/oauth2/token?scope={}", scopes.join("&scope="));
        let answer = with(&registry, Method::GET, &path, &basic(TEAM)).await;
        if long {
            answer.is_error(400, "UNSUPPORTED");
        } else {
            let token = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
            assert_eq!(with(&registry, Method::GET, "/v2/", &token).await.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_bearer_token_ends_with_its_time_or_with_its_access_token() {
    let registry = TestRegistry::new();
    let token = bearer(&registry, TEAM, "repository:team/app:pull").await;
    registry.clock.advance(Duration::from_secs(299));
    assert_eq!(with(&registry, Method::GET, "/v2/", &token).await.status, StatusCode::OK);
    registry.clock.advance(Duration::from_secs(1));
    with(&registry, Method::GET, "/v2/", &token).await.is_error(401, "UNAUTHORIZED");
    let token = bearer(&registry, TEAM, "repository:team/app:pull").await;
    registry.tokens.revoke(TEAM);
    with(&registry, Method::GET, "/v2/", &token).await.is_error(401, "UNAUTHORIZED");
    with(&registry, Method::GET, "/v2/", &basic(TEAM)).await.is_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn anonymous_pull_is_a_setting() {
    let registry = TestRegistry::with_anonymous_pull();
    let digest = registry.push_blob("a", b"x").await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(without(&registry, Method::GET, &path).await.body, "x");
    let push = without(&registry, Method::POST, "/v2/a/blobs/uploads/").await;
    assert!(push.is_error(401, "UNAUTHORIZED").headers.contains_key(WWW_AUTHENTICATE));
    // Clients ask `/v2/` how to log in, so it keeps asking; then they fetch a token with nothing to show.
    without(&registry, Method::GET, "/v2/").await.is_error(401, "UNAUTHORIZED");
    let answer = without(&registry, Method::GET, "/oauth2/token?scope=repository:a:pull,push").await;
    let token = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    assert_eq!(with(&registry, Method::GET, &path, &token).await.body, "x");
    let push = with(&registry, Method::POST, "/v2/a/blobs/uploads/", &token).await;
    push.is_error(401, "UNAUTHORIZED");

    // Clients show what they have, and must not be worse off for it.
    assert_eq!(with(&registry, Method::GET, &path, &basic(TEAM)).await.body, "x");
    let bearer = bearer(&registry, TEAM, "repository:a:pull,push").await;
    assert_eq!(with(&registry, Method::GET, &path, &bearer).await.body, "x");
    with(&registry, Method::POST, "/v2/a/blobs/uploads/", &bearer).await.is_error(403, "DENIED");
    with(&registry, Method::GET, &path, &basic(WRONG)).await.is_error(401, "UNAUTHORIZED");

    let closed = TestRegistry::new();
    closed.push_blob("a", b"x").await;
    with(&closed, Method::GET, &path, &token).await.is_error(401, "UNAUTHORIZED");
    without(&closed, Method::GET, &path).await.is_error(401, "UNAUTHORIZED");
}
