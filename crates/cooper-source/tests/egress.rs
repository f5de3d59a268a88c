//! Every way out of this crate, tried with private addresses, redirects, logins and a name that changes its mind.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use cooper_e2e::{FileServer, Follows, Trap};
use cooper_source::git::{self, NoCredentials};
use cooper_source::{
    Cidr, Egress, EgressOptions, EgressPolicy, FetchLimits, FetchRequest, FurtherFiles, Names, Publish, RemoteRequest,
    UnpackLimits, fetch_archive, fetch_artifact, publish, watch,
};
use cooper_spec::source::{GitSource, RemoteSource};
use cooper_types::{Digest, RegistryName, RepositoryName, Tag};
use tokio_util::sync::CancellationToken;

/// As the server and its agents make it, with the open side listed.
fn egress(trap: &Trap) -> Egress {
    let policy = EgressPolicy { allow: vec![Cidr::parse(Trap::OPEN).unwrap()] };
    Egress::new(EgressOptions { policy, names: Some(Names::new(trap.names())), ..EgressOptions::default() })
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn request(scratch: &tempfile::TempDir) -> RemoteRequest {
    RemoteRequest {
        dockerfile: None,
        files: Vec::new(),
        further: FurtherFiles::default(),
        scratch: scratch.path().to_owned(),
        unpack: UnpackLimits::default(),
        received: 1 << 20,
        named_file_len: 16,
    }
}

#[tokio::test]
#[should_panic(expected = "reached the inside")]
async fn who_may_go_inside_springs_the_trap() {
    let trap = Trap::start();
    let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.0/8").unwrap()] };
    let (names, idle_timeout) = (Some(Names::new(trap.names())), Duration::from_millis(50));
    let egress = Egress::new(EgressOptions { policy, names, idle_timeout, ..EgressOptions::default() });
    let (repository, tag) = (RepositoryName::parse("a/b").unwrap(), Tag::parse("v1").unwrap());
    let watch = async |host: &str| {
        let watched =
            watch(&egress, &NoCredentials, (&RegistryName::parse(host).unwrap(), &repository, &tag), None).await;
        chain(&watched.unwrap_err())
    };
    trap.try_way("watch", Follows::Redirects, "--allow-source", watch).await;
}

#[tokio::test]
async fn no_repository_leads_inside() {
    let trap = Trap::start();
    let egress = egress(&trap);
    let source = |host: &str| GitSource::parse(&format!("http://{host}/app.git#main")).unwrap();
    let fetch = async |host: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let request = FetchRequest {
            source: source(host),
            dockerfile: None,
            files: Vec::new(),
            further: FurtherFiles::default(),
            definition: None,
            scratch: scratch.path().to_owned(),
            limits: FetchLimits::default(),
        };
        let fetched = git::fetch(&egress, &NoCredentials, request, Arc::new(|_| {}), &CancellationToken::new()).await;
        fetched.err().map(|error| error.line()).unwrap()
    };
    trap.try_way("git fetch", Follows::Redirects, "--allow-source", fetch).await;
    let references = async |host: &str| {
        let listed = git::references(&egress, &NoCredentials, &source(host).url, &["refs/heads/"]).await;
        listed.err().map(|error| error.line()).unwrap()
    };
    trap.try_way("git references", Follows::Redirects, "--allow-source", references).await;
}

#[tokio::test]
async fn no_archive_leads_inside() {
    let trap = Trap::start();
    let egress = egress(&trap);
    let fetch = async |host: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let source = RemoteSource::parse(&format!("http://{host}/context.tar.gz")).unwrap();
        let RemoteSource::Archive(source) = source else { panic!("{source}") };
        let fetched = fetch_archive(&egress, &NoCredentials, &source, request(&scratch), &|_| {}).await;
        fetched.err().map(|error| error.line()).unwrap()
    };
    trap.try_way("archive", Follows::Redirects, "--allow-source", fetch).await;
}

#[tokio::test]
async fn no_registry_leads_inside() {
    let trap = Trap::start();
    let egress = egress(&trap);
    let repository = RepositoryName::parse("a/b").unwrap();
    let tag = Tag::parse("v1").unwrap();
    let artifact = async |host: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let source = RemoteSource::parse(&format!("oci://{host}/a/b:v1")).unwrap();
        let RemoteSource::Artifact(source) = source else { panic!("{source}") };
        let fetched = fetch_artifact(&egress, &NoCredentials, &source, request(&scratch), &|_| {}).await;
        fetched.err().map(|error| error.line()).unwrap()
    };
    trap.try_way("artifact", Follows::Redirects, "--allow-source", artifact).await;
    trap.try_logins("artifact", "--allow-source", artifact).await;
    let watch = async |host: &str| {
        let name = RegistryName::parse(host).unwrap();
        let watched = watch(&egress, &NoCredentials, (&name, &repository, &tag), None).await;
        chain(&watched.unwrap_err())
    };
    trap.try_way("watch", Follows::Redirects, "--allow-source", watch).await;
    trap.try_logins("watch", "--allow-source", watch).await;
    let digest = Digest::sha256(b"manifest");
    let publish = async |host: &str| {
        let name = RegistryName::parse(host).unwrap();
        let what = Publish::Manifest(&digest);
        let published = publish(&egress, &NoCredentials, (&name, &repository), what, &tag).await;
        chain(&published.unwrap_err())
    };
    trap.try_way("publish", Follows::Redirects, "--allow-source", publish).await;
    trap.try_logins("publish", "--allow-source", publish).await;
}

/// An artifact's manifest, of one layer.
fn manifest() -> Vec<u8> {
    let layer = Digest::sha256(b"layer");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"x/y","digest":"{layer}","size":5}},"layers":[{{"mediaType":"{tar}","digest":"{layer}","size":5}}]}}"#
    )
    .into_bytes()
}

#[tokio::test]
async fn no_second_answer_leads_inside() {
    let trap = Trap::start();
    let egress = egress(&trap);
    let source = |host: &str| GitSource::parse(&format!("http://{host}/app.git#main")).unwrap();
    let advertised = |path: &str, _: &str| {
        path.starts_with("/app.git/info/refs").then(|| {
            let lines = ["version 2\n", "ls-refs\n", "fetch=shallow\n", "object-format=sha1\n"];
            let lines = lines.map(|line| format!("{:04x}{line}", line.len() + 4)).concat();
            let body = format!("001e# service=git-upload-pack\n0000{lines}0000");
            let kind = "Content-Type: application/x-git-upload-pack-advertisement";
            FileServer::answer("200 OK", &[kind], body.as_bytes())
        })
    };
    let references = async |host: &str| {
        let listed = git::references(&egress, &NoCredentials, &source(host).url, &["refs/heads/"]).await;
        listed.err().map(|error| error.line()).unwrap()
    };
    trap.try_later("git references", "--allow-source", advertised, references).await;

    let (repository, tag) = (RepositoryName::parse("a/b").unwrap(), Tag::parse("v1").unwrap());
    let has_manifest = |path: &str, head: &str| {
        let is_it = path.starts_with("/v2/a/b/manifests/") && head.starts_with("GET ");
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        is_it.then(|| FileServer::answer("200 OK", &[kind], &manifest()))
    };
    let artifact = async |host: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let source = RemoteSource::parse(&format!("oci://{host}/a/b:v1")).unwrap();
        let RemoteSource::Artifact(source) = source else { panic!("{source}") };
        let fetched = fetch_artifact(&egress, &NoCredentials, &source, request(&scratch), &|_| {}).await;
        fetched.err().map(|error| error.line()).unwrap()
    };
    trap.try_later("artifact's layer", "--allow-source", has_manifest, artifact).await;
    let digest = Digest::sha256(&manifest());
    let publish = async |host: &str| {
        let name = RegistryName::parse(host).unwrap();
        let what = Publish::Manifest(&digest);
        let published = publish(&egress, &NoCredentials, (&name, &repository), what, &tag).await;
        chain(&published.unwrap_err())
    };
    trap.try_later("publish", "--allow-source", has_manifest, publish).await;
}
