//! Deleting over HTTP: answers, rights and conditions.

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN, Answer, KEEPER, OCI_INDEX, TEAM, TestRegistry, basic, request};

async fn delete(registry: &TestRegistry, path: &str, password: &str, condition: Option<&str>) -> Answer {
    let mut request = request(Method::DELETE, path).header(AUTHORIZATION, basic(password));
    if let Some(condition) = condition {
        request = request.header("if-match", condition);
    }
    registry.send(request.body(Body::empty()).unwrap()).await
}

async fn push(registry: &TestRegistry, repository: &str, tag: &str, content: &str) -> String {
    let manifest = registry.push_image_blobs(repository, content).await;
    let path = format!("/v2/{repository}/manifests/{tag}");
    let answer = registry.put_manifest(&path, &basic(ADMIN), &manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.header("docker-content-digest").to_owned()
}

#[tokio::test]
async fn tags_manifests_and_blobs_are_deleted_at_once() {
    let registry = TestRegistry::new();
    let digest = push(&registry, "team/app", "v1", "layer").await;
    push(&registry, "team/app", "v2", "layer").await;
    let manifest = registry.get("/v2/team/app/manifests/v1").await.json();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let remove = async |path: &str| delete(&registry, path, ADMIN, None).await;

    remove(&format!("/v2/team/app/blobs/{layer}")).await.is_error(405, "DENIED");
    assert_eq!(remove("/v2/team/app/manifests/v1").await.status, StatusCode::ACCEPTED);
    registry.get("/v2/team/app/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
    remove("/v2/team/app/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get("/v2/team/app/tags/list").await.json()["tags"], json!(["v2"]));
    assert_eq!(registry.get(&format!("/v2/team/app/manifests/{digest}")).await.status, StatusCode::OK);

    assert_eq!(remove(&format!("/v2/team/app/manifests/{digest}")).await.status, StatusCode::ACCEPTED);
    registry.get("/v2/team/app/manifests/v2").await.is_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get("/v2/team/app/tags/list").await.json()["tags"], json!([]));
    assert_eq!(remove(&format!("/v2/team/app/blobs/{layer}")).await.status, StatusCode::ACCEPTED);
    registry.get(&format!("/v2/team/app/blobs/{layer}")).await.is_error(404, "BLOB_UNKNOWN");
    remove(&format!("/v2/team/app/blobs/{layer}")).await.is_error(404, "BLOB_UNKNOWN");
    remove("/v2/none/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(push(&registry, "team/app", "v1", "layer").await, digest, "all of it can be pushed again");
}

#[tokio::test]
async fn deleting_is_a_right_of_its_own() {
    let registry = TestRegistry::new();
    let digest = push(&registry, "team/app", "v1", "layer").await;
    push(&registry, "other", "v1", "layer").await;
    let path = "/v2/team/app/manifests/v1";
    delete(&registry, path, TEAM, None).await.is_error(403, "DENIED");
    delete(&registry, "/v2/other/manifests/v1", KEEPER, None).await.is_error(403, "DENIED");
    delete(&registry, "/acr/v1/other/_tags/v1", KEEPER, None).await.is_error(403, "DENIED");
    let (_, attempt) = registry.start_attempt(1, 1, "team/app");
    delete(&registry, path, &attempt, None).await.is_error(403, "DENIED");
    let nobody = registry.send(request(Method::DELETE, path).body(Body::empty()).unwrap()).await;
    nobody.is_error(401, "UNAUTHORIZED");
    assert!(nobody.header("www-authenticate").contains("scope=\"repository:team/app:delete\""), "{nobody:?}");
    assert_eq!(delete(&registry, path, KEEPER, None).await.status, StatusCode::ACCEPTED);
    let path = format!("/v2/team/app/manifests/{digest}");
    assert_eq!(delete(&registry, &path, KEEPER, None).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn conditions_keep_what_was_pushed_since() {
    let registry = TestRegistry::new();
    let first = push(&registry, "team/app", "v1", "first").await;
    let second = push(&registry, "team/app", "v1", "second").await;
    let path = "/v2/team/app/manifests/v1";
    let etag = |digest: &str| format!("\"{digest}\"");
    delete(&registry, path, ADMIN, Some(&etag(&first))).await.is_error(412, "DENIED");
    delete(&registry, path, ADMIN, Some("v1")).await.is_error(400, "UNSUPPORTED");
    delete(&registry, path, ADMIN, Some("\"v1\"")).await.is_error(400, "DIGEST_INVALID");
    let untagged = format!("/v2/team/app/manifests/{second}?untagged=true");
    delete(&registry, &untagged, ADMIN, None).await.is_error(412, "DENIED");
    delete(&registry, &untagged.replace("true", "yes"), ADMIN, None).await.is_error(400, "UNSUPPORTED");
    let answer = registry.get(path).await;
    assert_eq!((answer.status, answer.header("etag")), (StatusCode::OK, etag(&second).as_str()));
    assert_eq!(delete(&registry, path, ADMIN, Some(answer.header("etag"))).await.status, StatusCode::ACCEPTED);
    assert_eq!(delete(&registry, &untagged, ADMIN, None).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_was_pushed_again_with_the_same_content_stays() {
    let registry = TestRegistry::new();
    let digest = push(&registry, "team/app", "v1", "layer").await;
    let listed = async |list: &str| {
        let answer = registry.get(&format!("/acr/v1/team/app/_{list}")).await.json();
        answer[list][0]["lastUpdateTime"].as_str().unwrap().to_owned()
    };
    let of_tag = listed("tags").await;
    registry.clock.advance(std::time::Duration::from_micros(1));
    push(&registry, "team/app", "v1", "layer").await;
    let tag = |updated: &str| format!("/v2/team/app/manifests/v1?updated={updated}");
    let refused = delete(&registry, &tag(&of_tag), ADMIN, Some(&format!("\"{digest}\""))).await;
    refused.is_error(412, "DENIED");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("pushed again meanwhile"));
    delete(&registry, &tag(&of_tag).replace("/v2/team/app/manifests/", "/acr/v1/team/app/_tags/"), ADMIN, None)
        .await
        .is_error(412, "DENIED");
    delete(&registry, &tag("yesterday"), ADMIN, None).await.is_error(400, "UNSUPPORTED");
    assert_eq!(delete(&registry, &tag(&listed("tags").await), ADMIN, None).await.status, StatusCode::ACCEPTED);

    let of_manifest = listed("manifests").await;
    registry.clock.advance(std::time::Duration::from_micros(1));
    push(&registry, "team/app", &digest, "layer").await;
    let manifest = |updated: &str| format!("/v2/team/app/manifests/{digest}?untagged=true&updated={updated}");
    delete(&registry, &manifest(&of_manifest), ADMIN, None).await.is_error(412, "DENIED");
    let renewed = listed("manifests").await;
    assert_eq!(delete(&registry, &manifest(&renewed), ADMIN, None).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_index_keeps_its_manifests_and_a_repository_goes_whole() {
    let registry = TestRegistry::new();
    let child = push(&registry, "team/app", "amd64", "layer").await;
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": child, "size": 1 },
    ] });
    let put = request(Method::PUT, "/v2/team/app/manifests/all").header(AUTHORIZATION, basic(ADMIN));
    let put = put.header("content-type", OCI_INDEX).body(Body::from(index.to_string())).unwrap();
    let pushed = registry.send(put).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{pushed:?}");
    let refused = delete(&registry, &format!("/v2/team/app/manifests/{child}"), ADMIN, None).await;
    refused.is_error(405, "DENIED");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains(pushed.header("docker-content-digest")));

    let gone = delete(&registry, "/acr/v1/team/app", KEEPER, None).await;
    assert_eq!(gone.status, StatusCode::ACCEPTED, "{gone:?}");
    let count = |key: &str| gone.json()[key].as_array().map(Vec::len);
    assert_eq!((count("manifestsDeleted"), count("tagsDeleted")), (Some(2), Some(2)));
    assert_eq!(registry.get("/acr/v1/_catalog").await.json(), json!({ "repositories": [] }));
    delete(&registry, "/acr/v1/team/app", KEEPER, None).await.is_error(404, "NAME_UNKNOWN");
}
