//! What every engine does, the fake included.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cooper_ports::engine::scripted::{Gate, ScriptedBuild, ScriptedPush};
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildFailure, EngineDescription, EngineFeature, LocalName, OutputStream, PushError,
    PushRequest, PushedImage, ResolvedBase, VertexEvent,
};
use cooper_types::{Digest, ImageRef, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, soon};
use crate::context::Context;

const HELLO: &str = "FROM scratch\nCOPY bin /bin\nRUN echo out; echo err >&2\n";

fn vertex(name: &str, cached: bool) -> BuildEvent {
    let time = Some(Timestamp::from_micros(1_700_000_000_000_000));
    let (started, completed) = (time, time);
    BuildEvent::Vertex(VertexEvent { id: name.into(), name: name.into(), started, completed, cached, error: None })
}

fn log(stream: OutputStream, text: &'static str) -> BuildEvent {
    BuildEvent::Log { vertex: "[2/2] RUN".into(), stream, bytes: Bytes::from(text) }
}

pub(crate) async fn it_says_what_it_is_and_answers_pings(bench: Arc<Bench>) {
    let description = bench.engine.describe();
    assert!(!description.version.is_empty() && !description.api_version.is_empty());
    assert!(description.features.contains(&EngineFeature::BuildKit));
    assert!(!description.emulated.contains(&description.native));
    bench.engine.ping().await.expect("it answers");
    let again = bench.engine.refresh().await.expect("it says it again");
    assert_eq!(again, bench.engine.describe());
    // Which platforms it has may take a busy builder more than one look.
    let same = EngineDescription { emulated: description.emulated.clone(), ..EngineDescription::clone(&again) };
    assert_eq!(same, *description);
    assert!(again.features.contains(&EngineFeature::BuildKit), "{again:?}");
}

pub(crate) async fn it_says_what_it_keeps_and_a_cache_within_its_budget_stays(bench: Arc<Bench>) {
    let storage = bench.engine.storage().await.expect("it measures");
    assert!(storage.root.is_absolute(), "{storage:?}");
    assert_eq!(bench.engine.shrink_cache(u64::MAX).await.expect("it has nothing to do"), 0);
}

pub(crate) async fn a_build_tells_its_vertices_and_output_and_gives_an_image(bench: Arc<Bench>) {
    bench.next_build(|| {
        ScriptedBuild::success("hello", Vec::new()).saying(vec![
            vertex("[2/2] RUN echo out; echo err >&2", false),
            log(OutputStream::Stdout, "out\n"),
            log(OutputStream::Stderr, "err\n"),
        ])
    });
    let mut request = bench.request(Context::shell(HELLO));
    request.no_cache = true;
    let (built, said) = bench.build(request).await;
    let built = built.expect("it builds");
    assert_eq!(built.bases, [], "scratch is no image");
    let run = said.vertex("RUN echo out");
    assert!(!run.cached && run.started.is_some() && run.completed >= run.started, "{run:?}");
    let of = |wanted: OutputStream| -> Vec<u8> {
        let logs = said.0.iter().filter_map(|event| match event {
            BuildEvent::Log { stream, bytes, .. } if *stream == wanted => Some(bytes.to_vec()),
            _ => None,
        });
        logs.flatten().collect()
    };
    assert_eq!(of(OutputStream::Stdout), b"out\n");
    assert_eq!(of(OutputStream::Stderr), b"err\n");
}

pub(crate) async fn a_second_build_comes_from_the_cache(bench: Arc<Bench>) {
    let script = |cached| {
        ScriptedBuild::success("hello", Vec::new()).saying(vec![vertex("[2/2] RUN echo out; echo err >&2", cached)])
    };
    bench.next_build(|| script(false));
    bench.next_build(|| script(true));
    let (first, _) = bench.build(bench.request(Context::shell(HELLO))).await;
    let (second, said) = bench.build(bench.request(Context::shell(HELLO))).await;
    assert!(said.vertex("RUN echo out").cached);
    assert_eq!(first.expect("it builds").image, second.expect("it builds").image);
}

pub(crate) async fn a_build_without_a_listener_succeeds(bench: Arc<Bench>) {
    bench.next_build(|| ScriptedBuild::success("hello", Vec::new()).saying(vec![vertex("v", false); 100]));
    let (sink, events) = mpsc::channel(1);
    drop(events);
    let request = bench.request(Context::shell(HELLO));
    bench.engine.build(request, sink, CancellationToken::new()).await.expect("it builds");
}

pub(crate) async fn bases_are_resolved_to_digests(bench: Arc<Bench>) {
    let base = format!("{}/base/shell:1", bench.registry.address());
    let tool = format!("{}/base/tool:2", bench.registry.address());
    // The fake's registry stays empty: it makes the digests up.
    let pushed = |image: &Digest| PushedImage { digest: Digest::sha256(image.as_str().as_bytes()), size: Some(1) };
    let (shell, _) = bench.build(bench.request(Context::shell("FROM scratch\nCOPY bin /bin\n"))).await;
    let shell = shell.expect("it builds").image;
    bench.next_push(|| ScriptedPush::ending(Ok(pushed(&shell))));
    let base_digest = bench.push(shell.clone(), &base).await.expect("it is pushed").digest;
    let context = Context::new("FROM scratch\nCOPY tool /tool\n").file("tool", 0o755, b"a tool");
    let (other, _) = bench.build(bench.request(context)).await;
    let other = other.expect("it builds").image;
    bench.next_push(|| ScriptedPush::ending(Ok(pushed(&other))));
    let tool_digest = bench.push(other.clone(), &tool).await.expect("it is pushed").digest;

    let expect = vec![
        ResolvedBase { reference: base.clone(), digest: base_digest },
        ResolvedBase { reference: tool.clone(), digest: tool_digest },
    ];
    bench.next_build(|| ScriptedBuild::success("app", expect.clone()));
    bench.next_build(|| ScriptedBuild::success("app", expect.clone()));
    let dockerfile = format!(
        "FROM {base} AS build\nCOPY --from={tool} /tool /tool\nFROM {base} AS unused\nRUN exit 1\nFROM scratch\n\
         COPY --from=build /tool /tool\n"
    );
    for cached in [false, true] {
        let (built, said) = bench.build(bench.request(Context::new(&dockerfile))).await;
        assert_eq!(built.expect("it builds").bases, expect, "cached: {cached}, {said:#?}");
    }
}

pub(crate) async fn a_failing_run_gives_its_exit_code(bench: Arc<Bench>) {
    let step = "[3/3] RUN echo 'exit code: 9'; exit 42";
    bench.next_build(|| ScriptedBuild::failure(BuildFailure::Exited { step: step.into(), code: 42 }));
    let dockerfile = "FROM scratch\nCOPY bin /bin\nRUN echo 'exit code: 9'; exit 42\n";
    let (built, _) = bench.build(bench.request(Context::shell(dockerfile))).await;
    match built {
        Err(BuildError::Failed(BuildFailure::Exited { step, code: 42 })) => assert!(step.contains("exit 42"), "{step}"),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_missing_dockerfile_is_named(bench: Arc<Bench>) {
    for path in ["Other.dockerfile", "sub/Dockerfile"] {
        bench.next_build(|| ScriptedBuild::failure(BuildFailure::DockerfileMissing { path: path.into() }));
        let mut request = bench.request(Context::new("FROM scratch\n"));
        request.dockerfile = path.into();
        let (built, _) = bench.build(request).await;
        match built {
            Err(BuildError::Failed(BuildFailure::DockerfileMissing { path: named })) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn a_bad_line_is_named(bench: Arc<Bench>) {
    bench.next_build(|| {
        ScriptedBuild::failure(BuildFailure::Dockerfile {
            path: "Dockerfile".into(),
            line: Some(3),
            message: "unknown instruction: FORM".into(),
        })
    });
    let (built, _) = bench.build(bench.request(Context::new("FROM scratch\n\nFORM x\n"))).await;
    match built {
        Err(BuildError::Failed(failure @ BuildFailure::Dockerfile { line: Some(3), .. })) => {
            // Later engines go on: "(did you mean FROM?)".
            let text = failure.to_string();
            assert!(text.starts_with("Dockerfile `Dockerfile`, line 3: unknown instruction: FORM"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn an_unknown_base_image_is_named(bench: Arc<Bench>) {
    let base = format!("{}/no/such:image", bench.registry.address());
    bench.next_build(|| ScriptedBuild::failure(BuildFailure::BaseMissing { reference: base.clone() }));
    let (built, _) = bench.build(bench.request(Context::new(&format!("FROM {base}\n")))).await;
    match built {
        Err(BuildError::Failed(BuildFailure::BaseMissing { reference })) => assert_eq!(reference, base),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn an_unknown_target_is_named(bench: Arc<Bench>) {
    let failure = || BuildFailure::TargetMissing { path: "Dockerfile".into(), target: "nowhere".into() };
    bench.next_build(|| ScriptedBuild::failure(failure()));
    let mut request = bench.request(Context::new("FROM scratch AS somewhere\n"));
    request.target = Some("nowhere".into());
    let (built, _) = bench.build(request).await;
    match built {
        Err(BuildError::Failed(named)) => assert_eq!(named, failure()),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_missing_secret_is_named(bench: Arc<Bench>) {
    bench.next_build(|| ScriptedBuild::failure(BuildFailure::SecretMissing { id: "tok".into() }));
    let dockerfile = "FROM scratch\nCOPY bin /bin\nRUN --mount=type=secret,id=tok,required cat /run/secrets/tok\n";
    let mut request = bench.request(Context::shell(dockerfile));
    request.secrets = BTreeMap::from([("other".into(), cooper_types::SecretBytes::new(b"x".to_vec()))]);
    let (built, _) = bench.build(request).await;
    match built {
        Err(BuildError::Failed(BuildFailure::SecretMissing { id })) => assert_eq!(id, "tok"),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_cancelled_build_ends_without_its_run(bench: Arc<Bench>) {
    let gate = Gate::new();
    bench.next_build(|| {
        ScriptedBuild::success("never", Vec::new())
            .saying(vec![log(OutputStream::Stdout, "started\n")])
            .waiting_at(&gate)
    });
    let dockerfile = "FROM scratch\nCOPY bin /bin\nRUN echo started; busybox sleep 3600\n";
    let mut request = bench.request(Context::shell(dockerfile));
    request.no_cache = true;
    let name = request.name.clone();
    let (sink, mut events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let build = tokio::spawn({
        let (bench, cancel) = (bench.clone(), cancel.clone());
        async move { bench.engine.build(request, sink, cancel).await }
    });
    while let Some(event) = events.recv().await {
        if matches!(&event, BuildEvent::Log { bytes, .. } if bytes.starts_with(b"started")) {
            break;
        }
    }
    cancel.cancel();
    let built = soon("the end of the build", build).await.expect("it does not panic");
    assert!(matches!(built, Err(BuildError::Cancelled)), "{built:?}");
    bench.engine.remove_names(&[name]).await.expect("there is nothing to remove");
}

pub(crate) async fn a_build_that_was_cancelled_before_it_began_does_nothing(bench: Arc<Bench>) {
    bench.next_build(|| ScriptedBuild::success("never", Vec::new()).saying(vec![vertex("v", false)]));
    let (sink, mut events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let built = bench.engine.build(bench.request(Context::shell(HELLO)), sink, cancel).await;
    assert!(matches!(built, Err(BuildError::Cancelled)), "{built:?}");
    assert_eq!(events.recv().await, None);
}

pub(crate) async fn a_push_gives_the_manifests_digest(bench: Arc<Bench>) {
    let (built, _) = bench.build(bench.request(Context::shell(HELLO))).await;
    let image = built.expect("it builds").image;
    let reference = format!("{}/team/app:staged.ca1.1", bench.registry.address());
    let first = bench.push(image.clone(), &reference).await.expect("it is pushed");
    let second = bench.push(image, &reference).await.expect("it is pushed again");
    assert_eq!(first, second);
    // With containerd's store, not every engine tells it.
    let tells = !bench.engine.describe().features.contains(&EngineFeature::RegistryCache);
    assert!(first.size.map_or(!tells, |size| size > 0), "{first:?}");
    if bench.is_real() {
        assert_eq!(bench.registry.tag("team/app:staged.ca1.1"), Some(first.digest));
    }
}

pub(crate) async fn a_push_of_an_image_that_is_gone_says_so(bench: Arc<Bench>) {
    let image = Digest::sha256(b"no image has this id");
    let pushed = bench.push(image.clone(), &format!("{}/app:1", bench.registry.address())).await;
    assert!(matches!(&pushed, Err(PushError::ImageMissing { image: named }) if *named == image), "{pushed:?}");
}

pub(crate) async fn a_push_needs_a_registry_and_a_tag(bench: Arc<Bench>) {
    let (built, _) = bench.build(bench.request(Context::shell(HELLO))).await;
    let image = built.expect("it builds").image;
    for reference in ["app:1", "r.io/app", &format!("r.io/app:1@{image}")] {
        let pushed = bench.push(image.clone(), reference).await;
        assert!(matches!(pushed, Err(PushError::Reference { .. })), "{reference}: {pushed:?}");
    }
}

pub(crate) async fn a_cancelled_push_ends_without_its_registry(bench: Arc<Bench>) {
    let context = Context::new("FROM scratch\nCOPY f /\n").file("f", 0o644, &rand::random::<u128>().to_be_bytes());
    let (built, _) = bench.build(bench.request(context)).await;
    let image = built.expect("it builds").image;
    let gate = Gate::new();
    bench.next_push(|| {
        ScriptedPush::ending(Ok(PushedImage { digest: Digest::sha256(b"never"), size: Some(1) })).waiting_at(&gate)
    });
    bench.registry.hold();
    let cancel = CancellationToken::new();
    let push = tokio::spawn({
        let (bench, cancel) = (bench.clone(), cancel.clone());
        async move {
            let (sink, _events) = mpsc::channel(1024);
            let reference = ImageRef::parse(&format!("{}/app:held", bench.registry.address())).expect("a reference");
            bench.engine.push(PushRequest { image, reference, credential: None }, sink, cancel).await
        }
    });
    if bench.is_real() {
        bench.registry.somebody_waits().await;
    } else {
        gate.arrival().await;
    }
    cancel.cancel();
    let pushed = soon("the end of the push", push).await.expect("it does not panic");
    assert!(matches!(pushed, Err(PushError::Cancelled)), "{pushed:?}");
}

pub(crate) async fn reaping_takes_the_owners_names_only(bench: Arc<Bench>) {
    let other = cooper_ports::engine::EngineOwner::new(&format!("{:?} other", bench.owner));
    let mut foreign = bench.request(Context::shell(HELLO));
    foreign.name = LocalName::new(&other, cooper_types::RunId::from_number(1), cooper_types::AttemptNumber(1));
    bench.build(foreign).await.0.expect("it builds");
    for _ in 0..2 {
        bench.build(bench.request(Context::shell(HELLO))).await.0.expect("it builds");
    }
    let reaped = bench.engine.reap(&bench.owner).await.expect("it reaps");
    assert_eq!((reaped.image_names, reaped.containers), (2, 0));
    assert_eq!(bench.engine.reap(&bench.owner).await.expect("it reaps nothing").image_names, 0);
    assert_eq!(bench.engine.reap(&other).await.expect("it reaps the other's").image_names, 1);
}

pub(crate) async fn names_are_removed_once_or_twice(bench: Arc<Bench>) {
    let request = bench.request(Context::shell(HELLO));
    let name = request.name.clone();
    let (built, _) = bench.build(request).await;
    let image = built.expect("it builds").image;
    for _ in 0..2 {
        bench.engine.remove_names(std::slice::from_ref(&name)).await.expect("it is gone");
    }
    assert_eq!(bench.engine.reap(&bench.owner).await.expect("it reaps nothing").image_names, 0);
    drop(image);
}
