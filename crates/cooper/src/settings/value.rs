//! From the text of a setting to its value. The error says what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;
use cooper_server::{CacheBudget, MinFree, TlsName};
use cooper_source::Cidr;
use cooper_spec::dockerfile::{FrontendRule, FrontendRules};
use cooper_spec::task::ImageAlias;
use cooper_types::{AgentName, Leave, NetworkName, Platform};

use super::LogFormat;

/// What a certificate begins with.
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The most placements that one agent can be told to hold.
const MAX_SLOTS: u32 = 256;
/// As many processes as Linux can tell apart.
const MAX_PIDS: u32 = 1 << 22;
/// The longest time that something is kept, in seconds.
const MAX_SPAN: u64 = 10 * 366 * 24 * 3600;

pub(super) fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000)
}

/// An address and a port. `localhost` is taken as the IPv4 loopback address: nothing is looked up.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| format!("`{text}` is not an address and port such as 127.0.0.1:5000"))
}

/// Platforms, with commas between them.
pub(super) fn platforms(text: &str) -> Result<BTreeSet<Platform>, String> {
    text.split(',').map(|name| Platform::parse(name.trim()).map_err(|error| error.to_string())).collect()
}

/// A name made of a host's name: what can't stand in a name becomes `-`.
pub(super) fn agent_name_of(host: &str) -> Option<AgentName> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = host.chars().take(64).map(|c| if fits(c) { c } else { '-' }).collect();
    AgentName::parse(&name).ok()
}

/// Names and addresses of a server, with commas between them.
pub(super) fn tls_names(text: &str) -> Result<Vec<TlsName>, String> {
    text.split(',').map(|name| TlsName::parse(name.trim()).map_err(|error| error.to_string())).collect()
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("the path is empty".to_owned()),
        false => Ok(PathBuf::from(text)),
    }
}

/// Certificates in PEM, from the file that is named.
pub(super) fn certificates(text: &str) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path(text)?).map_err(|error| format!("`{text}` can't be read: {error}"))?;
    match pem.windows(PEM.len()).any(|part| part == PEM) {
        true => Ok(pem),
        false => Err(format!("`{text}` holds no certificate in PEM")),
    }
}

/// The path of an engine's socket, perhaps with `unix://` before it.
pub(super) fn socket(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    match path.is_empty() || path.contains("://") {
        true => Err(format!("`{text}` is not the path of a socket such as /var/run/docker.sock")),
        false => Ok(path.to_owned()),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" | "on" => Ok(true),
        "false" | "no" | "0" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

pub(super) fn slots(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_SLOTS).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to {MAX_SLOTS}"))
}

/// A number of bytes, perhaps with KiB, MiB, GiB or TiB after it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30), ("TiB", 1 << 40), ("", 1)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
    let bytes = number.trim_end().parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let error = || format!("`{text}` is not a size from 1 byte on, such as 500MiB or 4GiB");
    bytes.filter(|bytes| *bytes > 0).ok_or_else(error)
}

/// Rules for frontends with blanks or commas between them.
pub(super) fn frontends(text: &str) -> Result<FrontendRules, String> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let rules = parts.map(|part| FrontendRule::parse(part).map_err(|error| error.to_string()));
    rules.collect::<Result<_, _>>().map(FrontendRules)
}

/// Networks with blanks or commas between them, or `none`.
pub(super) fn networks(text: &str) -> Result<Vec<Cidr>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    parts.map(network).collect()
}

/// A network, or an address that is not a network's: a forgotten prefix would make one address of a whole network.
fn network(text: &str) -> Result<Cidr, String> {
    let first_of_many = match text.parse() {
        Ok(IpAddr::V4(address)) => (address.octets()[3] == 0).then_some(32),
        Ok(IpAddr::V6(address)) => (address.segments()[7] == 0).then_some(128),
        Err(_) => None,
    };
    match first_of_many {
        Some(bits) => Err(format!(
            "`{text}` has no prefix: write {text}/{bits} for this address alone, or the network's prefix, as in 10.0.0.0/8"
        )),
        None => Cidr::parse(text).map_err(|error| error.to_string()),
    }
}

/// Names of an engine's networks with blanks or commas between them, or `none`.
pub(super) fn network_names(text: &str) -> Result<BTreeSet<String>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(BTreeSet::new());
    }
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let names =
        parts.map(|part| NetworkName::parse(part).map(|name| name.to_string()).map_err(|error| error.to_string()));
    let names = names.collect::<Result<BTreeSet<_>, _>>()?;
    match names.len() <= Leave::MAX_NETWORKS {
        true => Ok(names),
        false => Err(format!("{} networks are listed; at most {} may be allowed", names.len(), Leave::MAX_NETWORKS)),
    }
}

/// The least memory that an engine gives a container.
const LEAST_MEMORY: u64 = 6 << 20;

/// What a step's container may have of the memory: a size, or `unlimited`.
pub(super) fn step_memory(text: &str) -> Result<Option<u64>, String> {
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(None);
    }
    match size(text) {
        Ok(bytes) if bytes >= LEAST_MEMORY => Ok(Some(bytes)),
        Ok(_) => Err(format!("`{text}` is less than the 6MiB that an engine gives at least")),
        Err(_) => Err(format!("`{text}` is neither a size such as 4GiB nor unlimited")),
    }
}

/// How many processes a step's container may have.
pub(super) fn step_pids(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_PIDS).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number of processes from 1 to {MAX_PIDS}"))
}

/// Names of images in task files, as NAME=IMAGE with commas between them, or `none`.
/// Where people and forges reach the server, without a slash at its end.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let url = cooper_client::ServerUrl::parse(text).map_err(|error| error.to_string())?;
    Ok(url.to_string().trim_end_matches('/').to_owned())
}

pub(super) fn image_aliases(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut aliases = BTreeMap::new();
    if text.eq_ignore_ascii_case("none") {
        return Ok(aliases);
    }
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let alias = ImageAlias::parse(part.trim()).map_err(|error| error.to_string())?;
        if aliases.insert(alias.name.clone(), alias.image).is_some() {
            return Err(format!("alias `{}` is there twice", alias.name));
        }
    }
    Ok(aliases)
}

/// What the build cache of an engine may take: a size, or `none` for one that is never touched.
pub(super) fn cache_budget(text: &str) -> Result<CacheBudget, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(CacheBudget::Unlimited);
    }
    let bytes = size(text).map(CacheBudget::Bytes);
    bytes.map_err(|_| format!("`{text}` is neither a size such as 20GiB nor none"))
}

/// What has to be free on a disk: a size, 0, or a part of the disk such as 5%.
pub(super) fn min_free(text: &str) -> Result<MinFree, String> {
    let amount = match text.strip_suffix('%') {
        Some(number) => number.trim_end().parse().ok().filter(|number| *number <= 99).map(MinFree::Percent),
        None if text == "0" => Some(MinFree::Bytes(0)),
        None => size(text).ok().map(MinFree::Bytes),
    };
    amount.ok_or_else(|| format!("`{text}` is neither a size such as 2GiB nor a part of the disk such as 5%"))
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<u32>();
    let number = number.ok().filter(|number| *number <= 3600);
    number.map(|number| Duration::from_secs(number.into())).ok_or_else(|| format!("`{text}` is not 0 to 3600 seconds"))
}

/// How long something is kept, such as `24h`.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let (number, unit) =
        units.iter().find_map(|(name, seconds)| Some((text.strip_suffix(*name)?, *seconds))).unwrap_or_default();
    let seconds = number.parse::<u32>().ok().and_then(|number| u64::from(number).checked_mul(unit));
    let seconds = seconds.filter(|seconds| (1..=30 * 86400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not a time from 1s to 30d, such as 24h"))
}

/// A time in whole seconds, minutes, hours or days, such as 30m, 12h or 7d.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    let seconds = match text {
        "0" => Some(0),
        _ => units.iter().find_map(|(unit, factor)| {
            let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(*factor).filter(|seconds| *seconds <= MAX_SPAN)
        }),
    };
    let error = || format!("`{text}` is not a time of at most ten years, such as 30m, 12h or 7d, or 0");
    seconds.map(Duration::from_secs).ok_or_else(error)
}

/// A time from a minute to a day.
pub(super) fn base_image_poll(text: &str) -> Result<Duration, String> {
    to_a_day(text, 60).ok_or_else(|| format!("`{text}` is not a time from 1m to 24h"))
}

/// A time from ten seconds to a day.
pub(super) fn source_poll(text: &str) -> Result<Duration, String> {
    to_a_day(text, 10).ok_or_else(|| format!("`{text}` is not a time from 10s to 24h"))
}

fn to_a_day(text: &str, least: u64) -> Option<Duration> {
    let range = Duration::from_secs(least)..=Duration::from_secs(24 * 3600);
    span(text).ok().filter(|time| range.contains(time))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::from_str(text, true).map_err(|_| format!("`{text}` is neither pretty nor json"))
}

/// A filter such as `info` or `cooper_server=debug,info`.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("`{text}` is not a log filter such as info or cooper_server=debug,info: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        let check =
            |text: &str, expect: Option<u64>| assert_eq!(span(text).ok(), expect.map(Duration::from_secs), "{text}");
        check("0", Some(0));
        check("90s", Some(90));
        check("30m", Some(1800));
        check("12 h", Some(43_200));
        check("7d", Some(604_800));
        check("7", None);
        check("-1d", None);
        check("1w", None);
        check("99999999999d", None);
    }

    #[test]
    fn looks_have_a_shortest_and_a_longest_pause() {
        let check = |read: fn(&str) -> Result<Duration, String>, refused: [&str; 5], taken: [(&str, u64); 3]| {
            for text in refused {
                let said = read(text).expect_err(text);
                assert!(said.starts_with(&format!("`{text}` is not a time from ")), "{said}");
            }
            for (text, seconds) in taken {
                assert_eq!(read(text), Ok(Duration::from_secs(seconds)), "{text}");
            }
        };
        check(base_image_poll, ["0", "59s", "1441m", "25h", "60"], [("60s", 60), ("1m", 60), ("24h", 86_400)]);
        check(source_poll, ["0", "9s", "86401s", "2d", "10"], [("10s", 10), ("1m", 60), ("1d", 86_400)]);
        let said = base_image_poll("59s").expect_err("too short");
        assert!(said.ends_with("from 1m to 24h"), "{said}");
    }

    #[test]
    fn values_are_read_strictly() {
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("10 MiB"), Ok(10 << 20));
        assert_eq!(size("7"), Ok(7));
        for text in ["", "0", "-1", "1.5GiB", "4GB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(listen("localhost:0").map(|address| address.to_string()), Ok("127.0.0.1:0".to_owned()));
        assert_eq!(listen("[::]:5000").map(|address| address.to_string()), Ok("[::]:5000".to_owned()));
        for text in ["", ":5000", "5000", "localhost", "localhost:99999", "example.com:1"] {
            assert!(listen(text).is_err(), "{text}");
        }
        assert_eq!(networks("10.0.0.0/8, 10.1.2.3 fd00::1").map(|all| all.len()), Ok(3));
        for (text, way_out) in [("10.0.0.0", "10.0.0.0/32"), ("fd00::", "fd00::/128"), ("0.0.0.0", "0.0.0.0/32")] {
            assert!(networks(text).expect_err(text).contains(way_out), "{text}");
        }
        let names = |count: usize| (0..count).map(|number| format!("net{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(network_names(&names(48)).map(|all| all.len()), Ok(48));
        assert!(network_names(&names(49)).expect_err("too many").contains("49 networks are listed; at most 48"));
        assert_eq!((step_memory("Unlimited"), step_memory("1GiB")), (Ok(None), Ok(Some(1 << 30))));
        assert!(step_memory("1MiB").is_err() && step_memory("lots").is_err());
        assert!(step_pids("0").is_err() && step_pids("-1").is_err() && step_pids("1").is_ok());
        assert_eq!(image_aliases("none"), Ok(BTreeMap::new()));
        assert_eq!(image_aliases("a=x, b=r.io/y:1").map(|all| all.len()), Ok(2));
        assert!(image_aliases("a=x,a=y").is_err() && image_aliases("a").is_err());
        assert!(socket("tcp://1.2.3.4:2375").is_err() && socket("unix://").is_err());
        assert!(slots("0").is_err() && slots("257").is_err() && slots("256").is_ok());
        assert_eq!(cache_budget("None"), Ok(CacheBudget::Unlimited));
        assert_eq!(cache_budget("1GiB"), Ok(CacheBudget::Bytes(1 << 30)));
        assert!(cache_budget("0").is_err() && cache_budget("5%").is_err());
        assert_eq!(min_free("5%"), Ok(MinFree::Percent(5)));
        assert_eq!(min_free("0"), Ok(MinFree::Bytes(0)));
        assert_eq!(min_free("100MiB"), Ok(MinFree::Bytes(100 << 20)));
        assert!(min_free("100%").is_err() && min_free("%").is_err() && min_free("none").is_err());
        assert_eq!(seconds("20s"), Ok(Duration::from_secs(20)));
        assert!(seconds("3601").is_err() && seconds("a").is_err());
        assert!(log_filter("info,cooper=debug").is_ok() && log_filter("a=b=c").is_err());
        assert_eq!(log_format("JSON"), Ok(LogFormat::Json));
    }
}
