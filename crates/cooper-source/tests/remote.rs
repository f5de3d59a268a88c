//! Archives behind URLs and artifacts of registries, fetched from real servers on loopback.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use cooper_e2e::{Archive, FileServer};
use cooper_ports::context_tree::EntryKind;
use cooper_source::git::{CredentialSource, GitCredential, NoCredentials};
use cooper_source::{
    Cidr, Egress, EgressOptions, EgressPolicy, FurtherFiles, RemoteError, RemoteRequest, RemoteSnapshot, UnpackLimits,
    fetch_archive, fetch_artifact, unpack,
};
use cooper_spec::source::RemoteSource;
use cooper_types::{Digest, SecretString};
use std::os::unix::fs::FileExt as _;

const AUTHORIZATION: &str = "Basic YW5uOnMzY3JldA==";

struct Done {
    snapshot: RemoteSnapshot,
    /// Path to content; `/` for a directory, `-> target` for a link.
    tree: BTreeMap<String, String>,
    lines: Vec<String>,
}

struct Ann;

#[async_trait]
impl CredentialSource for Ann {
    async fn for_host(&self, _: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Some(GitCredential { username: "ann".to_owned(), password: SecretString::new("s3cret".to_owned()) }))
    }
}

#[derive(Clone)]
struct Ask {
    dockerfile: Option<String>,
    files: Vec<String>,
    further: FurtherFiles,
    unpack: UnpackLimits,
    received: u64,
}

impl Default for Ask {
    fn default() -> Self {
        let (files, further) = (Vec::new(), FurtherFiles::default());
        Self { dockerfile: None, files, further, unpack: UnpackLimits::default(), received: 1 << 20 }
    }
}

async fn fetch_as(source: &str, ask: Ask, credentials: &dyn CredentialSource) -> Result<Done, RemoteError> {
    let allow = vec![Cidr::parse("127.0.0.1").unwrap(), Cidr::parse("::1").unwrap()];
    let egress = Egress::new(EgressOptions { policy: EgressPolicy { allow }, ..EgressOptions::default() });
    let scratch = tempfile::tempdir().unwrap();
    let request = RemoteRequest {
        dockerfile: ask.dockerfile,
        files: ask.files,
        further: ask.further,
        scratch: scratch.path().to_owned(),
        unpack: ask.unpack,
        received: ask.received,
        named_file_len: 16,
    };
    let lines = Mutex::new(Vec::new());
    let say = |line: String| lines.lock().unwrap().push(line);
    let snapshot = match RemoteSource::parse(source).unwrap() {
        RemoteSource::Archive(source) => fetch_archive(&egress, credentials, &source, request, &say).await?,
        RemoteSource::Artifact(source) => fetch_artifact(&egress, credentials, &source, request, &say).await?,
        source @ (RemoteSource::Git(_) | RemoteSource::Uploaded(_)) => panic!("{source}"),
    };
    let bytes = std::fs::read(&snapshot.archive).unwrap();
    assert_eq!((snapshot.digest.clone(), snapshot.size), (Digest::sha256(&bytes), bytes.len() as u64));
    let never = AtomicBool::new(false);
    let unpacked =
        unpack(bytes.as_slice(), tempfile::tempfile().unwrap(), &UnpackLimits::default(), &never).expect("a context");
    let tree = unpacked.entries().iter().map(|entry| {
        let content = match &entry.kind {
            EntryKind::Directory => "/".to_owned(),
            EntryKind::Symlink { target } => format!("-> {target}"),
            EntryKind::File { offset, size } => {
                let mut bytes = vec![0; usize::try_from(*size).unwrap()];
                unpacked.contents().read_exact_at(&mut bytes, *offset).unwrap();
                String::from_utf8(bytes).unwrap()
            }
        };
        (entry.path.clone(), content)
    });
    Ok(Done { tree: tree.collect(), snapshot, lines: lines.into_inner().unwrap() })
}

async fn fetch(source: &str, ask: Ask) -> Result<Done, RemoteError> {
    fetch_as(source, ask, &NoCredentials).await
}

async fn refused(source: &str, ask: Ask) -> String {
    match fetch(source, ask).await {
        Ok(done) => panic!("{source}: {:?}", done.tree),
        Err(error) => error.line(),
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    FileServer::answer("200 OK", &[], body)
}

fn sample() -> Vec<u8> {
    Archive::new()
        .file("app/Dockerfile", "FROM scratch\n")
        .file("app/.dockerignore", "*.log\nbig\n!big/kept\n")
        .file("app/a.log", "log")
        .file("app/big/kept", "kept")
        .file("app/big/left", "left")
        .file("app/values.yaml", "a: 1")
        .entry("app/values", b'2', "./values.yaml", b"")
        .entry("app/out", b'2', "../secret", b"")
        .file("secret", "secret")
        .tar()
}

fn pairs(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    texts.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}

#[tokio::test]
async fn every_compression_is_known_by_its_bytes() {
    let tar = Archive::new().file("Dockerfile", "FROM scratch\n").file("a/b", "text").tar();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let bodies = [
        tar.clone(),
        gzip.finish().unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
        ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest),
    ];
    let served = bodies.clone();
    let server = FileServer::start(move |path, _| ok(&served[path[1..2].parse::<usize>().unwrap()]));
    let mut digests = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        let ask = Ask { dockerfile: Some("Dockerfile".to_owned()), ..Ask::default() };
        // The name says something else than the bytes.
        let done = fetch(&format!("{}/{index}.zip", server.url()), ask).await.unwrap();
        assert_eq!(done.tree, pairs(&[("Dockerfile", "FROM scratch\n"), ("a", "/"), ("a/b", "text")]));
        assert_eq!(done.snapshot.pinned, Digest::sha256(body));
        assert!(done.lines[1].starts_with(&format!("Received {} bytes", body.len())), "{:?}", done.lines);
        digests.push(done.snapshot.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same files are the same context");
}

#[tokio::test]
async fn a_directory_is_taken_by_its_own_rules() {
    let server = FileServer::start(|_, _| ok(&sample()));
    let url = format!("{}/get?token=hunter2#:app", server.url());
    let ask = Ask {
        dockerfile: Some("Dockerfile".to_owned()),
        files: ["values.yaml", "./values", "big", "none"].map(str::to_owned).to_vec(),
        further: FurtherFiles::named_by(|found, files| {
            assert_eq!((found.commit.as_ref(), files.len()), (None, 2));
            ["big/kept", "out", "../secret"].map(str::to_owned).to_vec()
        }),
        ..Ask::default()
    };
    let done = fetch(&url, ask).await.unwrap();
    let names: Vec<&str> = done.tree.keys().map(String::as_str).collect();
    assert_eq!(names, [".dockerignore", "Dockerfile", "big", "big/kept", "out", "values", "values.yaml"]);
    let found: Vec<(&str, &[u8])> =
        done.snapshot.files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let expect = [("./values", &b"a: 1"[..]), ("big/kept", &b"kept"[..]), ("values.yaml", &b"a: 1"[..])];
    assert_eq!(found, expect, "links stay in the directory");
    assert!(!format!("{:?}", done.lines).contains("hunter2"), "{:?}", done.lines);
    assert_eq!(server.seen(), ["/get?token=hunter2"]);

    let whole = fetch(&format!("{}/x", server.url()), Ask::default()).await.unwrap();
    assert!(whole.tree.contains_key("app/a.log") && whole.tree.contains_key("secret"), "no Dockerfile, no rules");

    for (place, dockerfile, expect) in [
        ("#:none", None, "has no directory `none`"),
        ("#:secret", None, "has no directory `secret`"),
        ("#:app/out", None, "has no directory `app/out`"),
        ("", Some("Dockerfile"), "has no file `Dockerfile`"),
        ("#:app", Some("out"), "has no file `out`"),
    ] {
        let ask = Ask { dockerfile: dockerfile.map(str::to_owned), ..Ask::default() };
        let message = refused(&format!("{}/x?token=hunter2{place}", server.url()), ask).await;
        assert!(message.contains(expect) && !message.contains("hunter2"), "{place}: {message}");
    }
    let ask = Ask { files: vec!["app/.dockerignore".to_owned()], ..Ask::default() };
    assert!(refused(&format!("{}/x", server.url()), ask).await.contains("has more than 16 bytes"));
}

#[tokio::test]
async fn what_is_no_source_is_refused_with_its_reason() {
    let server = FileServer::start(|path, _| match path {
        "/text" => ok(b"<html>not an archive</html>"),
        "/empty" => ok(b""),
        "/zip" => ok(b"PK\x03\x04......"),
        "/up" => ok(&Archive::new().file("../up", "x").gzip()),
        "/abs" => ok(&Archive::new().file("/etc/x", "x").gzip()),
        "/device" => ok(&Archive::new().entry("tty", b'3', "", b"").gzip()),
        "/hard" => ok(&Archive::new().entry("hard", b'1', "/etc/passwd", b"").gzip()),
        "/bomb" => ok(&Archive::new().entry("zeros", b'0', "", &vec![0; 400_000]).gzip()),
        "/many" => ok(&(0..40).fold(Archive::new(), |archive, at| archive.file(&format!("f{at}"), "")).gzip()),
        "/large" => ok(&vec![7; (1 << 20) + 1]),
        "/top" => ok(&Archive::new().file("repo-1/Dockerfile", "x").gzip()),
        "/gone" => FileServer::answer("404 Not Found", &[], b"\n no such thing\x1b[2J \nmore"),
        "/private" => FileServer::answer("401 Unauthorized", &[], b""),
        "/away" => FileServer::answer("302 Found", &["Location: http://169.254.169.254/latest"], b""),
        path => panic!("{path}"),
    });
    let limits = UnpackLimits { entries: 20, ratio: 10, ratio_floor: 50_000, ..UnpackLimits::default() };
    for (path, expect) in [
        ("/text", "/text can't be unpacked: the context is not a tar archive"),
        ("/empty", "the context archive is empty"),
        ("/zip", "compressed with zip; send a tar archive"),
        ("/up", "`../up` leads out of the context"),
        ("/abs", "`/etc/x` is absolute"),
        ("/device", "`tty` is a device"),
        ("/hard", "`hard` is a hard link to `/etc/passwd`"),
        ("/bomb", "more than 10 times its size"),
        ("/many", "more than 20 entries"),
        ("/large", "/large has more than 1048576 bytes"),
        ("/top", "(everything is in `repo-1`: write `#:repo-1` behind the source)"),
        ("/gone", "answers 404: no such thing [2J"),
        ("/private", "wants a credential"),
        ("/away", "169.254.169.254"),
    ] {
        let ask = Ask { dockerfile: Some("Dockerfile".to_owned()), unpack: limits.clone(), ..Ask::default() };
        let message = refused(&format!("{}{path}", server.url()), ask).await;
        assert!(message.contains(expect), "{path}: {message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    assert_eq!(server.seen().len(), 14, "nothing of that is worth another try: {:?}", server.seen());
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let archive = Archive::new().file("a", "text").gzip();
    let server = FileServer::start(move |path, head| match (path, asked.fetch_add(1, Ordering::Relaxed)) {
        ("/short", 0) => FileServer::answer("503 Service Unavailable", &[], b"later"),
        // Fewer bytes than were announced.
        ("/short", 1) => ok(&archive)[..100].to_vec(),
        ("/short", _) => ok(&archive),
        // Cut where nothing says so.
        ("/unsaid", 3) => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &archive[..30]].concat(),
        ("/unsaid", _) => ok(&archive),
        ("/cut", _) => ok(&archive[..30]),
        ("/private", _) if head.contains(AUTHORIZATION) => ok(&archive),
        ("/private", _) => FileServer::answer("401 Unauthorized", &[], b""),
        _ => FileServer::answer("502 Bad Gateway", &[], b"no"),
    });
    for path in ["/short", "/unsaid"] {
        let done = fetch(&format!("{}{path}", server.url()), Ask::default()).await;
        assert_eq!(done.unwrap().tree, pairs(&[("a", "text")]), "{path}");
    }
    let before = server.seen().len();
    let message = refused(&format!("{}/cut", server.url()), Ask::default()).await;
    assert!(message.contains("is cut off"), "{message}");
    assert_eq!(server.seen().len() - before, 2, "the same bytes again are no accident");
    let before = server.seen().len();
    let error = fetch(&format!("{}/down", server.url()), Ask::default()).await.err().unwrap();
    assert!(error.is_transient() && error.line().contains("answers 502: no"), "{}", error.line());
    assert_eq!(server.seen().len() - before, 3);
    let done = fetch_as(&format!("{}/private", server.url()), Ask::default(), &Ann).await;
    assert_eq!(done.unwrap().tree.len(), 1);
}

#[tokio::test]
async fn an_artifact_is_its_files() {
    let file = |text: &str| (Digest::sha256(text.as_bytes()), text.as_bytes().to_vec());
    let packed = Archive::new().file("dir/x", "packed").gzip();
    let (dockerfile, plain) = (file("FROM scratch\n"), file("text"));
    let layer = |kind: &str, digest: &Digest, annotations: &str| {
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1,"annotations":{{{annotations}}}}}"#)
    };
    let title = |name: &str| format!(r#""org.opencontainers.image.title":"{name}""#);
    let good = format!(
        r#"{{"schemaVersion":2,"layers":[{},{},{},{}]}}"#,
        layer("text/plain", &dockerfile.0, &title("Dockerfile")),
        layer("text/plain", &plain.0, &title("sub/a.txt")),
        layer(
            "application/x",
            &Digest::sha256(&packed),
            &format!(r#"{},"io.deis.oras.content.unpack":"true""#, title("dir"))
        ),
        layer("application/x-signature", &Digest::sha256(b"not asked for"), ""),
    );
    let bad = format!(r#"{{"layers":[{}]}}"#, layer("text/plain", &plain.0, &title("../up")));
    let forged = format!(r#"{{"layers":[{}]}}"#, layer("text/plain", &Digest::sha256(b"other"), &title("a")));
    let pinned = Digest::sha256(good.as_bytes());
    let other = Digest::sha256(b"other");
    let named = pinned.clone();
    let port = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let own = std::sync::Arc::clone(&port);
    let server = FileServer::start(move |path, head| {
        if let Some(query) = path.strip_prefix("/token?") {
            assert_eq!(query, "service=here&scope=repository%3Aa%2Fb%3Apull");
            let token = if head.contains(AUTHORIZATION) { "mine" } else { "nobody" };
            return ok(format!(r#"{{"token":"{token}"}}"#).as_bytes());
        }
        if !head.contains("Bearer mine") {
            let challenge = format!(r#"WWW-Authenticate: Bearer realm="{}/token",service="here""#, own.get().unwrap());
            return FileServer::answer("401 Unauthorized", &[&challenge], b"");
        }
        match path.strip_prefix("/v2/a/b/").unwrap() {
            "manifests/v1" => ok(good.as_bytes()),
            "manifests/bad" => ok(bad.as_bytes()),
            "manifests/forged" => ok(forged.as_bytes()),
            "manifests/index" => ok(br#"{"manifests":[{}]}"#),
            "manifests/none" => ok(br#"{"layers":[]}"#),
            path if path == format!("manifests/{named}") => ok(good.as_bytes()),
            path if path.starts_with("manifests/sha256:") => ok(b"{}"),
            path if path == format!("blobs/{}", dockerfile.0) => ok(&dockerfile.1),
            path if path == format!("blobs/{}", plain.0) => ok(&plain.1),
            path if path == format!("blobs/{other}") => ok(b"not the other"),
            path if path == format!("blobs/{}", Digest::sha256(&packed)) => ok(&packed),
            _ => FileServer::answer("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    });
    port.set(server.url()).unwrap();
    let place = server.url().replace("http://", "oci://") + "/a/b";
    let ask = Ask { dockerfile: Some("Dockerfile".to_owned()), files: vec!["dir/x".to_owned()], ..Ask::default() };
    for source in [format!("{place}:v1"), format!("{place}@{pinned}")] {
        let done = fetch_as(&source, ask.clone(), &Ann).await.unwrap();
        assert_eq!(done.tree["Dockerfile"], "FROM scratch\n");
        assert_eq!((done.tree["sub/a.txt"].as_str(), done.tree["dir/x"].as_str()), ("text", "packed"));
        assert_eq!((&done.snapshot.pinned, &done.snapshot.files["dir/x"]), (&pinned, &b"packed".to_vec()));
    }
    let wrong = format!("@{}", Digest::sha256(b"something"));
    for (name, expect) in [
        (":bad", "`../up` leads out of the context"),
        (":forged", "has other bytes than its digest"),
        (wrong.as_str(), "has other bytes than its digest"),
        (":index", "it is an index of several manifests"),
        (":none", "it has no files"),
        (":gone", "answers 404: {\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}"),
    ] {
        let Err(error) = fetch_as(&format!("{place}{name}"), Ask::default(), &Ann).await else { panic!("{name}") };
        assert!(error.line().contains(expect) && !error.is_transient(), "{name}: {}", error.line());
    }
    // As nobody, the registry shows nothing.
    let message = refused(&format!("{place}:v1"), Ask::default()).await;
    assert!(message.contains("credential"), "{message}");
}
