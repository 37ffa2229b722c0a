//! `top`: what containers use, with kubectl's columns and as the objects of the metrics API.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table::{Headers, Table};
use crate::model::names::{ContainerName, PodKey};
use crate::model::status::time;

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) pod: PodKey,
    pub(crate) container: ContainerName,
    pub(crate) nanocores: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) pids: Option<u64>,
}

/// The table for people; `namespaces` asks for a column of these.
pub(crate) fn table(rows: &[Row], headers: Headers, namespaces: bool) -> String {
    let namespace: &[&'static str] = if namespaces { &["NAMESPACE"] } else { &[] };
    let columns = ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)", "PIDS"];
    let mut table = Table::new([namespace, &columns].concat());
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "<unknown>".to_owned());
    for row in rows {
        let mut cells = vec![
            row.pod.name.to_string(),
            row.container.to_string(),
            or_unknown(row.nanocores.map(|n| format!("{}m", n.div_ceil(1_000_000)))),
            or_unknown(row.bytes.map(|bytes| format!("{}Mi", bytes >> 20))),
            or_unknown(row.pids.map(|pids| pids.to_string())),
        ];
        if namespaces {
            cells.insert(0, row.pod.namespace.to_string());
        }
        table.push(cells);
    }
    table.render(headers)
}

/// A `PodMetricsList` of metrics.k8s.io, with the processes besides.
pub(crate) fn list(rows: &[Row], at: Timestamp, window: std::time::Duration) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for pods in rows.chunk_by(|a, b| a.pod == b.pod) {
        let Some(first) = pods.first() else { continue };
        let containers: Vec<Value> = pods.iter().map(container).collect();
        items.push(json!({
            "metadata": { "name": first.pod.name, "namespace": first.pod.namespace },
            "timestamp": time::text(&at),
            "window": format!("{:.1}s", window.as_secs_f64()),
            "containers": containers,
        }));
    }
    json!({ "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": items })
}

fn container(row: &Row) -> Value {
    let amounts = [
        ("cpu", row.nanocores.map(|n| format!("{n}n"))),
        (
            "memory",
            row.bytes.map(|bytes| format!("{}Ki", bytes >> 10)),
        ),
        ("pids", row.pids.map(|pids| pids.to_string())),
    ];
    let usage: serde_json::Map<String, Value> = amounts
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_owned(), amount?.into())))
        .collect();
    json!({ "name": row.container, "usage": usage })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::{Namespace, PodName};

    fn rows() -> Vec<Row> {
        let row = |pod: &str, container: &str, nanocores| Row {
            pod: PodKey {
                namespace: Namespace::default(),
                name: PodName::parse(pod).unwrap(),
            },
            container: ContainerName::parse(container).unwrap(),
            nanocores,
            bytes: Some(12 << 20),
            pids: Some(3),
        };
        vec![
            row("web-0", "web", Some(1_500_000_000)),
            row("web-0", "log", Some(1)),
            row("job-0", "job", None),
        ]
    }

    #[test]
    fn the_table_has_kubectls_columns() {
        assert_eq!(
            table(&rows(), Headers::Shown, false),
            "POD     NAME   CPU(cores)   MEMORY(bytes)   PIDS\n\
             web-0   web    1500m        12Mi            3\n\
             web-0   log    1m           12Mi            3\n\
             job-0   job    <unknown>    12Mi            3\n"
        );
    }

    #[test]
    fn the_list_is_the_metrics_apis() {
        let list = list(
            &rows(),
            Timestamp::UNIX_EPOCH,
            std::time::Duration::from_secs(1),
        );
        assert_eq!(list["kind"], "PodMetricsList");
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        let first = &list["items"][0];
        assert_eq!(first["containers"][0]["usage"]["cpu"], "1500000000n");
        assert_eq!(first["containers"][1]["usage"]["memory"], "12288Ki");
        assert_eq!(list["items"][1]["containers"][0]["usage"].get("cpu"), None);
        assert_eq!(first["window"], "1.0s");
    }
}
