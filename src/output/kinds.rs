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
    pub(crate) labels: Labels,
    pub(crate) now: Timestamp,
}

/// Whether there is a column for the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    Hidden,
    /// `--show-labels`.
    Shown,
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
    let labels: &[&'static str] = match layout.labels {
        Labels::Shown => &["LABELS"],
        Labels::Hidden => &[],
    };
    let mut table = Table::new([namespace, &["NAME"], columns.as_slice(), labels].concat());
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
        if layout.labels == Labels::Shown {
            row.push(selector(object.pointer("/metadata/labels")));
        }
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
        cells.push(volume_mode(object).to_owned());
    }
    cells
}

/// As the API server defaults it.
fn volume_mode(object: &Value) -> &str {
    match string(object, "/spec/volumeMode") {
        "" => "Filesystem",
        mode => mode,
    }
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
        cells.push(volume_mode(object).to_owned());
    }
    cells
}

#[cfg(test)]
mod tests;
