//! A `cmd` step's order as the engine's request, within what the agent's operator allows. Pure.

use std::net::{IpAddr, SocketAddr};

use cooper_api::agent::{ACR_ADDRESS, ACR_PASSWORD, CommandOrder, EnvironmentOrder};
use cooper_ports::engine::{
    ContainerLimits, ContainerNetwork, ContainerRequest, Isolation, NetworkChoice, OwnNetwork, PortMapping,
    PortProtocol, Privileges, VolumeMount,
};
use cooper_types::{Digest, NetworkName, SecretString, StepId};

use crate::placement::{self, Folders};
use crate::settings::StepPolicy;

/// A container to run, and what of the order it leaves out.
#[derive(Debug)]
pub(super) struct StepRequest {
    pub(super) request: ContainerRequest,
    /// Lines for the log.
    pub(super) notes: Vec<String>,
}

/// Makes the request. An error is the user's to mend.
pub(super) fn request(
    step: &StepId,
    order: &CommandOrder,
    image: Digest,
    environment: &EnvironmentOrder,
    policy: &StepPolicy,
) -> Result<StepRequest, String> {
    let mut notes = Vec::new();
    let folders = Folders::of(&order.platform);
    let network = network(step, order, environment, policy, &mut notes)?;
    let mount = |volume, path: &str| VolumeMount { volume, path: path.to_owned(), read_only: false };
    let mut mounts = vec![mount(placement::workspace(), folders.workspace), mount(placement::home(), folders.home)];
    for wanted in &order.mounts {
        if !environment.volumes.iter().any(|volume| volume.name == wanted.volume) {
            return Err(format!("volume `{}` is none of the task's", wanted.volume));
        }
        mounts.push(mount(placement::secret_volume(&wanted.volume)?, &wanted.path));
    }
    let home = ("HOME".to_owned(), SecretString::new(folders.home.to_owned()));
    let word = |text: &String| SecretString::new(text.clone());
    if order.privileged && !policy.privileged {
        return Err("step asks for `privileged`, which this agent's operator does not allow: \
                    it is given with --allow-privileged"
            .to_owned());
    }
    let request = ContainerRequest {
        platform: Some(order.platform.clone()),
        entrypoint: order
            .entry_point
            .as_ref()
            .map(|text| Some(text).filter(|text| !text.is_empty()).map(word).into_iter().collect()),
        arguments: order.arguments.clone(),
        // The last of a name counts: a user's own HOME.
        environment: std::iter::once(home).chain(order.environment.iter().cloned()).collect(),
        working_directory: order.working_directory.clone(),
        user: order.user.clone(),
        mounts,
        network,
        limits: ContainerLimits {
            nano_cpus: order.cpus.as_deref().map(nano_cpus).transpose()?,
            memory: policy.memory,
            pids: Some(policy.pids),
        },
        privileges: if order.privileged { Privileges::All } else { Privileges::Usual },
        isolation: order.isolation.as_deref().map(isolation).transpose()?,
        detach: order.detach,
        terminal: order.terminal,
        keep: order.keep,
        ..ContainerRequest::new(step.clone(), image)
    };
    Ok(StepRequest { request, notes })
}

/// Tells the server's own program where its registry is, if it can be there: nobody of ours listens in other networks, and
/// a password goes there.
pub(super) fn tell_address(request: &mut ContainerRequest, address: SocketAddr) {
    let is_there = matches!(request.network, ContainerNetwork::Shared | ContainerNetwork::Own(_))
        && request.platform.as_ref().is_none_or(|platform| platform.os() == "linux");
    if is_there && request.environment.iter().any(|(name, _)| name == ACR_PASSWORD) {
        request.environment.push((ACR_ADDRESS.to_owned(), SecretString::new(address.to_string())));
    }
}

fn network(
    step: &StepId,
    order: &CommandOrder,
    environment: &EnvironmentOrder,
    policy: &StepPolicy,
    notes: &mut Vec<String>,
) -> Result<ContainerNetwork, String> {
    let declared = |name: &str| environment.networks.iter().any(|network| network.name == name);
    let on = match order.network.as_deref() {
        None if environment.networks.is_empty() => return Ok(ContainerNetwork::Shared),
        Some("none") if !declared("none") => {
            notes.extend(without_ports(order, "nothing reaches a container on network `none`"));
            return Ok(ContainerNetwork::None);
        }
        Some("host") if !declared("host") => {
            if !policy.networks.contains("host") {
                return Err(placement::network_refused("host"));
            }
            notes.extend(without_ports(order, "on network `host` a container's ports are the machine's own"));
            return Ok(ContainerNetwork::Host);
        }
        None => NetworkChoice::Default,
        Some(name) if declared(name) => NetworkChoice::Placement(network_name(name)?),
        Some("default" | "bridge" | "nat") => NetworkChoice::Default,
        Some(name) => {
            return Err(format!(
                "network `{name}` is none of the task's: declare it under `networks`, with `skipCreation: true` if the \
                 agent's engine has it already"
            ));
        }
    };
    let ports = order.ports.iter().map(|text| ports(text)).collect::<Result<Vec<_>, _>>()?;
    let ports = if policy.ports {
        ports.concat()
    } else {
        notes.extend(order.ports.iter().map(|text| {
            format!(
                "port {text} is not opened on the agent's machine, where --allow-ports is not given; \
                     steps reach the container as {step}"
            )
        }));
        Vec::new()
    };
    Ok(ContainerNetwork::Own(OwnNetwork { on, aliases: vec![step.to_string()], ports, expose: order.expose.clone() }))
}

/// Lines for what is said of ports beside a network that has none to open.
fn without_ports(order: &CommandOrder, why: &str) -> impl Iterator<Item = String> {
    order.ports.iter().chain(&order.expose).map(move |text| format!("port {text} has no effect: {why}"))
}

fn network_name(name: &str) -> Result<NetworkName, String> {
    NetworkName::parse(name).map_err(|error| error.to_string())
}

/// `[[address:]host:]container[/protocol]`, an IPv6 address in brackets; host and container may be ranges of one length.
fn ports(text: &str) -> Result<Vec<PortMapping>, String> {
    /// How many ports a range has. Each costs the engine a process.
    const MOST: usize = 256;
    let wrong = || {
        format!(
            "port `{text}` is not of the form `[[address:]host:]container[/tcp|udp|sctp]`, each a port or a range of one \
             length, of at most {MOST} ports"
        )
    };
    let (rest, protocol) = match text.split_once('/') {
        None => (text, PortProtocol::Tcp),
        Some((rest, protocol)) => match protocol.to_ascii_lowercase().as_str() {
            "tcp" => (rest, PortProtocol::Tcp),
            "udp" => (rest, PortProtocol::Udp),
            "sctp" => (rest, PortProtocol::Sctp),
            _ => return Err(wrong()),
        },
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = number(first)?..=number(last)?;
        if (1..=MOST).contains(&range.len()) { Ok(range) } else { Err(wrong()) }
    };
    let (rest, containers) = match rest.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), range(container)?),
        None => (None, range(rest)?),
    };
    let (address, host) = match rest.map(|rest| rest.rsplit_once(':').map_or((None, rest), |(a, h)| (Some(a), h))) {
        None => (None, None),
        // `127.0.0.1::80` leaves the host's port open.
        Some((Some(address), "")) => (Some(address), None),
        Some((address, host)) => (address, Some(range(host)?)),
    };
    let address: Option<IpAddr> =
        address.map(|text| text.trim_matches(['[', ']']).parse().map_err(|_| wrong())).transpose()?;
    if host.as_ref().is_some_and(|host| host.len() != containers.len()) {
        return Err(wrong());
    }
    let first = host.map(|host| *host.start());
    let mapping = |(index, container)| {
        let host = first.map(|first| first + u16::try_from(index).expect("a range has at most 256 ports"));
        PortMapping { container, protocol, host, address }
    };
    Ok(containers.enumerate().map(mapping).collect())
}

/// A decimal number of processors in billionths.
fn nano_cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("`cpus` must be a number above 0, such as 0.5 or 2, not `{text}`");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: u64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
    let nano = whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)?;
    if nano == 0 { Err(wrong()) } else { Ok(nano) }
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "" | "default" => Ok(Isolation::Default),
        "process" => Ok(Isolation::Process),
        "hyperv" => Ok(Isolation::HyperV),
        other => Err(format!("`isolation` is `default`, `process` or `hyperv`, not `{other}`")),
    }
}

#[cfg(test)]
mod tests;
