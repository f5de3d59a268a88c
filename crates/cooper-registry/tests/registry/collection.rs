//! Collection while pushes go on, on files and a real database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use cooper_blobs::FsBlobStore;
use cooper_ports::clock::ManualClock;
use cooper_registry::{Collected, RegistryOptions, RegistryParts, RegistryService, SigningKey, router};
use cooper_store::{Store, StoreOptions};
use cooper_types::{Digest, RegistryName, SecretBytes, Timestamp};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::RwLock;
use tower::ServiceExt as _;

use crate::harness::{ADMIN, Answer, GRACE, OCI_MANIFEST, READER, TestRegistry, Tokens, basic, request};

#[tokio::test]
async fn a_blob_goes_when_nothing_refers_to_it_and_nobody_has_used_it() {
    let registry = TestRegistry::new();
    let manifest = registry.push_image_blobs("a", "layer").await;
    let answer = registry.put_manifest("/v2/a/manifests/v1", &basic(ADMIN), &manifest).await;
    let digest = answer.header("docker-content-digest").to_owned();
    let (layer, config) = (Digest::sha256(b"layer"), Digest::sha256(b"{}"));
    let (asked, unused) = (registry.push_blob("a", b"asked for").await, registry.push_blob("a", b"unused").await);
    let asked_by_reader = registry.push_blob("a", b"asked for by a reader").await;
    let collect = async || registry.service.collect(|| true, || true).await.unwrap();
    assert_eq!(collect().await, Collected::default());

    registry.clock.advance(GRACE * 3 / 4);
    let head = async |digest: &Digest, password| {
        let request = request(Method::HEAD, &format!("/v2/a/blobs/{digest}")).header(AUTHORIZATION, basic(password));
        registry.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(head(&asked, ADMIN).await, StatusCode::OK);
    // Clients ask before they log in as who they push as.
    assert_eq!(head(&asked_by_reader, READER).await, StatusCode::OK);
    registry.clock.advance(GRACE / 2);
    assert_eq!(collect().await, Collected { unfinished: 0, released: 1, strays: 0, removed: 1 });
    assert!(registry.blob_file(&asked).exists() && registry.blob_file(&asked_by_reader).exists());
    assert!(!registry.blob_file(&unused).exists());
    assert_eq!(head(&unused, ADMIN).await, StatusCode::NOT_FOUND);

    registry.clock.advance(GRACE);
    assert_eq!(collect().await, Collected { unfinished: 0, released: 2, strays: 0, removed: 2 });
    assert!(registry.blob_file(&layer).exists() && registry.blob_file(&config).exists(), "the image is whole");
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.admin(Method::DELETE, &path, Body::empty()).await.status, StatusCode::ACCEPTED);
    assert_eq!(collect().await, Collected::default(), "who pulls it now gets to its end");
    registry.clock.advance(GRACE + Duration::from_secs(1));
    assert_eq!(collect().await, Collected { unfinished: 0, released: 2, strays: 0, removed: 2 });
    assert!(!registry.blob_file(&layer).exists() && !registry.blob_file(&config).exists());
}

#[tokio::test]
async fn a_copy_of_the_store_keeps_the_files_and_an_upload_saves_one() {
    let registry = TestRegistry::new();
    let (one, two) = (registry.push_blob("a", b"one").await, registry.push_blob("a", b"two").await);
    registry.clock.advance(GRACE * 2);
    let collected = registry.service.collect(|| true, || false).await.unwrap();
    assert_eq!(collected, Collected { unfinished: 0, released: 2, strays: 0, removed: 0 });
    assert!(registry.blob_file(&one).exists() && registry.blob_file(&two).exists());
    registry.get(&format!("/v2/a/blobs/{one}")).await.is_error(404, "BLOB_UNKNOWN");
    registry.push_blob("b", b"one").await;
    assert_eq!(
        registry.service.collect(|| true, || true).await.unwrap(),
        Collected { unfinished: 0, released: 0, strays: 0, removed: 1 }
    );
    assert!(!registry.blob_file(&two).exists());
    assert_eq!(registry.get(&format!("/v2/b/blobs/{one}")).await.body, "one");
}

#[tokio::test]
async fn files_without_rows_are_found() {
    let registry = TestRegistry::new();
    let kept = registry.push_blob("a", b"kept").await;
    let stray = Digest::sha256(b"stray");
    for (digest, content, age) in [(&kept, "kept", GRACE * 2), (&stray, "stray", GRACE * 2)] {
        std::fs::write(registry.blob_file(digest), content).unwrap();
        let file = std::fs::File::options().write(true).open(registry.blob_file(digest)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - age).unwrap();
    }
    let young = Digest::sha256(b"young");
    std::fs::write(registry.blob_file(&young), "young").unwrap();
    let mut all = Collected::default();
    for _ in 0..cooper_ports::blobs::SURVEY_PARTS {
        let collected = registry.service.collect(|| true, || true).await.unwrap();
        all.strays += collected.strays;
        all.removed += collected.removed;
    }
    assert_eq!(all, Collected { unfinished: 0, released: 0, strays: 1, removed: 1 });
    assert!(!registry.blob_file(&stray).exists());
    assert!(registry.blob_file(&kept).exists() && registry.blob_file(&young).exists());
}

/// Pushers of a few blobs that come and go, deletion of what they push, a collection that never rests, and a clock by which every
/// blob is old at the beginning of a push: everything that can meet does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_collections_go_on_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let name = RegistryName::parse("registry.example:5000").unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
    let options = StoreOptions { registry_name: name.clone(), clock: Some(clock.clone()) };
    let store = Store::open(directory.path(), options).await.unwrap();
    let parts = RegistryParts {
        blobs: Arc::new(FsBlobStore::open(directory.path()).unwrap()),
        clock: store.clock().clone(),
        store: Arc::new(store.clone()),
        credentials: Arc::new(Tokens::new()),
        key: SigningKey::new(&SecretBytes::new(vec![7; 32])).unwrap(),
    };
    let service = RegistryService::new(parts, RegistryOptions { name, anonymous_pull: false, blob_grace: GRACE });
    let over = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (service, over) = (service.clone(), over.clone());
        async move {
            let mut all = Collected::default();
            while !over.load(Ordering::Relaxed) {
                let collected = service.collect(|| true, || true).await.unwrap();
                all.released += collected.released;
                all.removed += collected.removed;
                tokio::task::yield_now().await;
            }
            all
        }
    });
    // Held by who pushes: no push takes longer than the grace.
    let pushing = Arc::new(RwLock::new(()));
    let ticking = tokio::spawn({
        let (clock, pushing, over) = (clock.clone(), pushing.clone(), over.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let nobody_pushes = pushing.write().await;
                clock.advance(GRACE * 2);
                drop(nobody_pushes);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    });
    let app = router(service.clone());
    let pushers = (0..6_u64).map(|pusher| tokio::spawn(push_and_delete(app.clone(), pushing.clone(), pusher)));
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let collected = collector.await.unwrap();
    ticking.await.unwrap();
    assert!(collected.removed > 0, "nothing was collected: {collected:?}");
    // What has no manifest goes, and nothing else is left.
    clock.advance(GRACE * 2);
    service.collect(|| true, || true).await.unwrap();
    let mut held = std::collections::BTreeSet::new();
    for pusher in 0..6 {
        let answer = send(&app, Method::GET, &format!("/v2/r{pusher}/manifests/last"), None, Vec::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        for blob in [&answer.json()["config"], &answer.json()["layers"][0], &answer.json()["layers"][1]] {
            let digest = blob["digest"].as_str().unwrap();
            let blob = send(&app, Method::GET, &format!("/v2/r{pusher}/blobs/{digest}"), None, Vec::new()).await;
            assert_eq!(Digest::sha256(&blob.body).as_str(), digest);
            held.insert(digest.to_owned());
        }
    }
    let mut files = 0;
    for part in 0..=u8::MAX {
        files += std::fs::read_dir(directory.path().join(format!("blobs/sha256/{part:02x}"))).unwrap().count();
    }
    assert_eq!(files, held.len());
    store.close().await.unwrap();
}

/// How many images each pusher pushes.
const ROUNDS: u64 = 20;

/// Pushes images as clients do: asks for each blob, uploads what is not there, and puts the manifest; what was answered is
/// there, and what was deleted is not missed.
async fn push_and_delete(app: Router, pushing: Arc<RwLock<()>>, pusher: u64) {
    for round in 0..ROUNDS {
        let this_push = pushing.read().await;
        let repository = format!("r{pusher}");
        // Few enough that pushers meet at them, in repositories of their own.
        let blobs = [
            format!("config {}", round % 3).into_bytes(),
            format!("layer {}", (pusher + round) % 5).repeat(100).into_bytes(),
            format!("own layer {pusher} {}", round % 2).repeat(100).into_bytes(),
        ];
        for blob in &blobs {
            let digest = Digest::sha256(blob);
            let head = send(&app, Method::HEAD, &format!("/v2/{repository}/blobs/{digest}"), None, Vec::new()).await;
            if head.status == StatusCode::NOT_FOUND {
                let from = format!("r{}", (pusher + 1) % 6);
                let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
                let begun = send(&app, Method::POST, &path, None, Vec::new()).await;
                if begun.status == StatusCode::ACCEPTED {
                    let path = format!("{}?digest={digest}", begun.header("location"));
                    let done = send(&app, Method::PUT, &path, None, blob.clone()).await;
                    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
                } else {
                    assert_eq!(begun.status, StatusCode::CREATED, "{begun:?}");
                }
            } else {
                assert_eq!(head.status, StatusCode::OK);
            }
        }
        let digests = blobs.each_ref().map(|blob| Digest::sha256(blob));
        let manifest = json!({
            "schemaVersion": 2, "config": { "digest": digests[0] },
            "layers": [{ "digest": digests[1] }, { "digest": digests[2] }],
            "annotations": { "round": format!("{pusher} {round}") },
        });
        let path = format!("/v2/{repository}/manifests/last");
        let put = send(&app, Method::PUT, &path, Some(OCI_MANIFEST), manifest.to_string().into_bytes()).await;
        assert_eq!(put.status, StatusCode::CREATED, "{put:?}");
        for (digest, blob) in digests.iter().zip(&blobs) {
            let got = send(&app, Method::GET, &format!("/v2/{repository}/blobs/{digest}"), None, Vec::new()).await;
            assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &blob[..]));
        }
        drop(this_push);
        if round < ROUNDS - 1 {
            let digest = put.header("docker-content-digest");
            let path = format!("/v2/{repository}/manifests/{digest}");
            let deleted = send(&app, Method::DELETE, &path, None, Vec::new()).await;
            assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
        }
    }
}

async fn send(router: &Router, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = request(method, path).header(AUTHORIZATION, basic(ADMIN));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    Answer::read(response).await
}
