//! What only a real engine can show of containers: what they see, what they reach, and what they leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use cooper_ports::engine::{
    ContainerEnd, ContainerError, ContainerFailure, ContainerNetwork, ContainerRequest, NetworkChoice, OWNER_LABEL,
    Placement, Privileges, VolumeMount,
};
use cooper_types::{Platform, SecretString};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, DockerBench, a_moment, output_of, run, run_in, script, secrets, soon, volume};
use crate::docker::docker;
use crate::networks::{Echo, in_network, name, on, with_network};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_is_lost() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let placement = bench.open(bench.placement()).await;
        let text = "busybox yes out | busybox head -c 20000000 & busybox yes err | busybox head -c 5000000 >&2; wait";
        let (ended, out, err) = run_in(&*placement, script(&image, text)).await;
        assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 0, .. })), "{ended:?}");
        assert!(out == "out\n".repeat(5_000_000) && err == "err\n".repeat(1_250_000), "{} {}", out.len(), err.len());
        let mut request = script(&image, "echo to a terminal; echo error >&2");
        request.terminal = true;
        assert_eq!(output_of(&*placement, request).await, "to a terminal\r\nerror\r\n");
        // A command that closes its output goes on all the same.
        let (ended, ..) = run_in(&*placement, script(&image, "exec >&- 2>&-; busybox sleep 1; exit 5")).await;
        assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 5, .. })), "{ended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_as_it_was_asked_for() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile =
            "FROM scratch\nCOPY bin /bin\nENTRYPOINT [\"/bin/busybox\", \"echo\", \"entry\"]\nCMD [\"x\"]\n";
        let image = bench.image(dockerfile).await;
        let placement = bench.open(bench.placement()).await;
        let plain = || ContainerRequest { entrypoint: Some(Vec::new()), ..script(&image, "") };
        let with = |text: &str| ContainerRequest { arguments: secrets(&["/bin/sh", "-c", text]), ..plain() };

        let mut own = script(&image, "");
        own.arguments = Vec::new();
        assert_eq!(output_of(&*placement, own.clone()).await, "entry x\n");
        own.arguments = secrets(&["a b", "$c"]);
        assert_eq!(output_of(&*placement, own.clone()).await, "entry a b $c\n");
        own.entrypoint = Some(secrets(&["/bin/busybox", "echo"]));
        assert_eq!(output_of(&*placement, own).await, "a b $c\n");

        let mut request = with("pwd; busybox id -u; busybox id -g; echo \"$A $HOME\"; echo $$");
        request.working_directory = Some("/made/here".into());
        request.user = Some("1000:1001".into());
        let value = |text: &str| SecretString::new(text.to_owned());
        request.environment =
            vec![("A".into(), value("first")), ("HOME".into(), value("/acb/home")), ("A".into(), value("a=\"b\" c"))];
        request.platform = Some(bench.engine.describe().native.clone());
        assert_eq!(output_of(&*placement, request.clone()).await, "/made/here\n1000\n1001\na=\"b\" c /acb/home\n1\n");
        request.init = true;
        assert!(!output_of(&*placement, request).await.ends_with("\n1\n"), "the engine's init is first");

        let mut request = with("busybox nproc; busybox tail /dev/zero");
        (request.limits.memory, request.keep) = (Some(32 << 20), true);
        (request.limits.nano_cpus, request.limits.pids) = (Some(500_000_000), Some(20));
        // The engine hears of the lack of memory and of the end by different ways, and now and then of the end alone.
        let (mut is_known, mut tries) = (false, 0);
        while !is_known && tries < 5 {
            tries += 1;
            let (ended, ..) = run_in(&*placement, request.clone()).await;
            let Ok(ContainerEnd::Exited { code: 137, out_of_memory }) = ended else { panic!("{ended:?}") };
            is_known = out_of_memory;
        }
        assert!(is_known, "it is told that there was no memory");
        // Another try of a kept container meets no name that is taken.
        run_in(&*placement, request).await.0.expect("it runs again");
        let docker = docker().await;
        // Those that are not kept are on their way out.
        let kept = exactly(tries + 1, &bench).await;
        let inspected = docker.inspect_container(&kept[0], None).await.expect("it is there");
        let host = inspected.host_config.expect("a configuration");
        assert_eq!((host.nano_cpus, host.memory, host.pids_limit), (Some(500_000_000), Some(32 << 20), Some(20)));
        assert_eq!((host.memory_swap, host.log_config.and_then(|log| log.typ)), (Some(32 << 20), Some("none".into())));

        let text = "busybox mknod /null c 1 3 2>/dev/null; echo $?; busybox grep NoNewPrivs /proc/self/status";
        for (privileges, expect) in
            [(Privileges::Restricted, "1\nNoNewPrivs:\t1\n"), (Privileges::Usual, "1\nNoNewPrivs:\t0\n")]
        {
            let request = ContainerRequest { privileges, ..with(text) };
            assert_eq!(output_of(&*placement, request).await, expect, "{privileges:?}");
        }
        // A machine may be a container itself, without all privileges to give.
        let (ended, out, _) = run_in(&*placement, ContainerRequest { privileges: Privileges::All, ..with(text) }).await;
        match ended {
            Ok(_) => assert_eq!(out, "0\nNoNewPrivs:\t0\n"),
            Err(ContainerError::Failed(ContainerFailure::Invalid { message })) => {
                assert!(message.starts_with("the agent's machine does not let"), "{message}");
            }
            Err(other) => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let placement = bench.open(bench.placement()).await;
        let check = async |change: &(dyn Fn(&mut ContainerRequest) + Sync), expect: &str| {
            let mut request = script(&image, "true");
            change(&mut request);
            match run_in(&*placement, request).await.0 {
                Err(ContainerError::Failed(failure)) => assert!(failure.to_string().starts_with(expect), "{failure}"),
                other => panic!("{expect}: {other:?}"),
            }
        };
        let words = |words: &[&str]| secrets(words);
        check(&|r| r.arguments = words(&["no-such", "x"]), "command `no-such` is not in the image").await;
        check(&|r| r.arguments = words(&["/no/such"]), "command `/no/such` is not in the image").await;
        check(&|r| r.arguments = words(&["/bin"]), "command `/bin` can't be executed: permission denied").await;
        check(&|r| r.arguments = Vec::new(), "image has no command of its own").await;
        check(&|r| r.user = Some("ann".into()), "user `ann` is not in the image's").await;
        check(&|r| r.limits.nano_cpus = Some(1_000_000_000_000), "container can't be started: Range of CPUs").await;
        check(&|r| r.limits.memory = Some(1), "container can't be started: Minimum memory limit").await;
        let foreign = Platform::parse("linux/arm64").expect("a platform");
        check(&|r| r.platform = Some(foreign.clone()), &format!("image {image} is not for linux/arm64: ")).await;
        let mount = VolumeMount { volume: volume("work"), path: "relative".into(), read_only: false };
        check(&|r| r.mounts = vec![mount.clone()], "container can't be started: ").await;
    })
    .await;
}

pub(crate) async fn containers(bench: &Bench, label: &str) -> Vec<String> {
    let owner = format!("{OWNER_LABEL}={}", bench.owner.label());
    let filters = HashMap::from([("label", vec![owner.as_str(), label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker().await.list_containers(Some(options)).await.expect("a list");
    listed.into_iter().filter_map(|container| container.id).collect()
}

/// The containers of steps, once there are so many.
async fn exactly(count: usize, bench: &Bench) -> Vec<String> {
    let there = async {
        loop {
            let there = containers(bench, "dev.cooperage.step=step").await;
            if there.len() == count {
                return there;
            }
            a_moment().await;
        }
    };
    soon(&format!("{count} containers of steps"), there).await
}

/// The engine has no container, network or volume of the bench's placements.
pub(crate) async fn nothing_is_left(bench: &Bench) {
    assert_eq!(left(bench).await, [""; 0]);
}

/// Waits until it has none.
async fn nothing_is_left_soon(bench: &Bench) {
    let empty = async {
        while !left(bench).await.is_empty() {
            a_moment().await;
        }
    };
    soon("an engine without anything of the placements", empty).await;
}

/// The containers, networks and volumes that the engine has of the bench's placements.
async fn left(bench: &Bench) -> Vec<String> {
    let (docker, owner) = (docker().await, format!("{OWNER_LABEL}={}", bench.owner.label()));
    let filters = HashMap::from([("label", vec![owner.as_str(), "dev.cooperage.placement"])]);
    let mut left = containers(bench, "dev.cooperage.placement").await;
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let networks = docker.list_networks(Some(options)).await.expect("a list");
    left.extend(networks.into_iter().filter_map(|network| network.name));
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = docker.list_volumes(Some(options)).await.expect("a list").volumes.unwrap_or_default();
    left.extend(volumes.into_iter().map(|volume| volume.name));
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_leaves_beside_what_comes_next() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        let mut request = with_network(&bench, false);
        request.registry = Some(echo.forward());
        let placement: Arc<dyn Placement> = bench.open(request).await;
        for _ in 0..3 {
            output_of(&*placement, script(&image, "true")).await;
        }
        exactly(0, &bench).await;

        // Its name means the newest of a step's containers, however many there were before.
        let network = on(NetworkChoice::Placement(name("net")), &["again"]);
        let ask = "busybox nslookup again 127.0.0.11 | busybox grep -c 'Address: '";
        for _ in 0..3 {
            assert_eq!(output_of(&*placement, in_network(script(&image, ask), network.clone())).await, "1\n");
        }
        placement.close().await.expect("it closes");
        nothing_is_left(&bench).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nothing_is_left() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        let mut rooms = Vec::new();
        for number in 0..4_u64 {
            let (bench, image, registry) = (bench.clone(), image.clone(), echo.forward());
            rooms.push(tokio::spawn(async move {
                let mut request = with_network(&bench, false);
                request.registry = Some(registry);
                let opening = tokio::time::timeout(
                    Duration::from_millis(150 + 400 * number),
                    bench.engine.open_placement(request.clone(), CancellationToken::new()),
                );
                // The first ones are dropped half-way.
                let Ok(Ok(placement)) = opening.await else { return };
                let placement: Arc<dyn Placement> = placement.into();
                let mut steps = Vec::new();
                for step in 0..4_u64 {
                    let (placement, mut request) = (placement.clone(), script(&image, "exec busybox sleep 3600"));
                    request.network =
                        if step % 2 == 0 { ContainerNetwork::Shared } else { on(NetworkChoice::Default, &[]) };
                    (request.keep, request.detach) = (step == 2, step == 3);
                    let (sink, _events) = mpsc::channel(1);
                    steps.push(tokio::spawn(async move {
                        let run = placement.run(request, sink, CancellationToken::new());
                        let _ = tokio::time::timeout(Duration::from_millis(100 + 300 * step), run).await;
                    }));
                }
                if number % 2 == 0 {
                    for step in steps {
                        let _ = step.await;
                    }
                    placement.close().await.expect("it closes");
                }
            }));
        }
        for room in rooms {
            room.await.expect("it does not panic");
        }
        // What was dropped removes itself behind our back.
        nothing_is_left_soon(&bench).await;
        // Tasks that go on may still make something; those of idle connections stay.
        let settled = async {
            let metrics = tokio::runtime::Handle::current().metrics();
            while metrics.num_alive_tasks() > 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), settled).await;
        nothing_is_left_soon(&bench).await;
    })
    .await;
}
