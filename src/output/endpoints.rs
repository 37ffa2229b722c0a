//! EndpointSlices and Endpoints of Services, as their controllers would write them, from what pods say of themselves.
//!
//! Services without a selector have none: kplay plays no endpoints that a manifest gives.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::object::{array, metadata, set, string};
use crate::model::cluster::{Cluster, Peer, PeerState};
use crate::model::plan::Protocol;
use crate::model::service::{Service, ServiceAddress};

/// A port of endpoints: name, number, protocol, `appProtocol`.
type Port = (String, u16, Protocol, Option<String>);

/// A Service with all that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) service: &'a Service,
    /// The `v1.Service`.
    pub(crate) object: &'a Value,
    pub(crate) node_name: &'a str,
}

impl<'a> Subject<'a> {
    fn has_endpoints(self) -> bool {
        let external = matches!(self.service.address, ServiceAddress::External(_));
        !external && !self.service.selector.is_empty()
    }

    /// The pods with an address of this family, by the ports that they have for the Service.
    fn by_ports(self, family: &str) -> BTreeMap<Vec<Port>, Vec<(IpAddr, &'a Peer)>> {
        let mut found: BTreeMap<Vec<Port>, Vec<(IpAddr, &Peer)>> = BTreeMap::new();
        for peer in self.cluster.selected(self.service) {
            let ip = peer.ips.iter().find(|ip| match ip {
                IpAddr::V4(_) => family == "IPv4",
                IpAddr::V6(_) => family == "IPv6",
            });
            if let Some(ip) = ip {
                let ports = found.entry(self.ports(peer)).or_default();
                ports.push((*ip, peer));
            }
        }
        found
    }

    fn ports(self, peer: &Peer) -> Vec<Port> {
        let written = array(self.object, "/spec/ports");
        let ports = self.service.ports.iter().zip(written);
        let ports = ports.filter_map(|(port, written)| {
            let application = written.get("appProtocol").and_then(Value::as_str);
            Some((
                port.name.clone().unwrap_or_default(),
                peer.target(port)?,
                port.protocol,
                application.map(str::to_owned),
            ))
        });
        ports.collect()
    }

    /// Whether others may connect.
    fn is_ready(self, peer: &Peer) -> bool {
        match peer.state {
            PeerState::Ready => true,
            PeerState::NotReady | PeerState::Terminating => {
                self.service.publish_not_ready_addresses
            }
        }
    }

    fn metadata(self, name: &str) -> Value {
        let mut metadata = json!({
            "name": name,
            "namespace": self.service.namespace.as_str(),
            "creationTimestamp": string(self.object, "/metadata/creationTimestamp"),
        });
        if let Some(labels) = self.object.pointer("/metadata/labels") {
            set(&mut metadata, "labels", labels.clone());
        }
        metadata
    }
}

/// The EndpointSlices of a Service: one of each family and of each set of ports.
pub(crate) fn slices(subject: Subject<'_>) -> Vec<Value> {
    let mut slices = Vec::new();
    if !subject.has_endpoints() {
        return slices;
    }
    let families = array(subject.object, "/spec/ipFamilies").iter();
    for family in families.filter_map(Value::as_str) {
        let mut found = subject.by_ports(family);
        if found.is_empty() {
            found.insert(Vec::new(), Vec::new());
        }
        for (ports, peers) in found {
            slices.push(slice(subject, family, &ports, &peers));
        }
    }
    slices
}

fn slice(subject: Subject<'_>, family: &str, ports: &[Port], peers: &[(IpAddr, &Peer)]) -> Value {
    let Subject {
        service, object, ..
    } = subject;
    let uid = metadata(object, "uid");
    let name = format!("{}-{}", service.name, suffix((uid, family, ports)));
    let mut head = subject.metadata(&name);
    let labels = object.pointer("/metadata/labels");
    let mut labels: Map<String, Value> = labels
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut label = |name: &str, value: &str| drop(labels.insert(name.into(), value.into()));
    label("endpointslice.kubernetes.io/managed-by", "kplay");
    label("kubernetes.io/service-name", &service.name);
    if matches!(service.address, ServiceAddress::Headless(_)) {
        label("service.kubernetes.io/headless", "");
    }
    set(
        &mut head,
        "generateName",
        json!(format!("{}-", service.name)),
    );
    set(&mut head, "labels", Value::Object(labels));
    set(
        &mut head,
        "ownerReferences",
        json!([{
            "apiVersion": "v1", "kind": "Service", "name": service.name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }]),
    );
    let endpoints = peers.iter().map(|(ip, peer)| endpoint(subject, *ip, peer));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": head,
        "addressType": family,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
    })
}

fn endpoint(subject: Subject<'_>, ip: IpAddr, peer: &Peer) -> Value {
    let terminating = peer.state == PeerState::Terminating;
    let mut conditions = json!({
        "ready": subject.is_ready(peer),
        "terminating": terminating,
    });
    // Of a pod that ends it is not known.
    if !terminating {
        let serving = peer.state == PeerState::Ready;
        set(&mut conditions, "serving", json!(serving));
    }
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": conditions,
        "nodeName": subject.node_name,
        "targetRef": target(peer),
    });
    if let Some(hostname) = hostname(subject, peer) {
        set(&mut endpoint, "hostname", json!(hostname));
    }
    endpoint
}

/// That of a pod which has a name below the Service's.
fn hostname<'p>(subject: Subject<'_>, peer: &'p Peer) -> Option<&'p str> {
    let hostname = peer.hostname.as_deref()?;
    (peer.subdomain.as_deref() == Some(&subject.service.name)).then_some(hostname)
}

fn target(peer: &Peer) -> Value {
    json!({
        "kind": "Pod",
        "name": peer.name.as_str(),
        "namespace": peer.namespace.as_str(),
    })
}

fn port((name, number, protocol, application): &Port) -> Value {
    let mut port = json!({ "name": name, "port": number, "protocol": protocol });
    if let Some(application) = application {
        set(&mut port, "appProtocol", json!(application));
    }
    port
}

/// The `v1.Endpoints` of a Service: its first family, and no pods that end.
pub(crate) fn endpoints(subject: Subject<'_>) -> Option<Value> {
    if !subject.has_endpoints() {
        return None;
    }
    let family = string(subject.object, "/spec/ipFamilies/0");
    let mut subsets = Vec::new();
    for (ports, peers) in subject.by_ports(family) {
        let address = |(ip, peer): &(IpAddr, &Peer)| {
            let mut address =
                json!({ "ip": ip, "nodeName": subject.node_name, "targetRef": target(peer) });
            if let Some(hostname) = hostname(subject, peer) {
                set(&mut address, "hostname", json!(hostname));
            }
            address
        };
        let addresses = |ready: bool| -> Vec<Value> {
            let peers = peers.iter().filter(|(_, peer)| {
                let counts = subject.is_ready(peer) || peer.state != PeerState::Terminating;
                counts && subject.is_ready(peer) == ready
            });
            peers.map(address).collect()
        };
        let (ready, not_ready) = (addresses(true), addresses(false));
        if ready.is_empty() && not_ready.is_empty() {
            continue;
        }
        let mut subset = json!({});
        let lists = [
            ("addresses", ready),
            ("notReadyAddresses", not_ready),
            ("ports", ports.iter().map(subset_port).collect()),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                set(&mut subset, name, json!(list));
            }
        }
        subsets.push(subset);
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": subject.metadata(&subject.service.name),
    });
    if !subsets.is_empty() {
        set(&mut object, "subsets", json!(subsets));
    }
    Some(object)
}

/// Unlike in an EndpointSlice, no name is no field.
fn subset_port(one: &Port) -> Value {
    let mut port = port(one);
    if one.0.is_empty()
        && let Some(fields) = port.as_object_mut()
    {
        fields.remove("name");
    }
    port
}

/// Five letters as an API server makes them, always the same for the same slice.
fn suffix(of: (&str, &str, &[Port])) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let mut rest = hasher.finish();
    let mut suffix = String::new();
    for _ in 0..5 {
        let count = LETTERS.len() as u64;
        let letter = usize::try_from(rest % count).ok();
        let letter = letter.and_then(|letter| LETTERS.get(letter));
        suffix.extend(letter.map(|letter| char::from(*letter)));
        rest /= count;
    }
    suffix
}

/// `10.0.0.2:80,10.0.0.3:80 + 1 more...`: kubectl's list of what connections to a port lead to, or of all ports.
pub(crate) fn ready_list(slices: &[Value], port_name: Option<&str>) -> String {
    let mut all = Vec::new();
    for slice in slices {
        let ports = array(slice, "/ports").iter();
        let ports = ports.filter(|port| port_name.is_none_or(|name| string(port, "/name") == name));
        let ports: Vec<u64> = ports
            .filter_map(|port| port.get("port").and_then(Value::as_u64))
            .collect();
        for endpoint in array(slice, "/endpoints") {
            if endpoint.pointer("/conditions/ready") != Some(&Value::Bool(true)) {
                continue;
            }
            let ip = string(endpoint, "/addresses/0");
            match ip.contains(':') {
                true => all.extend(ports.iter().map(|port| format!("[{ip}]:{port}"))),
                false => all.extend(ports.iter().map(|port| format!("{ip}:{port}"))),
            }
        }
    }
    shortened(&all, "<none>")
}

/// Up to three of a list, then how many there are more.
pub(crate) fn shortened(all: &[String], none: &str) -> String {
    match all.split_at_checked(3) {
        _ if all.is_empty() => none.to_owned(),
        Some((first, rest @ [_, ..])) => {
            format!("{} + {} more...", first.join(","), rest.len())
        }
        _ => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::PeerPort;
    use crate::model::names::{Namespace, PodName};
    use crate::model::service::{Exposure, Families, ServicePort, TargetPort};
    use k8s_openapi::api::core::v1 as core;
    use k8s_openapi::api::discovery::v1 as discovery;

    fn peer(name: &str, last: u8, state: PeerState) -> Peer {
        Peer {
            namespace: Namespace::default(),
            name: PodName::parse(name).expect("a name"),
            ips: vec![[10, 0, 0, last].into()],
            labels: [("app".into(), "web".into())].into(),
            hostname: Some(name.into()),
            subdomain: Some("web".into()),
            ports: vec![PeerPort {
                name: "http".into(),
                port: 8000 + u16::from(last / 10),
                protocol: Protocol::Tcp,
            }],
            state,
        }
    }

    fn service(publish_not_ready_addresses: bool) -> Service {
        Service {
            namespace: Namespace::default(),
            name: "web".into(),
            address: ServiceAddress::Headless(Families::Both),
            selector: [("app".into(), "web".into())].into(),
            ports: vec![ServicePort {
                name: Some("main".into()),
                port: 80,
                protocol: Protocol::Tcp,
                target: TargetPort::Name("http".into()),
                node_port: None,
            }],
            affinity_seconds: None,
            publish_not_ready_addresses,
            exposure: Exposure::Cluster,
        }
    }

    fn object() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "uid": "u", "labels": { "x": "y" },
                "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "ipFamilies": ["IPv4", "IPv6"],
                "ports": [{ "port": 80, "appProtocol": "kubernetes.io/h2c" }] },
        })
    }

    fn cluster(peers: Vec<Peer>) -> Cluster {
        Cluster {
            peers: peers.into_iter().map(|peer| (peer.key(), peer)).collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn slices_have_the_pods_of_the_selector() {
        let mut stranger = peer("stranger", 9, PeerState::Ready);
        stranger.labels.clear();
        let cluster = cluster(vec![
            stranger,
            peer("a", 1, PeerState::Ready),
            peer("b", 2, PeerState::NotReady),
            peer("c", 3, PeerState::Terminating),
            peer("d", 11, PeerState::Ready),
        ]);
        let (object, service, open) = (object(), service(false), service(true));
        let subject = Subject {
            cluster: &cluster,
            service: &service,
            object: &object,
            node_name: "here",
        };
        let found = slices(subject);
        let names = |slice: &Value| -> Vec<String> {
            let endpoints = array(slice, "/endpoints").iter();
            let name = |one| string(one, "/targetRef/name").to_owned();
            endpoints.map(name).collect()
        };
        // One of each set of ports, and one without pods of the other family.
        let [first, second, six] = found.as_slice() else {
            panic!("{found:#?}");
        };
        assert_eq!(names(first), ["a", "b", "c"]);
        assert_eq!(names(second), ["d"]);
        assert_eq!((string(six, "/addressType"), names(six).len()), ("IPv6", 0));
        assert_eq!(
            first["ports"],
            json!([{ "name": "main", "port": 8000, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c" }])
        );
        assert_eq!(
            first["endpoints"][0],
            json!({ "addresses": ["10.0.0.1"], "hostname": "a", "nodeName": "here",
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "targetRef": { "kind": "Pod", "name": "a", "namespace": "default" } })
        );
        let ready = |slice: &Value| -> Vec<Value> {
            let endpoints = array(slice, "/endpoints").iter();
            endpoints
                .map(|one| one["conditions"]["ready"].clone())
                .collect()
        };
        assert_eq!(ready(first), [true, false, false]);
        let all = Subject {
            service: &open,
            ..subject
        };
        assert_eq!(ready(&slices(all)[0]), [true, true, true]);
        assert_eq!(
            ready_list(&found, Some("main")),
            "10.0.0.1:8000,10.0.0.11:8001"
        );
        assert_eq!(ready_list(&found, Some("other")), "<none>");
        for slice in found {
            let name = metadata(&slice, "name").to_owned();
            assert!(name.starts_with("web-") && name.len() == 9, "{name}");
            let typed: discovery::EndpointSlice =
                serde_json::from_value(slice).expect("is a v1.EndpointSlice");
            let labels = typed.metadata.labels.expect("labels");
            assert_eq!(labels["kubernetes.io/service-name"], "web");
            assert_eq!(labels["x"], "y");
        }
    }

    #[test]
    fn endpoints_are_those_of_the_first_family() {
        let cluster = cluster(vec![
            peer("a", 1, PeerState::Ready),
            peer("b", 2, PeerState::NotReady),
            peer("c", 3, PeerState::Terminating),
        ]);
        let (object, service) = (object(), service(false));
        let subject = Subject {
            cluster: &cluster,
            service: &service,
            object: &object,
            node_name: "here",
        };
        let found = endpoints(subject).expect("it has a selector");
        let typed: core::Endpoints = serde_json::from_value(found).expect("is a v1.Endpoints");
        let subset = &typed.subsets.expect("pods")[0];
        let ips = |list: &Option<Vec<core::EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|one| one.ip.clone()).collect()
        };
        assert_eq!(ips(&subset.addresses), ["10.0.0.1"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.2"]);
        let nobody = Cluster::default();
        let alone = Subject {
            cluster: &nobody,
            ..subject
        };
        let found = endpoints(alone).expect("it has a selector");
        assert_eq!(found.get("subsets"), None);
        let mut selects_nothing = service.clone();
        selects_nothing.selector.clear();
        let none = Subject {
            service: &selects_nothing,
            ..alone
        };
        assert_eq!((endpoints(none), slices(none)), (None, Vec::new()));
    }

    #[test]
    fn long_lists_are_cut() {
        let check = |count: usize, expected: &str| {
            let all: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            assert_eq!(shortened(&all, "<none>"), expected);
        };
        check(0, "<none>");
        check(3, "0,1,2");
        check(5, "0,1,2 + 2 more...");
    }
}
