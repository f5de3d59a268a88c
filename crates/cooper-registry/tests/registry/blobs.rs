//! Blobs: every form of upload, ranges, mounts, and what happens to uploads that fail.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cooper_ports::blobs::UploadId;
use cooper_ports::registry::{MAX_OPEN_UPLOADS, RegistryStore as _, UPLOAD_LIFETIME, Upload, Writer};
use cooper_registry::{SweepError, Swept};
use cooper_types::{Digest, DigestAlgorithm, Hasher, PrincipalName, RepositoryName};
use futures::FutureExt as _;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use tower::ServiceExt as _;

use crate::harness::{ADMIN, Answer, READER, TEAM, TestRegistry, basic, request};

async fn begin(registry: &TestRegistry, repository: &str) -> String {
    let answer = registry.admin(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), Body::empty()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.header("range"), "0-0");
    assert!(!answer.header("docker-upload-uuid").is_empty());
    answer.header("location").to_owned()
}

async fn chunk(registry: &TestRegistry, method: Method, path: &str, range: &str, content: &'static str) -> Answer {
    let request = request(method, path).header(AUTHORIZATION, basic(ADMIN)).header("content-range", range);
    let request = request.header("content-length", content.len());
    registry.send(request.body(Body::from(content)).unwrap()).await
}

async fn check_blob(registry: &TestRegistry, repository: &str, content: &[u8]) {
    let path = format!("/v2/{repository}/blobs/{}", Digest::sha256(content));
    for method in [Method::HEAD, Method::GET] {
        let answer = registry.admin(method.clone(), &path, Body::empty()).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("content-length"), content.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), Digest::sha256(content).as_str());
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        assert_eq!(answer.body, if method == Method::GET { Bytes::copy_from_slice(content) } else { Bytes::new() });
    }
}

#[tokio::test]
async fn a_streamed_upload_becomes_a_blob() {
    let registry = TestRegistry::new();
    let location = begin(&registry, "team/app").await;
    let answer = registry.admin(Method::PATCH, &location, "hello ").await;
    assert_eq!((answer.status, answer.header("range")), (StatusCode::ACCEPTED, "0-5"));
    let answer = registry.admin(Method::PATCH, &location, "world").await;
    assert_eq!((answer.status, answer.header("range")), (StatusCode::ACCEPTED, "0-10"));
    let digest = Digest::sha256(b"hello world");
    let answer = registry.admin(Method::PUT, &format!("{location}?digest={digest}"), Body::empty()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("location"), format!("/v2/team/app/blobs/{digest}"));
    check_blob(&registry, "team/app", b"hello world").await;
    registry.get(&location).await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get(&format!("/v2/team/other/blobs/{digest}")).await.is_error(404, "BLOB_UNKNOWN");
    assert_eq!(registry.upload_files(), 0);
}

#[tokio::test]
async fn chunks_must_come_in_order() {
    let registry = TestRegistry::new();
    let location = begin(&registry, "a").await;
    assert_eq!(chunk(&registry, Method::PATCH, &location, "0-2", "hel").await.status, StatusCode::ACCEPTED);
    let digest = Digest::sha256(b"hello");
    let close = format!("{location}?digest={digest}");
    for (method, path) in [(Method::PATCH, &location), (Method::PUT, &close)] {
        for range in ["0-1", "4-5", "2-3"] {
            let answer = chunk(&registry, method.clone(), path, range, "lo").await;
            answer.is_error(416, "BLOB_UPLOAD_INVALID");
            assert_eq!((answer.header("location"), answer.header("range")), (location.as_str(), "0-2"));
        }
        for range in ["3-5", "3-3", "bytes 3-4/5", "x"] {
            chunk(&registry, method.clone(), path, range, "lo").await.is_error(400, "BLOB_UPLOAD_INVALID");
        }
    }
    let status = registry.get(&location).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-2"));
    assert_eq!(status.header("location"), location);
    assert_eq!(chunk(&registry, Method::PUT, &close, "3-4", "lo").await.status, StatusCode::CREATED);
    check_blob(&registry, "a", b"hello").await;
}

#[tokio::test]
async fn a_body_that_is_not_its_range_is_taken_back() {
    let registry = TestRegistry::new();
    let location = begin(&registry, "a").await;
    // Without a Content-Length, as over HTTP/2, only counting tells.
    let request = request(Method::PATCH, &location).header(AUTHORIZATION, basic(ADMIN)).header("content-range", "0-9");
    let body = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>("short")]));
    registry.send(request.body(body).unwrap()).await.is_error(400, "SIZE_INVALID");
    assert_eq!(registry.get(&location).await.header("range"), "0-0");
    assert_eq!(chunk(&registry, Method::PATCH, &location, "0-2", "abc").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn one_request_is_enough_and_all_sizes_and_algorithms_work() {
    let registry = TestRegistry::new();
    let large = vec![42; 3_000_000];
    for content in [b"".as_slice(), b"{}", &large] {
        registry.push_blob("a", content).await;
        registry.push_blob("a", content).await;
        check_blob(&registry, "a", content).await;
        let location = begin(&registry, "b").await;
        let close = format!("{location}?digest={}", Digest::sha256(content));
        assert_eq!(registry.admin(Method::PUT, &close, content.to_vec()).await.status, StatusCode::CREATED);
        check_blob(&registry, "b", content).await;
    }
    let mut hasher = Hasher::new(DigestAlgorithm::Sha512);
    hasher.update(b"512");
    let digest = hasher.finish();
    let answer = registry.admin(Method::POST, &format!("/v2/a/blobs/uploads/?digest={digest}"), "512").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).await.body, "512");
}

#[tokio::test]
async fn wrong_digests_are_refused_on_every_way() {
    let registry = TestRegistry::new();
    let other = Digest::sha256(b"other");
    let answer = registry.admin(Method::POST, &format!("/v2/a/blobs/uploads/?digest={other}"), "hello").await;
    answer.is_error(400, "DIGEST_INVALID");
    let bad = registry.admin(Method::POST, "/v2/a/blobs/uploads/?digest=sha256:bad", "hello").await;
    bad.is_error(400, "DIGEST_INVALID");
    let location = begin(&registry, "a").await;
    registry.admin(Method::PUT, &location, "hello").await.is_error(400, "DIGEST_INVALID");
    registry.admin(Method::PUT, &format!("{location}?digest=md5:0"), "hello").await.is_error(400, "DIGEST_INVALID");
    registry.admin(Method::PUT, &format!("{location}?digest={other}"), "hello").await.is_error(400, "DIGEST_INVALID");
    registry.get(&location).await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get("/v2/a/blobs/sha256:bad").await.is_error(400, "DIGEST_INVALID");
    registry.get(&format!("/v2/a/blobs/{other}")).await.is_error(404, "BLOB_UNKNOWN");
    assert_eq!(registry.upload_files(), 0);
}

#[tokio::test]
async fn ranges_of_a_blob() {
    let registry = TestRegistry::new();
    let content: Vec<u8> = (0..2000u32).map(|i| (i % 256) as u8).collect();
    let digest = registry.push_blob("a", &content).await;
    let path = format!("/v2/a/blobs/{digest}");
    let ask = async |range: &str, tag: Option<&str>| {
        let mut request = request(Method::GET, &path).header(AUTHORIZATION, basic(READER)).header("range", range);
        if let Some(tag) = tag {
            request = request.header("if-range", tag);
        }
        registry.send(request.body(Body::empty()).unwrap()).await
    };
    for (range, part) in [
        ("bytes=500-1499", 500..1500),
        ("bytes=500-", 500..2000),
        ("bytes=-500", 1500..2000),
        ("bytes=1500-5000", 1500..2000),
    ] {
        let answer = ask(range, None).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/2000", part.start, part.end - 1));
        assert_eq!(answer.header("content-length"), part.len().to_string());
        assert_eq!(answer.body, content[part]);
    }
    for range in ["bytes=5000-10000", "bytes=500-0"] {
        let answer = ask(range, None).await;
        assert_eq!(answer.is_error(416, "SIZE_INVALID").header("content-range"), "bytes */2000");
    }
    assert_eq!(ask("bytes=0-1,4-5", None).await.body, content, "several ranges are answered with all");
    assert_eq!(ask("bytes=0-1", Some("\"other\"")).await.body, content, "a range of something else too");
    assert_eq!(ask("bytes=0-1", Some(&format!("\"{digest}\""))).await.body, content[..2]);
}

#[tokio::test]
async fn mounts_need_the_right_to_pull() {
    let registry = TestRegistry::new();
    let digest = registry.push_blob("secret", b"layer").await;
    registry.push_blob("team/base", b"layer").await;
    let mount = async |password: &str, from: &str| {
        let path = format!("/v2/team/app/blobs/uploads/?mount={digest}{from}");
        let request = request(Method::POST, &path).header(AUTHORIZATION, basic(password));
        registry.send(request.body(Body::empty()).unwrap()).await
    };
    for from in ["&from=secret", "&from=team/none", "&from=NOT", ""] {
        let answer = mount(TEAM, from).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{from}: the client uploads instead");
        assert!(answer.header("location").starts_with("/v2/team/app/blobs/uploads/"));
    }
    registry.get(&format!("/v2/team/app/blobs/{digest}")).await.is_error(404, "BLOB_UNKNOWN");
    let answer = mount(TEAM, "&from=team/base").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("location"), format!("/v2/team/app/blobs/{digest}"));
    check_blob(&registry, "team/app", b"layer").await;
}

#[tokio::test]
async fn an_upload_is_its_beginner_s_and_its_repository_s() {
    let registry = TestRegistry::new();
    let location = begin(&registry, "team/app").await;
    let other = request(Method::PATCH, &location).header(AUTHORIZATION, basic(TEAM)).body(Body::from("x")).unwrap();
    registry.send(other).await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    let moved = location.replace("team/app", "team/other");
    registry.admin(Method::PATCH, &moved, "x").await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    let cancelled = registry.admin(Method::DELETE, &location, Body::empty()).await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    registry.admin(Method::PATCH, &location, "x").await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.upload_files(), 0);
}

#[tokio::test]
async fn a_push_goes_to_its_end_without_its_client() {
    let registry = TestRegistry::new();
    let digest = Digest::sha256(b"hello");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let request = request(Method::POST, &path).header(AUTHORIZATION, basic(ADMIN)).body(Body::from("hello")).unwrap();
    let abandoned = registry.router.clone().oneshot(request).now_or_never();
    assert!(abandoned.is_none(), "the client leaves before the answer");
    registry.service.finished().await;
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).await.body, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_push_the_same_blob_at_once_all_succeed() {
    let registry = TestRegistry::new();
    let content = vec![9; 1_500_000];
    let pushes = (0..16).map(|i| {
        let repository = if i % 2 == 0 { "a" } else { "b" };
        let content = &content;
        let registry = &registry;
        async move { registry.push_blob(repository, content).await }
    });
    futures::future::join_all(pushes).await;
    check_blob(&registry, "a", &content).await;
    check_blob(&registry, "b", &content).await;
    assert_eq!(registry.upload_files(), 0);
}

#[tokio::test]
async fn a_blob_whose_file_was_lost_is_pushed_again() {
    let registry = TestRegistry::new();
    let digest = registry.push_blob("a", b"hello").await;
    let path = format!("/v2/a/blobs/{digest}");
    for damage in [|file: &Path| std::fs::remove_file(file), |file: &Path| std::fs::write(file, "hel")] {
        damage(&registry.blob_file(&digest)).unwrap();
        for method in [Method::HEAD, Method::GET] {
            let answer = registry.admin(method, &path, Body::empty()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{answer:?}");
        }
        let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
        assert_eq!(registry.admin(Method::POST, &mount, Body::empty()).await.status, StatusCode::ACCEPTED);
        registry.push_blob("a", b"hello").await;
        check_blob(&registry, "a", b"hello").await;
    }
}

#[tokio::test]
async fn uploads_that_nobody_finishes_are_swept() {
    let registry = TestRegistry::new();
    let location = begin(&registry, "a").await;
    registry.admin(Method::PATCH, &location, "hello").await;
    assert_eq!(registry.service.sweep().await.unwrap(), Swept::default());
    registry.clock.advance(UPLOAD_LIFETIME + Duration::from_secs(1));
    assert_eq!(registry.service.sweep().await.unwrap(), Swept { uploads: 1, staged_tags: 0 });
    registry.get(&location).await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.upload_files(), 0);
}

#[tokio::test]
async fn an_upload_that_can_t_be_removed_keeps_no_other() {
    let registry = TestRegistry::new();
    for _ in 0..300 {
        begin(&registry, "a").await;
    }
    let stuck = registry.some_upload_file();
    std::fs::remove_file(&stuck).unwrap();
    std::fs::create_dir(&stuck).unwrap();
    registry.clock.advance(UPLOAD_LIFETIME + Duration::from_secs(1));
    assert!(matches!(registry.service.sweep().await, Err(SweepError::Upload(_))));
    assert_eq!(registry.upload_files(), 1);
    std::fs::remove_dir(&stuck).unwrap();
    assert_eq!(registry.service.sweep().await.unwrap(), Swept { uploads: 1, staged_tags: 0 });
}

#[tokio::test]
async fn nobody_begins_uploads_without_end() {
    let registry = TestRegistry::new();
    let writer = Writer { principal: PrincipalName::parse("admin").unwrap(), attempt: None };
    for id in 0..MAX_OPEN_UPLOADS {
        let repository = RepositoryName::parse("a").unwrap();
        let upload = Upload { id: UploadId::from_bits(id as u128), repository, writer: writer.clone() };
        registry.store.begin_upload(&upload).await.unwrap();
    }
    let refused = registry.admin(Method::POST, "/v2/a/blobs/uploads/", "").await;
    refused.is_error(429, "TOOMANYREQUESTS");
    assert_eq!(registry.upload_files(), 0);
    registry.clock.advance(UPLOAD_LIFETIME);
    begin(&registry, "a").await;
}

/// A file system of 4 MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(directory.path());
        let mounted = mount.status().expect("mount runs");
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root, as `cargo xtask test` does");
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failing test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let disk = SmallDisk::mount();
    let registry = TestRegistry::in_directory(disk.0.path().to_owned());
    let large = vec![1; 8 * 1024 * 1024];
    let files = || std::fs::read_dir(disk.0.path().join("uploads")).unwrap().count();

    let location = begin(&registry, "a").await;
    let full = registry.admin(Method::PATCH, &location, large.clone()).await;
    full.is_error(507, "UNAVAILABLE");
    assert!(full.json()["errors"][0]["message"].as_str().unwrap().contains("storage is full"));
    registry.get(&location).await.is_error(404, "BLOB_UPLOAD_UNKNOWN");
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(&large));
    registry.admin(Method::POST, &path, large).await.is_error(507, "UNAVAILABLE");
    assert_eq!(files(), 0, "the space is free again");
    registry.push_blob("a", &vec![1; 1024 * 1024]).await;
}
