//! Builds and pushes of tasks on the scripted engine: contexts from the workspace, bases of the run itself, tries,
//! registries outside.

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use cooper_api::agent::{BuildContextOrder, BuildOrder, CacheOrder, EnvironmentOrder, StepOrder, StepWork, wire};
use cooper_engine::message::{StepOutput, StepResult};
use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_ports::engine::scripted::{EngineCall, ScriptedBuild, ScriptedEngine, ScriptedPush};
use cooper_ports::engine::{
    BaseImages, BuildFailure, BuildNetwork, BuildRequest, ContainerEngine, EngineDescription, EngineFeature, PushError,
    ResolvedBase,
};
use cooper_spec::plan::Tries;
use cooper_types::{Digest, ImageRef, RegistryName, Tag};

use crate::bench::{Bench, archive, build_of, command_with, key, push};
use crate::server::TestStream;

fn from_workspace(folder: &str, dockerfile: &str, change: impl FnOnce(&mut BuildOrder)) -> StepOrder {
    let mut order = build_of(dockerfile, &[]);
    order.environment = Some(EnvironmentOrder { has_context: true, ..EnvironmentOrder::default() });
    let StepWork::Build(build) = &mut order.work else { unreachable!("a build was asked for") };
    build.context = BuildContextOrder::Workspace(folder.to_owned());
    change(build);
    order
}

fn builds(engine: &ScriptedEngine) -> Vec<BuildRequest> {
    let calls = engine.calls().into_iter();
    calls.filter_map(|call| if let EngineCall::Build(request) = call { Some(*request) } else { None }).collect()
}

fn text_of(tree: &ContextTree, path: &str) -> String {
    let Some(EntryKind::File { offset, size }) = tree.get(path).map(|entry| entry.kind.clone()) else {
        panic!("{path} in {:?}", tree.entries())
    };
    let mut text = vec![0; usize::try_from(size).expect("small")];
    tree.contents().read_exact_at(&mut text, offset).expect("read");
    let mut out = String::new();
    text.as_slice().read_to_string(&mut out).expect("text");
    out
}

fn reason(result: &StepResult) -> &str {
    match result {
        StepResult::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_context_is_the_workspaces_folder_with_and_without_a_container_before() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let files: [(&str, &[u8]); 4] = [
        ("Dockerfile", b"FROM scratch\n"),
        ("src/Dockerfile", b"FROM scratch\nCOPY a /\n"),
        ("src/a", b"content"),
        ("docker/Other", b"FROM scratch\nCOPY a /other\n"),
    ];
    bench.server.serve_context(archive(&files));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let mut attempt = 0;
    for changed in [false, true] {
        if changed {
            let touch = command_with("busybox", &["touch"], |_, environment| environment.has_context = true);
            attempt += 1;
            stream.start(key(1), attempt, touch).await;
            assert!(matches!(stream.result(key(1), attempt).await, StepResult::Succeeded { .. }));
        }
        let mut build = async |order: StepOrder| {
            attempt += 1;
            stream.start(key(1), attempt, order).await;
            stream.result(key(1), attempt).await
        };
        // The scripted volume knows folders by the archives that were put there: of a changed one, only the whole.
        let folder = if changed { "" } else { "src" };
        assert!(matches!(build(from_workspace(folder, "Dockerfile", |_| {})).await, StepResult::Succeeded { .. }));
        let last = builds(&engine).pop().expect("a build");
        assert_eq!((last.context.get("a").is_some(), last.dockerfile_tree.is_none()), (!changed, true));
        assert_eq!((last.bases, last.network), (BaseImages::FromRegistries, BuildNetwork::Default));
        assert!(matches!(build(from_workspace("src", "/docker/./Other", |_| {})).await, StepResult::Succeeded { .. }));
        let last = builds(&engine).pop().expect("a build");
        assert!(last.context.get("a").is_some() && last.context.get("docker").is_none());
        assert_eq!(last.dockerfile, "docker/Other");
        assert!(text_of(&last.dockerfile_tree.expect("another place"), "docker/Other").contains("/other"));
        let missing = build(from_workspace("nowhere", "/docker/Other", |_| {})).await;
        assert_eq!(reason(&missing), "folder `nowhere` is not in the workspace");
        let host = build(from_workspace("src", "Dockerfile", |build| build.network = Some("host".into())));
        if !changed {
            assert!(reason(&host.await).contains("--allow-network host"));
        }
    }
    let reads = engine.calls().iter().filter(|call| matches!(call, EngineCall::GetArchive(..))).count();
    assert_eq!(reads, 3, "only after the container");
    stream.stop(key(1)).await;
    assert_eq!((engine.placements(), bench.leftovers()), (Vec::new(), Vec::new()));
    bench.shut_down().await;
}

/// What the builds below read caches from: their own reference, and the image as it was pushed before.
const CACHES: [&str; 2] = ["localhost:5000/app:cache_t_s", "localhost:5000/app:v1"];

fn cache(writable: bool) -> CacheOrder {
    let [reference, image] = CACHES.map(|name| ImageRef::parse(name).expect("valid"));
    CacheOrder { reference, writable, images: vec![image] }
}

#[tokio::test]
async fn a_cache_is_written_to_a_registry_where_the_engine_can_and_the_run_may() {
    let able = |description: &EngineDescription| EngineDescription {
        features: description.features.iter().copied().chain([EngineFeature::RegistryCache]).collect(),
        ..description.clone()
    };
    let plain = ScriptedEngine::new().describe();
    for (engine, writable, says) in [
        (able(&plain), true, "kept in the registry as localhost:5000/app:cache_t_s"),
        (able(&plain), false, "inline in the image, and read from localhost:5000/app:cache_t_s, localhost:5000/app:v1"),
        ((*plain).clone(), true, "Scripted Engine 1.0 writes none to a registry"),
    ] {
        let is_written = says.starts_with("kept");
        let engine = Arc::new(ScriptedEngine::with_description(engine));
        let mut bench = Bench::start(engine.clone());
        bench.server.serve_context(archive(&[("Dockerfile", b"FROM scratch\n")]));
        let mut stream = bench.stream().await;
        stream.place(key(1)).await;
        stream.start(key(1), 1, from_workspace("", "Dockerfile", |build| build.cache = Some(cache(writable)))).await;
        assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
        let last = builds(&engine).pop().expect("a build");
        assert_eq!(last.cache_from, CACHES);
        assert_eq!(last.cache_to.as_deref(), is_written.then_some(CACHES[0]));
        assert_eq!(last.arguments.iter().any(|(name, _)| name == "BUILDKIT_INLINE_CACHE"), !is_written);
        let log = bench.server.log("ca1", 1).text();
        assert!(log.contains(says), "{log}");
        stream.stop(key(1)).await;
        bench.shut_down().await;
    }
}

#[tokio::test]
async fn a_base_that_the_run_built_is_the_runs_own() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let dockerfile = b"FROM alpine:3 AS tools\nFROM localhost:5000/app\nCOPY --from=tools /a /a\n";
    bench.server.serve_context(archive(&[("Dockerfile", dockerfile), ("base/Dockerfile", b"FROM scratch\n")]));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    engine.script_build(ScriptedBuild::success("app", Vec::new()));
    stream.start(key(1), 1, from_workspace("base", "Dockerfile", |_| {})).await;
    stream.result(key(1), 1).await;
    let own = |build: &mut BuildOrder| {
        build.own_bases = vec![("localhost:5000/app:latest".into(), Digest::sha256(b"app"))];
        build.add_hosts = vec!["db:10.0.0.1".into()];
        build.cache = Some(cache(true));
    };
    engine.script_build(ScriptedBuild::failure(BuildFailure::BaseMissing { reference: "cooper.invalid/x".into() }));
    stream.start(key(1), 2, from_workspace("", "Dockerfile", own)).await;
    stream.result(key(1), 2).await;
    let last = builds(&engine).pop().expect("a build");
    assert_eq!((last.bases, last.hosts.as_slice()), (BaseImages::OfTheEngineFirst, &["db:10.0.0.1".to_owned()][..]));
    assert_eq!((last.cache_from.as_slice(), last.cache_to), (&CACHES.map(str::to_owned)[..], None));
    assert!(last.arguments.contains(&("BUILDKIT_INLINE_CACHE".into(), "1".into())));
    // What was pulled is what the build takes; nobody needs to be asked.
    let resolved: Vec<_> = last.resolved.iter().map(|base| base.reference.as_str()).collect();
    assert_eq!((resolved, last.copied.as_slice()), (vec!["docker.io/library/alpine:3"], &[][..]));
    let text = text_of(&last.dockerfile_tree.expect("a tree"), "Dockerfile");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("FROM cooper.invalid/") && lines[1].ends_with("/ca1:1"), "{text}");
    assert_eq!((lines[0], lines[2]), ("FROM alpine:3 AS tools", "COPY --from=tools /a /a"));
    let calls = engine.calls();
    let pulls: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            EngineCall::Pull(request) => Some(request.reference.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(pulls, ["docker.io/library/alpine:3"]);
    stream.start(key(1), 3, from_workspace("", "Dockerfile", own)).await;
    let result = stream.result(key(1), 3).await;
    let StepResult::Succeeded { output: StepOutput::Built { bases, .. } } = result else { panic!("{result:?}") };
    assert!(bases.iter().all(|base| base.reference == "alpine:3"), "{bases:?}");
    // One that was not built in this placement is a loss: the placement's own images are gone.
    stream
        .start(
            key(1),
            4,
            from_workspace("", "Dockerfile", |build| {
                build.own_bases = vec![("localhost:5000/app".into(), Digest::sha256(b"elsewhere"))];
            }),
        )
        .await;
    assert!(matches!(stream.result(key(1), 4).await, StepResult::Lost { .. }));
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn a_base_of_another_placement_is_read_where_it_was_left() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let dockerfile = b"FROM alpine:3\nCOPY --from=team/data:v1 /a /a\nCOPY --from=tool:1 /t /t\n";
    bench.server.serve_context(archive(&[("Dockerfile", dockerfile)]));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let left = format!("localhost:5000/team/data@{}", Digest::sha256(b"data"));
    let order = from_workspace("", "Dockerfile", |build| {
        build.staged_bases = vec![("team/data:v1".into(), ImageRef::parse(&left).expect("valid"))];
    });
    let resolved = ResolvedBase { reference: left.clone(), digest: Digest::sha256(b"data") };
    engine.script_build(ScriptedBuild::success("app", vec![resolved]));
    stream.start(key(1), 1, order).await;
    let result = stream.result(key(1), 1).await;
    let StepResult::Succeeded { output: StepOutput::Built { bases, .. } } = result else { panic!("{result:?}") };
    let names: Vec<_> = bases.iter().map(|base| base.reference.as_str()).collect();
    assert_eq!(names, ["alpine:3", "tool:1"], "the run's own images are no bases of others");
    let last = builds(&engine).pop().expect("a build");
    assert_eq!(last.bases, BaseImages::FromRegistries, "all of its bases are in registries");
    assert_eq!(last.copied, ["docker.io/library/tool:1"], "what an engine may not tell, as it spells it");
    let text = text_of(&last.dockerfile_tree.expect("a tree"), "Dockerfile");
    assert_eq!(text, format!("FROM alpine:3\nCOPY --from={left} /a /a\nCOPY --from=tool:1 /t /t\n"));
    assert!(!engine.calls().iter().any(|call| matches!(call, EngineCall::Pull(_))), "nothing is pulled before");
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn builds_are_tried_again_too() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let tries = |texts: &[&str]| Tries {
        retries: 1,
        retry_delay: Duration::from_millis(1),
        retry_on_errors: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..Tries::default()
    };
    let fail =
        || engine.script_build(ScriptedBuild::failure(BuildFailure::Exited { step: "RUN make".into(), code: 7 }));
    let order = |texts: &[&str]| StepOrder { tries: tries(texts), ..from_workspace("", "Dockerfile", |_| {}) };
    fail();
    stream.start(key(1), 1, order(&[])).await;
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    fail();
    stream.start(key(1), 2, order(&["network"])).await;
    assert!(matches!(stream.result(key(1), 2).await, StepResult::Failed { exit_code: Some(7), .. }));
    fail();
    stream.start(key(1), 3, order(&["exited with code 7"])).await;
    assert!(matches!(stream.result(key(1), 3).await, StepResult::Succeeded { .. }));
    assert_eq!(builds(&engine).len(), 5);
    let tries = stream.resolved.iter().map(|(attempt, resolved)| (attempt.0, resolved.tries));
    assert_eq!(tries.collect::<Vec<_>>(), [(1, 2), (3, 2)], "each try after the first one is told");
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

/// A placement whose engine has built `app`.
async fn with_app() -> (Arc<ScriptedEngine>, Bench, TestStream) {
    let engine = Arc::new(ScriptedEngine::new());
    engine.script_build(ScriptedBuild::success("app", Vec::new()));
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, from_workspace("", "Dockerfile", |_| {})).await;
    stream.result(key(1), 1).await;
    (engine, bench, stream)
}

#[tokio::test]
async fn a_push_outside_has_the_users_tag_and_three_tries() {
    let (engine, bench, mut stream) = with_app().await;
    let mut order = push(Digest::sha256(b"app"), &["team/app", "team/out"]);
    let StepWork::Push(pushes) = &mut order.work else { unreachable!("a push was asked for") };
    pushes.targets[1].registry = Some(RegistryName::parse("registry.example").expect("valid"));
    let refused = || {
        let reference = ImageRef::parse("registry.example/team/out:staged.1.2").expect("valid");
        engine.script_push(ScriptedPush::ending(Err(PushError::Unauthorized { reference, message: "no".into() })));
    };
    engine.script_push(ScriptedPush::ending(Ok(cooper_ports::engine::PushedImage {
        digest: Digest::sha256(b"m"),
        size: Some(1),
    })));
    refused();
    refused();
    stream.start(key(1), 2, order.clone()).await;
    let result = stream.result(key(1), 2).await;
    let StepResult::Succeeded { output: StepOutput::Pushed { manifests } } = result else { panic!("{result:?}") };
    let registries: Vec<_> = manifests.iter().map(|one| one.registry.as_ref().map(ToString::to_string)).collect();
    assert_eq!(registries, [None, Some("registry.example".to_owned())], "what went outside is on record, too");
    let log = bench.server.log("ca1", 2).text();
    assert!(log.contains("pushed registry.example/team/out@sha256:"), "{log}");
    assert_eq!(log.matches("tried again").count(), 2, "{log}");
    engine.script_push(ScriptedPush::ending(Ok(cooper_ports::engine::PushedImage {
        digest: Digest::sha256(b"m"),
        size: Some(1),
    })));
    (0..3).for_each(|_| refused());
    stream.start(key(1), 3, order).await;
    assert!(reason(&stream.result(key(1), 3).await).contains("does not allow the push"), "it is the user's");
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn a_tag_outside_is_moved_in_its_turn_and_stays_where_a_newer_run_moved_it() {
    let (engine, bench, mut stream) = with_app().await;
    let mut order = push(Digest::sha256(b"app"), &["team/out", "team/own"]);
    let StepWork::Push(pushes) = &mut order.work else { unreachable!("a push was asked for") };
    for (target, tag) in pushes.targets.iter_mut().zip(["latest", "1"]) {
        target.registry = Some(RegistryName::parse("registry.example").expect("valid"));
        target.staging_tag = Tag::parse(tag).expect("valid");
    }
    let taken = wire::TagClaim { taken_by: "ca7".to_owned(), newer: Vec::new() };
    let newer = wire::NewerTag {
        registry: "registry.example".to_owned(),
        repository: "team/out".to_owned(),
        tag: "latest".to_owned(),
        run: "ca9".to_owned(),
    };
    let granted = wire::TagClaim { taken_by: String::new(), newer: vec![newer] };
    [taken.clone(), taken, granted].into_iter().for_each(|claim| bench.server.answer_claim(claim));
    engine.script_push(ScriptedPush::ending(Ok(cooper_ports::engine::PushedImage {
        digest: Digest::sha256(b"m"),
        size: Some(1),
    })));
    stream.start(key(1), 2, order).await;
    let result = stream.result(key(1), 2).await;
    let StepResult::Succeeded { output: StepOutput::Pushed { manifests } } = result else { panic!("{result:?}") };
    let moved: Vec<_> = manifests.iter().map(|one| format!("{}:{}", one.repository, one.staging_tag)).collect();
    assert_eq!((moved, bench.server.claims_left()), (vec!["team/own:1".to_owned()], 0));
    let log = bench.server.log("ca1", 2).text();
    assert_eq!(log.matches("waiting for run ca7, which moves the same tag now").count(), 1, "{log}");
    assert!(log.contains("registry.example/team/out:latest: tag not moved: newer run ca9 has moved it"), "{log}");
    stream.stop(key(1)).await;
    bench.shut_down().await;
}
