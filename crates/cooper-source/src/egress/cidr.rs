//! Ranges of addresses as operators write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses, `10.0.0.0/8` or `fd00::/8`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a range of addresses: {reason}; write for example 10.0.0.0/8 or fd00::/8")]
pub struct CidrError {
    text: String,
    reason: &'static str,
}

impl Cidr {
    /// Reads `ADDRESS[/BITS]`. Bits of the address behind the prefix must be zero, so that a slip is seen.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let fault = |reason| CidrError { text: text.chars().take(80).flat_map(char::escape_debug).collect(), reason };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network = IpAddr::from_str(address).map_err(|_| fault("the part before `/` is no IP address"))?;
        let width = width(network);
        let prefix = match bits {
            None => width,
            Some(bits) => bits
                .parse::<u8>()
                .ok()
                .filter(|prefix| *prefix <= width && !bits.starts_with('+'))
                .ok_or_else(|| fault("the part after `/` is no number of bits"))?,
        };
        let range = Self { network, prefix };
        if masked(network, prefix) != bits_of(network) {
            return Err(fault("the address has bits behind the prefix"));
        }
        Ok(range)
    }

    /// Whether the address lies in the range. An IPv4 address written as IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.prefix) == bits_of(self.network)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, prefix: u8) -> u128 {
    let behind = u32::from(width(address).saturating_sub(prefix));
    bits_of(address).checked_shr(behind).unwrap_or(0).checked_shl(behind).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, address, inside) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::a01:203", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fc12::1", false),
            ("::1", "::1", true),
        ] {
            let parsed = Cidr::parse(range).unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{range} {address}");
            assert_eq!(Cidr::parse(&parsed.to_string()), Ok(parsed));
        }
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0.1/8", "h.io/8", "10/8", "10.0.0.0/", "10.0.0.0/+8", "1.2.3.4/8/8"]
        {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }
}
