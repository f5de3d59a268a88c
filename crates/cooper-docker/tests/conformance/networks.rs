//! What containers of steps reach, and what reaches them, on a real engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cooper_ports::engine::{
    Connection, Connector, ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerNetwork,
    ContainerRequest, NetworkChoice, NetworkOrigin, NetworkRequest, OwnNetwork, Placement, PlacementRequest,
    PortMapping, PortProtocol, RegistryForward,
};
use cooper_types::{Digest, NetworkName};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{Bench, DockerBench, a_moment, output_of, run, run_in, script, soon};
/// A server that says what it hears until it hears no more.
pub(crate) struct Echo {
    address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

impl Echo {
    pub(crate) async fn start() -> Arc<Self> {
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
    pub(crate) fn forward(self: &Arc<Self>) -> RegistryForward {
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

pub(crate) fn name(text: &str) -> NetworkName {
    NetworkName::parse(text).expect("a name")
}

/// The bench's placement with a network `net`.
pub(crate) fn with_network(bench: &Bench, ipv6: bool) -> PlacementRequest {
    let mut request = bench.placement();
    request.networks = vec![NetworkRequest { name: name("net"), origin: NetworkOrigin::Made { driver: None, ipv6 } }];
    request
}

pub(crate) fn on(network: NetworkChoice, aliases: &[&str]) -> ContainerNetwork {
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    ContainerNetwork::Own(OwnNetwork { on: network, aliases, ports: Vec::new(), expose: vec!["8080".into()] })
}

pub(crate) fn in_network(mut request: ContainerRequest, network: ContainerNetwork) -> ContainerRequest {
    request.network = network;
    request
}

pub(crate) const SERVICE: &str = "while :; do echo hello | busybox nc -l -p 8080; done";

/// A client that tries until the service answers.
pub(crate) fn client(image: &Digest, host: &str) -> ContainerRequest {
    let tries = format!(
        "for try in $(busybox seq 1000); do said=$(busybox nc -w 5 {host} 8080 2>/dev/null) && [ \"$said\" ] && echo \
         $said && exit; busybox sleep 0.1; done; exit 9"
    );
    script(image, &tries)
}

pub(crate) async fn detached(placement: &dyn Placement, mut request: ContainerRequest) -> Vec<ContainerEvent> {
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
            let answered = async {
                let mut said = String::new();
                while said != "hello\n" {
                    said.clear();
                    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", host)).await {
                        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut said)).await;
                    }
                    a_moment().await;
                }
            };
            soon(&format!("an answer at port {host}"), answered).await;
            match run_in(&*placement, with_port(Some(host))).await.0 {
                Err(ContainerError::Failed(ContainerFailure::PortTaken { port })) => assert_eq!(port, host.to_string()),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_with_ipv6_gives_addresses_of_it() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let image = bench.shell().await;
        for ipv6 in [true, false] {
            let placement = bench.open(with_network(&bench, ipv6)).await;
            let net = on(NetworkChoice::Placement(name("net")), &[]);
            let addresses = script(&image, "busybox ip -6 addr show scope global");
            let told = output_of(&*placement, in_network(addresses, net)).await;
            assert_eq!(told.contains("inet6 fd"), ipv6, "{told}");
        }
    })
    .await;
}
