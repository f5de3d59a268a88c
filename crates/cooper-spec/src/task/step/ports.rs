//! The ports of a step's container: those that its network sees, and those of the agent's machine.

use crate::task::fields::{Fields, Report, clip};
use crate::task::model::StepNetwork;
use crate::task::read::Shared;

/// How many ports one entry of `expose` names.
const MOST_EXPOSED: u16 = 4096;
/// How many ports one entry of `ports` names: each costs the engine a process.
const MOST_PUBLISHED: u16 = 256;

/// The entries of `expose`.
pub(super) fn exposed(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<String> {
    let help = "write PORT, PORT-PORT or PORT/udp; a range has at most 4096 ports";
    ports(fields, "expose", is_exposed, help, report)
}

/// The entries of `ports`.
pub(super) fn published(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<String> {
    let help = "write \"PORT:PORT\", ADDRESS:PORT:PORT/udp, or ranges of the same length, of at most 256 ports";
    ports(fields, "ports", is_published, help, report)
}

/// Tells of ports beside a network that has none to open.
pub(super) fn without_effect(fields: &Fields<'_>, network: &StepNetwork, shared: &Shared<'_>, report: &mut Report<'_>) {
    let StepNetwork::Named(network) = network else { return };
    let help = match network.as_str() {
        _ if shared.networks.contains(network) => return,
        "none" => "nothing reaches a container there",
        "host" => "a container's ports are the machine's own there",
        _ => return,
    };
    for name in ["ports", "expose"] {
        if fields.node(name).is_some() {
            report.warn(fields.at(name), format!("`{name}` has no effect on network `{network}`"), help);
        }
    }
}

fn ports(
    fields: &Fields<'_>,
    name: &'static str,
    valid: fn(&str) -> bool,
    help: &'static str,
    report: &mut Report<'_>,
) -> Vec<String> {
    let mut ports = Vec::new();
    for told in fields.texts(name, report) {
        if !valid(&told.value) {
            report.fault(told.at, format!("entry `{}` of `{name}` is no port", clip(&told.value)), help);
        }
        ports.push(told.value);
    }
    ports
}

/// `PORT[-PORT][/PROTOCOL]`
fn is_exposed(text: &str) -> bool {
    count_of(text).is_some_and(|count| count <= MOST_EXPOSED)
}

/// How many ports `PORT[-PORT][/PROTOCOL]` names.
fn count_of(text: &str) -> Option<u16> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = ["tcp", "udp", "sctp"].contains(&protocol.to_ascii_lowercase().as_str());
    range_of(range).filter(|_| known)
}

/// How many ports `PORT[-PORT]` names.
fn range_of(text: &str) -> Option<u16> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then(|| last - first + 1)
}

/// `[[ADDRESS:][PORT[-PORT]]:]PORT[-PORT][/PROTOCOL]`, with as many ports on one side as on the other.
fn is_published(text: &str) -> bool {
    let (host, container) = text.rsplit_once(':').map_or((None, text), |(host, container)| (Some(host), container));
    let Some(count) = count_of(container).filter(|count| *count <= MOST_PUBLISHED) else { return false };
    let Some(host) = host else { return true };
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) => (address, port),
        None => ("", host),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address_fits = address.is_empty() || bare.parse::<std::net::IpAddr>().is_ok();
    // Nothing between two colons means any port of the machine.
    let port_fits = range_of(port) == Some(count) || port.is_empty() && !address.is_empty();
    address_fits && port_fits
}
