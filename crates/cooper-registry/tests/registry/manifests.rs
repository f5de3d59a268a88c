//! Manifests and tags: exact bytes, what a manifest needs, limits, and lists in pages.

use axum::body::Body;
use cooper_types::{Digest, DigestAlgorithm, Hasher};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN, OCI_INDEX, OCI_MANIFEST, TestRegistry, basic, request};

async fn put(registry: &TestRegistry, path: &str, manifest: &[u8]) -> crate::harness::Answer {
    registry.put_manifest(path, &basic(ADMIN), manifest).await
}

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("team/app", "layer").await;
    let digest = Digest::sha256(&manifest);
    let answer = put(&registry, "/v2/team/app/manifests/v1", &manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), digest.as_str());
    assert_eq!(answer.header("location"), format!("/v2/team/app/manifests/{digest}"));
    let by_digest = format!("/v2/team/app/manifests/{digest}");
    assert_eq!(put(&registry, &by_digest, &manifest).await.status, StatusCode::CREATED, "once more, by digest");
    for path in ["/v2/team/app/manifests/v1", &by_digest, answer.header("location")] {
        for method in [Method::GET, Method::HEAD] {
            let answer = registry.admin(method.clone(), path, Body::empty()).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.header("content-type"), OCI_MANIFEST);
            assert_eq!(answer.header("content-length"), manifest.len().to_string());
            assert_eq!(answer.header("docker-content-digest"), digest.as_str());
            if method == Method::GET {
                assert_eq!(answer.body, manifest);
            }
        }
    }
    registry.get("/v2/team/app/manifests/v2").await.is_error(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/team/other/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");
    let referrers = registry.get(&format!("/v2/team/app/referrers/{digest}")).await;
    referrers.is_error(404, "UNSUPPORTED");
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_and_an_index_its_manifests() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("a", "layer").await;
    let refused = put(&registry, "/v2/b/manifests/v1", &manifest).await;
    let detail = &refused.is_error(400, "MANIFEST_BLOB_UNKNOWN").json()["errors"][0]["detail"]["missing"];
    assert_eq!(detail.as_array().unwrap().len(), 2, "both of its blobs are named");
    registry.get("/v2/b/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");

    let entry = json!({ "mediaType": OCI_MANIFEST, "digest": Digest::sha256(&manifest), "size": manifest.len() });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] }).to_string();
    let put_index = || async {
        let request = request(Method::PUT, "/v2/a/manifests/all").header(AUTHORIZATION, basic(ADMIN));
        registry.send(request.header("content-type", OCI_INDEX).body(Body::from(index.clone())).unwrap()).await
    };
    put_index().await.is_error(400, "MANIFEST_BLOB_UNKNOWN");
    let path = format!("/v2/a/manifests/{}", Digest::sha256(&manifest));
    assert_eq!(put(&registry, &path, &manifest).await.status, StatusCode::CREATED);
    assert_eq!(put_index().await.status, StatusCode::CREATED);
    let answer = registry.get("/v2/a/manifests/all").await;
    assert_eq!((answer.header("content-type"), &answer.body[..]), (OCI_INDEX, index.as_bytes()));
}

#[tokio::test]
async fn wrong_digests_types_and_bodies_are_refused() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("a", "layer").await;
    put(&registry, "/v2/a/manifests/sha256:baddigeststring", &manifest).await.is_error(400, "DIGEST_INVALID");
    registry.get("/v2/a/manifests/sha256:baddigeststring").await.is_error(400, "DIGEST_INVALID");
    let other = format!("/v2/a/manifests/{}", Digest::sha256(b"other"));
    put(&registry, &other, &manifest).await.is_error(400, "DIGEST_INVALID");
    put(&registry, "/v2/a/manifests/.v1", &manifest).await.is_error(400, "TAG_INVALID");
    put(&registry, "/v2/A/manifests/v1", &manifest).await.is_error(400, "NAME_INVALID");
    put(&registry, "/v2/a/manifests/v1", b"{").await.is_error(400, "MANIFEST_INVALID");
    let plain = request(Method::PUT, "/v2/a/manifests/v1").header(AUTHORIZATION, basic(ADMIN));
    let plain = plain.header("content-type", "application/json").body(Body::from(manifest.clone())).unwrap();
    registry.send(plain).await.is_error(400, "MANIFEST_INVALID");
    registry.get("/v2/a/manifests/v1").await.is_error(404, "MANIFEST_UNKNOWN");

    let mut hasher = Hasher::new(DigestAlgorithm::Sha512);
    hasher.update(&manifest);
    let by_sha512 = format!("/v2/a/manifests/{}", hasher.finish());
    assert_eq!(put(&registry, &by_sha512, &manifest).await.status, StatusCode::CREATED);
    assert_eq!(registry.get(&by_sha512).await.body, manifest);
}

#[tokio::test]
async fn manifests_have_4_mib_at_most() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("a", "layer").await;
    let with_annotation = |size: usize| {
        let mut document: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        document["annotations"] = json!({ "long": "x".repeat(size) });
        document.to_string().into_bytes()
    };
    let fits = with_annotation(4_000_000);
    assert_eq!(put(&registry, "/v2/a/manifests/large", &fits).await.status, StatusCode::CREATED);
    assert_eq!(registry.get("/v2/a/manifests/large").await.body, fits);
    let large = with_annotation(4 * 1024 * 1024);
    put(&registry, "/v2/a/manifests/larger", &large).await.is_error(413, "SIZE_INVALID");
    let announced = request(Method::PUT, "/v2/a/manifests/larger").header(AUTHORIZATION, basic(ADMIN));
    let announced = announced.header("content-length", u64::MAX.to_string()).body(Body::empty()).unwrap();
    registry.send(announced).await.is_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let registry = TestRegistry::new();
    registry.get("/v2/a/tags/list").await.is_error(404, "NAME_UNKNOWN");
    let manifest = registry.push_image_blobs("a", "layer").await;
    assert_eq!(registry.get("/v2/a/tags/list").await.json(), json!({ "name": "a", "tags": [] }));
    for tag in ["v2", "v1", "v10", "latest"] {
        put(&registry, &format!("/v2/a/manifests/{tag}"), &manifest).await;
    }
    let all = registry.get("/v2/a/tags/list").await;
    assert_eq!(all.json(), json!({ "name": "a", "tags": ["latest", "v1", "v10", "v2"] }));
    assert_eq!(all.header("link"), "");
    let first = registry.get("/v2/a/tags/list?n=3").await;
    assert_eq!(first.json()["tags"], json!(["latest", "v1", "v10"]));
    assert_eq!(first.header("link"), "</v2/a/tags/list?n=3&last=v10>; rel=\"next\"");
    let last = registry.get("/v2/a/tags/list?n=3&last=v10").await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (json!(["v2"]), ""));
    assert_eq!(registry.get("/v2/a/tags/list?last=v1").await.json()["tags"], json!(["v10", "v2"]));
    let none = registry.get("/v2/a/tags/list?n=0").await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), ""));
    assert_eq!(registry.get("/v2/a/tags/list?n=18446744073709551615").await.status, StatusCode::OK);
    registry.get("/v2/a/tags/list?n=x").await.is_error(400, "PAGINATION_NUMBER_INVALID");
}

#[tokio::test]
async fn other_methods_and_paths_are_said_to_be_unsupported() {
    let registry = TestRegistry::new();
    let digest = Digest::sha256(b"");
    for (method, path, allow) in [
        (Method::PUT, format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        (Method::POST, "/v2/a/manifests/v1".into(), "GET, HEAD, PUT, DELETE"),
        (Method::DELETE, "/v2/a/tags/list".into(), "GET, HEAD"),
        (Method::PUT, "/acr/v1/a/_tags".into(), "GET, HEAD, DELETE"),
        (Method::PUT, "/v2/a/blobs/uploads/".into(), "POST"),
        (Method::POST, "/v2/a/tags/list".into(), "GET, HEAD"),
        (Method::POST, "/v2/".into(), "GET, HEAD"),
        (Method::PUT, "/oauth2/token".into(), "GET, POST"),
    ] {
        let answer = registry.admin(method, &path, Body::empty()).await;
        assert_eq!(answer.is_error(405, "UNSUPPORTED").header("allow"), allow, "{path}");
    }
    for path in ["/v2/a", "/v2/a/b/c"] {
        registry.get(path).await.is_error(404, "UNSUPPORTED");
    }
}
