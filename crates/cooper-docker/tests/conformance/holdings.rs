//! What only a real engine can show about registries and about what it holds: bases, pushes, reaping.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveImageOptions, TagImageOptionsBuilder,
};
use cooper_ports::engine::{
    BuildError, BuildFailure, EngineFeature, LocalName, OWNER_LABEL, PushError, PushRequest, RegistryCredential,
};
use cooper_types::{AttemptNumber, ImageRef, RegistryName, RunId, SecretString};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, DockerBench, run};
use crate::context::Context;
use crate::docker::docker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bases_behind_a_login_are_pulled_with_the_builds_own() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        bench.registry.require_login();
        let base = format!("{}/private/base:1", bench.registry.address());
        let image = bench.build(bench.request(Context::shell("FROM scratch\nCOPY bin /bin\n"))).await.0;
        let pushed = bench.push(image.expect("it builds").image, &base).await.expect("it is pushed");
        let dockerfile = format!("FROM {base}\nRUN echo ok\nFROM scratch\nCOPY --from={base} /bin/busybox /b\n");
        let registry = RegistryName::parse(bench.registry.address()).expect("a registry");

        let mut request = bench.request(Context::new(&dockerfile));
        let login = bench.registry.credential().expect("a login");
        request.logins = Arc::new(BTreeMap::from([(registry.clone(), login)]));
        let built = bench.build(request).await.0.expect("it builds");
        assert_eq!(built.bases.len(), 1);
        assert_eq!(built.bases[0].digest, pushed.digest);

        let wrong = RegistryCredential { username: "somebody".into(), password: SecretString::new("wrong".into()) };
        for credentials in [BTreeMap::new(), BTreeMap::from([(registry, wrong)])] {
            let mut request = bench.request(Context::new(&dockerfile));
            request.logins = Arc::new(credentials);
            let (built, _) = bench.build(request).await;
            match built {
                Err(BuildError::Failed(BuildFailure::BaseDenied { reference, .. })) => assert_eq!(reference, base),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_cannot_be_reached_is_named() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // Port 1 of the loopback: nothing listens there.
        let from = |base: &str| format!("FROM {base}\n");
        let syntax = |base: &str| format!("# syntax={base}\nFROM scratch\n");
        for (base, dockerfile) in [
            ("127.0.0.1:1/base:1", &from as &(dyn Fn(&str) -> String + Sync)),
            ("registry.invalid/base:1", &from),
            ("127.0.0.1:1/frontend:1", &syntax),
        ] {
            let (built, _) = bench.build(bench.request(Context::new(&dockerfile(base)))).await;
            match built {
                Err(BuildError::Failed(BuildFailure::BaseUnreachable { reference, .. })) => assert_eq!(reference, base),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_that_are_refused_say_why_and_leave_no_name() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.build(bench.request(Context::shell("FROM scratch\nCOPY bin /bin\n"))).await.0;
        let image = image.expect("it builds").image;
        let push = async |registry: &str, credential: Option<RegistryCredential>| {
            let (sink, _events) = mpsc::channel(1024);
            let reference = ImageRef::parse(&format!("{registry}/app:refused")).expect("a reference");
            let request = PushRequest { image: image.clone(), reference, credential };
            bench.engine.push(request, sink, CancellationToken::new()).await
        };
        let pushed = push("127.0.0.1:1", None).await;
        assert!(matches!(pushed, Err(PushError::Unreachable { .. })), "{pushed:?}");

        bench.registry.require_login();
        let address = bench.registry.address();
        // Not the wrong login: on it the engine tries for 50 s, because the answer to its HEAD has no code in it.
        let pushed = push(address, None).await;
        assert!(matches!(pushed, Err(PushError::Unauthorized { .. })), "{pushed:?}");
        let body = r#"{"errors":[{"code":"DENIED","message":"attempt 3 of step build of run ca1 is over"}]}"#;
        bench.registry.refuse(StatusCode::FORBIDDEN, body);
        let has_store = bench.engine.describe().features.contains(&EngineFeature::RegistryCache);
        match push(address, bench.registry.credential()).await {
            // Those that push by containerd keep the registry's words to themselves.
            Err(PushError::Unauthorized { message, .. }) if has_store => {
                assert!(["attempt 3 of step", "403 Forbidden"].iter().any(|why| message.contains(why)), "{message}");
            }
            Err(PushError::Unauthorized { message, .. }) => assert!(message.contains("attempt 3 of step"), "{message}"),
            other => panic!("{other:?}"),
        }
        bench.registry.refuse(StatusCode::BAD_REQUEST, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#);
        let pushed = push(address, bench.registry.credential()).await;
        assert!(matches!(pushed, Err(PushError::Refused { .. })), "{pushed:?}");

        let inspected = docker().await.inspect_image(image.as_str()).await.expect("an image");
        let names = inspected.repo_tags.unwrap_or_default();
        assert!(!names.iter().any(|name| name.contains("app:refused")), "{names:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reaping_takes_labelled_containers_networks_and_volumes() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // An image of its own: one that another test builds too would stay.
        let context = Context::shell("FROM scratch\nCOPY bin /bin\nCOPY own /own\n");
        let context = context.file("own", 0o644, &rand::random::<u128>().to_be_bytes());
        let image = bench.build(bench.request(context)).await.0.expect("it builds").image;
        let docker = docker().await;
        let labels = std::collections::HashMap::from([(OWNER_LABEL.to_owned(), bench.owner.label().to_owned())]);
        let unique = format!("cooper-test-{:016x}", rand::random::<u64>());
        let network = NetworkCreateRequest { name: unique.clone(), labels: Some(labels.clone()), ..Default::default() };
        docker.create_network(network).await.expect("a network");
        let volume =
            VolumeCreateRequest { name: Some(unique.clone()), labels: Some(labels.clone()), ..Default::default() };
        docker.create_volume(volume).await.expect("a volume");
        let container = ContainerCreateBody {
            image: Some(image.to_string()),
            cmd: Some(["busybox", "sleep", "1000"].map(str::to_owned).to_vec()),
            labels: Some(labels),
            host_config: Some(bollard::models::HostConfig {
                network_mode: Some(unique.clone()),
                binds: Some(vec![format!("{unique}:/data")]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let created = docker.create_container(None::<CreateContainerOptions>, container).await.expect("a container");
        docker.start_container(&created.id, None).await.expect("it starts");

        let reaped = bench.engine.reap(&bench.owner).await.expect("it reaps");
        assert_eq!((reaped.containers, reaped.networks, reaped.volumes, reaped.image_names), (1, 1, 1, 1));
        let all = ListContainersOptions { all: true, ..Default::default() };
        let left = docker.list_containers(Some(all)).await.expect("a list");
        assert!(!left.iter().any(|container| container.id.as_ref() == Some(&created.id)));
        assert!(docker.inspect_image(image.as_str()).await.is_err(), "the image went with its last name");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reaping_takes_what_a_push_left() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let context = Context::new("FROM scratch\nCOPY own /own\n");
        let context = context.file("own", 0o644, &rand::random::<u128>().to_be_bytes());
        // The bench's first name is of run ca1.
        let image = bench.build(bench.request(context)).await.0.expect("it builds").image;
        let docker = docker().await;
        let users = format!("cooper-test/{}", bench.owner.label());
        let name = |repository: String, tag: &'static str| {
            let options = TagImageOptionsBuilder::default().repo(&repository).tag(tag).build();
            let (docker, image) = (docker.clone(), image.clone());
            async move { docker.tag_image(image.as_str(), Some(options)).await.expect("it is named") }
        };
        for (repository, tag) in [("127.0.0.1:1/app", "staged.ca1.7"), (users.as_str(), "latest")] {
            name(repository.to_owned(), tag).await;
        }
        assert_eq!(bench.engine.reap(&bench.owner).await.expect("it reaps").image_names, 2);

        // The end of a run takes what its push left, and nothing of another run.
        let local = LocalName::new(&bench.owner, RunId::from_number(1), AttemptNumber(2));
        name(format!("{}ca1", bench.owner.name_prefix()), "2").await;
        let others = format!("127.0.0.1:1/{}", bench.owner.label());
        name("127.0.0.1:1/app".to_owned(), "staged.ca1.8").await;
        name(others.clone(), "staged.ca11.8").await;
        bench.engine.remove_names(&[local]).await.expect("they are removed");
        let others = format!("{others}:staged.ca11.8");
        let left = docker.inspect_image(image.as_str()).await.expect("other names keep it").repo_tags;
        let left = left.unwrap_or_default();
        assert!(left.len() == 2 && left.contains(&others), "{left:?}");
        docker.remove_image(&others, None::<RemoveImageOptions>, None).await.expect("it is removed");
        let left = docker.inspect_image(image.as_str()).await.expect("the user's name keeps it").repo_tags;
        assert_eq!(left, Some(vec![format!("{users}:latest")]));
        docker.remove_image(&users, None::<RemoveImageOptions>, None).await.expect("it is removed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_is_always_resolved_at_its_registry() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // By the name that the embedded registry has: the engine speaks plain HTTP to it, too.
        let registry = bench.registry.address().replace("127.0.0.1", "localhost");
        let base = format!("{registry}/moving/base:1");
        let dockerfile = format!("FROM {base}\nLABEL x=y\n");
        let mut seen = Vec::new();
        for content in [b"first", b"other"] {
            let context = Context::new("FROM scratch\nCOPY f /f\n").file("f", 0o644, content);
            let image = bench.build(bench.request(context)).await.0.expect("it builds").image;
            let pushed = bench.push(image, &base).await.expect("it is pushed");
            let built = bench.build(bench.request(Context::new(&dockerfile))).await.0.expect("it builds");
            assert_eq!(built.bases.len(), 1);
            assert_eq!((built.bases[0].reference.as_str(), &built.bases[0].digest), (base.as_str(), &pushed.digest));
            seen.push(built.image);
        }
        assert_ne!(seen[0], seen[1]);
        // What the engine holds under a name is not what the registry has.
        let options = TagImageOptionsBuilder::default().repo(&format!("{registry}/only/local")).tag("1").build();
        let docker = docker().await;
        docker.tag_image(seen[0].as_str(), Some(options)).await.expect("it is named");
        let local = format!("{registry}/only/local:1");
        let (built, _) = bench.build(bench.request(Context::new(&format!("FROM {local}\n")))).await;
        docker.remove_image(&local, None::<RemoveImageOptions>, None).await.expect("it is removed");
        assert!(matches!(built, Err(BuildError::Failed(BuildFailure::BaseMissing { .. }))), "{built:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_built_again_while_its_last_name_goes_stays() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let mut runs = Vec::new();
        for run in 0..6 {
            let bench = bench.clone();
            runs.push(tokio::spawn(async move {
                let docker = docker().await;
                for round in 0..10 {
                    let context = Context::shell("FROM scratch\nCOPY bin /bin\nRUN busybox seq 9 > /x\n");
                    let request = bench.request(context);
                    let name = request.name.clone();
                    let image = bench.build(request).await.0.expect("it builds").image;
                    for name in [image.as_str(), name.as_str()] {
                        let there = docker.inspect_image(name).await;
                        there.unwrap_or_else(|error| panic!("run {run}, round {round}, {name}: {error}"));
                    }
                    bench.engine.remove_names(&[name]).await.expect("it is removed");
                }
            }));
        }
        for run in runs {
            run.await.expect("every image stays until its name is removed");
        }
    })
    .await;
}
