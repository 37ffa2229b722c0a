//! Services as objects: what they are given, how they are shown, and the pods that they stand for.

use serde_json::Value;

use crate::Kplay;
use crate::harness::{script_pod, text};

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n")
}

fn json(kplay: &Kplay, what: &str) -> Value {
    let printed = kplay.run(["get", what, "-o", "json"]).succeeds();
    serde_json::from_str(&printed).expect("JSON")
}

#[test]
fn a_service_is_allocated_shown_and_deleted() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service("web", "selector: {app: web}, ports: [{port: 80}]")
        + &service(
            "node",
            "type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: http}]",
        )
        + &service(
            "balanced",
            "type: LoadBalancer, selector: {app: web}, ports: [{port: 443}]",
        )
        + &service("headless", "clusterIP: None, selector: {app: web}")
        + &service("far", "type: ExternalName, externalName: example.com");
    let told = kplay.apply(&manifest).succeeds();
    assert!(told.contains("service/web created"), "{told}");
    let told = kplay.apply(&manifest).succeeds();
    assert_eq!(told.matches(" unchanged").count(), 5, "{told}");

    let web = json(&kplay, "service/web");
    let ip = text(&web["spec"]["clusterIP"]);
    assert!(ip.starts_with("10.96."), "{web}");
    assert_eq!(web["status"], serde_json::json!({"loadBalancer": {}}));
    let number = |name: &str| {
        let service = json(&kplay, &format!("service/{name}"));
        let port = service["spec"]["ports"][0]["nodePort"].as_u64();
        port.unwrap_or_else(|| panic!("no port: {service}"))
    };
    let (node, balanced) = (number("node"), number("balanced"));
    assert!((30_000..=32_767).contains(&node), "{node}");
    assert_ne!(node, balanced);

    let table = kplay.run(["get", "services"]).succeeds();
    let row = |name: &str| -> Vec<&str> {
        let mut rows = table.lines().filter(|row| row.starts_with(name));
        let row = rows.next().unwrap_or_else(|| panic!("no {name}: {table}"));
        row.split_whitespace().collect()
    };
    let heads: Vec<&str> = table.split_whitespace().take(6).collect();
    let names = [
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "AGE",
    ];
    assert_eq!(heads, names);
    assert_eq!(row("web")[1..5], ["ClusterIP", &ip, "<none>", "80/TCP"]);
    let ports = format!("443:{balanced}/TCP");
    assert_eq!(
        (row("balanced")[1], row("balanced")[4]),
        ("LoadBalancer", &*ports)
    );
    assert_eq!(
        row("headless")[1..5],
        ["ClusterIP", "None", "<none>", "<none>"]
    );
    let external = ["ExternalName", "<none>", "example.com", "<none>"];
    assert_eq!(row("far")[1..5], external);
    let all = kplay.run(["get", "all"]).succeeds();
    assert!(all.contains("ClusterIP"), "{all}");

    let page = kplay.run(["describe", "svc", "node"]).succeeds();
    for line in [
        "Selector:                 app=web",
        "Type:                     NodePort",
        "Port:                     <unset>  80/TCP",
        "TargetPort:               http/TCP",
        &format!("NodePort:                 <unset>  {node}/TCP"),
        "Endpoints:                <none>",
        "Events:                   <none>",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    // What two want is the first one's.
    let taken = format!("type: NodePort, ports: [{{port: 1, nodePort: {node}}}]");
    let told = kplay
        .apply(&service("other", &taken))
        .fails(3, &["provided port is already allocated"]);
    assert!(told.contains("service/node of namespace"), "{told}");
    let taken = format!("clusterIP: {ip}, ports: [{{port: 1}}]");
    kplay
        .apply(&service("other", &taken))
        .fails(3, &["provided IP is already allocated"]);
    // Until it is deleted.
    kplay.run(["delete", "service", "web"]).succeeds();
    kplay.apply(&service("other", &taken)).succeeds();
    kplay.run(["delete", "service", "--all"]).succeeds();
    let none = kplay.run(["get", "services"]);
    assert_eq!(none.stdout, "", "{none}");
}

#[test]
fn a_service_without_pods_has_an_empty_endpoint_slice() {
    let Some(kplay) = Kplay::new() else { return };
    let both = "selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]";
    let manifest = service("web", both) + &service("by-hand", "ports: [{port: 80}]");
    kplay.apply(&manifest).succeeds();
    let table = kplay
        .run(["get", "endpointslices", "--no-headers"])
        .succeeds();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 2, "one of each family: {table}");
    for (row, family) in rows.iter().zip(["IPv4", "IPv6"]) {
        assert!(row[0].starts_with("web-"), "{table}");
        assert_eq!(row[1..4], [family, "<unset>", "<unset>"], "{table}");
    }
    let slice = json(&kplay, &format!("endpointslice/{}", rows[0][0]));
    assert_eq!(slice["apiVersion"], "discovery.k8s.io/v1");
    assert_eq!(slice["endpoints"], serde_json::json!([]));
    let owner = &slice["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], json(&kplay, "svc/web")["metadata"]["uid"]);
    let chosen = "kubernetes.io/service-name=web";
    let named = kplay
        .run(["get", "endpointslices", "-l", chosen, "-o", "name"])
        .succeeds();
    assert_eq!(named.lines().count(), 2, "{named}");
    let table = kplay.run(["get", "endpoints", "--no-headers"]).succeeds();
    let row: Vec<&str> = table.split_whitespace().take(2).collect();
    assert_eq!(row, ["web", "<none>"]);
    kplay.run(["delete", "service", "--all"]).succeeds();
    let none = kplay.run(["get", "endpointslices"]);
    assert_eq!(none.stdout, "", "{none}");
}

#[test]
fn a_service_stands_for_its_first_ready_pod() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let pod = |name: &str, probe: &str| {
        script_pod(
            name,
            "",
            probe,
            &format!("echo here is {name}; exec sleep 1000"),
        )
        .replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, labels: {{app: web}}}}"),
        ) + "---\n"
    };
    let never = "readinessProbe: {exec: {command: ['false']}},";
    let manifest = pod("a", never)
        + &pod("b", "")
        + &service("web", "selector: {app: web}, ports: [{port: 80}]")
        + &service("nobody", "selector: {app: other}, ports: [{port: 80}]")
        + &service("by-hand", "ports: [{port: 80}]");
    kplay.apply(&manifest).succeeds();
    kplay
        .run(["wait", "pod/b", "--for=condition=Ready", "--timeout=20s"])
        .succeeds();
    let run = kplay.run(["exec", "svc/web", "--", "hostname"]);
    assert!(run.stderr.contains("Found 2 pods, using pod/b"), "{run}");
    assert_eq!(run.succeeds(), "b\n");
    assert_eq!(kplay.run(["logs", "service/web"]).succeeds(), "here is b\n");
    kplay
        .run(["exec", "svc/none", "--", "true"])
        .fails(5, &["services \"none\" not found"]);
    kplay
        .run(["exec", "svc/nobody", "--", "true"])
        .fails(5, &["no pod has the labels"]);
    kplay
        .run(["exec", "svc/by-hand", "--", "true"])
        .fails(4, &["has no selector"]);
}
