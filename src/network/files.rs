//! `/etc/hosts` and `/etc/resolv.conf`, byte for byte as a kubelet writes them
//! (`kubelet_pods.go:managedHostsFileContent`, `network/dns/dns.go`). Pure.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::RESOLVER;
use crate::model::cluster::DOMAIN;
use crate::model::names::Namespace;
use crate::model::plan::{Dns, DnsPolicy, HostAlias};

/// What glibc reads, and so what a kubelet writes.
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
/// Characters of all search domains with the spaces between them.
const LONGEST_SEARCH_LIST: usize = 2048;
/// Characters; a longer domain makes some resolvers abort.
const LONGEST_SEARCH: usize = 253;

/// What a hosts file is made from.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    pub hostname: &'a str,
    /// `<hostname>.<subdomain>.<namespace>.svc.<domain>`, with a subdomain.
    pub fqdn: Option<&'a str>,
    /// The pod's addresses.
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
    for address in input.pod_ips {
        match input.fqdn {
            Some(fqdn) => writeln!(text, "{address}\t{fqdn}\t{}", input.hostname),
            None => writeln!(text, "{address}\t{}", input.hostname),
        }
        .expect("a String takes everything");
    }
    text
}

/// A `resolv.conf`, and what did not fit into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub text: String,
    /// In a kubelet's words: the messages of its `DNSConfigForming` events.
    pub omissions: Vec<String>,
}

/// Whose network a pod has.
#[derive(Clone, Copy, Debug)]
pub enum PodNetwork<'a> {
    /// The machine's, with the cluster DNS of this pod if it has one.
    Machine(Option<ClusterDns<'a>>),
    /// Its own, in which [`RESOLVER`] knows the cluster's names. With the pod's namespace.
    Own(&'a Namespace),
}

/// Where a pod in the machine's network asks for the cluster's names.
#[derive(Clone, Copy, Debug)]
pub struct ClusterDns<'a> {
    pub address: IpAddr,
    /// The pod's.
    pub namespace: &'a Namespace,
}

/// The content of `/etc/resolv.conf`, from the host's file and the pod's wishes.
///
/// On one point not as a kubelet writes it: a nameserver of the host on loopback, such as systemd-resolved's stub,
/// cannot be reached from a pod's own network. With `Default`, [`RESOLVER`] is in its place, without the cluster's
/// search domains: it passes on what is not the cluster's.
#[must_use]
pub fn resolv_conf(dns: &Dns, network: PodNetwork<'_>, of_host: &str) -> ResolvConf {
    let mut resolver = match (dns.policy, network) {
        (DnsPolicy::None, PodNetwork::Machine(_) | PodNetwork::Own(_)) => Resolver::default(),
        (DnsPolicy::ClusterFirstWithHostNet, PodNetwork::Machine(Some(dns))) => {
            Resolver::of_cluster(dns.address, dns.namespace, Resolver::parse(of_host))
        }
        // With the host's network a kubelet takes `ClusterFirst` for `Default`.
        (
            DnsPolicy::Default | DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet,
            PodNetwork::Machine(_),
        ) => Resolver::parse(of_host),
        (DnsPolicy::Default, PodNetwork::Own(_)) => Resolver::parse(of_host).in_a_pod(),
        (
            DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet,
            PodNetwork::Own(namespace),
        ) => Resolver::of_cluster(RESOLVER.into(), namespace, Resolver::parse(of_host)),
    };
    resolver.add(dns);
    let omissions = resolver.fit();
    ResolvConf {
        text: resolver.text(),
        omissions,
    }
}

/// Whether a pod asks for the cluster DNS where there is none: it gets the host's, and a kubelet says so.
#[must_use]
pub fn misses_cluster_dns(policy: DnsPolicy, network: PodNetwork<'_>) -> bool {
    match (policy, network) {
        (DnsPolicy::ClusterFirstWithHostNet, PodNetwork::Machine(None)) => true,
        (
            DnsPolicy::ClusterFirst
            | DnsPolicy::ClusterFirstWithHostNet
            | DnsPolicy::Default
            | DnsPolicy::None,
            PodNetwork::Machine(_) | PodNetwork::Own(_),
        ) => false,
    }
}

/// The nameservers of a `resolv.conf`, as they are written there.
#[must_use]
pub fn nameservers(resolv_conf: &str) -> Vec<String> {
    Resolver::parse(resolv_conf).nameservers
}

/// The directives of a `resolv.conf` that a kubelet knows.
#[derive(Debug, Default)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    /// Name and value; each name once.
    options: Vec<(String, Option<String>)>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                // The last one counts. The root alone keeps its dot: it is how "no domain" is written.
                Some("search") => {
                    let domain = |word: &str| match word {
                        "." => word.to_owned(),
                        _ => word.strip_suffix('.').unwrap_or(word).to_owned(),
                    };
                    resolver.searches = words.map(domain).collect();
                }
                Some("options") => {
                    for word in words {
                        match word.split_once(':') {
                            Some((name, value)) => resolver.set_option(name, Some(value)),
                            None => resolver.set_option(word, None),
                        }
                    }
                }
                // `domain` among them, as with a kubelet.
                _ => {}
            }
        }
        resolver
    }

    /// What asks the cluster first.
    fn of_cluster(resolver: IpAddr, namespace: &Namespace, of_host: Self) -> Self {
        let mut searches = vec![
            format!("{namespace}.svc.{DOMAIN}"),
            format!("svc.{DOMAIN}"),
            DOMAIN.to_owned(),
        ];
        searches.extend(of_host.searches);
        drop_duplicates(&mut searches);
        Self {
            nameservers: vec![resolver.to_string()],
            searches,
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        }
    }

    /// The host's, as far as a pod can use it.
    fn in_a_pod(mut self) -> Self {
        for nameserver in &mut self.nameservers {
            let address: Result<IpAddr, _> = nameserver.parse();
            if address.is_ok_and(|address| address.to_canonical().is_loopback()) {
                *nameserver = RESOLVER.to_string();
            }
        }
        drop_duplicates(&mut self.nameservers);
        self
    }

    fn set_option(&mut self, name: &str, value: Option<&str>) {
        let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
        match self.options.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name.to_owned(), value)),
        }
    }

    fn add(&mut self, dns: &Dns) {
        if dns.nameservers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
            return;
        }
        self.nameservers.extend(dns.nameservers.iter().cloned());
        self.searches.extend(dns.searches.iter().cloned());
        drop_duplicates(&mut self.nameservers);
        drop_duplicates(&mut self.searches);
        for (name, value) in &dns.options {
            self.set_option(name, value.as_deref());
        }
    }

    fn fit(&mut self) -> Vec<String> {
        let mut omissions = Vec::new();
        let (nameservers, searches) = (self.nameservers.len(), self.searches.len());
        self.searches.truncate(MOST_SEARCHES);
        self.searches
            .retain(|search| search.len() <= LONGEST_SEARCH);
        while self.searches.join(" ").len() > LONGEST_SEARCH_LIST {
            self.searches.pop();
        }
        if self.searches.len() < searches {
            omissions.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        self.nameservers.truncate(MOST_NAMESERVERS);
        if self.nameservers.len() < nameservers {
            omissions.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        omissions
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for nameserver in &self.nameservers {
            text += &format!("nameserver {nameserver}\n");
        }
        if !self.options.is_empty() {
            let words: Vec<String> = self
                .options
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => format!("{name}:{value}"),
                    None => name.clone(),
                })
                .collect();
            text += &format!("options {}\n", words.join(" "));
        }
        text
    }
}

fn drop_duplicates(list: &mut Vec<String>) {
    let mut seen = HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

#[cfg(test)]
mod tests;
