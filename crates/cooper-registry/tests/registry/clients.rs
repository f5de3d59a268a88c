//! Real clients against the registry on a socket: docker, skopeo, podman and curl push and pull what the others pushed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cooper_blobs::FsBlobStore;
use cooper_ports::clock::{Clock, ManualClock};
use cooper_ports::registry::{MemRegistryStore, RegistryStore, StagedTarget};
use cooper_registry::{AttemptCredential, RegistryOptions, RegistryParts, RegistryService, SigningKey, router};
use cooper_store::{Store, StoreOptions};
use cooper_types::{
    AttemptNumber, Digest, PrincipalName, RegistryName, RepositoryName, RunId, SecretBytes, StepId, Tag, Timestamp,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::harness::{ADMIN, GRACE, OCI_INDEX, OCI_MANIFEST, READER, Tokens};

/// A registry on a port of the loopback interface.
struct Served {
    address: String,
    key: SigningKey,
    directory: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    /// A registry with rows in SQLite, as the product has it.
    async fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry_name = RegistryName::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let data = directory.path().join("data");
        let store = Store::open(&data, StoreOptions { registry_name, clock: None }).await.unwrap();
        let clock = store.clock().clone();
        Self::start(listener, directory, Arc::new(store), clock)
    }

    /// A registry with rows in memory, where a test can promote tags by hand.
    async fn in_memory() -> (Self, Arc<MemRegistryStore>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = Arc::new(MemRegistryStore::new(clock.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Self::start(listener, tempfile::tempdir().unwrap(), store.clone(), clock), store)
    }

    fn start(
        listener: TcpListener,
        directory: tempfile::TempDir,
        store: Arc<dyn RegistryStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let files = directory.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let key = SigningKey::new(&SecretBytes::new(vec![7; 32])).unwrap();
        let parts = RegistryParts {
            blobs: Arc::new(FsBlobStore::open(&files).unwrap()),
            store,
            credentials: Arc::new(Tokens::new()),
            clock,
            key: key.clone(),
        };
        let options =
            RegistryOptions { name: RegistryName::parse(&address).unwrap(), anonymous_pull: false, blob_grace: GRACE };
        let router = router(RegistryService::new(parts, options));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, key, directory, server }
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs docker with a configuration of its own.
    async fn docker(&self, user: &str, arguments: &[&str], input: &[u8]) -> Outcome {
        let config = self.path(&format!("docker-{user}"));
        let mut all = vec!["--config".into(), config.into_os_string()];
        all.extend(arguments.iter().map(Into::into));
        run("docker", &all, input).await
    }

    async fn docker_login(&self, user: &str, password: &str) -> Outcome {
        self.docker(user, &["login", "-u", user, "--password-stdin", &self.address], password.as_bytes()).await
    }

    /// Runs skopeo with a password for this registry, which is the source or the destination or both.
    async fn skopeo(&self, password: &str, arguments: &[&str]) -> Outcome {
        let auth = self.path("skopeo-auth.json");
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("any:{password}"));
        let document = json!({ "auths": { &self.address: { "auth": encoded } } });
        std::fs::write(&auth, document.to_string()).unwrap();
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.extend([OsStr::new("--authfile"), auth.as_os_str()]);
        run("skopeo", &all, b"").await
    }

    /// The manifest of an image, as the reader sees it.
    async fn inspect(&self, name: &str) -> Outcome {
        let image = format!("docker://{}", self.reference(name));
        self.skopeo(READER, &["inspect", "--raw", "--tls-verify=false", &image]).await
    }

    async fn podman(&self, arguments: &[&str]) -> Outcome {
        let (root, state) = (self.path("podman-root"), self.path("podman-state"));
        let mut all: Vec<&OsStr> = vec!["--root".as_ref(), root.as_ref(), "--runroot".as_ref(), state.as_ref()];
        all.extend(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"].map(OsStr::new));
        all.extend(arguments.iter().map(OsStr::new));
        run("podman", &all, b"").await
    }
}

/// How a command ended.
#[derive(Debug)]
struct Outcome {
    command: String,
    success: bool,
    stdout: Vec<u8>,
    stderr: String,
}

impl Outcome {
    #[track_caller]
    fn succeeds(self) -> Self {
        assert!(self.success, "{} failed: {}", self.command, self.stderr);
        self
    }

    /// Checks that it failed and said so in words that hold one of `words`.
    #[track_caller]
    fn fails_with(self, words: &[&str]) {
        assert!(!self.success, "{} succeeded", self.command);
        let said = self.stderr.to_lowercase();
        assert!(words.iter().any(|word| said.contains(word)), "{} said: {}", self.command, self.stderr);
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }
}

async fn run(program: &str, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Outcome {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("`{program}` does not run ({error}); `cargo xtask test` installs what the tests need")
    });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(600), child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("`{program}` hung")).unwrap();
    let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
    Outcome {
        command: format!("{program} {}", shown.join(" ")),
        success: output.status.success(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An image in the engine, removed at the end whatever happens.
struct EngineImage(Vec<String>);

impl EngineImage {
    /// Makes an image of one small file that no other image has.
    async fn make(reference: &str) -> Self {
        let about = run("docker", &["version", "--format", "{{.Server.Version}}"], b"").await;
        assert!(
            about.success,
            "no container engine answers ({}); `cargo xtask test` installs and starts one",
            about.stderr.trim()
        );
        let image = Self(vec![reference.to_owned()]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), format!("content of {reference}")).unwrap();
        let archive = run("tar", &["-c", "-C", directory.path().to_str().unwrap(), "file"], b"").await.succeeds();
        run("docker", &["import", "-", reference], &archive.stdout).await.succeeds();
        image
    }

    fn also(&mut self, reference: &str) {
        self.0.push(reference.to_owned());
    }
}

impl Drop for EngineImage {
    fn drop(&mut self) {
        let mut remove = std::process::Command::new("docker");
        let _ = remove.args(["rmi", "-f"]).args(&self.0).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pushes_and_pulls() {
    let registry = Served::on_sqlite().await;
    let (image, second) = (registry.reference("team/app:v1"), registry.reference("team/copy:v1"));
    let mut local = EngineImage::make(&image).await;
    let refused = registry.docker("nobody", &["push", &image], b"").await;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!said.contains("Retrying"), "docker must not take a refusal for one to try again: {said}");
    refused.fails_with(&["log in first"]);
    registry.docker_login("wrong", "wrong-password").await.fails_with(&["unauthorized"]);
    registry.docker_login("admin", ADMIN).await.succeeds();
    registry.docker("admin", &["push", &image], b"").await.succeeds();

    registry.docker_login("reader", READER).await.succeeds();
    registry.docker("reader", &["push", &image], b"").await.fails_with(&["denied"]);
    let id = ["inspect", "--format", "{{.Id}}", &image];
    let built = registry.docker("admin", &id, b"").await.succeeds().stdout;
    registry.docker("admin", &["rmi", &image], b"").await.succeeds();
    registry.docker("nobody", &["pull", &image], b"").await.fails_with(&["log in first"]);
    registry.docker("reader", &["pull", &image], b"").await.succeeds();
    let pulled = registry.docker("admin", &id, b"").await.succeeds().stdout;
    assert_eq!(pulled, built, "the image that comes back is the one that went");

    // The layer is in the registry: docker mounts it from the first repository.
    local.also(&second);
    registry.docker("admin", &["tag", &image, &second], b"").await.succeeds();
    let push = registry.docker("admin", &["push", &second], b"").await.succeeds();
    assert!(String::from_utf8_lossy(&push.stdout).contains("Mounted from team/app"), "{push:?}");
    registry
        .docker("reader", &["pull", &registry.reference("team/app:none")], b"")
        .await
        .fails_with(&["not found", "unknown"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_podman_and_curl_agree_with_docker() {
    let registry = Served::on_sqlite().await;
    let image = registry.reference("team/app:v1");
    let _local = EngineImage::make(&image).await;
    registry.docker_login("admin", ADMIN).await.succeeds();
    registry.docker("admin", &["push", &image], b"").await.succeeds();
    let manifest = registry.inspect("team/app:v1").await.succeeds().stdout;

    // Over skopeo: out to files, and in again under another name.
    let (source, files) = (format!("docker://{image}"), format!("dir:{}", registry.path("files-of-image").display()));
    registry.skopeo(READER, &["copy", "--src-tls-verify=false", &source, &files]).await.succeeds();
    let copy = format!("docker://{}", registry.reference("other/app:v1"));
    registry.skopeo("wrong", &["copy", "--dest-tls-verify=false", &files, &copy]).await.fails_with(&["unauthorized"]);
    registry.skopeo(READER, &["copy", "--dest-tls-verify=false", &files, &copy]).await.fails_with(&["denied"]);
    registry.skopeo(ADMIN, &["copy", "--dest-tls-verify=false", &files, &copy]).await.succeeds();
    assert_eq!(registry.inspect("other/app:v1").await.succeeds().stdout, manifest, "byte for byte");
    let list = format!("docker://{}", registry.reference("team/app"));
    let tags = registry.skopeo(READER, &["list-tags", "--tls-verify=false", &list]).await.succeeds().json();
    assert_eq!(tags["Tags"], json!(["v1"]));

    // Over podman: pulled by digest, pushed under another name.
    let by_digest = registry.reference(&format!("team/app@{}", Digest::sha256(&manifest)));
    let credentials = |password: &str| format!("--creds=any:{password}");
    let wrong = credentials("wrong");
    registry.podman(&["pull", "--tls-verify=false", &wrong, &by_digest]).await.fails_with(&["unauthorized"]);
    let (reader, admin) = (credentials(READER), credentials(ADMIN));
    registry.podman(&["pull", "--tls-verify=false", &reader, &by_digest]).await.succeeds();
    let pushed = registry.reference("podman/app:v1");
    registry.podman(&["push", "--tls-verify=false", &admin, &by_digest, &pushed]).await.succeeds();
    let config = |manifest: &[u8]| serde_json::from_slice::<Value>(manifest).unwrap()["config"]["digest"].clone();
    let again = registry.inspect("podman/app:v1").await.succeeds().stdout;
    assert_eq!(config(&again), config(&manifest), "podman packs layers anew, the image is the same");

    // Over curl, with Basic and no token.
    let url = format!("http://{}/v2/team/app/manifests/v1", registry.address);
    let user = format!("any:{READER}");
    let curl = run("curl", &["-sSf", "-u", &user, &url], b"").await.succeeds();
    assert_eq!(curl.stdout, manifest);
    let head = run("curl", &["-sSfI", "-u", &user, &url], b"").await.succeeds();
    let head = String::from_utf8(head.stdout).unwrap().to_lowercase();
    assert!(head.contains(&format!("content-length: {}\r\n", manifest.len())), "{head}");
    run("curl", &["-sSf", "-u", "any:wrong", &url], b"").await.fails_with(&["401"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_pushed_and_pulled_whole() {
    let registry = Served::on_sqlite().await;
    let layout = registry.path("layout");
    let index = write_layout(&layout);
    let (source, target) =
        (format!("oci:{}:multi", layout.display()), format!("docker://{}", registry.reference("team/multi:v1")));
    let copy = ["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &source, &target];
    registry.skopeo(ADMIN, &copy).await.succeeds();
    let stored = registry.inspect("team/multi:v1").await.succeeds();
    assert_eq!(Digest::sha256(&stored.stdout), index, "byte for byte");
    let back = format!("oci:{}:multi", registry.path("back").display());
    let copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &target, &back];
    registry.skopeo(READER, &copy).await.succeeds();
    for manifest in stored.json()["manifests"].as_array().unwrap() {
        let digest = Digest::parse(manifest["digest"].as_str().unwrap()).unwrap();
        assert!(registry.path("back/blobs/sha256").join(digest.hex()).exists(), "{digest}");
        registry.inspect(&format!("team/multi@{digest}")).await.succeeds();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_s_push_is_staged() {
    let (registry, store) = Served::in_memory().await;
    let credential = AttemptCredential {
        run: RunId::from_number(1),
        step: StepId::parse("push").unwrap(),
        attempt: AttemptNumber(3),
        principal: PrincipalName::parse("ann").unwrap(),
        push: vec![RepositoryName::parse("team/app").unwrap()],
        pull: Vec::new(),
        delete: Vec::new(),
        expires: Timestamp::from_micros(1_700_003_600_000_000),
    };
    store.start_attempt(&credential.attempt_ref());
    let password = registry.key.mint_attempt(&credential).expose().to_owned();
    let (staged, other) = (registry.reference("team/app:staged.ca1.3"), registry.reference("other/app:v1"));
    let mut local = EngineImage::make(&staged).await;
    local.also(&other);
    registry.docker_login("attempt", &password).await.succeeds();
    registry.docker("attempt", &["push", &staged], b"").await.succeeds();
    registry.docker("attempt", &["tag", &staged, &other], b"").await.succeeds();
    registry.docker("attempt", &["push", &other], b"").await.fails_with(&["denied"]);

    registry.inspect("team/app:staged.ca1.3").await.fails_with(&["unknown", "no manifest"]);
    registry.inspect("team/app:v1").await.fails_with(&["unknown", "no manifest"]);
    let own = format!("docker://{staged}");
    registry.skopeo(&password, &["inspect", "--raw", "--tls-verify=false", &own]).await.succeeds();

    let target = StagedTarget {
        repository: RepositoryName::parse("team/app").unwrap(),
        staging: Tag::parse("staged.ca1.3").unwrap(),
        tags: vec![Tag::parse("v1").unwrap(), Tag::latest()],
        digest: None,
    };
    let promoted = store.promote_staged(&credential.attempt_ref(), &[target]).unwrap();
    for tag in promoted {
        let seen = registry.inspect(&format!("{}:{}", tag.repository, tag.tag)).await.succeeds();
        assert_eq!(Digest::sha256(&seen.stdout), tag.digest);
    }
    store.end_attempt(&credential.attempt_ref());
    registry
        .docker("attempt", &["push", &staged], b"")
        .await
        .fails_with(&["attempt 3 of step push of run ca1 is over"]);
    registry.inspect("team/app:staged.ca1.3").await.fails_with(&["unknown", "no manifest"]);
}

/// Writes an OCI layout with an index of two images under the name `multi`, and returns the index's digest.
fn write_layout(directory: &Path) -> Digest {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let add = |content: &[u8], media_type: &str| {
        let digest = Digest::sha256(content);
        std::fs::write(blobs.join(digest.hex()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    };
    let images = ["amd64", "arm64"].map(|architecture| {
        // An empty tar archive with something to tell the two apart behind its end.
        let mut archive = vec![0; 1024];
        archive.extend_from_slice(architecture.as_bytes());
        let layer = add(&archive, "application/vnd.oci.image.layer.v1.tar");
        let rootfs = json!({ "type": "layers", "diff_ids": [Digest::sha256(&archive)] });
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs, "config": {} });
        let config = add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
        let mut descriptor = add(manifest.to_string().as_bytes(), OCI_MANIFEST);
        descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
        descriptor
    });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": images }).to_string();
    let mut descriptor = add(index.as_bytes(), OCI_INDEX);
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "multi" });
    let top = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    std::fs::write(directory.join("index.json"), top.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    Digest::sha256(index.as_bytes())
}
