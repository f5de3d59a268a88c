//! Attempts' credentials and staged tags: seen by their run alone, real when promoted, refused when the attempt is over.

use std::time::Duration;

use axum::body::Body;
use cooper_ports::registry::StagedTarget;
use cooper_types::{Digest, RepositoryName, Tag};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN, Answer, OCI_INDEX, OCI_MANIFEST, TestRegistry, basic, request};

async fn send(registry: &TestRegistry, method: Method, path: &str, authorization: &str) -> Answer {
    let request = request(method, path).header(AUTHORIZATION, authorization);
    registry.send(request.body(Body::empty()).unwrap()).await
}

async fn exchange(registry: &TestRegistry, password: &str) -> Answer {
    send(registry, Method::GET, "/oauth2/token?scope=repository:team/app:pull,push", &basic(password)).await
}

#[tokio::test]
async fn a_staged_tag_is_its_run_s_until_it_is_promoted() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("team/app", "layer").await;
    let old = registry.push_image_blobs("team/app", "old layer").await;
    let stored = registry.put_manifest("/v2/team/app/manifests/v1", &basic(ADMIN), &old).await;
    assert_eq!(stored.status, StatusCode::CREATED);
    let (attempt, password) = registry.start_attempt(1, 3, "team/app");
    let token = exchange(&registry, &password).await.json()["token"].as_str().unwrap().to_owned();
    let (_, stranger) = registry.start_attempt(2, 1, "team/app");

    for (tag, authorization) in [("staged.ca1.3", basic(&password)), ("v1", format!("Bearer {token}"))] {
        let path = format!("/v2/team/app/manifests/{tag}");
        let answer = registry.put_manifest(&path, &authorization, &manifest).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(send(&registry, Method::GET, &path, &basic(&password)).await.body, manifest);
        for other in [basic(ADMIN), basic(&stranger)] {
            for method in [Method::GET, Method::HEAD] {
                let seen = send(&registry, method, &path, &other).await;
                let expect = if tag == "v1" { Digest::sha256(&old).to_string() } else { String::new() };
                assert_eq!(seen.header("docker-content-digest"), expect);
            }
            let list = send(&registry, Method::GET, "/v2/team/app/tags/list", &other).await;
            assert_eq!(list.json()["tags"], json!(["v1"]));
        }
    }

    let target = StagedTarget {
        repository: RepositoryName::parse("team/app").unwrap(),
        staging: Tag::parse("staged.ca1.3").unwrap(),
        tags: vec![Tag::parse("v2").unwrap(), Tag::latest()],
        digest: None,
    };
    registry.store.promote_staged(&attempt, &[target]).unwrap();
    let list = registry.get("/v2/team/app/tags/list").await;
    assert_eq!(list.json()["tags"], json!(["latest", "v1", "v2"]));
    for (tag, content) in [("latest", &manifest), ("v2", &manifest), ("v1", &old)] {
        // The attempt had pushed `v1` too, and the plan does not name it.
        assert_eq!(registry.get(&format!("/v2/team/app/manifests/{tag}")).await.body, *content, "{tag}");
    }
}

#[tokio::test]
async fn an_index_of_two_platforms_is_put_of_what_stages_left_and_nobody_else_sees_it_before_it_is_promoted() {
    let registry = TestRegistry::new();
    let images =
        [registry.push_image_blobs("team/app", "amd64").await, registry.push_image_blobs("team/app", "arm64").await];
    let mut digests = Vec::new();
    for (attempt, image) in (1..).zip(&images) {
        let (_, password) = registry.start_attempt(1, attempt, "team/app");
        let path = format!("/v2/team/app/manifests/staged.ca1.{attempt}");
        assert_eq!(registry.put_manifest(&path, &basic(&password), image).await.status, StatusCode::CREATED);
        digests.push(Digest::sha256(image));
    }
    let part = |architecture: &str, digest: &Digest, size: usize| {
        json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": size,
                "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = |second: &Digest| {
        let parts = [part("amd64", &digests[0], images[0].len()), part("arm64", second, images[1].len())];
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": parts }).to_string().into_bytes()
    };
    let (attempt, password) = registry.start_attempt(1, 3, "team/app");
    let put = async |index: &[u8]| {
        let request = request(Method::PUT, "/v2/team/app/manifests/staged.ca1.3")
            .header(AUTHORIZATION, basic(&password))
            .header(CONTENT_TYPE, OCI_INDEX);
        registry.send(request.body(Body::from(index.to_vec())).unwrap()).await
    };
    let missing = put(&index(&Digest::sha256(b"never pushed"))).await;
    missing.is_error(400, "MANIFEST_BLOB_UNKNOWN");
    let whole = index(&digests[1]);
    let stored = put(&whole).await;
    assert_eq!(stored.status, StatusCode::CREATED, "{stored:?}");

    let (_, stranger) = registry.start_attempt(2, 1, "team/app");
    for other in [basic(ADMIN), basic(&stranger)] {
        let path = "/v2/team/app/manifests/staged.ca1.3";
        send(&registry, Method::GET, path, &other).await.is_error(404, "MANIFEST_UNKNOWN");
        let list = send(&registry, Method::GET, "/v2/team/app/tags/list", &other).await;
        assert_eq!(list.json()["tags"], json!([]));
    }
    let target = StagedTarget {
        repository: RepositoryName::parse("team/app").unwrap(),
        staging: Tag::parse("staged.ca1.3").unwrap(),
        tags: vec![Tag::parse("v1").unwrap()],
        digest: None,
    };
    registry.store.promote_staged(&attempt, &[target]).unwrap();
    let seen = registry.get("/v2/team/app/manifests/v1").await;
    assert_eq!((seen.body.as_ref(), seen.header("content-type")), (whole.as_slice(), OCI_INDEX));
    for (digest, image) in digests.iter().zip(&images) {
        assert_eq!(registry.get(&format!("/v2/team/app/manifests/{digest}")).await.body, *image, "by platform");
    }
}

#[tokio::test]
async fn an_attempt_that_is_over_does_nothing_more() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("team/app", "layer").await;
    let (attempt, password) = registry.start_attempt(1, 1, "team/app");
    let token = exchange(&registry, &password).await.json()["token"].as_str().unwrap().to_owned();
    let upload = send(&registry, Method::POST, "/v2/team/app/blobs/uploads/", &basic(&password)).await;
    assert_eq!(upload.status, StatusCode::ACCEPTED);
    registry.store.end_attempt(&attempt);
    for authorization in [basic(&password), format!("Bearer {token}")] {
        let late = registry.put_manifest("/v2/team/app/manifests/v1", &authorization, &manifest).await;
        let message = &late.is_error(403, "DENIED").json()["errors"][0]["message"];
        assert_eq!(message, "attempt 1 of step build of run ca1 is over");
        let path = upload.header("location");
        for (method, path) in [
            (Method::PATCH, path),
            (Method::PUT, path),
            (Method::POST, "/v2/team/app/blobs/uploads/"),
            (Method::GET, "/v2/team/app/tags/list"),
            (Method::GET, "/v2/"),
        ] {
            send(&registry, method, path, &authorization).await.is_error(403, "DENIED");
        }
    }
    exchange(&registry, &password).await.is_error(403, "DENIED");
    registry.get("/v2/team/app/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn an_attempt_may_what_its_plan_names_and_for_its_time() {
    let registry = TestRegistry::new();
    registry.push_blob("other", b"x").await;
    let (_, password) = registry.start_attempt(1, 1, "team/app");
    for (method, path) in [
        (Method::POST, "/v2/other/blobs/uploads/"),
        (Method::GET, "/v2/other/tags/list"),
        (Method::DELETE, "/v2/other/manifests/v1"),
    ] {
        send(&registry, method, path, &basic(&password)).await.is_error(403, "DENIED");
    }
    registry.clock.advance(Duration::from_secs(3590));
    let token = exchange(&registry, &password).await;
    assert_eq!(token.json()["expires_in"], 8, "a bearer token does not outlive the credential");
    registry.clock.advance(Duration::from_secs(10));
    exchange(&registry, &password).await.is_error(401, "UNAUTHORIZED");
    send(&registry, Method::GET, "/v2/", &basic(&password)).await.is_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn two_attempts_do_not_share_an_upload() {
    let registry = TestRegistry::new();
    let (_, first) = registry.start_attempt(1, 1, "team/app");
    let (_, second) = registry.start_attempt(1, 2, "team/app");
    let upload = send(&registry, Method::POST, "/v2/team/app/blobs/uploads/", &basic(&first)).await;
    let other = send(&registry, Method::PATCH, upload.header("location"), &basic(&second)).await;
    other.is_error(404, "BLOB_UPLOAD_UNKNOWN");
}
