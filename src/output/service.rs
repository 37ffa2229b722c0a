//! Services: `describe service`, laid out as kubectl lays it out, and the status that a load balancer would write.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::endpoints::ready_list;
use super::object::{array, metadata, set, string};
use super::page::Page;
use super::style::tame;

/// Where the values start.
const VALUES: usize = 26;

/// The object with its `status`: this machine is the load balancer.
pub(crate) fn with_status(mut service: Value, host_ip: Option<IpAddr>) -> Value {
    let balanced = string(&service, "/spec/type") == "LoadBalancer";
    let status = match host_ip.filter(|_| balanced) {
        Some(ip) => json!({ "loadBalancer": { "ingress": [{ "ip": ip }] } }),
        None => json!({ "loadBalancer": {} }),
    };
    set(&mut service, "status", status);
    service
}

/// The page of a `v1.Service` and its EndpointSlices.
pub(crate) fn page(service: &Value, slices: &[Value]) -> String {
    let mut page = Page::new(VALUES);
    let map = |pointer: &str| service.pointer(pointer).and_then(Value::as_object);
    let text = |field: &str| string(service, &format!("/spec/{field}"));
    page.field(0, "Name", metadata(service, "name"));
    page.field(0, "Namespace", metadata(service, "namespace"));
    page.map("Labels", map("/metadata/labels"));
    page.map("Annotations", map("/metadata/annotations"));
    let selector = map("/spec/selector").into_iter().flatten();
    let selector =
        selector.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    page.field(0, "Selector", &joined(selector.collect()));
    page.field(0, "Type", text("type"));
    given(&mut page, "IP Family Policy", text("ipFamilyPolicy"));
    page.field(0, "IP Families", &list(service, "/spec/ipFamilies"));
    page.field(0, "IP", text("clusterIP"));
    page.field(0, "IPs", &list(service, "/spec/clusterIPs"));
    listed(&mut page, service, "External IPs", "/spec/externalIPs");
    given(&mut page, "External Name", text("externalName"));
    let ingress = array(service, "/status/loadBalancer/ingress").iter();
    let ingress: Vec<&str> = ingress.map(|ingress| string(ingress, "/ip")).collect();
    given(&mut page, "LoadBalancer Ingress", &ingress.join(", "));
    for port in array(service, "/spec/ports") {
        self::port(&mut page, port, slices);
    }
    page.field(0, "Session Affinity", text("sessionAffinity"));
    for (key, field) in [
        ("External Traffic Policy", "externalTrafficPolicy"),
        ("Internal Traffic Policy", "internalTrafficPolicy"),
        ("Traffic Distribution", "trafficDistribution"),
    ] {
        given(&mut page, key, text(field));
    }
    let ranges = "/spec/loadBalancerSourceRanges";
    listed(&mut page, service, "LoadBalancer Source Ranges", ranges);
    page.field(0, "Events", "<none>");
    tame(page.text()).into_owned()
}

fn port(page: &mut Page, port: &Value, slices: &[Value]) {
    let (name, protocol) = (string(port, "/name"), string(port, "/protocol"));
    let shown = if name.is_empty() { "<unset>" } else { name };
    let number = |field: &str| match port.get(field) {
        Some(Value::String(name)) => Some(name.clone()),
        other => other.map(ToString::to_string),
    };
    if let Some(number) = number("port") {
        page.field(0, "Port", &format!("{shown}  {number}/{protocol}"));
    }
    if let Some(target) = number("targetPort") {
        page.field(0, "TargetPort", &format!("{target}/{protocol}"));
    }
    if let Some(number) = number("nodePort") {
        page.field(0, "NodePort", &format!("{shown}  {number}/{protocol}"));
    }
    page.field(0, "Endpoints", &ready_list(slices, Some(name)));
}

/// A field that is shown only if it is there.
fn given(page: &mut Page, key: &str, value: &str) {
    if !value.is_empty() {
        page.field(0, key, value);
    }
}

fn listed(page: &mut Page, service: &Value, key: &str, pointer: &str) {
    if !array(service, pointer).is_empty() {
        page.field(0, key, &list(service, pointer));
    }
}

fn list(service: &Value, pointer: &str) -> String {
    let values = array(service, pointer).iter().filter_map(Value::as_str);
    joined(values.map(str::to_owned).collect())
}

fn joined(values: Vec<String>) -> String {
    if values.is_empty() {
        "<none>".to_owned()
    } else {
        values.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_described_for_people() {
        let service = json!({
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "default", "labels": { "a": "b", "c": "d" } },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "web", "tier": "x" },
                "clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2", "fd96::2"],
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
                "ports": [
                    { "name": "http", "port": 80, "protocol": "TCP", "targetPort": "web", "nodePort": 30080 },
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                ],
                "sessionAffinity": "None",
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            },
        });
        let slices = [json!({
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": false } },
            ],
        })];
        let host = "192.0.2.1".parse().expect("an address");
        let expected = "\
Name:                     web
Namespace:                default
Labels:                   a=b
                          c=d
Annotations:              <none>
Selector:                 app=web,tier=x
Type:                     LoadBalancer
IP Family Policy:         PreferDualStack
IP Families:              IPv4,IPv6
IP:                       10.96.1.2
IPs:                      10.96.1.2,fd96::2
LoadBalancer Ingress:     192.0.2.1
Port:                     http  80/TCP
TargetPort:               web/TCP
NodePort:                 http  30080/TCP
Endpoints:                10.0.0.2:8080
Port:                     dns  53/UDP
TargetPort:               53/UDP
Endpoints:                <none>
Session Affinity:         None
External Traffic Policy:  Cluster
Internal Traffic Policy:  Cluster
Events:                   <none>
";
        assert_eq!(page(&with_status(service, Some(host)), &slices), expected);
    }

    #[test]
    fn another_name_has_no_address() {
        let service = json!({
            "metadata": { "name": "far", "namespace": "default" },
            "spec": { "type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None" },
        });
        let expected = "\
Name:                     far
Namespace:                default
Labels:                   <none>
Annotations:              <none>
Selector:                 <none>
Type:                     ExternalName
IP Families:              <none>
IP:
IPs:                      <none>
External Name:            example.com
Session Affinity:         None
Events:                   <none>
";
        assert_eq!(page(&with_status(service, None), &[]), expected);
    }
}
