//! `get TYPE`: kubectl's columns for each kind.

use jiff::Timestamp;
use serde_json::Value;

use super::endpoints::shortened;
use super::object::{self, array, entries, metadata, string};
use super::pods::{self, age, or_none};
use super::table::{Headers, Table, Widths};
use super::{claims, duration};

/// How a table is printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) headers: Headers,
    pub(crate) detail: Detail,
    pub(crate) namespaces: Namespaces,
    pub(crate) names: Names,
    pub(crate) now: Timestamp,
}

/// How many columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Usual,
    /// `-o wide`.
    Wide,
}

/// Whether there is a column for the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    One,
    /// `-A`.
    All,
}

/// Whether names say their kind, as they do when several kinds are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Plain,
    WithKind,
}

/// The table of objects that are all of this kind.
pub(crate) fn table(kind: &str, objects: &[Value], layout: Layout) -> String {
    rows_below(kind, objects, layout, &mut Widths::default())
}

/// As [`table`], below lines that were printed before.
pub(crate) fn rows_below(
    kind: &str,
    objects: &[Value],
    layout: Layout,
    before: &mut Widths,
) -> String {
    let (columns, cells) = printer(kind, layout.detail);
    let all = layout.namespaces == Namespaces::All;
    let namespace: &[&'static str] = if all { &["NAMESPACE"] } else { &[] };
    let mut table = Table::new([namespace, &["NAME"], columns.as_slice()].concat());
    for object in objects {
        let name = match layout.names {
            Names::Plain => metadata(object, "name").to_owned(),
            Names::WithKind => object::name(object),
        };
        let mut row = Vec::new();
        if all {
            row.push(metadata(object, "namespace").to_owned());
        }
        row.push(name);
        row.extend(cells(object, layout));
        table.push(row);
    }
    table.render_below(layout.headers, before)
}

type Cells = fn(&Value, Layout) -> Vec<String>;

/// The columns after NAME, and what fills them.
fn printer(kind: &str, detail: Detail) -> (Vec<&'static str>, Cells) {
    let (mut columns, wide, cells): (Vec<&'static str>, &[&'static str], Cells) = match kind {
        "Pod" => (pods::COLUMNS[1..].to_vec(), &pods::WIDE_COLUMNS, pod),
        "Deployment" => (
            vec!["READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
            deployment,
        ),
        "StatefulSet" => (
            vec!["READY", "AGE"],
            &["CONTAINERS", "IMAGES"],
            stateful_set,
        ),
        "ReplicaSet" | "ReplicationController" => (
            vec!["DESIRED", "CURRENT", "READY", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
            replica_set,
        ),
        "DaemonSet" => (
            vec![
                "DESIRED",
                "CURRENT",
                "READY",
                "UP-TO-DATE",
                "AVAILABLE",
                "NODE SELECTOR",
                "AGE",
            ],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
            daemon_set,
        ),
        "Job" => (
            vec!["STATUS", "COMPLETIONS", "DURATION", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
            job,
        ),
        "CronJob" => (
            vec![
                "SCHEDULE",
                "TIMEZONE",
                "SUSPEND",
                "ACTIVE",
                "LAST SCHEDULE",
                "AGE",
            ],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
            cron_job,
        ),
        "ConfigMap" => (vec!["DATA", "AGE"], &[], config_map),
        "Secret" => (vec!["TYPE", "DATA", "AGE"], &[], secret),
        "Service" => (
            vec!["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
            &["SELECTOR"],
            service,
        ),
        "EndpointSlice" => (
            vec!["ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"],
            &[],
            endpoint_slice,
        ),
        "Endpoints" => (vec!["ENDPOINTS", "AGE"], &[], self::endpoints),
        "PersistentVolumeClaim" => (
            vec![
                "STATUS",
                "VOLUME",
                "CAPACITY",
                "ACCESS MODES",
                "STORAGECLASS",
                "AGE",
            ],
            &["VOLUMEMODE"],
            claim,
        ),
        "PersistentVolume" => (
            vec![
                "CAPACITY",
                "ACCESS MODES",
                "RECLAIM POLICY",
                "STATUS",
                "CLAIM",
                "STORAGECLASS",
                "AGE",
            ],
            &["VOLUMEMODE"],
            volume,
        ),
        _ => (vec!["AGE"], &[], |object, layout| {
            vec![age(object, layout.now)]
        }),
    };
    if detail == Detail::Wide {
        columns.extend(wide);
    }
    (columns, cells)
}

fn pod(object: &Value, layout: Layout) -> Vec<String> {
    let mut cells = pods::cells(object, layout.now);
    if layout.detail == Detail::Wide {
        cells.extend(pods::wide_cells(object));
    }
    cells
}

fn number(object: &Value, pointer: &str) -> u64 {
    object
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

fn numbers<const N: usize>(object: &Value, fields: [&str; N]) -> Vec<String> {
    fields
        .iter()
        .map(|field| number(object, &format!("/status/{field}")).to_string())
        .collect()
}

/// Adds the age, and for `-o wide` the template's containers and images.
fn finish(mut cells: Vec<String>, object: &Value, layout: Layout) -> Vec<String> {
    cells.push(age(object, layout.now));
    if layout.detail == Detail::Wide {
        let containers = match string(object, "/kind") {
            "CronJob" => array(object, "/spec/jobTemplate/spec/template/spec/containers"),
            _ => array(object, "/spec/template/spec/containers"),
        };
        for field in ["/name", "/image"] {
            let all: Vec<&str> = containers.iter().map(|c| string(c, field)).collect();
            cells.push(all.join(","));
        }
    }
    cells
}

fn with_selector(mut cells: Vec<String>, object: &Value, layout: Layout) -> Vec<String> {
    if layout.detail == Detail::Wide {
        let labels = object
            .pointer("/spec/selector/matchLabels")
            .or_else(|| object.pointer("/spec/selector"));
        cells.push(selector(labels));
    }
    cells
}

/// `a=b,c=d`.
fn selector(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

fn ready_of(object: &Value) -> String {
    let of = |field: &str| number(object, &format!("/status/{field}"));
    format!("{}/{}", of("readyReplicas"), of("replicas"))
}

fn deployment(object: &Value, layout: Layout) -> Vec<String> {
    let mut cells = vec![ready_of(object)];
    cells.extend(numbers(object, ["updatedReplicas", "availableReplicas"]));
    with_selector(finish(cells, object, layout), object, layout)
}

fn stateful_set(object: &Value, layout: Layout) -> Vec<String> {
    finish(vec![ready_of(object)], object, layout)
}

fn replica_set(object: &Value, layout: Layout) -> Vec<String> {
    let cells = numbers(object, ["replicas", "replicas", "readyReplicas"]);
    with_selector(finish(cells, object, layout), object, layout)
}

fn daemon_set(object: &Value, layout: Layout) -> Vec<String> {
    let mut cells = numbers(
        object,
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ],
    );
    cells.push(selector(object.pointer("/spec/template/spec/nodeSelector")));
    with_selector(finish(cells, object, layout), object, layout)
}

fn job(object: &Value, layout: Layout) -> Vec<String> {
    let condition = string(object, "/status/conditions/0/type");
    let status = match condition {
        "" if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) => "Suspended",
        "" => "Running",
        condition => condition,
    };
    let time = |field: &str| string(object, field).parse::<Timestamp>().ok();
    let ended = time("/status/completionTime").or(match condition {
        "" => None,
        _ => time("/status/conditions/0/lastTransitionTime"),
    });
    let duration = time("/status/startTime").map_or_else(String::new, |started| {
        duration::since(started, ended.unwrap_or(layout.now))
    });
    let completions = format!("{}/1", number(object, "/status/succeeded"));
    let cells = vec![status.to_owned(), completions, duration];
    with_selector(finish(cells, object, layout), object, layout)
}

fn cron_job(object: &Value, layout: Layout) -> Vec<String> {
    let suspend = object.pointer("/spec/suspend") == Some(&Value::Bool(true));
    let cells = vec![
        string(object, "/spec/schedule").to_owned(),
        or_none(string(object, "/spec/timeZone")),
        if suspend { "True" } else { "False" }.to_owned(),
        array(object, "/status/active").len().to_string(),
        "<none>".to_owned(),
    ];
    with_selector(finish(cells, object, layout), object, layout)
}

fn config_map(object: &Value, layout: Layout) -> Vec<String> {
    let data = entries(object, "/data") + entries(object, "/binaryData");
    vec![data.to_string(), age(object, layout.now)]
}

fn secret(object: &Value, layout: Layout) -> Vec<String> {
    let kind = match string(object, "/type") {
        "" => "Opaque",
        kind => kind,
    };
    // An API server merges `stringData` into `data`; the same key may be in both.
    let extra = object
        .pointer("/stringData")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(key, _)| {
            object
                .pointer("/data")
                .is_none_or(|data| data.get(key).is_none())
        })
        .count();
    vec![
        kind.to_owned(),
        (entries(object, "/data") + extra).to_string(),
        age(object, layout.now),
    ]
}

fn service(object: &Value, layout: Layout) -> Vec<String> {
    let kind = match string(object, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    };
    let given = array(object, "/spec/externalIPs").iter();
    let given = given.filter_map(Value::as_str);
    let ingress = array(object, "/status/loadBalancer/ingress").iter();
    let all: Vec<&str> = ingress.map(|one| string(one, "/ip")).chain(given).collect();
    let external = match kind {
        "ExternalName" => string(object, "/spec/externalName").to_owned(),
        "LoadBalancer" if all.is_empty() => "<pending>".to_owned(),
        _ => or_none(&all.join(",")),
    };
    let ports: Vec<String> = array(object, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = match string(port, "/protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            match (number(port, "/port"), number(port, "/nodePort")) {
                (inner, 0) => format!("{inner}/{protocol}"),
                (inner, node) => format!("{inner}:{node}/{protocol}"),
            }
        })
        .collect();
    let mut cells = vec![
        kind.to_owned(),
        or_none(string(object, "/spec/clusterIP")),
        external,
        or_none(&ports.join(",")),
        age(object, layout.now),
    ];
    if layout.detail == Detail::Wide {
        cells.push(selector(object.pointer("/spec/selector")));
    }
    cells
}

fn endpoint_slice(object: &Value, layout: Layout) -> Vec<String> {
    let ports = array(object, "/ports").iter();
    let ports: Vec<String> = ports
        .map(|port| number(port, "/port").to_string())
        .collect();
    let addresses = array(object, "/endpoints").iter();
    let addresses: Vec<String> = addresses
        .map(|endpoint| string(endpoint, "/addresses/0").to_owned())
        .collect();
    vec![
        string(object, "/addressType").to_owned(),
        shortened(&ports, "<unset>"),
        shortened(&addresses, "<unset>"),
        age(object, layout.now),
    ]
}

fn endpoints(object: &Value, layout: Layout) -> Vec<String> {
    let mut all = Vec::new();
    for subset in array(object, "/subsets") {
        for port in array(subset, "/ports") {
            let addresses = array(subset, "/addresses").iter();
            let port = number(port, "/port");
            all.extend(addresses.map(|one| match string(one, "/ip") {
                ip if ip.contains(':') => format!("[{ip}]:{port}"),
                ip => format!("{ip}:{port}"),
            }));
        }
    }
    vec![shortened(&all, "<none>"), age(object, layout.now)]
}

fn claim(object: &Value, layout: Layout) -> Vec<String> {
    let mut cells = vec![
        string(object, "/status/phase").to_owned(),
        string(object, "/spec/volumeName").to_owned(),
        string(object, "/status/capacity/storage").to_owned(),
        claims::access_modes(object),
        string(object, "/spec/storageClassName").to_owned(),
        age(object, layout.now),
    ];
    if layout.detail == Detail::Wide {
        cells.push("Filesystem".to_owned());
    }
    cells
}

fn volume(object: &Value, layout: Layout) -> Vec<String> {
    let policy = match string(object, "/spec/persistentVolumeReclaimPolicy") {
        "" => "Retain",
        policy => policy,
    };
    let claim = match string(object, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", string(object, "/spec/claimRef/namespace")),
    };
    let mut cells = vec![
        string(object, "/spec/capacity/storage").to_owned(),
        claims::access_modes(object),
        policy.to_owned(),
        string(object, "/status/phase").to_owned(),
        claim,
        string(object, "/spec/storageClassName").to_owned(),
        age(object, layout.now),
    ];
    if layout.detail == Detail::Wide {
        cells.push("Filesystem".to_owned());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(object: &Value, detail: Detail, expected: &str) {
        let layout = Layout {
            headers: Headers::Shown,
            detail,
            namespaces: Namespaces::One,
            names: Names::Plain,
            now: "2026-01-01T01:00:00Z".parse().expect("a time"),
        };
        let kind = string(object, "/kind");
        assert_eq!(table(kind, std::slice::from_ref(object), layout), expected);
    }

    fn example(kind: &str, more: Value) -> Value {
        let mut object = json!({ "kind": kind, "metadata": {
            "name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"
        }});
        for (key, value) in more.as_object().into_iter().flatten() {
            object::set(&mut object, key, value.clone());
        }
        object
    }

    #[test]
    fn each_kind_has_kubectls_columns() {
        let usual = |kind: &str, more: Value, expected: &str| {
            check(&example(kind, more), Detail::Usual, expected);
        };
        usual(
            "Deployment",
            json!({ "status": { "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1 } }),
            "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\n\
             x      1/1     1            0           60m\n",
        );
        usual(
            "Job",
            json!({ "status": {
                "succeeded": 1,
                "startTime": "2026-01-01T00:00:00Z",
                "completionTime": "2026-01-01T00:00:07Z",
                "conditions": [{ "type": "Complete", "status": "True" }],
            }}),
            "NAME   STATUS     COMPLETIONS   DURATION   AGE\n\
             x      Complete   1/1           7s         60m\n",
        );
        usual(
            "ConfigMap",
            json!({ "data": { "a": "", "b": "" }, "binaryData": { "c": "" } }),
            "NAME   DATA   AGE\nx      3      60m\n",
        );
        usual(
            "Secret",
            json!({ "data": { "a": "" }, "stringData": { "a": "", "b": "" } }),
            "NAME   TYPE     DATA   AGE\nx      Opaque   2      60m\n",
        );
        usual(
            "Service",
            json!({ "spec": { "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }] } }),
            "NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)         AGE\n\
             x      ClusterIP   <none>       <none>        80/TCP,53/UDP   60m\n",
        );
        usual(
            "Service",
            json!({
                "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.2",
                    "ports": [{ "port": 80, "nodePort": 30080 }] },
                "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } },
            }),
            "NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE\n\
             x      LoadBalancer   10.96.0.2    192.0.2.1     80:30080/TCP   60m\n",
        );
        usual(
            "PersistentVolumeClaim",
            json!({
                "spec": { "volumeName": "v", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"] },
                "status": { "phase": "Bound", "capacity": { "storage": "10Gi" } },
            }),
            "NAME   STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   AGE\n\
             x      Bound    v        10Gi       RWO,ROX                       60m\n",
        );
        usual(
            "PersistentVolume",
            json!({
                "spec": { "capacity": { "storage": "10Gi" }, "accessModes": ["ReadWriteMany"],
                    "storageClassName": "manual", "claimRef": { "namespace": "n", "name": "c" } },
                "status": { "phase": "Bound" },
            }),
            "NAME   CAPACITY   ACCESS MODES   RECLAIM POLICY   STATUS   CLAIM   STORAGECLASS   AGE\n\
             x      10Gi       RWX            Retain           Bound    n/c     manual         60m\n",
        );
        usual(
            "EndpointSlice",
            json!({ "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [
                { "addresses": ["10.0.0.2"] }, { "addresses": ["10.0.0.3"] },
            ]}),
            "NAME   ADDRESSTYPE   PORTS   ENDPOINTS           AGE\n\
             x      IPv4          80      10.0.0.2,10.0.0.3   60m\n",
        );
        usual(
            "Endpoints",
            json!({ "subsets": [{
                "addresses": [{ "ip": "10.0.0.2" }, { "ip": "fd00::2" }], "ports": [{ "port": 80 }],
            }]}),
            "NAME   ENDPOINTS                  AGE\n\
             x      10.0.0.2:80,[fd00::2]:80   60m\n",
        );
        usual("Namespace", json!({}), "NAME   AGE\nx      60m\n");
    }

    #[test]
    fn wide_adds_columns() {
        check(
            &example(
                "ReplicaSet",
                json!({ "status": { "replicas": 1 }, "spec": {
                    "selector": { "matchLabels": { "a": "b", "c": "d" } },
                    "template": { "spec": { "containers": [
                        { "name": "p", "image": "q" }, { "name": "r", "image": "s" },
                    ]}},
                }}),
            ),
            Detail::Wide,
            "NAME   DESIRED   CURRENT   READY   AGE   CONTAINERS   IMAGES   SELECTOR\n\
             x      1         1         0       60m   p,r          q,s      a=b,c=d\n",
        );
    }

    #[test]
    fn namespaces_and_kinds_are_shown_when_they_differ() {
        let layout = Layout {
            headers: Headers::Hidden,
            detail: Detail::Usual,
            namespaces: Namespaces::All,
            names: Names::WithKind,
            now: "2026-01-01T01:00:00Z".parse().expect("a time"),
        };
        let object = json!({ "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {
            "name": "x", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"
        }});
        assert_eq!(
            table("Deployment", &[object], layout),
            "ns    deployment.apps/x   0/0   0     0     60m\n"
        );
    }
}
