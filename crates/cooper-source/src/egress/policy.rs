//! Which addresses requests may go to: public ones, and what the operator lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cidr::Cidr;
use super::error::EgressError;

/// Where requests may go. Without a list: to public addresses, over https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Ranges that are allowed although they are not public; only to them may requests go over plain http.
    pub allow: Vec<Cidr>,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    #[error("{0} is not a public address")]
    NotPublic(IpAddr),
    #[error("{0} is not listed for plain http")]
    Plain(IpAddr),
}

impl Denial {
    pub(super) fn into_error(self, host: &str, listed_by: &'static str) -> EgressError {
        let host = host.to_owned();
        match self {
            Self::NotPublic(address) => EgressError::Refused { host, address, listed_by },
            Self::Plain(address) => EgressError::PlainHttp { host, address, listed_by },
        }
    }
}

impl EgressPolicy {
    /// Whether a request may go to this address; over plain http, only listed ones will do.
    pub(super) fn check(&self, address: IpAddr, listed_only: bool) -> Result<(), Denial> {
        if self.allow.iter().any(|range| range.contains(address)) {
            Ok(())
        } else if !is_public(address) {
            Err(Denial::NotPublic(address))
        } else if listed_only {
            Err(Denial::Plain(address))
        } else {
            Ok(())
        }
    }
}

/// Whether an address is one of the public Internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        // This network, private, shared (carrier-grade NAT), loopback.
        (0 | 10 | 127, ..) | (100, 64..=127, _)
        // Link-local, where clouds keep their metadata; private.
        | (169, 254, _) | (172, 16..=31, _) | (192, 168, _)
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113)
        // Multicast, reserved, broadcast.
        | (224..=255, ..)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        // A translator's address leads to the IPv4 address in it.
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => is_public_v4(embedded(g, h)),
        (0x2002, _) => is_public_v4(embedded(b, c)),
        // Protocol assignments with Teredo, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        // Everything else that is handed out for the Internet: no loopback, unique local, link-local, multicast.
        _ => (0x2000..=0x3fff).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_reached_unasked() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "4000::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(EgressPolicy::default().check(address, false), Err(Denial::NotPublic(address)), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.0.1",
            "140.82.121.4",
            "172.32.0.1",
            "223.255.255.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(EgressPolicy::default().check(address, false), Ok(()), "{text}");
            assert_eq!(EgressPolicy::default().check(address, true), Err(Denial::Plain(address)), "{text}");
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_beside_it() {
        let policy = EgressPolicy { allow: vec![Cidr::parse("10.1.0.0/16").unwrap(), Cidr::parse("::1").unwrap()] };
        for (text, allowed) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("::1", true), ("127.0.0.1", false)]
        {
            assert_eq!(policy.check(text.parse().unwrap(), true).is_ok(), allowed, "{text}");
        }
    }
}
