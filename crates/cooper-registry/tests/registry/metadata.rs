//! ACR's own API: what there is, and since when.

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN, READER, TEAM, TestRegistry, basic, request};

async fn get(registry: &TestRegistry, path: &str, password: &str) -> crate::harness::Answer {
    let request = request(Method::GET, path).header(AUTHORIZATION, basic(password));
    registry.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_caller_sees_the_repositories_that_it_may_pull_from() {
    let registry = TestRegistry::with_anonymous_pull();
    for repository in ["a", "team/a", "team/b", "z"] {
        let manifest = registry.push_image_blobs(repository, "layer").await;
        registry.put_manifest(&format!("/v2/{repository}/manifests/v1"), &basic(ADMIN), &manifest).await;
    }
    for path in ["/v2/_catalog", "/acr/v1/_catalog"] {
        let names = async |query: &str, password| get(&registry, &format!("{path}{query}"), password).await;
        assert_eq!(names("", READER).await.json(), json!({ "repositories": ["a", "team/a", "team/b", "z"] }));
        assert_eq!(names("", TEAM).await.json(), json!({ "repositories": ["team/a", "team/b"] }));
        let first = names("?n=1", TEAM).await;
        assert_eq!(first.json(), json!({ "repositories": ["team/a"] }));
        assert_eq!(first.header("link"), format!("<{path}?n=1&last=team%2Fa>; rel=\"next\""));
        let last = names("?n=1&last=team%2Fa", TEAM).await;
        assert_eq!(last.json(), json!({ "repositories": ["team/b"] }));
        let nobody = registry.send(request(Method::GET, path).body(Body::empty()).unwrap()).await;
        nobody.is_error(401, "UNAUTHORIZED");
    }
    get(&registry, "/acr/v1/a/_tags", TEAM).await.json();
    let registry = TestRegistry::new();
    get(&registry, "/acr/v1/a/_tags", TEAM).await.is_error(403, "DENIED");
}

#[tokio::test]
async fn tags_and_manifests_are_listed_with_their_times() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("a", "layer").await;
    for tag in ["v1", "v2"] {
        registry.put_manifest(&format!("/v2/a/manifests/{tag}"), &basic(ADMIN), &manifest).await;
    }
    let time = "2023-11-14T22:13:20.000000Z";
    let first = registry.get("/acr/v1/a/_tags?n=1").await;
    assert_eq!(first.header("link"), "</acr/v1/a/_tags?n=1&last=v1>; rel=\"next\"");
    let all = registry.get("/acr/v1/a/_tags").await.json();
    assert_eq!((&all["registry"], &all["imageName"]), (&json!("registry.example:5000"), &json!("a")));
    let tag = &all["tags"][1];
    assert_eq!((&tag["name"], &tag["createdTime"], &tag["lastUpdateTime"]), (&json!("v2"), &json!(time), &json!(time)));
    let digest = tag["digest"].as_str().unwrap();
    assert_eq!(registry.get("/acr/v1/a/_tags/v2").await.json()["tag"], *tag);
    registry.get("/acr/v1/a/_tags/v3").await.is_error(404, "TAG_UNKNOWN");

    let all = registry.get("/acr/v1/a/_manifests").await.json();
    let found = &all["manifests"][0];
    assert_eq!((&found["digest"], &found["tags"]), (&json!(digest), &json!(["v1", "v2"])));
    assert_eq!(found["imageSize"], json!(manifest.len() + 2 + 5));
    assert_eq!(registry.get(&format!("/acr/v1/a/_manifests/{digest}")).await.json()["manifest"], *found);
    let details = registry.get("/acr/v1/a").await.json();
    assert_eq!((&details["manifestCount"], &details["tagCount"]), (&json!(1), &json!(2)));
    registry.get("/acr/v1/b").await.is_error(404, "NAME_UNKNOWN");
    registry.get("/acr/v1/a/_tags?n=x").await.is_error(400, "PAGINATION_NUMBER_INVALID");

    let deleted = registry.admin(Method::DELETE, "/acr/v1/a/_tags/v1", Body::empty()).await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    registry.get("/v2/a/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn clients_that_trade_their_credential_for_a_token_see_the_same() {
    let registry = TestRegistry::with_anonymous_pull();
    for repository in ["a", "team/a"] {
        let manifest = registry.push_image_blobs(repository, "layer").await;
        registry.put_manifest(&format!("/v2/{repository}/manifests/v1"), &basic(ADMIN), &manifest).await;
    }
    let token = async |password: Option<&str>, scope: &str| {
        let mut request = request(Method::GET, &format!("/oauth2/token?service=r&scope={scope}"));
        if let Some(password) = password {
            request = request.header(AUTHORIZATION, basic(password));
        }
        let answer = registry.send(request.body(Body::empty()).unwrap()).await;
        format!("Bearer {}", answer.json()["token"].as_str().unwrap())
    };
    let ask = async |path: &str, bearer: &str| {
        let request = request(Method::GET, path).header(AUTHORIZATION, bearer);
        registry.send(request.body(Body::empty()).unwrap()).await
    };
    for (password, names) in
        [(ADMIN, json!(["a", "team/a"])), (READER, json!(["a", "team/a"])), (TEAM, json!(["team/a"]))]
    {
        let bearer = token(Some(password), "registry:catalog:*").await;
        assert_eq!(ask("/v2/_catalog", &bearer).await.json(), json!({ "repositories": names }), "{password}");
    }
    // A list is for whoever shows a credential, and for whoever asked for it.
    for bearer in [token(None, "registry:catalog:*").await, token(Some(ADMIN), "repository:a:pull").await] {
        let refused = ask("/v2/_catalog", &bearer).await;
        assert!(
            refused.header("www-authenticate").contains("scope=\"registry:catalog:*\",error=\"insufficient_scope\"")
        );
        refused.is_error(401, "UNAUTHORIZED");
    }
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("team/a", "layer").await;
    registry.put_manifest("/v2/team/a/manifests/v1", &basic(ADMIN), &manifest).await;
    let asked =
        request(Method::GET, "/oauth2/token?scope=repository:team/a:metadata_read").header(AUTHORIZATION, basic(TEAM));
    let answer = registry.send(asked.body(Body::empty()).unwrap()).await;
    let bearer = format!("Bearer {}", answer.json()["token"].as_str().unwrap());
    let shown = request(Method::GET, "/acr/v1/team/a/_tags/v1").header(AUTHORIZATION, bearer);
    assert_eq!(registry.send(shown.body(Body::empty()).unwrap()).await.json()["tag"]["name"], json!("v1"));
}
