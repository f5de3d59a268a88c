//! Engines that are not there, not Docker's, broken or hostile: each is one clear error, soon, and never a panic.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::engine::{
    BuildError, BuildRequest, ContainerEngine, EngineError, EngineFeature, NetworkOrigin, NetworkRequest,
    PlacementError, PlacementRequest, VolumeContent, VolumeRequest,
};
use cooper_types::{NetworkName, VolumeName};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{Bench, ScriptedBench, soon};
use crate::context::Context;

const DOCKER: &str = r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12","Os":"linux","Arch":"amd64",
    "Components":[{"Name":"Engine","Version":"20.10.24"}]}"#;
const WINDOWS: &str = r#"{"Version":"25.0.3","ApiVersion":"1.44","MinAPIVersion":"1.24","Os":"windows","Arch":"amd64",
    "Components":[{"Name":"Engine","Version":"25.0.3"}]}"#;
const PODMAN: &str = r#"{"Version":"4.3.1","ApiVersion":"1.41","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64",
    "Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#;

type Body = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>>;

/// How a pretender answers `POST /session`.
#[derive(Clone, Copy)]
enum OnSession {
    NotFound,
    /// Switches protocols and then says nothing.
    Silence,
    /// Switches protocols and closes.
    Close,
}

/// How it answers `POST /build`.
#[derive(Clone)]
enum OnBuild {
    Status(StatusCode, &'static str),
    Lines(Vec<Bytes>),
    /// These, and then nothing more without an end.
    Hangs(Vec<Bytes>),
    /// These, and then the connection breaks.
    Breaks(Vec<Bytes>),
}

#[derive(Clone)]
struct Pretender {
    version: &'static str,
    on_session: OnSession,
    on_build: OnBuild,
    /// How it answers the making of a network.
    on_network: (StatusCode, &'static str),
}

struct Running {
    folder: tempfile::TempDir,
    _server: AbortOnDropHandle<()>,
}

impl Running {
    fn socket(&self) -> EngineSocket {
        socket(&self.folder.path().join("engine.sock"))
    }
}

fn socket(path: &Path) -> EngineSocket {
    EngineSocket::parse(&path.to_string_lossy()).expect("a short path")
}

impl Pretender {
    fn docker(on_build: OnBuild) -> Self {
        let on_network = (StatusCode::NOT_FOUND, r#"{"message":"page not found"}"#);
        Self { version: DOCKER, on_session: OnSession::Silence, on_build, on_network }
    }

    fn start(self) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("engine.sock")).expect("a socket");
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let pretender = self.clone();
                let service = hyper::service::service_fn(move |request| pretender.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                drop(tokio::spawn(connection));
            }
        }));
        Running { folder, _server: server }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let plain = |status: StatusCode, text: &'static str| {
            let mut response = Response::new(Either::Left(Full::from(text)));
            *response.status_mut() = status;
            Ok(response)
        };
        let path = request.uri().path().to_owned();
        if request.method() == Method::GET && path.ends_with("/version") {
            return plain(StatusCode::OK, self.version);
        }
        if path.ends_with("/networks/create") {
            let (status, text) = self.on_network;
            return plain(status, text);
        }
        if path.ends_with("/session") {
            if matches!(self.on_session, OnSession::NotFound) {
                return plain(StatusCode::NOT_FOUND, r#"{"message":"page not found"}"#);
            }
            let silent = matches!(self.on_session, OnSession::Silence);
            drop(tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await;
                if silent {
                    std::future::pending::<()>().await;
                }
                drop(upgraded);
            }));
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "Upgrade".parse().expect("a header"));
            response.headers_mut().insert("upgrade", "h2c".parse().expect("a header"));
            return Ok(response);
        }
        if path.ends_with("/build") {
            let (lines, end) = match self.on_build {
                OnBuild::Status(status, text) => return plain(status, text),
                OnBuild::Lines(lines) => (lines, Some(None)),
                OnBuild::Hangs(lines) => (lines, None),
                OnBuild::Breaks(lines) => (lines, Some(Some(std::io::Error::other("broken")))),
            };
            let (sender, receiver) = mpsc::channel(1);
            drop(tokio::spawn(async move {
                for line in lines {
                    if sender.send(Ok(Frame::data(line))).await.is_err() {
                        return;
                    }
                }
                match end {
                    None => sender.closed().await,
                    Some(None) => {}
                    Some(Some(error)) => drop(sender.send(Err(error)).await),
                }
            }));
            return Ok(Response::new(Either::Right(StreamBody::new(ReceiverStream::new(receiver)))));
        }
        plain(StatusCode::NOT_FOUND, r#"{"message":"page not found"}"#)
    }
}

async fn request() -> (Bench, BuildRequest) {
    let bench = ScriptedBench::start().await;
    let request = bench.request(Context::new("FROM scratch\n"));
    (bench, request)
}

/// What a build on the pretender ends with.
async fn build(pretender: Pretender) -> BuildError {
    let running = pretender.start();
    let engine = DockerEngine::connect(running.socket()).await.expect("it says what it is");
    let (_bench, request) = request().await;
    let (sink, mut events) = mpsc::channel(8);
    drop(tokio::spawn(async move { while events.recv().await.is_some() {} }));
    let build = engine.build(request, sink, CancellationToken::new());
    soon("the end of the build", build).await.expect_err("nothing was built")
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named_with_the_way_to_start_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("engine.sock");
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    for path in [missing, stale] {
        let error = DockerEngine::connect(socket(&path)).await.err().expect("nothing answers");
        let text = error.to_string();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        assert!(text.contains(&*path.to_string_lossy()) && text.contains("systemctl start docker"), "{text}");
    }
}

#[tokio::test]
async fn an_engine_that_hangs_is_given_up_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("engine.sock");
    // The connection is taken by the backlog, and nobody ever reads it.
    let _listener = UnixListener::bind(&path).expect("a socket");
    let error = soon("the end of the patience", DockerEngine::connect(socket(&path))).await.err().expect("no answer");
    assert_eq!(error.to_string(), "container engine took longer than 15 s to say its version");
}

#[tokio::test]
async fn an_engine_that_goes_away_fails_pings_and_builds() {
    let running = Pretender::docker(OnBuild::Lines(Vec::new())).start();
    let engine = DockerEngine::connect(running.socket()).await.expect("it says what it is");
    drop(running);
    tokio::task::yield_now().await;
    assert!(engine.ping().await.is_err());
    let (_bench, request) = request().await;
    let (sink, _events) = mpsc::channel(8);
    let built = engine.build(request, sink, CancellationToken::new()).await;
    assert!(matches!(built, Err(BuildError::Machinery(EngineError::Unreachable { .. }))), "{built:?}");
}

#[tokio::test]
async fn podman_and_engines_without_sessions_are_told_what_they_lack() {
    let done = OnBuild::Lines(Vec::new());
    let docker = Pretender::docker(done);
    let podman = Pretender { version: PODMAN, on_session: OnSession::NotFound, ..docker.clone() };
    let running = podman.clone().start();
    let engine = DockerEngine::connect(running.socket()).await.expect("it says what it is");
    assert!(!engine.describe().features.contains(&EngineFeature::BuildKit));
    let old = Pretender { on_session: OnSession::NotFound, ..docker };
    for (pretender, name) in [(podman, "Podman 4.3.1"), (old, "Docker Engine 20.10.24")] {
        let BuildError::Machinery(error @ EngineError::Unsupported { .. }) = build(pretender).await else {
            panic!("{name} is not told");
        };
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("session"), "{text}");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_the_machinerys_fault() {
    let line = |text: &str| Bytes::from(format!("{text}\n"));
    let cases = [
        ("no image", OnBuild::Lines(vec![line(r#"{"stream":"hello"}"#)])),
        ("nothing", OnBuild::Lines(Vec::new())),
        ("html", OnBuild::Lines(vec![line("<html>")])),
        ("bad base64", OnBuild::Lines(vec![line(r#"{"id":"moby.buildkit.trace","aux":"***"}"#)])),
        ("bad protobuf", OnBuild::Lines(vec![line(r#"{"id":"moby.buildkit.trace","aux":"/////w=="}"#)])),
        ("bad image", OnBuild::Lines(vec![line(r#"{"id":"moby.image.id","aux":{"ID":"../x"}}"#)])),
        ("broken off", OnBuild::Breaks(vec![line(r#"{"stream":"hello"}"#)])),
        ("broken line", OnBuild::Breaks(vec![Bytes::from_static(b"{\"id\"")])),
        ("endless line", OnBuild::Lines(vec![Bytes::from(vec![b' '; 1 << 20]); 40])),
        ("a 500", OnBuild::Status(StatusCode::INTERNAL_SERVER_ERROR, r#"{"message":"boom"}"#)),
    ];
    for (name, on_build) in cases {
        let error = build(Pretender::docker(on_build)).await;
        assert!(matches!(error, BuildError::Machinery(_)), "{name}: {error:?}");
    }
    let refused = Pretender::docker(OnBuild::Status(StatusCode::BAD_REQUEST, r#"{"message":"bad\nrequest"}"#));
    let error = build(refused).await;
    assert!(matches!(&error, BuildError::Failed(failure) if failure.to_string() == "bad request"), "{error:?}");
}

#[tokio::test]
async fn a_session_that_closes_does_not_hang_the_build() {
    let error = r#"{"error":"no active session for x: context deadline exceeded"}"#;
    let on_build = OnBuild::Lines(vec![Bytes::from(format!("{error}\n"))]);
    let error = build(Pretender { on_session: OnSession::Close, ..Pretender::docker(on_build) }).await;
    assert!(matches!(error, BuildError::Machinery(EngineError::Refused { .. })), "{error:?}");
}

#[tokio::test]
async fn a_build_is_cancelled_even_where_the_engine_does_not_listen() {
    let running = Pretender::docker(OnBuild::Hangs(vec![Bytes::from_static(b"{}\n")])).start();
    let engine = DockerEngine::connect(running.socket()).await.expect("it says what it is");
    let (_bench, request) = request().await;
    let (sink, _events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let build = tokio::spawn({
        let cancel = cancel.clone();
        async move { engine.build(request, sink, cancel).await }
    });
    tokio::task::yield_now().await;
    cancel.cancel();
    let built = soon("the end of the build", build).await.expect("it does not panic");
    assert!(matches!(built, Err(BuildError::Cancelled)), "{built:?}");
}

/// What the opening of a placement on the pretender ends with.
async fn opening(pretender: Pretender, change: impl FnOnce(&mut PlacementRequest)) -> PlacementError {
    let running = pretender.start();
    let engine = DockerEngine::connect(running.socket()).await.expect("it says what it is");
    let bench = ScriptedBench::start().await;
    let mut request = PlacementRequest { volumes: Vec::new(), shared_network: false, ..bench.placement() };
    change(&mut request);
    let opened = soon("the end of the opening", engine.open_placement(request, CancellationToken::new())).await;
    opened.err().expect("nothing was opened")
}

#[tokio::test]
async fn volumes_of_secrets_on_windows_are_the_users_to_leave_out() {
    let windows = || Pretender { version: WINDOWS, ..Pretender::docker(OnBuild::Lines(Vec::new())) };
    let secret = |request: &mut PlacementRequest| {
        let name = VolumeName::parse("secret-keys").expect("a name");
        request.volumes = vec![VolumeRequest { name, content: VolumeContent::Secret(BTreeMap::new()) }];
    };
    let error = opening(windows(), secret).await;
    assert!(matches!(error, PlacementError::SecretVolumes { .. }), "{error:?}");
    assert!(error.to_string().starts_with("Docker Engine on windows has no volumes in memory"), "{error}");
    let error = opening(windows(), |request| request.shared_network = true).await;
    assert!(matches!(error, PlacementError::Machinery(EngineError::Unsupported { .. })), "{error:?}");
}

#[tokio::test]
async fn a_network_that_is_not_made_is_the_users_fault_or_the_machines() {
    let network = |request: &mut PlacementRequest| {
        let origin = NetworkOrigin::Made { driver: Some("x".to_owned()), ipv6: false };
        request.networks = vec![NetworkRequest { name: NetworkName::parse("corp").expect("a name"), origin }];
    };
    let answer = |status: StatusCode, text: &'static str| Pretender {
        on_network: (status, text),
        ..Pretender::docker(OnBuild::Lines(Vec::new()))
    };
    let no_driver = answer(StatusCode::NOT_FOUND, r#"{"message":"plugin \"x\" not found"}"#);
    let error = opening(no_driver, network).await;
    assert_eq!(error.to_string(), r#"network `corp` can't be made: plugin "x" not found"#);
    let full = r#"{"message":"could not find an available, non-overlapping IPv4 address pool among the defaults"}"#;
    let error = opening(answer(StatusCode::BAD_REQUEST, full), network).await;
    let PlacementError::Machinery(error @ EngineError::Unsupported { .. }) = error else { panic!("{error:?}") };
    let text = error.to_string();
    assert!(text.contains("room for another network") && text.contains("`default-address-pools`"), "{text}");
}
