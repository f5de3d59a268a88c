use super::*;
use cooper_engine::message::PlacementKey;
use cooper_ports::engine::{EngineOwner, NetworkChoice, PortMapping, VolumeMount};
use cooper_types::{Digest, Fence, RunId};

fn scope() -> PlacementScope {
    let key = PlacementKey { run: RunId::from_number(7), fence: Fence(3) };
    PlacementScope { owner: EngineOwner::new("somebody"), key }
}

fn request() -> ContainerRequest {
    ContainerRequest::new(StepId::parse("test").expect("an id"), Digest::sha256(b"image"))
}

fn own(aliases: &[&str], ports: Vec<PortMapping>, expose: &[&str]) -> OwnNetwork {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    OwnNetwork { on: NetworkChoice::Default, aliases: owned(aliases), ports, expose: owned(expose) }
}

fn host_of(request: &ContainerRequest, os: &str) -> HostConfig {
    let network = Network { mode: "none".into(), own: None };
    let body = body(request, &scope(), &BTreeMap::new(), &network, os).expect("it can be said");
    body.host_config.expect("a configuration")
}

#[test]
fn everything_is_labelled() {
    let step = StepId::parse("test").expect("an id");
    let labels = labels(&scope(), Some(&step));
    let of = |label: &str| labels.get(label).map(String::as_str);
    assert_eq!(of(OWNER_LABEL), Some(EngineOwner::new("somebody").label()));
    assert_eq!((of(RUN_LABEL), of(PLACEMENT_LABEL), of(STEP_LABEL)), (Some("ca7"), Some("ca7.3"), Some("test")));
}

#[test]
fn a_windows_engine_is_told_what_it_knows() {
    let mut request = request();
    request.isolation = Some(Isolation::HyperV);
    request.limits.nano_cpus = Some(1_000_000_000);
    request.working_directory = Some(r"c:\workspace".into());
    request.mounts = vec![VolumeMount {
        volume: VolumeName::parse("work").expect("a name"),
        path: r"c:\workspace".into(),
        read_only: false,
    }];
    let volumes = BTreeMap::from([(VolumeName::parse("work").expect("a name"), "in-engine".to_owned())]);
    let network = Network { mode: "a-nat-network".into(), own: Some(own(&["test"], Vec::new(), &[])) };
    let body = body(&request, &scope(), &volumes, &network, "windows").expect("it can be said");
    assert_eq!(body.working_dir.as_deref(), Some(r"c:\workspace"));
    let aliases = body.networking_config.and_then(|config| config.endpoints_config).expect("an endpoint");
    assert_eq!(aliases["a-nat-network"].aliases, Some(vec!["test".to_owned()]));
    let host = body.host_config.expect("a configuration");
    assert_eq!((host.isolation, host.nano_cpus), (Some(HostConfigIsolationEnum::HYPERV), Some(1_000_000_000)));
    let mount = &host.mounts.expect("mounts")[0];
    assert_eq!((mount.source.as_deref(), mount.target.as_deref()), (Some("in-engine"), Some(r"c:\workspace")));
    // What it would refuse.
    assert_eq!((host.pids_limit, host.cap_drop, host.security_opt), (None, None, None));
    assert_eq!((host.memory_swap, host.privileged, host.init), (None, None, None));
    for (isolation, text) in [(Isolation::Process, "process"), (Isolation::Default, "default")] {
        request.isolation = Some(isolation);
        request.mounts = Vec::new();
        assert_eq!(host_of(&request, "windows").isolation.map(|isolation| isolation.to_string()), Some(text.into()));
    }
}

#[test]
fn privileges_are_three_steps() {
    let host = |privileges| host_of(&ContainerRequest { privileges, ..request() }, "linux");
    let usual = host(Privileges::Usual);
    assert_eq!((usual.privileged, usual.cap_drop), (None, Some(vec!["MKNOD".to_owned()])));
    assert_eq!((usual.pids_limit, usual.security_opt), (Some(16 * 1024), None));
    let restricted = host(Privileges::Restricted);
    assert_eq!(restricted.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(restricted.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    let all = host(Privileges::All);
    assert_eq!((all.privileged, all.cap_drop), (Some(true), None));
}

#[test]
fn ports_lead_in_one_by_one() {
    let check = |text: &str, expect: Option<&[&str]>| {
        let expect = expect.map(|ports| ports.iter().map(|port| (*port).to_owned()).collect::<Vec<_>>());
        assert_eq!(exposed_ports(text).ok(), expect, "{text}");
    };
    check("8080", Some(&["8080/tcp"]));
    check("53/udp", Some(&["53/udp"]));
    check("53/UDP", Some(&["53/udp"]));
    check("3000-3002/sctp", Some(&["3000/sctp", "3001/sctp", "3002/sctp"]));
    for bad in ["", "0", "x", "80/http", "3-2", "1-65535", "-1", "80:80", "70000"] {
        check(bad, None);
    }
    let mapping = |container, host, address: Option<&str>| PortMapping {
        container,
        protocol: PortProtocol::Tcp,
        host,
        address: address.map(|address| address.parse().expect("an address")),
    };
    let ports = vec![mapping(80, Some(8080), None), mapping(80, None, Some("127.0.0.1"))];
    let network = Network { mode: DEFAULT_NETWORK.into(), own: Some(own(&["web"], ports, &["80", "90"])) };
    let body = body(&request(), &scope(), &BTreeMap::new(), &network, "linux").expect("it can be said");
    assert_eq!(body.exposed_ports, Some(vec!["80/tcp".to_owned(), "90/tcp".to_owned()]));
    assert!(body.networking_config.is_none(), "the default network knows no names");
    let bindings = body.host_config.and_then(|host| host.port_bindings).expect("bindings");
    let bindings = bindings["80/tcp"].clone().expect("two");
    let of = |index: usize| (bindings[index].host_ip.as_deref(), bindings[index].host_port.as_deref());
    assert_eq!((of(0), of(1)), ((None, Some("8080")), (Some("127.0.0.1"), Some(""))));

    let binding = |port: &str| PortBinding { host_ip: None, host_port: Some(port.into()) };
    let said = PortMap::from([
        ("80/tcp".to_owned(), Some(vec![binding("5"), binding("5")])),
        ("90/tcp".to_owned(), None),
        ("nonsense".to_owned(), Some(vec![binding("6")])),
    ]);
    assert_eq!(published(Some(said)), [PublishedPort { container: 80, protocol: PortProtocol::Tcp, host: 5 }]);
}

#[test]
fn words_and_variables_reach_the_engine_as_they_are() {
    let secret = |text: &str| SecretString::new(text.to_owned());
    let mut request = request();
    request.arguments = vec![secret("a b"), secret("")];
    request.environment = vec![("A".into(), secret("1")), ("B".into(), secret("x=y")), ("A".into(), secret("2"))];
    let network = Network { mode: "none".into(), own: None };
    let made = |request: &ContainerRequest| {
        body(request, &scope(), &BTreeMap::new(), &network, "linux").expect("it can be said")
    };
    let first = made(&request);
    assert_eq!(first.cmd, Some(vec!["a b".to_owned(), String::new()]));
    assert_eq!((first.env, first.entrypoint), (Some(vec!["A=2".to_owned(), "B=x=y".to_owned()]), None));
    request.entrypoint = Some(Vec::new());
    assert_eq!(made(&request).entrypoint, Some(vec![String::new()]));
    assert!(!format!("{request:?}").contains("a b"), "what may be secret does not show");
}
