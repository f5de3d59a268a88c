//! A step's container as the engine's API wants it. No IO: what would be sent to a Windows engine is tested here, too.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigIsolationEnum, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, NetworkingConfig, PortBinding, PortMap,
};
use cooper_ports::engine::{
    ContainerFailure, ContainerRequest, Isolation, OWNER_LABEL, OwnNetwork, PLACEMENT_LABEL, PlacementScope,
    PortProtocol, Privileges, PublishedPort, RUN_LABEL, STEP_LABEL,
};
use cooper_types::{SecretString, StepId, VolumeName};

/// Ports that a container may say it serves; a range counts as many.
const MAX_EXPOSED: usize = 4096;

/// The engine's default network, whatever it calls it.
pub(crate) const DEFAULT_NETWORK: &str = "default";

/// The network of a container, by the engine's own names.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// The engine's network mode: a network's name, or `container:ID`, `host`, `none`.
    pub(super) mode: String,
    /// What the container brings into it, where it has a namespace of its own.
    pub(super) own: Option<OwnNetwork>,
}

/// The labels of everything of a placement.
pub(crate) fn labels(scope: &PlacementScope, step: Option<&StepId>) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (OWNER_LABEL.to_owned(), scope.owner.label().to_owned()),
        (RUN_LABEL.to_owned(), scope.key.run.to_string()),
        (PLACEMENT_LABEL.to_owned(), scope.label()),
    ]);
    labels.extend(step.map(|step| (STEP_LABEL.to_owned(), step.to_string())));
    labels
}

/// The body of the request that creates it. `volumes` has the engine's names.
pub(super) fn body(
    request: &ContainerRequest,
    scope: &PlacementScope,
    volumes: &BTreeMap<VolumeName, String>,
    network: &Network,
    os: &str,
) -> Result<ContainerCreateBody, ContainerFailure> {
    let mut host = HostConfig {
        network_mode: Some(network.mode.clone()),
        mounts: Some(mounts(request, volumes)?),
        // The output goes over the attached connection; nothing reads the engine's own log, and it takes disk.
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        nano_cpus: request.limits.nano_cpus.map(clamped),
        memory: request.limits.memory.map(clamped),
        isolation: request.isolation.map(isolation),
        init: request.init.then_some(true),
        ..Default::default()
    };
    // A Windows engine refuses what it does not know.
    if os == "linux" {
        host.memory_swap = host.memory;
        host.pids_limit = request.limits.pids.map(i64::from);
        restrict(&mut host, request.privileges);
    }
    let mut body = ContainerCreateBody {
        image: Some(request.image.to_string()),
        entrypoint: request.entrypoint.as_deref().map(entrypoint),
        cmd: (!request.arguments.is_empty()).then(|| exposed(&request.arguments)),
        env: Some(environment(&request.environment)),
        working_dir: request.working_directory.clone(),
        user: request.user.clone(),
        tty: Some(request.terminal),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        labels: Some(labels(scope, Some(&request.step))),
        ..Default::default()
    };
    if let Some(own) = &network.own {
        place(&mut body, &mut host, own)?;
    }
    body.host_config = Some(host);
    Ok(body)
}

/// Puts a container into a network namespace of its own, with its names and ports.
pub(crate) fn place(
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
    own: &OwnNetwork,
) -> Result<(), ContainerFailure> {
    let mut served = Vec::new();
    for text in &own.expose {
        served.extend(exposed_ports(text)?);
    }
    let mut bindings = PortMap::new();
    for port in &own.ports {
        let name = format!("{}/{}", port.container, port.protocol.as_str());
        let binding = PortBinding {
            host_ip: port.address.map(|address| address.to_string()),
            host_port: Some(port.host.map(|host| host.to_string()).unwrap_or_default()),
        };
        served.push(name.clone());
        bindings.entry(name).or_default().get_or_insert_default().push(binding);
    }
    served.sort_unstable();
    served.dedup();
    body.exposed_ports = Some(served);
    host.port_bindings = Some(bindings);
    // The engine's default network knows no names.
    if !own.aliases.is_empty()
        && let Some(network) = host.network_mode.clone().filter(|mode| mode != DEFAULT_NETWORK)
    {
        let endpoint = EndpointSettings { aliases: Some(own.aliases.clone()), ..Default::default() };
        let endpoints = HashMap::from([(network, endpoint)]);
        body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
    }
    Ok(())
}

/// `8080`, `53/udp` or `3000-3010/tcp` as single ports.
fn exposed_ports(text: &str) -> Result<Vec<String>, ContainerFailure> {
    let invalid = || ContainerFailure::Invalid {
        message: format!("`expose` has `{}`, which is no port: give PORT, PORT-PORT or PORT/udp", text.escape_debug()),
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else { return Err(invalid()) };
    let protocol = protocol.to_ascii_lowercase();
    let known = matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
    if !known || first > last || usize::from(last - first) >= MAX_EXPOSED {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// The ports of the host that an engine says lead to a container.
pub(super) fn published(ports: Option<PortMap>) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    for (name, bindings) in ports.unwrap_or_default() {
        let Some((container, protocol)) = name.split_once('/') else { continue };
        let protocols = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp];
        let protocol = protocols.into_iter().find(|known| known.as_str() == protocol);
        let (Ok(container), Some(protocol)) = (container.parse(), protocol) else { continue };
        for binding in bindings.unwrap_or_default() {
            let host = binding.host_port.and_then(|host| host.parse().ok());
            published.extend(host.map(|host| PublishedPort { container, protocol, host }));
        }
    }
    published.sort_unstable_by_key(|port| (port.container, port.protocol, port.host));
    // One for each of the host's protocols, IPv4 and IPv6.
    published.dedup();
    published
}

fn mounts(request: &ContainerRequest, volumes: &BTreeMap<VolumeName, String>) -> Result<Vec<Mount>, ContainerFailure> {
    let mount = |mount: &cooper_ports::engine::VolumeMount| {
        let source = volumes.get(&mount.volume).ok_or_else(|| ContainerFailure::Invalid {
            message: format!("volume `{}` is none of the placement's", mount.volume),
        })?;
        Ok(Mount {
            target: Some(mount.path.clone()),
            source: Some(source.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(mount.read_only),
            // What an image has in that place must not depend on which step came first.
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..Default::default()
        })
    };
    request.mounts.iter().map(mount).collect()
}

fn restrict(host: &mut HostConfig, privileges: Privileges) {
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    match privileges {
        Privileges::All => host.privileged = Some(true),
        Privileges::Usual => host.cap_drop = names(&["MKNOD"]),
        Privileges::Restricted => {
            host.cap_drop = names(&["ALL"]);
            host.cap_add = names(&["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"]);
            host.security_opt = names(&["no-new-privileges"]);
        }
    }
}

fn isolation(isolation: Isolation) -> HostConfigIsolationEnum {
    match isolation {
        Isolation::Default => HostConfigIsolationEnum::DEFAULT,
        Isolation::Process => HostConfigIsolationEnum::PROCESS,
        Isolation::HyperV => HostConfigIsolationEnum::HYPERV,
    }
}

/// An empty list takes the image's entry point away; the engine takes one empty word for that, and an empty list for
/// nothing said.
fn entrypoint(words: &[SecretString]) -> Vec<String> {
    if words.is_empty() { vec![String::new()] } else { exposed(words) }
}

fn exposed(words: &[SecretString]) -> Vec<String> {
    words.iter().map(|word| word.expose().to_owned()).collect()
}

fn environment(variables: &[(String, SecretString)]) -> Vec<String> {
    // The engine takes the first of a name.
    let mut last: BTreeMap<&str, &SecretString> = BTreeMap::new();
    last.extend(variables.iter().map(|(name, value)| (name.as_str(), value)));
    last.into_iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
