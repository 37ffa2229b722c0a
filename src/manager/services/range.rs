//! Networks from which Services have their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::service::RANGES;

/// From where addresses are allocated.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    pub v4: Range,
    pub v6: Range,
}

impl Default for Ranges {
    fn default() -> Self {
        let [v4, v6] = RANGES.map(|(network, prefix)| Range::new(network, prefix));
        Self { v4, v6 }
    }
}

/// A network: `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    network: IpAddr,
    prefix: u8,
}

impl Range {
    /// The network of this address.
    pub fn new(network: impl Into<IpAddr>, prefix: u8) -> Self {
        let network = network.into();
        Self { network, prefix }
    }

    /// How many addresses it has; of more than that nobody needs the rest.
    fn len(self) -> u32 {
        let bits = match self.network {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128_u32,
        };
        1 << bits.saturating_sub(self.prefix.into()).min(20)
    }

    fn nth(self, index: u32) -> IpAddr {
        match self.network {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + index).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(index)).into(),
        }
    }

    /// All but the first and the last, which mean the network: first those behind the part that people choose from,
    /// beginning somewhere (as an API server does); then that part.
    pub(super) fn candidates(self, start: u64) -> impl Iterator<Item = IpAddr> {
        let chosen = (self.len() / 16).clamp(1, 256);
        let count = self.len().saturating_sub(1 + chosen);
        let start = start % u64::from(count.max(1));
        let start = u32::try_from(start).unwrap_or_default();
        let allocated = (start..count).chain(0..start);
        let allocated = allocated.map(move |index| chosen + index);
        allocated.chain(1..chosen).map(move |index| self.nth(index))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}
