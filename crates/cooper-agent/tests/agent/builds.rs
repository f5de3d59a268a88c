//! Steps from their order to their result: what succeeds, what fails, whose fault it is, and that no secret leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cooper_api::agent::StepWork;
use cooper_api::agent::wire::log_frames;
use cooper_engine::message::{BaseImage, PushedManifest, StepOutput, StepResult};
use cooper_ports::engine::scripted::{EngineCall, Gate, ScriptedBuild, ScriptedEngine, ScriptedPush};
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildFailure, EngineDescription, EngineError, EngineFeature, OutputStream, PushError,
    ResolvedBase, VertexEvent,
};
use cooper_types::{
    Digest, ImageRef, Platform, RegistryName, RepositoryName, SecretBytes, SecretString, Tag, Timestamp,
};

use crate::bench::{Bench, REGISTRY, archive, build, build_of, key, push, soon};

fn vertex(name: &str, ended: bool, error: Option<&str>) -> BuildEvent {
    BuildEvent::Vertex(VertexEvent {
        id: "v1".into(),
        name: name.into(),
        started: Some(Timestamp::from_micros(0)),
        completed: ended.then(|| Timestamp::from_micros(1_500_000)),
        cached: false,
        error: error.map(str::to_owned),
    })
}

fn output(text: &'static str) -> BuildEvent {
    BuildEvent::Log { vertex: "v1".into(), stream: OutputStream::Stdout, bytes: Bytes::from_static(text.as_bytes()) }
}

fn failed(reason: &str) -> StepResult {
    StepResult::Failed { exit_code: None, reason: reason.to_owned() }
}

/// The result of one build of this context.
async fn result_of(engine: Arc<ScriptedEngine>, context: Vec<u8>) -> StepResult {
    let mut bench = Bench::start(engine);
    bench.server.serve_context(context);
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    let result = stream.result(key(1), 1).await;
    stream.stop(key(1)).await;
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.shut_down().await;
    result
}

#[tokio::test]
async fn a_run_goes_from_offer_to_clean_engine() {
    let engine = Arc::new(ScriptedEngine::new());
    let base = ResolvedBase { reference: "localhost:5000/base:1".into(), digest: Digest::sha256(b"base") };
    engine.script_build(ScriptedBuild::success("app", vec![base.clone()]).saying(vec![
        vertex("[2/2] RUN talk", false, None),
        output("hello\n"),
        vertex("[2/2] RUN talk", true, None),
    ]));
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    assert_eq!((stream.hello.name.as_str(), stream.hello.slots, stream.hello.protocol), ("tester", 2, 1));
    assert_eq!(stream.hello.native_platforms, ["linux/amd64"]);
    assert!(matches!(engine.calls().first(), Some(EngineCall::Reap(_))), "clean before the greeting");
    assert_eq!(soon("report", stream.holding()).await, []);

    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    let image = Digest::sha256(b"app");
    let bases = vec![BaseImage { reference: base.reference, digest: Some(base.digest), runtime: true }];
    let built = StepResult::Succeeded {
        output: StepOutput::Built { image: image.clone(), bases, frontend: None, context: None },
    };
    assert_eq!(stream.result(key(1), 1).await, built);
    assert_eq!(bench.server.log("ca1", 1).text(), "#1 [2/2] RUN talk\n#1 0.000 hello\n#1 DONE 1.5s\n");
    assert_eq!(engine.names().len(), 1, "the image is there for the steps that follow");

    stream.start(key(1), 2, push(image, &["team/app", "team/copy"])).await;
    let manifest = |name: &str| PushedManifest {
        registry: None,
        repository: RepositoryName::parse(name).expect("valid"),
        staging_tag: Tag::parse("staged.1.2").expect("valid"),
        digest: Digest::sha256(Digest::sha256(b"app").as_str().as_bytes()),
    };
    let manifests = vec![manifest("team/app"), manifest("team/copy")];
    let pushed = StepResult::Succeeded { output: StepOutput::Pushed { manifests } };
    assert_eq!(stream.result(key(1), 2).await, pushed);
    let log = bench.server.log("ca1", 2).text();
    assert!(log.starts_with("push to localhost:5000/team/app\npushed localhost:5000/team/app@sha256:"), "{log}");
    assert!(!log.contains("staged"), "{log}");

    stream.stop(key(1)).await;
    assert_eq!(engine.names(), Vec::<String>::new());
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.shut_down().await;
    soon("end of the stream", stream.ended()).await;
}

#[tokio::test]
async fn the_engine_gets_what_was_ordered() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    bench.server.serve_context(archive(&[("sub/File", b"FROM scratch AS a\n"), ("other", b"content")]));
    let mut stream = bench.stream().await;
    let mut order = build_of("./sub/File", &[]);
    if let StepWork::Build(build) = &mut order.work {
        build.target = Some("a".into());
        build.arguments = vec![("A".into(), SecretString::new("b".into()))];
        build.labels = vec![("l".into(), "v".into())];
        build.no_cache = true;
        build.secrets = vec![("id".into(), SecretBytes::new(b"value of it".to_vec()))];
    }
    stream.place(key(1)).await;
    stream.start(key(1), 3, order).await;
    assert!(matches!(stream.result(key(1), 3).await, StepResult::Succeeded { .. }));
    let calls = engine.calls();
    let Some(EngineCall::Build(request)) = calls.get(1) else { panic!("{calls:?}") };
    assert!(request.name.as_str().ends_with("/ca1:3"));
    assert_eq!((request.dockerfile.as_str(), request.target.as_deref()), ("sub/File", Some("a")));
    assert_eq!(request.arguments, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(request.labels, [("l".to_owned(), "v".to_owned())]);
    assert!(request.no_cache && request.shared_key == "shared");
    assert_eq!(request.platform, Some(Platform::LINUX_AMD64));
    assert_eq!(request.secrets.get("id").map(SecretBytes::expose), Some(&b"value of it"[..]));
    let registry = RegistryName::parse(REGISTRY).expect("valid");
    let login = request.logins.login(&registry).await.expect("known").expect("one");
    assert_eq!(login.password.expose(), "registry-password");
    let paths: Vec<&str> = request.context.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["other", "sub", "sub/File"]);
    bench.shut_down().await;
}

#[tokio::test]
async fn no_secret_leaves_the_agent() {
    let engine = Arc::new(ScriptedEngine::new());
    // The engine cuts its output within the secret; the value turns up in names and errors too.
    engine.script_build(
        ScriptedBuild::failure(BuildFailure::Exited { step: "RUN login hunter2-secret".into(), code: 3 }).saying(vec![
            vertex("[1/1] RUN login hunter2-secret", false, None),
            output("before hunter2"),
            output("-sec"),
            output("ret after\nfile-"),
            output("secret-line-1\nsecond line of file\n"),
            output("aHVudGVyMi1z"),
            output("ZWNyZXQ=\n"),
            BuildEvent::Warning { vertex: "v1".into(), message: "careful with hunter2-secret".into() },
            BuildEvent::Status { vertex: "v1".into(), id: "sending hunter2-secret".into(), current: 0, total: None },
            vertex("[1/1] RUN login hunter2-secret", true, Some("failed on hunter2-secret\nand registry-password")),
        ]),
    );
    let mut bench = Bench::start(engine);
    let mut stream = bench.stream().await;
    let mut order = build_of("Dockerfile", &["hunter2-secret", "abc"]);
    if let StepWork::Build(build) = &mut order.work {
        let file = b"file-secret-line-1\nsecond line of file\n".to_vec();
        build.secrets = vec![("file".into(), SecretBytes::new(file))];
    }
    stream.place(key(1)).await;
    stream.start(key(1), 1, order).await;
    let reason = "step `RUN login ***` exited with code 3".to_owned();
    assert_eq!(stream.result(key(1), 1).await, StepResult::Failed { exit_code: Some(3), reason });
    let expect = "\
warning: a secret shorter than 4 bytes is not masked
#1 [1/1] RUN login ***
#1 0.000 before *** after
#1 0.000 ***
#1 0.000 ***
#1 WARN: careful with ***
#1 sending ***
#1 ERROR: failed on *** and ***
error: step `RUN login ***` exited with code 3
";
    assert_eq!(bench.server.log("ca1", 1).text(), expect);
    for secret in
        ["hunter2-secret", "file-secret-line-1", "second line of file", "aHVudGVyMi1zZWNyZXQ", "registry-password"]
    {
        assert!(!bench.server.has_heard(secret.as_bytes()), "{secret}");
    }
    assert!(bench.server.log("ca1", 1).frames.iter().any(|frame| frame.stream() == log_frames::Stream::Vertex));
    bench.shut_down().await;
}

#[tokio::test]
async fn bad_contexts_are_the_users_fault_and_named() {
    let engine = || Arc::new(ScriptedEngine::new());
    let result = result_of(engine(), archive(&[("Dockerfile", b"FROM a"), ("../../evil", b"x")])).await;
    assert_eq!(result, failed("context entry `../../evil` leads out of the context with `..`"));
    let mut cut = archive(&[("Dockerfile", b"FROM a")]);
    cut.truncate(cut.len() - 12);
    let result = result_of(engine(), cut).await;
    assert!(matches!(&result, StepResult::Failed { reason, .. } if reason.contains("is cut off")), "{result:?}");
    let result = result_of(engine(), b"PK\x03\x04 this is a zip file".to_vec()).await;
    assert!(matches!(result, StepResult::Failed { .. }), "{result:?}");
    let result = result_of(engine(), archive(&[("Nothing", b"x")])).await;
    assert_eq!(result, failed("Dockerfile `Dockerfile` is not in the context: name it with --file"));
    let result = result_of(engine(), archive(&[("Dockerfile", b"RUN first\n")])).await;
    assert!(matches!(&result, StepResult::Failed { reason, .. } if reason.contains("line 1")), "{result:?}");
}

#[tokio::test]
async fn what_an_old_engine_lacks_is_named_with_its_line() {
    let engine = ScriptedEngine::with_description(EngineDescription {
        name: "Docker Engine".into(),
        version: "20.10.24".into(),
        api_version: "1.41".into(),
        native: Platform::LINUX_AMD64,
        emulated: BTreeSet::new(),
        features: BTreeSet::from([EngineFeature::BuildKit]),
    });
    let result = result_of(Arc::new(engine), archive(&[("Dockerfile", b"FROM a\n\nRUN <<E\ntrue\nE\n")])).await;
    let reason = "Dockerfile `Dockerfile`, line 3: heredocs need Docker Engine 23 or newer; this agent has Docker Engine 20.10.24";
    assert_eq!(result, failed(reason));
}

#[tokio::test]
async fn failures_are_told_apart_by_whose_they_are() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;

    let broken = EngineError::Broken { operation: "build an image", source: "connection reset".into() };
    engine.script_build(ScriptedBuild::failure(broken));
    stream.start(key(1), 1, build()).await;
    let reason = "build failed: container engine failed to build an image: connection reset".to_owned();
    assert_eq!(stream.result(key(1), 1).await, StepResult::Lost { reason });

    engine.script_build(ScriptedBuild::failure(BuildError::Cancelled));
    stream.start(key(1), 7, build()).await;
    assert!(matches!(stream.result(key(1), 7).await, StepResult::Lost { .. }), "nobody cancelled it");

    for (attempt, reference, is_lost) in [(8, "localhost:5000/base:1", true), (9, "docker.io/library/base:1", false)] {
        let message = "connection refused".to_owned();
        engine.script_build(ScriptedBuild::failure(BuildFailure::BaseUnreachable {
            reference: reference.into(),
            message,
        }));
        stream.start(key(1), attempt, build()).await;
        let result = stream.result(key(1), attempt).await;
        assert_eq!(matches!(result, StepResult::Lost { .. }), is_lost, "{result:?}");
    }

    engine.set_down(true);
    stream.start(key(1), 12, build()).await;
    let result = stream.result(key(1), 12).await;
    assert!(matches!(&result, StepResult::Lost { reason } if reason.starts_with("engine not running: ")), "{result:?}");
    assert!(bench.server.log("ca1", 12).text().starts_with("error: engine not running: "));
    engine.set_down(false);

    stream.start(key(1), 13, build()).await;
    let StepResult::Succeeded { output: StepOutput::Built { image, .. } } = stream.result(key(1), 13).await else {
        panic!("it builds")
    };
    let reference = ImageRef::parse("localhost:5000/app:staged.1.2").expect("valid");
    let error = |attempt: u64| {
        let (reference, message) = (reference.clone(), "no".to_owned());
        match attempt {
            14 => PushError::Unauthorized { reference, message },
            _ => PushError::Unreachable { reference, message },
        }
    };
    // It is our own registry: whatever it refuses is not the user's doing.
    for attempt in [14, 15] {
        (0..3).for_each(|_| engine.script_push(ScriptedPush::ending(Err(error(attempt)))));
        stream.start(key(1), attempt, push(image.clone(), &["app"])).await;
        let result = stream.result(key(1), attempt).await;
        assert!(matches!(result, StepResult::Lost { .. }), "{result:?}");
    }
    stream.start(key(1), 17, push(Digest::sha256(b"gone"), &["app"])).await;
    assert!(matches!(stream.result(key(1), 17).await, StepResult::Lost { .. }));
    bench.shut_down().await;
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_stopped() {
    let engine = Arc::new(ScriptedEngine::new());
    let gate = Gate::new();
    engine.script_build(ScriptedBuild::success("late", Vec::new()).saying(vec![output("waiting\n")]).waiting_at(&gate));
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let mut order = build();
    // Long enough for the build to begin on any machine.
    order.timeout = Duration::from_secs(10);
    stream.start(key(1), 1, order).await;
    assert_eq!(stream.result(key(1), 1).await, StepResult::TimedOut);
    let text = bench.server.log("ca1", 1).text();
    assert!(text.contains("waiting\n") && text.ends_with("error: timed out after 10 s\n"), "{text}");
    assert_eq!(engine.names(), Vec::<String>::new(), "the build was cancelled");
    bench.shut_down().await;
}

#[tokio::test]
async fn a_context_that_breaks_off_is_fetched_again() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    bench.server.refuse(0, 2);
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    bench.shut_down().await;
}
