//! The server's own images: everybody who has a credential pulls them, and nobody writes.

use axum::body::Body;
use cooper_registry::OwnImage;
use cooper_types::{Digest, Tag};
use futures::StreamExt as _;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ADMIN, TEAM, TestRegistry, basic, request};

async fn put(registry: &TestRegistry, tag: &str, content: &'static str) -> Digest {
    let layer = futures::stream::iter([Ok(content.into())]).boxed();
    let (layer_digest, layer_size) = (Digest::sha256(content.as_bytes()), content.len() as u64);
    let tag = Tag::parse(tag).unwrap();
    let image = OwnImage { tag: tag.clone(), config: b"{}".to_vec(), layer, layer_digest, layer_size };
    let digest = registry.service.put_own_image(image).await.unwrap();
    assert_eq!(registry.service.find_own_image(&tag).await.unwrap(), Some(digest.clone()));
    digest
}

#[tokio::test]
async fn everybody_pulls_it_and_nobody_writes_it() {
    let registry = TestRegistry::new();
    let digest = put(&registry, "one", "program").await;
    let (_, attempt) = registry.start_attempt(1, 1, "cooperage/acr-cli");
    let path = format!("/v2/cooperage/acr-cli/manifests/{digest}");
    let send = async |method: Method, path: &str, password: &str| {
        let request = request(method, path).header(AUTHORIZATION, basic(password));
        registry.send(request.body(Body::empty()).unwrap()).await
    };
    for password in [ADMIN, TEAM, &attempt] {
        let manifest = send(Method::GET, &path, password).await;
        let layer = manifest.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
        let blob = send(Method::GET, &format!("/v2/cooperage/acr-cli/blobs/{layer}"), password).await;
        assert_eq!(blob.body, "program");
        for (method, path) in [
            (Method::DELETE, path.as_str()),
            (Method::PUT, "/v2/cooperage/acr-cli/manifests/one"),
            (Method::POST, "/v2/cooperage/acr-cli/blobs/uploads/"),
            (Method::DELETE, "/acr/v1/cooperage/acr-cli"),
        ] {
            send(method, path, password).await.is_error(403, "DENIED");
        }
    }
    let nobody = registry.send(request(Method::GET, &path).body(Body::empty()).unwrap()).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    assert_eq!(registry.get("/acr/v1/_catalog").await.json(), json!({ "repositories": [] }), "it is nobody's content");
}

#[tokio::test]
async fn what_a_newer_program_replaced_is_forgotten_after_a_while() {
    let registry = TestRegistry::new();
    let (old, new) = (put(&registry, "old", "old program").await, put(&registry, "new", "new program").await);
    let tag = Tag::parse("new").unwrap();
    registry.service.forget_own_images(&tag).await.unwrap();
    assert!(registry.service.find_own_image(&Tag::parse("old").unwrap()).await.unwrap().is_some_and(|it| it == old));
    registry.clock.advance(std::time::Duration::from_secs(25 * 3600));
    registry.service.forget_own_images(&tag).await.unwrap();
    assert_eq!(registry.service.find_own_image(&Tag::parse("old").unwrap()).await.unwrap(), None);
    assert_eq!(registry.service.find_own_image(&tag).await.unwrap(), Some(new));
}
