//! Tables of what orders become.

use std::time::Duration;

use cooper_api::agent::{CommandImageOrder, VolumeOrder};
use cooper_spec::plan::{Mount, Network};
use cooper_types::Platform;

use super::*;

fn order() -> CommandOrder {
    CommandOrder {
        image: CommandImageOrder::Named("busybox".into()),
        arguments: Vec::new(),
        environment: Vec::new(),
        mounts: Vec::new(),
        platform: Platform::LINUX_AMD64,
        entry_point: None,
        working_directory: Some("/workspace".into()),
        user: None,
        network: None,
        ports: Vec::new(),
        expose: Vec::new(),
        cpus: None,
        isolation: None,
        privileged: false,
        keep: false,
        detach: false,
        terminal: false,
        pull: false,
        pull_retries: 0,
        pull_retry_delay: Duration::ZERO,
    }
}

fn network(name: &str) -> Network {
    Network { name: name.into(), driver: None, ipv6: false, external: false }
}

fn made(order: &CommandOrder, networks: &[&str], policy: &StepPolicy) -> Result<StepRequest, String> {
    let environment = EnvironmentOrder {
        has_context: false,
        networks: networks.iter().map(|name| network(name)).collect(),
        volumes: vec![VolumeOrder { name: "keys".into(), files: Vec::new() }],
        registry_by_address: false,
    };
    request(&StepId::parse("web").expect("valid"), order, Digest::sha256(b"image"), &environment, policy)
}

#[test]
fn workspace_home_and_volumes_are_mounted_and_a_users_home_counts() {
    let mut order = order();
    order.environment = vec![("HOME".into(), SecretString::new("/root".into()))];
    order.mounts = vec![Mount { volume: "keys".into(), path: "/run/keys".into() }];
    order.entry_point = Some("/bin/sh".into());
    let made_of = made(&order, &[], &StepPolicy::default()).expect("valid").request;
    let mounts: Vec<_> = made_of.mounts.iter().map(|mount| (mount.volume.as_str(), mount.path.as_str())).collect();
    assert_eq!(mounts, [("workspace", "/workspace"), ("home", "/acb/home"), ("secret-keys", "/run/keys")]);
    let home: Vec<_> = made_of.environment.iter().map(|(_, value)| value.expose().to_owned()).collect();
    assert_eq!(home, ["/acb/home", "/root"]);
    assert_eq!(made_of.network, ContainerNetwork::Shared);
    assert_eq!(made_of.entrypoint.expect("one").len(), 1);
    order.entry_point = Some(String::new());
    assert_eq!(made(&order, &[], &StepPolicy::default()).expect("valid").request.entrypoint.expect("none").len(), 0);
    order.mounts[0].volume = "other".into();
    assert!(made(&order, &[], &StepPolicy::default()).is_err());
}

#[test]
fn what_the_operator_does_not_allow_is_refused_by_name() {
    let check = |change: fn(&mut CommandOrder), allowed: StepPolicy, needs: &str| {
        let mut order = order();
        change(&mut order);
        let refused = made(&order, &["run"], &StepPolicy::default()).map(|_| ()).expect_err(needs);
        assert!(refused.contains(needs), "{refused}");
        assert!(made(&order, &["run"], &allowed).is_ok());
    };
    check(
        |order| order.privileged = true,
        StepPolicy { privileged: true, ..StepPolicy::default() },
        "--allow-privileged",
    );
    let host = StepPolicy { networks: ["host".to_owned()].into(), ..StepPolicy::default() };
    check(|order| order.network = Some("host".into()), host, "--allow-network host");
}

#[test]
fn networks_are_the_tasks_and_a_steps_id_is_its_name_there() {
    let on = |network: Option<&str>| {
        let mut order = order();
        order.network = network.map(str::to_owned);
        made(&order, &["run"], &StepPolicy::default()).map(|made| made.request.network)
    };
    let own = |on| {
        let aliases = vec!["web".to_owned()];
        Ok(ContainerNetwork::Own(OwnNetwork { on, aliases, ports: Vec::new(), expose: Vec::new() }))
    };
    let name = NetworkName::parse("run").expect("valid");
    assert_eq!(on(Some("run")), own(NetworkChoice::Placement(name)));
    assert_eq!(on(None), own(NetworkChoice::Default));
    assert_eq!(on(Some("bridge")), own(NetworkChoice::Default));
    assert_eq!(on(Some("none")), Ok(ContainerNetwork::None));
    assert_eq!(
        on(Some("container:x")),
        Err("network `container:x` is none of the task's: declare it under `networks`, with `skipCreation: true` if the agent's engine has it already".into())
    );
}

#[test]
fn ports_have_every_form_and_need_leave() {
    let mapping = |container, protocol, host, address: Option<&str>| {
        let address = address.map(|address| address.parse().expect("an address"));
        Ok(vec![PortMapping { container, protocol, host, address }])
    };
    assert_eq!(ports("80"), mapping(80, PortProtocol::Tcp, None, None));
    assert_eq!(ports("8080:80"), mapping(80, PortProtocol::Tcp, Some(8080), None));
    assert_eq!(ports("53:53/udp"), mapping(53, PortProtocol::Udp, Some(53), None));
    assert_eq!(ports("127.0.0.1::80"), mapping(80, PortProtocol::Tcp, None, Some("127.0.0.1")));
    assert_eq!(ports("[::1]:8080:80/TCP"), mapping(80, PortProtocol::Tcp, Some(8080), Some("::1")));
    for wrong in ["", "0", "x", "80/icmp", ":80", "65536", "1:2:3", "8000-8010:80", "80-70", "1-257", "-80", "x:1:2"] {
        assert!(ports(wrong).is_err(), "{wrong}");
    }
    let range = ports("8000-8002:80-82/udp").expect("a range");
    let pairs: Vec<_> = range.iter().map(|mapping| (mapping.host, mapping.container, mapping.protocol)).collect();
    let udp = PortProtocol::Udp;
    assert_eq!(pairs, [(Some(8000), 80, udp), (Some(8001), 81, udp), (Some(8002), 82, udp)]);
    assert_eq!(ports("1-256").map(|mappings| mappings.len()), Ok(256));
    let mut order = order();
    order.network = Some("run".into());
    order.ports = vec!["8080:80".into()];
    let quiet = made(&order, &["run"], &StepPolicy::default()).expect("valid");
    assert!(quiet.notes[0].contains("--allow-ports"), "{:?}", quiet.notes);
    let open = made(&order, &["run"], &StepPolicy { ports: true, ..StepPolicy::default() }).expect("valid");
    let ContainerNetwork::Own(own) = open.request.network else { panic!("{open:?}") };
    assert_eq!((own.ports.len(), open.notes.len()), (1, 0));
}

#[test]
fn ports_beside_a_network_without_any_are_told() {
    let notes = |network: &str, ports: &[&str], expose: &[&str]| {
        let mut order = order();
        order.network = Some(network.into());
        order.ports = ports.iter().map(|text| (*text).to_owned()).collect();
        order.expose = expose.iter().map(|text| (*text).to_owned()).collect();
        let policy = StepPolicy { networks: ["host".to_owned()].into(), ..StepPolicy::default() };
        made(&order, &["run"], &policy).expect("valid").notes
    };
    let told = "port 8080:80 has no effect: on network `host` a container's ports are the machine's own";
    assert_eq!(notes("host", &["8080:80"], &[]), [told]);
    let told = ["80", "53/udp"]
        .map(|port| format!("port {port} has no effect: nothing reaches a container on network `none`"));
    assert_eq!(notes("none", &["80"], &["53/udp"]), told);
    assert!(notes("host", &[], &[]).is_empty() && notes("none", &[], &[]).is_empty());
}

#[test]
fn processors_are_decimal_numbers() {
    for (text, nano) in
        [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.000000001", 1_000_000_001)]
    {
        assert_eq!(nano_cpus(text), Ok(nano), "{text}");
    }
    for wrong in ["", ".", "0", "-1", "1e3", "0.0000000001", "two", "99999999999999"] {
        assert!(nano_cpus(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_step_of_windows_has_its_own_folders_and_isolation() {
    let mut order = order();
    order.platform = Platform::parse("windows/amd64").expect("valid");
    order.working_directory = Some(r"c:\workspace\src".into());
    (order.isolation, order.cpus) = (Some("hyperv".into()), Some("2".into()));
    order.network = Some("run".into());
    order.mounts = vec![Mount { volume: "keys".into(), path: r"c:\keys".into() }];
    let request = made(&order, &["run"], &StepPolicy::default()).expect("valid").request;
    let mounts: Vec<_> = request.mounts.iter().map(|mount| (mount.volume.as_str(), mount.path.as_str())).collect();
    assert_eq!(mounts, [("workspace", r"c:\workspace"), ("home", r"c:\acb\home"), ("secret-keys", r"c:\keys")]);
    assert_eq!(request.environment[0].1.expose(), r"c:\acb\home");
    assert_eq!((request.isolation, request.limits.nano_cpus), (Some(Isolation::HyperV), Some(2_000_000_000)));
    assert_eq!(request.working_directory.as_deref(), Some(r"c:\workspace\src"));
    assert_eq!(isolation("jail").expect_err("none"), "`isolation` is `default`, `process` or `hyperv`, not `jail`");
}

#[test]
fn the_operators_limits_are_each_containers() {
    let mut order = order();
    order.cpus = Some("0.5".into());
    let limited = StepPolicy { memory: Some(64 << 20), pids: 100, ..StepPolicy::default() };
    let limits = made(&order, &[], &limited).expect("valid").request.limits;
    assert_eq!((limits.nano_cpus, limits.memory, limits.pids), (Some(500_000_000), Some(64 << 20), Some(100)));
    let usual = made(&order, &[], &StepPolicy::default()).expect("valid").request.limits;
    assert_eq!((usual.memory, usual.pids), (None, ContainerLimits::default().pids));
}

#[test]
fn the_registrys_address_is_told_where_somebody_of_ours_listens() {
    let address = "127.0.0.1:4747".parse().expect("an address");
    let told = |network: ContainerNetwork, variable: &str| {
        let mut request = ContainerRequest::new(StepId::parse("purge").expect("valid"), Digest::sha256(b"acr"));
        request.network = network;
        request.environment.push((variable.to_owned(), SecretString::new("secret".to_owned())));
        tell_address(&mut request, address);
        request.environment.last().map(|(name, value)| format!("{name}={}", value.expose())).expect("a variable")
    };
    assert_eq!(told(ContainerNetwork::Shared, ACR_PASSWORD), "COOPER_REGISTRY_ADDRESS=127.0.0.1:4747");
    for (network, variable) in [
        (ContainerNetwork::Host, ACR_PASSWORD),
        (ContainerNetwork::None, ACR_PASSWORD),
        (ContainerNetwork::Shared, "PASSWORD"),
    ] {
        assert_eq!(told(network, variable), format!("{variable}=secret"));
    }
}
