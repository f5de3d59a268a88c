//! What volumes of placements hold, for whom, and until when, on a real engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use cooper_ports::engine::{ContainerError, PlacementRequest, VolumeContent, VolumeMount, VolumeRequest};
use cooper_types::SecretBytes;
use futures::TryStreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, DockerBench, a_moment, output_of, run, script, soon, volume};
use crate::docker::docker;
use crate::rooms::nothing_is_left;

const SECRET: &str = "correct-horse-battery-staple";
/// The bench's placement with a secret volume.
pub(crate) fn with_secret(bench: &Bench) -> PlacementRequest {
    let mut request = bench.placement();
    let files = BTreeMap::from([
        ("token".to_owned(), SecretBytes::new(SECRET.as_bytes().to_vec())),
        (".bin-1".to_owned(), SecretBytes::new(vec![0, 10, 255])),
    ]);
    request.volumes.push(VolumeRequest { name: volume("keys"), content: VolumeContent::Secret(files) });
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_files_are_in_memory_only() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        for shared_network in [true, false] {
            let mut request = with_secret(&bench);
            request.shared_network = shared_network;
            let scope = request.scope.clone();
            let placement = bench.open(request).await;
            let mount = VolumeMount { volume: volume("keys"), path: "/run/keys".into(), read_only: true };
            let with_keys = |text: &str| {
                let mut request = script(&image, text);
                (request.mounts, request.user) = (vec![mount.clone()], Some("1000".into()));
                request
            };
            let text = "busybox cat /run/keys/token; busybox wc -c < /run/keys/.bin-1; \
                        busybox grep ' /run/keys ' /proc/mounts | busybox cut -d ' ' -f 1,3; \
                        busybox touch /run/keys/x 2>/dev/null || echo read only";
            for _ in 0..2 {
                let said = output_of(&*placement, with_keys(text)).await;
                assert_eq!(said, format!("{SECRET}3\ntmpfs tmpfs\nread only\n"));
            }
            // A step without it, and one that leaves a link to where the helper has it.
            let text =
                "busybox ls /run 2>&1; busybox ln -s /volumes/keys /work/evil; busybox ln -s ../../keys /work/up";
            let mut without = script(&image, text);
            without.mounts = vec![VolumeMount { volume: volume("work"), path: "/work".into(), read_only: false }];
            assert!(!output_of(&*placement, without).await.contains("keys"));
            for folder in ["evil", "up", "../keys", "evil/."] {
                let Ok(stream) = placement.get_archive(&volume("work"), folder).await else { continue };
                let parts: Result<Vec<_>, _> = stream.try_collect().await;
                let bytes = parts.map(|parts| parts.concat()).unwrap_or_default();
                assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{folder}");
            }
            let archived = placement.get_archive(&volume("keys"), "").await.map(drop);
            archived.expect_err("secrets have no archive");
            // When the memory is let go, nothing is below it.
            let docker = docker().await;
            let inspected = docker.inspect_volume(&scope.object_name("keys")).await.expect("a volume");
            placement.close().await.expect("it closes");
            assert!(!std::path::Path::new(&inspected.mountpoint).exists());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_whose_helper_has_died_is_a_loss_and_not_empty() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        for shared_network in [true, false] {
            let mut request = with_secret(&bench);
            request.shared_network = shared_network;
            let holder = request.scope.object_name("hold0");
            let placement = bench.open(request).await;
            let mut with_keys = script(&image, "busybox cat /run/keys/token; exec busybox sleep 20");
            with_keys.mounts = vec![VolumeMount { volume: volume("keys"), path: "/run/keys".into(), read_only: true }];
            docker().await.kill_container(&holder, None).await.expect("it is killed");
            let (sink, mut events) = mpsc::channel(64);
            let ended = placement.run(with_keys, sink, CancellationToken::new()).await;
            assert!(matches!(&ended, Err(ContainerError::Machinery(_))), "{shared_network}: {ended:?}");
            assert!(events.try_recv().is_err(), "nothing of it was told");
            placement.close().await.expect("it closes");
        }
        nothing_is_left(&bench).await;
    })
    .await;
}

#[test]
fn an_agents_death_takes_the_secrets_with_it() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("one");
    let agent = runtime();
    let (bench, scope) = agent.block_on(async {
        let bench = DockerBench::start().await;
        let request = with_secret(&bench);
        let scope = request.scope.clone();
        // Never closed: the value is forgotten as in a process that dies.
        std::mem::forget(bench.open(request).await);
        (bench, scope)
    });
    agent.shutdown_background();
    runtime().block_on(async move {
        let docker = docker().await;
        let holder = scope.object_name("hold0");
        let ended = async {
            loop {
                let inspected = docker.inspect_container(&holder, None).await.expect("it is there");
                if inspected.state.and_then(|state| state.running) == Some(false) {
                    break;
                }
                a_moment().await;
            }
        };
        soon("the end of the helper, with its agent's", ended).await;
        let inspected = docker.inspect_volume(&scope.object_name("keys")).await.expect("a volume");
        let left: Vec<_> = std::fs::read_dir(&inspected.mountpoint).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?}");
        // The next life of the agent.
        let engine = crate::bench::connect().await;
        let reaped = cooper_ports::engine::ContainerEngine::reap(&engine, &bench.owner).await.expect("it reaps");
        assert_eq!((reaped.volumes, reaped.networks), (2, 1));
        nothing_is_left(&bench).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_passes_from_step_to_step_and_out() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // What the image has in the workspace's place does not get into it.
        let image = bench.image("FROM scratch\nCOPY bin /bin\nRUN busybox mkdir /workspace && echo x > /workspace/x\n");
        let image = image.await;
        let placement = bench.open(bench.placement()).await;
        let step = |text: &str| {
            let mut request = script(&image, text);
            request.working_directory = Some("/workspace".into());
            request.mounts = vec![VolumeMount { volume: volume("work"), path: "/workspace".into(), read_only: false }];
            request
        };
        let text = "busybox ls -A; busybox mkdir -p out/bin; echo result > out/bin/app; busybox ln -s bin/app out/app";
        assert_eq!(output_of(&*placement, step(text)).await, "");
        assert_eq!(output_of(&*placement, step("busybox cat out/app")).await, "result\n");
        let stream = placement.get_archive(&volume("work"), "out").await.expect("it is there");
        let bytes = stream.try_collect::<Vec<_>>().await.expect("it is read").concat();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths = archive
            .entries()
            .expect("an archive")
            .map(|entry| entry.expect("an entry").path().expect("a path").to_string_lossy().into_owned());
        let mut paths: Vec<String> = paths.collect();
        paths.sort();
        assert_eq!(paths, ["./", "./app", "./bin/", "./bin/app"]);
        let file = placement.get_archive(&volume("work"), "out/bin/app").await.map(drop);
        file.expect_err("a file is no folder");
    })
    .await;
}
