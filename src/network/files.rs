//! `/etc/hosts` and `/etc/resolv.conf`, byte for byte as a kubelet writes them
//! (`kubelet_pods.go:managedHostsFileContent`, `network/dns/dns.go`). Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::plan::{Dns, DnsPolicy, HostAlias};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// What a hosts file is made from.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    pub hostname: &'a str,
    /// `<hostname>.<subdomain>.<namespace>.svc.<domain>`, with a subdomain.
    pub fqdn: Option<&'a str>,
    /// The pod's addresses. A pod that has none yet finds its own name at 127.0.0.1, where its ports are.
    pub pod_ips: &'a [IpAddr],
    pub aliases: &'a [HostAlias],
    /// The host's file, if the pod has the host's network.
    pub host_file: Option<&'a str>,
}

/// The content of `/etc/hosts`.
#[must_use]
pub fn hosts(input: &Hosts<'_>) -> String {
    let mut text = match input.host_file {
        Some(host_file) => format!("# Kubernetes-managed hosts file (host network).\n{host_file}"),
        None => own_hosts(input),
    };
    if !input.aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in input.aliases {
            writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"))
                .expect("a String takes everything");
        }
    }
    text
}

fn own_hosts(input: &Hosts<'_>) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let addresses = if input.pod_ips.is_empty() {
        &own
    } else {
        input.pod_ips
    };
    for address in addresses {
        match input.fqdn {
            Some(fqdn) => writeln!(text, "{address}\t{fqdn}\t{}", input.hostname),
            None => writeln!(text, "{address}\t{}", input.hostname),
        }
        .expect("a String takes everything");
    }
    text
}

/// The content of `/etc/resolv.conf`, from the host's file and the pod's wishes.
///
/// There is no cluster DNS, so `ClusterFirst` is `Default`, as on a kubelet without `--cluster-dns`.
#[must_use]
pub fn resolv_conf(dns: &Dns, host_file: &str) -> String {
    let mut config = match dns.policy {
        DnsPolicy::None => Config::default(),
        DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet | DnsPolicy::Default => {
            Config::parse(host_file)
        }
    };
    config.merge(dns);
    config.render()
}

#[derive(Debug, Default)]
struct Config {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Config {
    /// Reads a host's file; the last `search` counts, `options` add up, as in the resolver.
    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let rest: fn(_) -> Vec<String> =
                |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
            match words.next() {
                Some("nameserver") => config.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => config.searches = rest(words),
                Some("options") => config.options.extend(rest(words)),
                _ => {}
            }
        }
        config
    }

    fn merge(&mut self, dns: &Dns) {
        for nameserver in &dns.nameservers {
            push_new(&mut self.nameservers, nameserver.to_string());
        }
        for search in &dns.searches {
            push_new(&mut self.searches, search.clone());
        }
        for (name, value) in &dns.options {
            self.options
                .retain(|known| known.split(':').next() != Some(name));
            self.options.push(match value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }

    fn render(mut self) -> String {
        self.nameservers.truncate(MAX_NAMESERVERS);
        self.searches.truncate(MAX_SEARCHES);
        while self.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
            self.searches.pop();
        }
        let mut text = String::new();
        if !self.searches.is_empty() {
            writeln!(text, "search {}", self.searches.join(" "))
                .expect("a String takes everything");
        }
        for nameserver in &self.nameservers {
            writeln!(text, "nameserver {nameserver}").expect("a String takes everything");
        }
        if !self.options.is_empty() {
            writeln!(text, "options {}", self.options.join(" "))
                .expect("a String takes everything");
        }
        text
    }
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn hosts_is_the_kubelets() {
        let aliases = [HostAlias {
            ip: ip("10.1.2.3"),
            hostnames: vec!["foo.remote".into(), "bar.remote".into()],
        }];
        let mut input = Hosts {
            hostname: "web-0",
            fqdn: None,
            pod_ips: &[ip("10.0.0.7"), ip("fd00::7")],
            aliases: &aliases,
            host_file: None,
        };
        assert_eq!(
            hosts(&input),
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n\
             10.0.0.7\tweb-0\n\
             fd00::7\tweb-0\n\
             \n\
             # Entries added by HostAliases.\n\
             10.1.2.3\tfoo.remote\tbar.remote\n"
        );
        input.fqdn = Some("web-0.s.ns.svc.cluster.local");
        assert!(hosts(&input).contains("\n10.0.0.7\tweb-0.s.ns.svc.cluster.local\tweb-0\n"));
        input.pod_ips = &[];
        input.fqdn = None;
        assert!(hosts(&input).contains("\n127.0.0.1\tweb-0\n"));
        input.host_file = Some("127.0.0.1 localhost\n");
        assert_eq!(
            hosts(&input),
            "# Kubernetes-managed hosts file (host network).\n\
             127.0.0.1 localhost\n\
             \n\
             # Entries added by HostAliases.\n\
             10.1.2.3\tfoo.remote\tbar.remote\n"
        );
    }

    #[test]
    fn resolv_conf_follows_the_policy() {
        let host =
            "# a comment\nnameserver 1.1.1.1\nsearch old\nsearch a b\noptions edns0 ndots:2\n";
        let mut dns = Dns::default();
        assert_eq!(
            resolv_conf(&dns, host),
            "search a b\nnameserver 1.1.1.1\noptions edns0 ndots:2\n"
        );
        dns.nameservers = vec![ip("1.1.1.1"), ip("2.2.2.2"), ip("3.3.3.3"), ip("4.4.4.4")];
        dns.searches = vec!["b".into(), "c".into()];
        dns.options = vec![("ndots".into(), Some("5".into())), ("debug".into(), None)];
        assert_eq!(
            resolv_conf(&dns, host),
            "search a b c\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\noptions edns0 ndots:5 debug\n"
        );
        dns.policy = DnsPolicy::None;
        assert_eq!(
            resolv_conf(&dns, host),
            "search b c\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\noptions ndots:5 debug\n"
        );
    }

    #[test]
    fn resolv_conf_has_limits() {
        let dns = Dns {
            policy: DnsPolicy::None,
            searches: (0..40).map(|n| format!("{n}{}", "x".repeat(100))).collect(),
            ..Dns::default()
        };
        let text = resolv_conf(&dns, "");
        assert!(text.len() <= "search \n".len() + MAX_SEARCH_CHARACTERS);
    }
}
