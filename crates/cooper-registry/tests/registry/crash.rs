//! Answered is stored: a process that takes pushes is killed again and again, and nothing that it answered with 201 is
//! missing or cut.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use cooper_blobs::FsBlobStore;
use cooper_registry::{RegistryOptions, RegistryParts, RegistryService, SigningKey, router};
use cooper_store::{Store, StoreOptions};
use cooper_types::{Digest, RegistryName, SecretBytes};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;

use crate::harness::{ADMIN, Answer, GRACE, OCI_MANIFEST, Tokens, basic, request};

/// Where the child process finds its data directory; absent in an ordinary run of the tests.
const DIRECTORY: &str = "COOPER_REGISTRY_CRASH_TEST_DIRECTORY";

#[test]
fn what_was_answered_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The last answer for each tag, and every manifest.
    let mut tags: BTreeMap<String, u64> = BTreeMap::new();
    let mut manifests: Vec<Digest> = Vec::new();
    for kill_after in [1, 5, 17, 9] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_takes_pushes_until_it_is_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(pushed) = line.strip_prefix("pushed ") else { continue };
            let [tag, number, digest] = pushed.split(' ').collect::<Vec<_>>().try_into().unwrap();
            tags.insert(tag.to_owned(), number.parse().unwrap());
            manifests.push(Digest::parse(digest).unwrap());
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= kill_after, "the child ended by itself");
        runtime.block_on(check(directory.path(), &tags, &manifests));
    }
}

async fn check(directory: &Path, tags: &BTreeMap<String, u64>, manifests: &[Digest]) {
    let (store, router) = open(directory).await;
    let get = async |path: &str| {
        let answer = send(&router, Method::GET, path, None, Vec::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        answer
    };
    for digest in manifests {
        let manifest = get(&format!("/v2/a/manifests/{digest}")).await;
        assert_eq!(Digest::sha256(&manifest.body), *digest);
        for blob in [&manifest.json()["config"], &manifest.json()["layers"][0]] {
            let digest = blob["digest"].as_str().unwrap();
            assert_eq!(Digest::sha256(&get(&format!("/v2/a/blobs/{digest}")).await.body).as_str(), digest);
        }
    }
    for (tag, number) in tags {
        let manifest = get(&format!("/v2/a/manifests/{tag}")).await.json();
        let found: u64 = manifest["annotations"]["number"].as_str().unwrap().parse().unwrap();
        assert!(found >= *number, "{tag} went back from {number} to {found}");
    }
    store.close().await.unwrap();
}

/// The other process of the test above; by itself it does nothing.
#[test]
fn child_takes_pushes_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "the test harness leaves a child no other argument")]
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (_store, router) = open(&directory).await;
        let workers: Vec<_> = (0..4).map(|worker| tokio::spawn(push_for_ever(router.clone(), worker))).collect();
        // Workers never end by themselves; one that panics ends the child, and the parent sees that.
        futures::future::select_all(workers).await.0.unwrap()
    });
}

async fn push_for_ever(router: Router, worker: usize) {
    let tag = format!("worker{worker}");
    let path = format!("/v2/a/manifests/{tag}");
    let seen = send(&router, Method::GET, &path, None, Vec::new()).await;
    let mut number = match seen.status {
        StatusCode::OK => seen.json()["annotations"]["number"].as_str().unwrap().parse::<u64>().unwrap(),
        _ => 0,
    };
    loop {
        number += 1;
        let config = push_whole(&router, format!("config {worker} {number}").into_bytes()).await;
        let layer = push_streamed(&router, format!("layer {worker} {number}").repeat(5000).into_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "config": { "digest": config }, "layers": [{ "digest": layer }],
            "annotations": { "number": number.to_string() },
        });
        let answer = send(&router, Method::PUT, &path, Some(OCI_MANIFEST), manifest.to_string().into_bytes()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        // One write: a line is whole or not there.
        let line = format!("pushed {tag} {number} {}\n", answer.header("docker-content-digest"));
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

async fn push_whole(router: &Router, content: Vec<u8>) -> Digest {
    let digest = Digest::sha256(&content);
    let answer = send(router, Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}"), None, content).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    digest
}

async fn push_streamed(router: &Router, content: Vec<u8>) -> Digest {
    let digest = Digest::sha256(&content);
    let begun = send(router, Method::POST, "/v2/a/blobs/uploads/", None, Vec::new()).await;
    let location = begun.header("location");
    let (head, tail) = content.split_at(content.len() / 2);
    let patched = send(router, Method::PATCH, location, None, head.to_vec()).await;
    assert_eq!(patched.status, StatusCode::ACCEPTED, "{patched:?}");
    let closed = send(router, Method::PUT, &format!("{location}?digest={digest}"), None, tail.to_vec()).await;
    assert_eq!(closed.status, StatusCode::CREATED, "{closed:?}");
    digest
}

/// A registry of files and rows in a directory, as the product has it.
async fn open(directory: &Path) -> (Store, Router) {
    let name = RegistryName::parse("registry.example:5000").unwrap();
    let options = StoreOptions { registry_name: name.clone(), clock: None };
    let store = Store::open(directory, options).await.unwrap();
    let parts = RegistryParts {
        blobs: Arc::new(FsBlobStore::open(directory).unwrap()),
        clock: store.clock().clone(),
        store: Arc::new(store.clone()),
        credentials: Arc::new(Tokens::new()),
        key: SigningKey::new(&SecretBytes::new(vec![7; 32])).unwrap(),
    };
    let service = RegistryService::new(parts, RegistryOptions { name, anonymous_pull: false, blob_grace: GRACE });
    (store, router(service))
}

async fn send(router: &Router, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = request(method, path).header(AUTHORIZATION, basic(ADMIN));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    Answer::read(response).await
}
