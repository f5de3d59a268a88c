//! Who may do what: every route of the API document with every kind of token.

use cooper_e2e::{Answer, Context, Engine, TestServer, request};
use serde_json::{Value, json};

/// A token with these scopes.
fn token(server: &TestServer, principal: &str, scopes: &[&str]) -> String {
    let body = json!({"principal": principal, "scopes": scopes}).to_string();
    let answer = ask(server, "POST", "/api/v1/tokens", Some(&server.token()), body.as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
    let created: Value = serde_json::from_str(&answer.body).unwrap();
    created["token"].as_str().unwrap().to_owned()
}

fn ask(server: &TestServer, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> Answer {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut headers = vec!["Content-Type: application/json"];
    headers.extend(authorization.as_deref());
    request(server.authority(), method, path, &headers, body).unwrap()
}

#[test]
fn every_route_asks_for_its_scope() {
    let server =
        TestServer::with(cooper_e2e::ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let document = server.cooper(&["openapi"]).ok().json();
    assert_eq!(document["info"]["title"].as_str().map(str::is_empty), Some(false));
    // No token here may end itself, so what is walked is answered for, not done: ids are unknown, bodies are empty.
    let scopes = ["read", "run", "admin", "agent", "repository:*:pull,push,delete"];
    let tokens: Vec<(&str, String)> = scopes.iter().map(|scope| (*scope, token(&server, "walker", &[scope]))).collect();

    let mut walked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let place = path.replace("{id}", "ca4711");
            let needs = required(operation);
            let status = |token: Option<&str>| ask(&server, &method, &place, token, b"").status;

            if needs == "public" {
                assert!(![401, 403].contains(&status(None)), "{method} {path} is public");
            } else {
                assert_eq!(status(None), 401, "{method} {path} without a token");
                assert_eq!(status(Some("wrong")), 401, "{method} {path} with a wrong token");
            }
            for (scope, token) in &tokens {
                let allowed = match needs {
                    "public" | "any" => true,
                    "read" => ["read", "run", "admin"].contains(scope),
                    "run" => ["run", "admin"].contains(scope),
                    "admin" => *scope == "admin",
                    other => panic!("{method} {path} asks for an unknown scope {other}"),
                };
                let status = status(Some(token));
                assert_eq!(status == 403, !allowed, "{method} {path} with the scope {scope}: {status}");
                assert_ne!(status, 401, "{method} {path} with the scope {scope}");
            }
            walked += 1;
        }
    }
    assert!(walked >= 14, "only {walked} routes were walked");
    server.expect_quiet_log();
}

/// What an operation of the document asks for: `public`, `any`, or the scope's name.
fn required(operation: &Value) -> &str {
    match operation["security"].as_array() {
        None => "public",
        Some(kinds) => kinds
            .iter()
            .flat_map(|kind| kind.as_object().into_iter().flatten())
            .flat_map(|(_, scopes)| scopes.as_array().into_iter().flatten())
            .find_map(Value::as_str)
            .unwrap_or("any"),
    }
}

#[test]
fn a_wrong_or_missing_token_is_said_in_a_line() {
    let server = TestServer::start();
    let wrong = Context::empty().file("token", "cooper_wrong\n");
    let file = wrong.join("token").display().to_string();
    let url = server.url();
    server.cooper(&["login", &url, "--token-file", &file]).expect(5).error_names(&["token"]);
    // The login that works is still there.
    server.cooper(&["runs", "list"]).ok();
    server.cooper(&["logout"]).ok();
    let out = server.cooper(&["runs", "list"]);
    assert!([Some(2), Some(5)].contains(&out.code), "{out}");
    out.error_names(&[]);
    assert!(out.stderr.contains("cooper login"), "the way out is named: {out}");
    let out = server.cooper(&["runs", "list", "--server", &url]).expect(5);
    out.error_names(&["token"]);
}

#[test]
fn a_revoked_token_stops_at_once() {
    let server = TestServer::start();
    let reader = token(&server, "reader", &["read"]);
    assert_eq!(ask(&server, "GET", "/api/v1/runs", Some(&reader), b"").status, 200);
    let listed = server.cooper(&["token", "list", "--output", "json"]).ok().json();
    let all = listed["value"].as_array().or(listed.as_array()).unwrap_or_else(|| panic!("{listed:#}"));
    let id = all.iter().find(|token| token["principal"] == "reader").unwrap()["id"].as_str().unwrap();
    server.cooper(&["token", "revoke", id]).ok();
    assert_eq!(ask(&server, "GET", "/api/v1/runs", Some(&reader), b"").status, 401);
}

#[test]
fn the_registry_keeps_strangers_out() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let stranger = engine.docker(&["pull", "--quiet", &base]);
    assert_ne!(stranger.code, Some(0), "{stranger}");

    // Pull is not push, and one repository is not another.
    let puller = token(&server, "puller", &["repository:base/busybox:pull"]);
    let files = Context::empty().file("token", &puller);
    engine.login(base.split('/').next().unwrap(), &files.join("token"));
    engine.pull(&base);
    let push = engine.docker(&["push", "--quiet", &base]);
    assert_ne!(push.code, Some(0), "{push}");
}
