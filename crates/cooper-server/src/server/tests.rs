//! A server on a real port: what is open at its stop ends in order, and what was accepted is there at the next start.

use std::time::Instant;

use cooper_agent::tuned;
use cooper_api::agent::PROTOCOL_VERSION;
use cooper_api::agent::wire::agent_service_client::AgentServiceClient;
use cooper_api::agent::wire::{self, agent_message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use super::*;
use crate::testing;

/// Far longer than anything here may take: a stop that waited for its end would be seen.
const GRACE: Duration = Duration::from_secs(240);
/// How long what does not wait for the grace may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(data: &std::path::Path) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().expect("address"),
        tls: None,
        data_dir: data.to_owned(),
        registry_name: None,
        public_url: None,
        local_agent: None,
        anonymous_pull: false,
        blob_grace: Settings::DEFAULT_BLOB_GRACE,
        allowed_sources: Vec::new(),
        allowed_webhooks: Vec::new(),
        secrets: Default::default(),
        frontends: Default::default(),
        image_aliases: std::collections::BTreeMap::new(),
        source_roots: None,
        docker_config: None,
        max_context_bytes: 1 << 20,
        context_retention: Settings::DEFAULT_CONTEXT_RETENTION,
        context_retention_bytes: Settings::DEFAULT_CONTEXT_RETENTION_BYTES,
        base_image_poll: Settings::DEFAULT_BASE_IMAGE_POLL,
        source_poll: Settings::DEFAULT_SOURCE_POLL,
        wave_concurrency: Settings::DEFAULT_WAVE_CONCURRENCY,
        shutdown_grace: GRACE,
    }
}

/// A connection that has said this and heard that.
async fn connection(address: SocketAddr, say: &str, hear: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(say.as_bytes()).await.expect("written");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(hear) {
        let count = stream.read_buf(&mut heard).await.expect("read");
        assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_every_kind_of_connection_and_loses_nothing() {
    let data = tempfile::tempdir().expect("temp dir");
    let server = Server::start(settings(data.path())).await.expect("started");
    let address = server.address();
    let reader = testing::token(&server.core, "reader", &["read"]).await;
    let builder = testing::token(&server.core, "builder", &["agent"]).await;
    let run = testing::accept(&server.core, Vec::new()).await;

    let events = format!(
        "GET /api/v1/runs/{run}/log/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        reader.expose()
    );
    let mut follower = connection(address, &events, "event: status").await;
    let mut idle = connection(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;
    let mut silent = connection(address, "", "").await;

    let channel = tuned(Endpoint::from_shared(format!("http://{address}")).expect("address"));
    let hello = wire::AgentMessage {
        message: Some(agent_message::Message::Hello(wire::Hello {
            protocol: PROTOCOL_VERSION,
            name: "one".to_owned(),
            incarnation: "first".to_owned(),
            native_platforms: vec!["linux/arm64".to_owned()],
            slots: 1,
            ..wire::Hello::default()
        })),
    };
    let words = futures::StreamExt::chain(futures::stream::iter([hello]), futures::stream::pending());
    let mut request = tonic::Request::new(words);
    let bearer = format!("Bearer {}", builder.expose()).parse().expect("header");
    request.metadata_mut().insert("authorization", bearer);
    let channel = channel.connect().await.expect("connected");
    let mut agent = AgentServiceClient::new(channel).connect(request).await.expect("taken").into_inner();
    assert!(agent.message().await.expect("stream").is_some(), "welcome");

    let begun = Instant::now();
    server.stop().await.expect("in time");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let status = agent.message().await.expect_err("ended");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    for stream in [&mut follower, &mut idle, &mut silent] {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");

    let again = Server::start(settings(data.path())).await.expect("started again");
    let record = again.core.runs.find_run(run).await.expect("store").expect("the run");
    assert!(record.run.finished().is_none());
    assert!(again.core.access.check(reader.expose()).await.expect("store").is_some());
    again.stop().await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_slow_does_not_make_a_stop_late() {
    let data = tempfile::tempdir().expect("temp dir");
    // Its last quarter is for what is left to do when they are cut off.
    let grace = Duration::from_secs(30);
    let server = Server::start(Settings { shutdown_grace: grace, ..settings(data.path()) }).await.expect("started");
    let runner = testing::token(&server.core, "runner", &["run"]).await;
    let post = format!(
        "POST /api/v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
        runner.expose()
    );
    let _half_a_head = connection(server.address(), "GET /heal", "").await;
    let _half_a_body = connection(server.address(), &post, "100 Continue").await;
    server.stop().await.expect("in time");
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_behind() {
    let data = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(data.path().join("address")).expect("in the way");
    std::fs::create_dir(data.path().join("blobs")).expect("so that the folder is ours");
    let Err(error) = Server::start(settings(data.path())).await else { panic!("started") };
    assert!(matches!(&error, StartError::Data { path, .. } if path.ends_with("address")), "{error:?}");
    std::fs::remove_dir(data.path().join("address")).expect("removed");
    // The lock goes with the writer's task, which ends once nobody holds the store.
    let deadline = Instant::now() + PATIENCE;
    let server = loop {
        match Server::start(settings(data.path())).await {
            Ok(server) => break server,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    };
    server.stop().await.expect("in time");
}

/// What a TLS client sees of a server: a connection that has been answered on, and the certificate that it was shown.
async fn secure_connection(address: SocketAddr) -> (tokio_rustls::client::TlsStream<TcpStream>, Vec<u8>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for name in ["old", "new"] {
        roots.add(pair(name).0.der().clone()).expect("a certificate");
    }
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.expect("connected");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("name");
    let mut stream = connector.connect(name, stream).await.expect("trusted");
    let shown = stream.get_ref().1.peer_certificates().expect("shown")[0].to_vec();
    ask(&mut stream).await;
    (stream, shown)
}

async fn ask(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("UNAUTHORIZED") {
        assert!(stream.read_buf(&mut heard).await.expect("read") > 0, "{}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).expect("text")
}

/// A certificate and its key; the key is the same for the same name.
fn pair(name: &'static str) -> (rcgen::Certificate, String) {
    static KEYS: std::sync::Mutex<Vec<(&str, String)>> = std::sync::Mutex::new(Vec::new());
    let mut keys = KEYS.lock().expect("no test panicked here");
    if keys.iter().all(|(known, _)| *known != name) {
        keys.push((name, rcgen::KeyPair::generate().expect("key").serialize_pem()));
    }
    let text = keys.iter().find(|(known, _)| *known == name).expect("just made").1.clone();
    let key = rcgen::KeyPair::from_pem(&text).expect("key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.self_signed(&key).expect("certificate"), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let data = tempfile::tempdir().expect("temp dir");
    let (certificate, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
    let write = |name: &'static str| {
        let (made, text) = pair(name);
        std::fs::write(&certificate, made.pem()).expect("written");
        std::fs::write(&key, text).expect("written");
    };
    write("old");
    let tls = crate::TlsSettings::Files { certificate: certificate.clone(), key: key.clone() };
    let settings = Settings { tls: Some(tls), ..settings(&data.path().join("data")) };
    let server = Server::start(settings).await.expect("started");
    let address = server.address();
    let written = std::fs::read_to_string(data.path().join("data/address")).expect("written");
    assert_eq!(written, format!("https://{address}\n"));

    let (mut old, first) = secure_connection(address).await;
    write("new");
    server.reload();
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        let (_, shown) = secure_connection(address).await;
        if shown != first {
            break shown;
        }
        assert!(Instant::now() < deadline, "the new certificate is not shown");
    };
    let answer = ask(&mut old).await;
    assert!(answer.contains("realm=\"https://localhost/oauth2/token\""), "{answer}");

    std::fs::write(&certificate, "broken").expect("written");
    server.reload();
    server.reload();
    assert_eq!(secure_connection(address).await.1, second);

    // In clear from this machine, as a container engine speaks to a registry called localhost.
    let answer = ask(&mut TcpStream::connect(address).await.expect("connected")).await;
    assert!(answer.contains("realm=\"http://localhost/oauth2/token\""), "{answer}");
    drop(old);
    server.stop().await.expect("stopped in time");
}
