//! The names of the cluster: what there is at each of them. Pure.
//!
//! | name | what |
//! | --- | --- |
//! | `db.default.svc.cluster.local` | a Service: its address; headless: those of its pods; another name |
//! | `db-0.db.default.svc.cluster.local` | a pod of it, by `hostname` if its `subdomain` is the Service |
//! | `10-244-0-5.db.default.svc.cluster.local` | any other pod of it |
//! | `_http._tcp.db.default.svc.cluster.local` | one port |
//! | `10-244-0-5.default.pod.cluster.local` | that address, whether a pod has it or not |
//! | `dns-version.cluster.local` | the version of all this |
//!
//! As in Kubernetes' DNS specification (1.1.0), and in CoreDNS's `kubernetes` plugin with `pods insecure` where that
//! leaves a choice: a headless Service without endpoints does not exist, and an endpoint has its name below every
//! Service, headless or not.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::model::cluster::{Cluster, DOMAIN, Peer};
use crate::model::names::Namespace;
use crate::model::plan::Protocol;
use crate::model::service::{Service, ServiceAddress, ServicePort};

/// What there is at a name.
#[derive(Debug)]
pub(super) enum Entry {
    /// The cluster's domain itself.
    Apex,
    /// Nothing but names below it.
    Parent,
    Version,
    /// At least one.
    Hosts(Vec<Host>),
    Alias(Name),
}

/// An address, and the name that it has there.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: Name,
    pub(super) address: IpAddr,
    /// A port that is served there.
    pub(super) port: Option<u16>,
}

/// The labels of a name that is in the cluster's domain, without those of the domain, in lower case.
pub(super) fn labels(name: &Name) -> Option<Vec<String>> {
    // What is no text, no label of ours is equal to.
    let mut labels: Vec<String> = name
        .iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect();
    let domain: Vec<&str> = DOMAIN.split('.').collect();
    let own = labels.len().checked_sub(domain.len())?;
    (labels[own..] == domain).then(|| {
        labels.truncate(own);
        labels
    })
}

/// The name of these labels in the cluster's domain; nothing if it would be too long.
pub(super) fn name_of(labels: &[&str]) -> Option<Name> {
    let labels = labels.iter().copied().chain(DOMAIN.split('.'));
    Name::from_labels(labels.map(str::as_bytes)).ok()
}

/// Whose name is looked for by a name in `in-addr.arpa` or `ip6.arpa`.
pub(super) fn reversed(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Which of a Service's addresses are meant.
#[derive(Clone, Copy)]
enum Which<'a> {
    All,
    Endpoint(&'a str),
    Port { name: &'a str, protocol: &'a str },
}

impl Which<'_> {
    fn takes(self, port: &ServicePort) -> bool {
        match self {
            Self::All | Self::Endpoint(_) => true,
            Self::Port { name, protocol } => {
                port.name.as_deref() == Some(name)
                    && protocol.eq_ignore_ascii_case(protocol_name(port.protocol))
            }
        }
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The cluster, as one pod sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) cluster: &'a Cluster,
    /// The pod's own.
    pub(super) namespace: &'a Namespace,
    /// Where the pod asks.
    pub(super) resolver: IpAddr,
    /// Which of several pods comes first: any number, so that not all clients take the same pod.
    pub(super) turn: usize,
}

impl View<'_> {
    /// What there is at a name of these labels in the cluster's domain.
    pub(super) fn entry(&self, labels: &[String]) -> Option<Entry> {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels[..] {
            [] => Some(Entry::Apex),
            ["svc" | "pod" | "dns"] => Some(Entry::Parent),
            ["dns-version"] => Some(Entry::Version),
            ["ns", "dns"] => self.name_server(),
            [namespace, "svc" | "pod"] => self.has(namespace).then_some(Entry::Parent),
            [address, namespace, "pod"] => self.pod(address, namespace),
            [service, namespace, "svc"] => self.service(service, namespace, Which::All),
            [endpoint, service, namespace, "svc"] => {
                self.service(service, namespace, Which::Endpoint(endpoint))
            }
            [port, protocol, service, namespace, "svc"] => {
                let name = port.strip_prefix('_')?;
                let protocol = protocol.strip_prefix('_')?;
                self.service(service, namespace, Which::Port { name, protocol })
            }
            _ => None,
        }
    }

    /// The names that an address has: of a Service, otherwise of an endpoint of each of its Services.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let mut services = self.cluster.services.values();
        let of_service = services.find(|service| match &service.address {
            ServiceAddress::Cluster(addresses) => addresses.contains(&address),
            ServiceAddress::Headless(_) | ServiceAddress::External(_) => false,
        });
        if let Some(service) = of_service {
            return service_name(service).into_iter().collect();
        }
        let mut names = Vec::new();
        let services = self.cluster.services.values();
        for service in services.filter(|service| service.has_family_of(address)) {
            let peers = self.cluster.endpoints(service);
            let with_address = peers.filter(|peer| peer.ips.contains(&address));
            names.extend(with_address.filter_map(|peer| endpoint_name(service, peer, address)));
        }
        names
    }

    /// Whether there is such a namespace. One in which nothing is, is not known of.
    fn has(&self, namespace: &str) -> bool {
        let cluster = self.cluster;
        let of_pods = cluster.peers.keys().map(|key| &key.namespace);
        let of_services = cluster.services.keys().map(|(namespace, _)| namespace);
        let mut all = of_pods.chain(of_services).chain([self.namespace]);
        namespace == Namespace::default().as_str() || all.any(|known| known.as_str() == namespace)
    }

    fn name_server(&self) -> Option<Entry> {
        Some(Entry::Hosts(vec![Host {
            name: name_of(&["ns", "dns"])?,
            address: self.resolver,
            port: None,
        }]))
    }

    fn pod(&self, label: &str, namespace: &str) -> Option<Entry> {
        let v4 = label.matches('-').count() == 3 && !label.contains("--");
        let address = label.replace('-', if v4 { "." } else { ":" });
        let address: IpAddr = address.parse().ok()?;
        let name = name_of(&[label, namespace, "pod"])?;
        self.has(namespace).then(|| {
            Entry::Hosts(vec![Host {
                name,
                address,
                port: Some(0),
            }])
        })
    }

    fn service(&self, name: &str, namespace: &str, which: Which<'_>) -> Option<Entry> {
        let key = (Namespace::parse(namespace).ok()?, name.to_owned());
        let service = self.cluster.services.get(&key)?;
        let hosts = match (&service.address, which) {
            (ServiceAddress::External(target), Which::All | Which::Port { .. }) => {
                return alias(target);
            }
            (ServiceAddress::External(_), Which::Endpoint(_)) => return None,
            (ServiceAddress::Cluster(addresses), Which::All | Which::Port { .. }) => {
                of_cluster(service, addresses, which)?
            }
            (ServiceAddress::Headless(_), _) | (ServiceAddress::Cluster(_), Which::Endpoint(_)) => {
                self.of_endpoints(service, which)
            }
        };
        (!hosts.is_empty()).then_some(Entry::Hosts(hosts))
    }

    fn of_endpoints(&self, service: &Service, which: Which<'_>) -> Vec<Host> {
        let mut peers: Vec<&Peer> = self.cluster.endpoints(service).collect();
        let first = self.turn.checked_rem(peers.len()).unwrap_or_default();
        peers.rotate_left(first);
        let mut hosts = Vec::new();
        for peer in peers {
            let ips = peer.ips.iter().copied();
            for address in ips.filter(|ip| service.has_family_of(*ip)) {
                let named = match which {
                    Which::All | Which::Port { .. } => true,
                    Which::Endpoint(label) => label == endpoint_label(service, peer, address),
                };
                let Some(name) = endpoint_name(service, peer, address).filter(|_| named) else {
                    continue;
                };
                hosts.extend(ports(service, peer, which).into_iter().map(|port| Host {
                    name: name.clone(),
                    address,
                    port,
                }));
            }
        }
        hosts
    }
}

/// What a Service with an address of its own has. Nothing to do with whether it has endpoints.
fn of_cluster(service: &Service, addresses: &[IpAddr], which: Which<'_>) -> Option<Vec<Host>> {
    let name = service_name(service)?;
    let ports = service.ports.iter().filter(|port| which.takes(port));
    let hosts = ports.flat_map(|port| {
        addresses.iter().map(|&address| Host {
            name: name.clone(),
            address,
            port: Some(port.port),
        })
    });
    Some(hosts.collect())
}

/// The ports that a pod serves for a Service. An endpoint without any has its address nevertheless.
fn ports(service: &Service, peer: &Peer, which: Which<'_>) -> Vec<Option<u16>> {
    let ports = service.ports.iter().filter(|port| which.takes(port));
    let served: Vec<_> = ports
        .filter_map(|port| peer.target(port).map(Some))
        .collect();
    match which {
        Which::All | Which::Endpoint(_) if served.is_empty() => vec![None],
        Which::All | Which::Endpoint(_) | Which::Port { .. } => served,
    }
}

/// An address is no name to stand for.
fn alias(target: &str) -> Option<Entry> {
    let target = target.strip_suffix('.').unwrap_or(target);
    if target.is_empty() || target.parse::<IpAddr>().is_ok() {
        return None;
    }
    let name = Name::from_labels(target.split('.').map(str::as_bytes));
    name.ok().map(Entry::Alias)
}

fn service_name(service: &Service) -> Option<Name> {
    name_of(&[&service.name, service.namespace.as_str(), "svc"])
}

fn endpoint_name(service: &Service, peer: &Peer, address: IpAddr) -> Option<Name> {
    let label = endpoint_label(service, peer, address);
    name_of(&[&label, &service.name, service.namespace.as_str(), "svc"])
}

fn endpoint_label(service: &Service, peer: &Peer, address: IpAddr) -> String {
    match &peer.hostname {
        Some(hostname) if peer.subdomain.as_ref() == Some(&service.name) => hostname.clone(),
        Some(_) | None => address.to_string().replace(['.', ':'], "-"),
    }
}
