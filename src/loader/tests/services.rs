//! Services as they are recorded: with the API server's defaults.

use serde_json::json;

use super::{load_text, messages, options};

/// The `spec` that is recorded of one that is written, but for what every Service has.
#[track_caller]
fn check(spec: &str, expected: serde_json::Value) {
    let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: x}}, spec: {spec}}}");
    let loaded = load_text(&text, &options());
    assert!(!loaded.has_errors(), "{:?}", messages(&loaded));
    assert_eq!(loaded.objects[0].json["spec"], expected, "{spec}");
}

#[test]
fn services_get_the_api_servers_defaults() {
    check(
        "{ports: [{port: 80}], selector: {a: b}}",
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        }),
    );
    check(
        "{clusterIP: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}",
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "clusterIP": "None", "clusterIPs": ["None"],
        }),
    );
    check(
        "{type: LoadBalancer, clusterIP: '', sessionAffinity: ClientIP, \
         ports: [{port: 53, protocol: UDP, targetPort: dns, nodePort: 0}]}",
        json!({
            "type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}},
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true,
            "ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns"}],
        }),
    );
    check(
        "{type: ExternalName, externalName: example.com}",
        json!({
            "type": "ExternalName", "sessionAffinity": "None", "externalName": "example.com",
        }),
    );
}
