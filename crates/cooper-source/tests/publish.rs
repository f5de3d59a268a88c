//! Tags for what a registry has, written to a registry on loopback that asks for a login.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cooper_source::git::{CredentialSource, GitCredential, NoCredentials};
use cooper_source::{Cidr, Egress, EgressOptions, EgressPolicy, Publish, PublishError, Published, publish};
use cooper_types::{Digest, Platform, RegistryName, RepositoryName, SecretString, Tag};
use serde_json::{Value, json};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const BASIC: &str = "basic yw5uonmzy3jlda==";

/// What it has by name or digest: media type and bytes.
type Manifests = BTreeMap<String, (String, Vec<u8>)>;

/// A registry of one repository, `a/b`. It gives a token for `ann`, and takes pushes with that alone.
struct TinyRegistry {
    name: RegistryName,
    has: Arc<Mutex<Manifests>>,
}

impl TinyRegistry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let has = Arc::new(Mutex::new(Manifests::new()));
        let (own, place) = (Arc::clone(&has), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&mut stream.unwrap(), &own, &place);
            }
        });
        Self { name: RegistryName::parse(&address).unwrap(), has }
    }

    fn holds(&self, media_type: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::sha256(&bytes);
        self.has.lock().unwrap().insert(digest.to_string(), (media_type.to_owned(), bytes));
        digest
    }

    async fn publish(&self, what: Publish<'_>, login: &dyn CredentialSource) -> Result<Published, PublishError> {
        let allow = vec![Cidr::parse("127.0.0.1").unwrap()];
        let egress = Egress::new(EgressOptions { policy: EgressPolicy { allow }, ..EgressOptions::default() });
        let repository = RepositoryName::parse("a/b").unwrap();
        publish(&egress, login, (&self.name, &repository), what, &Tag::parse("v1").unwrap()).await
    }

    fn tagged(&self) -> (String, Value) {
        let (media_type, bytes) = self.has.lock().unwrap()["v1"].clone();
        (media_type, serde_json::from_slice(&bytes).unwrap())
    }
}

fn answer(stream: &mut TcpStream, has: &Mutex<Manifests>, place: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() <= 2 {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(first) = lines.first().cloned() else { return };
    let header = |name: &str| {
        let lines = lines.iter().map(|line| line.to_ascii_lowercase());
        lines.filter_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned)).next().unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let mut parts = first.split(' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let (status, headers, body) = if let Some(query) = path.strip_prefix("/token?") {
        assert_eq!(query, "scope=repository%3Aa%2Fb%3Apull%2Cpush");
        let token = if header("authorization") == BASIC { "mine" } else { "nobody" };
        ("200 OK", String::new(), format!(r#"{{"token":"{token}"}}"#).into_bytes())
    } else if header("authorization").is_empty() {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{place}/token\"\r\n");
        ("401 Unauthorized", challenge, Vec::new())
    } else {
        let name = path.strip_prefix("/v2/a/b/manifests/").unwrap().to_owned();
        let mut has = has.lock().unwrap();
        match (method, has.get(&name)) {
            ("GET", Some((media_type, bytes))) => {
                ("200 OK", format!("Content-Type: {media_type}; charset=utf-8\r\n"), bytes.clone())
            }
            ("PUT", _) if header("authorization") == "bearer mine" => {
                has.insert(name, (header("content-type"), body));
                ("201 Created", String::new(), Vec::new())
            }
            ("PUT", _) => ("403 Forbidden", String::new(), br#"{"errors":[{"code":"DENIED"}]}"#.to_vec()),
            _ => ("404 Not Found", String::new(), br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec()),
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.into_bytes(), body].concat()).unwrap();
}

struct Ann;

#[async_trait]
impl CredentialSource for Ann {
    async fn for_host(&self, _: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Some(GitCredential { username: "ann".to_owned(), password: SecretString::new("s3cret".to_owned()) }))
    }
}

fn platform(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

#[tokio::test]
async fn an_index_names_each_platforms_manifest_in_order() {
    let registry = TinyRegistry::start();
    let docker = |name: &str| json!({ "schemaVersion": 2, "mediaType": DOCKER, "name": name });
    let arm = registry.holds(DOCKER, &docker("arm"));
    let amd = registry.holds(DOCKER, &docker("amd"));
    let parts = [(platform("linux/arm/v7"), arm.clone()), (platform("linux/amd64"), amd.clone())];
    let published = registry.publish(Publish::Index(&parts), &Ann).await.unwrap();
    let (media_type, index) = registry.tagged();
    assert_eq!(media_type, "application/vnd.docker.distribution.manifest.list.v2+json");
    let bytes = registry.has.lock().unwrap()["v1"].1.clone();
    assert_eq!((published.digest, published.size), (Digest::sha256(&bytes), bytes.len() as u64));
    let size = |name: &str| docker(name).to_string().len();
    let expect = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [
        { "mediaType": DOCKER, "digest": arm, "size": size("arm"),
          "platform": { "os": "linux", "architecture": "arm", "variant": "v7" } },
        { "mediaType": DOCKER, "digest": amd, "size": size("amd"), "platform": { "os": "linux", "architecture": "amd64" } },
    ] });
    assert_eq!(index, expect);
}

#[tokio::test]
async fn what_an_engine_pushed_as_an_index_is_not_nested() {
    let registry = TinyRegistry::start();
    let plain = registry.holds(OCI, &json!({ "schemaVersion": 2, "config": {} }));
    let entry = json!({ "mediaType": OCI, "digest": Digest::sha256(b"x"), "size": 1, "platform": { "os": "linux" } });
    let nested = registry.holds("application/vnd.oci.image.index.v1+json", &json!({ "manifests": [entry] }));
    let parts = [(platform("linux/amd64"), plain.clone()), (platform("linux/arm64"), nested)];
    registry.publish(Publish::Index(&parts), &Ann).await.unwrap();
    let (media_type, index) = registry.tagged();
    assert_eq!(media_type, "application/vnd.oci.image.index.v1+json");
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!((manifests.len(), &manifests[0]["digest"], &manifests[1]), (2, &json!(plain), &entry));
    assert_eq!(manifests[0]["mediaType"], OCI, "its registry says what it is");
}

#[tokio::test]
async fn a_manifest_gets_its_tag_as_it_is() {
    let registry = TinyRegistry::start();
    let manifest = json!({ "schemaVersion": 2, "mediaType": DOCKER, "x": [1, 2] });
    let digest = registry.holds(DOCKER, &manifest);
    let published = registry.publish(Publish::Manifest(&digest), &Ann).await.unwrap();
    assert_eq!((published.digest, registry.tagged()), (digest, (DOCKER.to_owned(), manifest)));
}

#[tokio::test]
async fn what_can_not_be_read_or_written_is_named() {
    let registry = TinyRegistry::start();
    let digest = registry.holds(DOCKER, &json!({ "schemaVersion": 2 }));
    let name = &registry.name;
    let refused = registry.publish(Publish::Manifest(&digest), &NoCredentials).await.unwrap_err();
    let expect =
        format!("{name}/a/b:v1 can't be written: `{name}` answers 403: {{\"errors\":[{{\"code\":\"DENIED\"}}]}}");
    assert_eq!((refused.to_string(), refused.is_transient()), (expect, false));
    let gone = Digest::sha256(b"gone");
    let missing = registry.publish(Publish::Manifest(&gone), &Ann).await.unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{name}/a/b@{gone} can't be read: `{name}` answers 404")), "{missing}");
    registry.has.lock().unwrap().insert(gone.to_string(), (DOCKER.to_owned(), b"{}".to_vec()));
    let forged = registry.publish(Publish::Manifest(&gone), &Ann).await.unwrap_err().to_string();
    assert!(forged.contains("has other bytes than its digest"), "{forged}");
}
