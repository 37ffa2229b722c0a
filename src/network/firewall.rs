//! Firewalls that drop what the machine forwards: with one, packets of pods may not get through.

use super::nft;
use crate::sys::iptables::{self, Family};

/// What to tell of those that are there: pods run with them.
pub(super) fn limits(bridge: &str) -> Vec<String> {
    // A kernel without nftables has no such firewall, and the same holds for the one before.
    let of_nftables = nft::forward_policy_drops().unwrap_or_default().into_iter();
    let of_nftables = of_nftables.map(|chain| {
        let what = format!("nftables chain `{chain}`");
        limit(&what, "iptables", bridge)
    });
    let of_iptables = [(Family::V4, "iptables"), (Family::V6, "ip6tables")].into_iter();
    let of_iptables = of_iptables
        .filter(|(family, _)| iptables::forward_drops(*family).unwrap_or_default())
        .map(|(_, program)| {
            let what = format!("{program}-legacy chain `filter FORWARD`");
            limit(&what, &format!("{program}-legacy"), bridge)
        });
    of_nftables.chain(of_iptables).collect()
}

fn limit(what: &str, program: &str, bridge: &str) -> String {
    format!(
        "a firewall ({what}) drops what the machine forwards: if pods cannot reach the world or each other, allow it with \
         `{program} -I FORWARD -i {bridge} -j ACCEPT` and `{program} -I FORWARD -o {bridge} -j ACCEPT`"
    )
}
