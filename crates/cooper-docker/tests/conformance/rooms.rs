//! What only a real engine can show of containers: what they see, what they reach, and what they leave.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use cooper_ports::engine::{
    Connection, Connector, ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerNetwork,
    ContainerRequest, NetworkChoice, NetworkOrigin, NetworkRequest, OWNER_LABEL, OwnNetwork, Placement,
    PlacementRequest, PortMapping, PortProtocol, Privileges, RegistryForward, VolumeContent, VolumeMount,
    VolumeRequest,
};
use cooper_types::{Digest, NetworkName, Platform, SecretBytes, SecretString};
use futures::TryStreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{Bench, DockerBench, output_of, run, run_in, script, secrets, volume};
use crate::docker::docker;

/// A server that says what it hears until it hears no more.
struct Echo {
    address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

impl Echo {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        }));
        Arc::new(Self { address, _server: server })
    }

    /// As the registry at `localhost:5000`.
    fn forward(self: &Arc<Self>) -> RegistryForward {
        let addresses = ["127.0.0.1:5000", "[::1]:5000"].map(|text| text.parse().expect("an address"));
        RegistryForward { addresses: addresses.into(), connector: self.clone() }
    }
}

#[async_trait::async_trait]
impl Connector for Echo {
    async fn connect(&self) -> std::io::Result<Box<dyn Connection>> {
        Ok(Box::new(TcpStream::connect(self.address).await?))
    }
}

fn name(text: &str) -> NetworkName {
    NetworkName::parse(text).expect("a name")
}

/// The bench's placement with a network `net`.
fn with_network(bench: &Bench, ipv6: bool) -> PlacementRequest {
    let mut request = bench.placement();
    request.networks = vec![NetworkRequest { name: name("net"), origin: NetworkOrigin::Made { driver: None, ipv6 } }];
    request
}

fn on(network: NetworkChoice, aliases: &[&str]) -> ContainerNetwork {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    ContainerNetwork::Own(OwnNetwork { on: network, aliases, ports: Vec::new(), expose: vec!["8080".into()] })
}

fn in_network(mut request: ContainerRequest, network: ContainerNetwork) -> ContainerRequest {
    request.network = network;
    request
}

const SERVICE: &str = "while :; do echo hello | busybox nc -l -p 8080; done";

/// A client that tries until the service answers.
fn client(image: &Digest, host: &str) -> ContainerRequest {
    let tries = format!(
        "for try in $(busybox seq 100); do said=$(busybox nc -w 2 {host} 8080 2>/dev/null) && [ \"$said\" ] && echo \
         $said && exit; busybox sleep 0.1; done; exit 9"
    );
    script(image, &tries)
}

async fn detached(placement: &dyn Placement, mut request: ContainerRequest) -> Vec<ContainerEvent> {
    request.detach = true;
    let (sink, mut events) = mpsc::channel(64);
    let ended = placement.run(request, sink, CancellationToken::new()).await;
    assert!(matches!(ended, Ok(ContainerEnd::Detached)), "{ended:?}");
    let started = events.recv().await.expect("it has started");
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    vec![started]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_reached_by_its_alias_and_only_in_its_placement() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        let net = || NetworkChoice::Placement(name("net"));
        for registry in [None, Some(echo.forward())] {
            let mut request = with_network(&bench, registry.is_some());
            (request.registry, request.shared_network) = (registry, false);
            let placement = bench.open(request).await;
            let other = bench.open(with_network(&bench, false)).await;
            detached(&*placement, in_network(script(&image, SERVICE), on(net(), &["web", "db.local"]))).await;
            for host in ["web", "db.local"] {
                let client = in_network(client(&image, host), on(net(), &[]));
                assert_eq!(output_of(&*placement, client).await, "hello\n", "{host}");
            }
            let elsewhere = in_network(script(&image, "busybox nc -w 2 web 8080"), on(net(), &[]));
            let (ended, out, _) = run_in(&*other, elsewhere).await;
            assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 1, .. })) && out.is_empty(), "{ended:?} {out}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_on_the_default_network_do_not_meet() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        for registry in [None, Some(echo.forward())] {
            let mut request = bench.placement();
            request.registry = registry;
            let placement = bench.open(request).await;
            let other = bench.open(bench.placement()).await;
            let default = |aliases: &[&str]| on(NetworkChoice::Default, aliases);
            let text = format!("busybox hostname -i; {SERVICE}");
            let mut service = in_network(script(&image, &text), default(&["web"]));
            service.detach = true;
            let (sink, mut events) = mpsc::channel(64);
            let ended = placement.run(service, sink, CancellationToken::new()).await;
            assert!(matches!(ended, Ok(ContainerEnd::Detached)), "{ended:?}");
            let address = loop {
                match events.recv().await.expect("it says its address") {
                    ContainerEvent::Started { .. } => {}
                    ContainerEvent::Output { bytes, .. } => break String::from_utf8(bytes.to_vec()).expect("UTF-8"),
                }
            };
            for host in [address.trim(), "web"] {
                let text = format!("busybox nc -w 2 {host} 8080 < /dev/null; echo $?");
                let client = in_network(script(&image, &text), default(&[]));
                assert_eq!(output_of(&*other, client).await, "1\n", "{host}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_namespace_is_the_placements_own() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let (placement, other) = (bench.open(bench.placement()).await, bench.open(bench.placement()).await);
        let shared = |request| in_network(request, ContainerNetwork::Shared);
        detached(&*placement, shared(script(&image, SERVICE))).await;
        assert_eq!(output_of(&*placement, shared(client(&image, "127.0.0.1"))).await, "hello\n");
        let address = output_of(&*placement, shared(script(&image, "busybox hostname -i"))).await;
        let address = address.trim();
        assert_eq!(output_of(&*placement, shared(client(&image, address))).await, "hello\n");
        // Neither its loopback nor its address leads there from another placement, on the same port or not.
        for host in ["127.0.0.1", address] {
            let (ended, out, _) =
                run_in(&*other, shared(script(&image, &format!("busybox nc -w 2 {host} 8080")))).await;
            assert!(
                matches!(ended, Ok(ContainerEnd::Exited { code: 1, .. })) && out.is_empty(),
                "{host} {ended:?} {out}"
            );
        }
        let busy = output_of(&*other, shared(script(&image, "busybox timeout 1 busybox nc -l -p 8080; echo $?"))).await;
        assert_eq!(busy, "143\n", "the port is free there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_is_at_localhost_in_every_kind_of_network() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        let mut request = with_network(&bench, false);
        request.registry = Some(echo.forward());
        let placement = bench.open(request).await;
        let numbers: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
        let expect = format!("{}  -\n", Digest::sha256(numbers.as_bytes()).hex());
        // Beside them one that takes nothing that comes back: it must not stop the others.
        let text = "busybox nc localhost 5000 < /dev/zero | busybox sleep 1000 &\n\
                    for one in 1 2 3 4; do\n\
                    busybox seq 300000 | busybox nc localhost 5000 | busybox sha256sum &\n\
                    jobs=\"$jobs $!\"; done; wait $jobs";
        for network in
            [ContainerNetwork::Shared, on(NetworkChoice::Placement(name("net")), &[]), on(NetworkChoice::Default, &[])]
        {
            let request = in_network(script(&image, text), network.clone());
            assert_eq!(output_of(&*placement, request).await, expect.repeat(4), "{network:?}");
        }
        let (ended, ..) = run_in(&*placement, script(&image, "busybox nc localhost 5000")).await;
        assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 1, .. })), "no network, no registry: {ended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_the_host_leads_in_and_is_one_containers() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        let echo = Echo::start().await;
        for registry in [None, Some(echo.forward())] {
            let mut request = bench.placement();
            request.registry = registry;
            let placement = bench.open(request).await;
            let with_port = |host| {
                let port = PortMapping { container: 8080, protocol: PortProtocol::Tcp, host, address: None };
                let own = OwnNetwork { on: NetworkChoice::Default, aliases: vec![], ports: vec![port], expose: vec![] };
                in_network(script(&image, SERVICE), ContainerNetwork::Own(own))
            };
            let started = detached(&*placement, with_port(None)).await;
            let [ContainerEvent::Started { ports }] = started.as_slice() else { panic!("{started:?}") };
            assert_eq!((ports[0].container, ports[0].protocol), (8080, PortProtocol::Tcp));
            let host = ports[0].host;
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let mut said = String::new();
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", host)).await {
                    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_string(&mut said)).await;
                }
                if said == "hello\n" {
                    break;
                }
                assert!(Instant::now() < deadline, "port {host} leads nowhere");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            match run_in(&*placement, with_port(Some(host))).await.0 {
                Err(ContainerError::Failed(ContainerFailure::PortTaken { port })) => assert_eq!(port, host.to_string()),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

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
        let (ended, ..) = run_in(&*placement, request.clone()).await;
        assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 137, out_of_memory: true })), "{ended:?}");
        // Another try of a kept container meets no name that is taken.
        run_in(&*placement, request).await.0.expect("it runs again");
        let docker = docker().await;
        // Those that are not kept are on their way out.
        let kept = exactly(2, &bench).await;
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

const SECRET: &str = "correct-horse-battery-staple";

/// The bench's placement with a secret volume.
fn with_secret(bench: &Bench) -> PlacementRequest {
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
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let inspected = docker.inspect_container(&holder, None).await.expect("it is there");
            if inspected.state.and_then(|state| state.running) == Some(false) {
                break;
            }
            assert!(Instant::now() < deadline, "the helper outlives its agent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

async fn containers(bench: &Bench, label: &str) -> Vec<String> {
    let owner = format!("{OWNER_LABEL}={}", bench.owner.label());
    let filters = HashMap::from([("label", vec![owner.as_str(), label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker().await.list_containers(Some(options)).await.expect("a list");
    listed.into_iter().filter_map(|container| container.id).collect()
}

/// The containers of steps, once there are so many.
async fn exactly(count: usize, bench: &Bench) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let there = containers(bench, "dev.cooperage.step=step").await;
        if there.len() == count {
            return there;
        }
        assert!(Instant::now() < deadline, "{} containers of steps are there, not {count}", there.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The engine has no container, network or volume of the bench's placements.
async fn nothing_is_left(bench: &Bench) {
    let (docker, owner) = (docker().await, format!("{OWNER_LABEL}={}", bench.owner.label()));
    let filters = HashMap::from([("label", vec![owner.as_str(), "dev.cooperage.placement"])]);
    assert_eq!(containers(bench, "dev.cooperage.placement").await, [""; 0]);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    assert_eq!(docker.list_networks(Some(options)).await.expect("a list").len(), 0);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    assert_eq!(docker.list_volumes(Some(options)).await.expect("a list").volumes.unwrap_or_default().len(), 0);
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
                    let (placement, mut request) = (placement.clone(), script(&image, "exec busybox sleep 1000"));
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
        let deadline = Instant::now() + Duration::from_secs(30);
        while !containers(&bench, "dev.cooperage.placement").await.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let settled = tokio::time::Instant::now() + Duration::from_secs(10);
        tokio::time::timeout_at(settled, async {
            let metrics = tokio::runtime::Handle::current().metrics();
            while metrics.num_alive_tasks() > 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .ok();
        nothing_is_left(&bench).await;
    })
    .await;
}
