//! Ranges of addresses. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subnet {
    /// Its first address.
    pub(super) address: IpAddr,
    /// The bits that all its addresses share.
    pub(super) prefix: u8,
}

impl Subnet {
    /// The address at this distance from the first one.
    #[must_use]
    pub(super) fn at(&self, offset: u16) -> IpAddr {
        match self.address {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + u32::from(offset)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(offset)).into(),
        }
    }

    /// Whether an address is in both.
    #[must_use]
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let prefix = u32::from(self.prefix.min(other.prefix));
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let different = a.to_bits() ^ b.to_bits();
                different.checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let different = a.to_bits() ^ b.to_bits();
                different.checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Bits that the addresses of a bridge's pods share: as many addresses as a bridge has ports.
pub(super) const PREFIX: u8 = 22;

/// The ranges that pods may have, best first: those that clusters use, then the other private ones.
pub(super) fn candidates() -> impl Iterator<Item = Subnet> {
    let step = 1_u32 << (32 - PREFIX);
    [
        (Ipv4Addr::new(10, 244, 0, 0), 16),
        (Ipv4Addr::new(10, 128, 0, 0), 10),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
    ]
    .into_iter()
    .flat_map(move |(first, prefix)| {
        let count = 1_u32 << (PREFIX - prefix);
        (0..count).map(move |index| Subnet {
            address: Ipv4Addr::from_bits(first.to_bits() + index * step).into(),
            prefix: PREFIX,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn subnets_overlap() {
        let check = |a: &str, b: &str, expected: bool| {
            assert_eq!(subnet(a).overlaps(&subnet(b)), expected, "{a} {b}");
            assert_eq!(subnet(b).overlaps(&subnet(a)), expected, "{b} {a}");
        };
        check("10.0.0.0/8", "10.244.4.0/22", true);
        check("10.244.0.0/22", "10.244.4.0/22", false);
        check("10.244.4.7/32", "10.244.4.0/22", true);
        check("0.0.0.0/0", "10.244.4.0/22", true);
        check("fd00::/64", "fd00:0:0:1::/64", false);
        check("fd00::/48", "fd00:0:0:1::/64", true);
        check("::/0", "10.0.0.0/8", false);
    }

    #[test]
    fn candidates_are_private_and_apart() {
        let all: Vec<Subnet> = candidates().collect();
        assert_eq!(all.first().unwrap().to_string(), "10.244.0.0/22");
        assert_eq!(all.first().unwrap().at(1023).to_string(), "10.244.3.255");
        assert!(all.iter().all(|subnet| match subnet.address {
            IpAddr::V4(ip) => ip.is_private(),
            IpAddr::V6(_) => false,
        }));
        assert!(all.windows(2).all(|pair| !pair[0].overlaps(&pair[1])));
    }
}
