//! The variables that tell a container where the Services are (`kubelet/envvars/envvars.go`). Pure.
//!
//! A kubelet gives every container those of the API server's own Service, `kubernetes` in namespace `default`. There is
//! none here, so there are no such variables, as on a kubelet without API server; unless somebody applies such a
//! Service: then it counts for all pods, whatever they say.

use std::net::IpAddr;

use crate::model::names::Namespace;
use crate::model::plan::Protocol;
use crate::model::service::{Service, ServiceAddress};

/// The Service of the API server.
pub const MASTER: &str = "kubernetes";

/// The variables of a pod in this namespace; `links` is its `enableServiceLinks`.
#[must_use]
pub fn variables(
    services: &[Service],
    namespace: &Namespace,
    links: bool,
) -> Vec<(String, String)> {
    let own = |service: &&Service| service.namespace == *namespace && links;
    let has_own = services
        .iter()
        .any(|service| own(&service) && service.name == MASTER);
    let master = |service: &&Service| {
        service.name == MASTER && service.namespace == Namespace::default() && !has_own
    };
    let all = services
        .iter()
        .filter(|service| own(service) || master(service));
    all.flat_map(of_service).collect()
}

/// A Service without an address has none.
fn of_service(service: &Service) -> Vec<(String, String)> {
    let ServiceAddress::Cluster(ips) = &service.address else {
        return Vec::new();
    };
    let Some(ip) = ips.first().map(IpAddr::to_string) else {
        return Vec::new();
    };
    let name = upper(&service.name);
    let mut variables = vec![(format!("{name}_SERVICE_HOST"), ip.clone())];
    if let Some(first) = service.ports.first() {
        variables.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in &service.ports {
        if let Some(port_name) = &port.name {
            let name = format!("{name}_SERVICE_PORT_{}", upper(port_name));
            variables.push((name, port.port.to_string()));
        }
    }
    // As Docker's links had them.
    for (index, port) in service.ports.iter().enumerate() {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let url = format!("{protocol}://{ip}:{}", port.port);
        if index == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.extend([
            (format!("{prefix}_PROTO"), protocol.to_owned()),
            (format!("{prefix}_PORT"), port.port.to_string()),
            (format!("{prefix}_ADDR"), ip.clone()),
            (prefix, url),
        ]);
    }
    variables
}

/// A name as a part of a variable's.
fn upper(name: &str) -> String {
    let name = name.to_uppercase().replace(['.', '-'], "_");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::{Exposure, ServicePort, TargetPort};

    fn service(namespace: &str, name: &str, ports: &[(&str, u16, Protocol)]) -> Service {
        Service {
            namespace: Namespace::parse(namespace).unwrap(),
            name: name.into(),
            address: ServiceAddress::Cluster(vec![[10, 0, 0, 9].into()]),
            selector: std::collections::BTreeMap::new(),
            affinity_seconds: None,
            publish_not_ready_addresses: false,
            exposure: Exposure::Cluster,
            ports: ports
                .iter()
                .map(|(name, port, protocol)| ServicePort {
                    name: (!name.is_empty()).then(|| (*name).to_owned()),
                    port: *port,
                    protocol: *protocol,
                    target: TargetPort::Number(*port),
                    node_port: None,
                })
                .collect(),
        }
    }

    fn lines(services: &[Service], namespace: &str, links: bool) -> Vec<String> {
        let namespace = Namespace::parse(namespace).unwrap();
        let mut lines: Vec<String> = variables(services, &namespace, links)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn each_port_has_its_variables() {
        let services = [
            service("ns", "my-db.x", &[("", 5432, Protocol::Tcp)]),
            service(
                "ns",
                "0dns",
                &[("dns-udp", 53, Protocol::Udp), ("9p", 564, Protocol::Tcp)],
            ),
            service("ns", "none", &[]),
            service("other", "far", &[("", 1, Protocol::Tcp)]),
        ];
        let expected = [
            "MY_DB_X_PORT=tcp://10.0.0.9:5432",
            "MY_DB_X_PORT_5432_TCP=tcp://10.0.0.9:5432",
            "MY_DB_X_PORT_5432_TCP_ADDR=10.0.0.9",
            "MY_DB_X_PORT_5432_TCP_PORT=5432",
            "MY_DB_X_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_X_SERVICE_HOST=10.0.0.9",
            "MY_DB_X_SERVICE_PORT=5432",
            "NONE_SERVICE_HOST=10.0.0.9",
            "_0DNS_PORT=udp://10.0.0.9:53",
            "_0DNS_PORT_53_UDP=udp://10.0.0.9:53",
            "_0DNS_PORT_53_UDP_ADDR=10.0.0.9",
            "_0DNS_PORT_53_UDP_PORT=53",
            "_0DNS_PORT_53_UDP_PROTO=udp",
            "_0DNS_PORT_564_TCP=tcp://10.0.0.9:564",
            "_0DNS_PORT_564_TCP_ADDR=10.0.0.9",
            "_0DNS_PORT_564_TCP_PORT=564",
            "_0DNS_PORT_564_TCP_PROTO=tcp",
            "_0DNS_SERVICE_HOST=10.0.0.9",
            "_0DNS_SERVICE_PORT=53",
            "_0DNS_SERVICE_PORT_DNS_UDP=53",
            "_0DNS_SERVICE_PORT__9P=564",
        ];
        assert_eq!(lines(&services, "ns", true), expected);
        assert_eq!(lines(&services, "ns", false), [""; 0]);
    }

    #[test]
    fn the_api_servers_service_is_for_all() {
        let services = [
            service("default", MASTER, &[]),
            service("default", "web", &[]),
        ];
        let check = |namespace: &str, links: bool, expected: &[&str]| {
            assert_eq!(lines(&services, namespace, links), expected);
        };
        check("ns", false, &["KUBERNETES_SERVICE_HOST=10.0.0.9"]);
        check("ns", true, &["KUBERNETES_SERVICE_HOST=10.0.0.9"]);
        check("default", false, &["KUBERNETES_SERVICE_HOST=10.0.0.9"]);
        let own = [
            service("default", MASTER, &[("", 443, Protocol::Tcp)]),
            service("ns", MASTER, &[]),
        ];
        assert_eq!(lines(&own, "ns", true).len(), 1, "the namespace's own wins");
        assert_eq!(lines(&own, "ns", false).len(), 7);
        assert!(lines(&services, "default", true).contains(&"WEB_SERVICE_HOST=10.0.0.9".into()));
    }
}
