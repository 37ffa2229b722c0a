//! `system df`, with docker's columns.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::images::{short_id, size};
use super::table::{Headers, Table};
use crate::model::reference::Reference;
use crate::model::status::Phase;

/// What takes room, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) images: Vec<ImageRow>,
    /// Each layer once.
    pub(crate) image_bytes: u64,
    pub(crate) image_reclaimable: u64,
    pub(crate) pods: Vec<PodRow>,
    pub(crate) volumes: Vec<VolumeRow>,
}

#[derive(Clone, Debug)]
pub(crate) struct ImageRow {
    pub(crate) reference: Option<Reference>,
    /// `sha256:…`.
    pub(crate) id: String,
    pub(crate) created: Option<Timestamp>,
    pub(crate) shared: u64,
    pub(crate) unique: u64,
    pub(crate) pods: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct PodRow {
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) containers: usize,
    /// What its containers wrote, its own volumes, and its logs.
    pub(crate) bytes: u64,
}

impl PodRow {
    fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct VolumeRow {
    pub(crate) name: String,
    pub(crate) pods: Vec<String>,
    pub(crate) bytes: u64,
}

/// One line of the table.
struct Line {
    kind: &'static str,
    total: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

fn lines(report: &Report) -> [Line; 3] {
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.sum::<u64>();
    let ended = report.pods.iter().filter(|pod| pod.has_ended());
    let unused = report
        .volumes
        .iter()
        .filter(|volume| volume.pods.is_empty());
    [
        Line {
            kind: "Images",
            total: report.images.len(),
            active: report
                .images
                .iter()
                .filter(|image| !image.pods.is_empty())
                .count(),
            bytes: report.image_bytes,
            reclaimable: report.image_reclaimable,
        },
        Line {
            kind: "Pods",
            total: report.pods.len(),
            active: report.pods.len() - ended.clone().count(),
            bytes: sum(&mut report.pods.iter().map(|pod| pod.bytes)),
            reclaimable: sum(&mut ended.map(|pod| pod.bytes)),
        },
        Line {
            kind: "Volumes",
            total: report.volumes.len(),
            active: report.volumes.len() - unused.clone().count(),
            bytes: sum(&mut report.volumes.iter().map(|volume| volume.bytes)),
            reclaimable: sum(&mut unused.map(|volume| volume.bytes)),
        },
    ]
}

/// What takes how much, in three lines.
pub(crate) fn table(report: &Report) -> String {
    let mut table = Table::new(vec!["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for line in lines(report) {
        let part = (line.reclaimable * 100)
            .checked_div(line.bytes)
            .unwrap_or(0);
        table.push(vec![
            line.kind.to_owned(),
            line.total.to_string(),
            line.active.to_string(),
            size(line.bytes),
            format!("{} ({part}%)", size(line.reclaimable)),
        ]);
    }
    table.render(Headers::Shown)
}

/// Each image, pod and volume.
pub(crate) fn details(report: &Report, now: Timestamp) -> String {
    let mut images = Table::new(vec![
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "PODS",
    ]);
    for image in &report.images {
        let name = image.reference.as_ref();
        let repository = name.map(|name| format!("{}/{}", name.registry, name.repository));
        let tag = name.and_then(|name| name.tag.clone());
        let created = image
            .created
            .map(|time| format!("{} ago", duration::since(time, now)));
        images.push(vec![
            repository.unwrap_or_else(|| "<none>".into()),
            tag.unwrap_or_else(|| "<none>".into()),
            short_id(&image.id).to_owned(),
            created.unwrap_or_else(|| "<unknown>".into()),
            size(image.shared),
            size(image.unique),
            image.pods.len().to_string(),
        ]);
    }
    let mut pods = Table::new(vec!["POD", "CONTAINERS", "STATUS", "SIZE"]);
    for pod in &report.pods {
        pods.push(vec![
            pod.name.clone(),
            pod.containers.to_string(),
            super::pods::phase(pod.phase).to_owned(),
            size(pod.bytes),
        ]);
    }
    let mut volumes = Table::new(vec!["VOLUME", "PODS", "SIZE"]);
    for volume in &report.volumes {
        let count = volume.pods.len().to_string();
        volumes.push(vec![volume.name.clone(), count, size(volume.bytes)]);
    }
    let shown = |table: &Table| table.render(Headers::Shown);
    [shown(&images), shown(&pods), shown(&volumes)].join("\n")
}

/// All of it, for scripts.
pub(crate) fn object(report: &Report) -> Value {
    let summary = lines(report).map(|line| {
        json!({
            "type": line.kind, "total": line.total, "active": line.active,
            "size": line.bytes, "reclaimable": line.reclaimable,
        })
    });
    let images = report.images.iter().map(|image| {
        json!({
            "name": image.reference.as_ref().map(ToString::to_string), "id": image.id,
            "sharedSize": image.shared, "uniqueSize": image.unique, "pods": image.pods,
        })
    });
    let pods = report.pods.iter().map(|pod| {
        json!({
            "name": pod.name, "phase": pod.phase, "containers": pod.containers, "size": pod.bytes,
        })
    });
    let volumes = report
        .volumes
        .iter()
        .map(|volume| json!({ "name": volume.name, "pods": volume.pods, "size": volume.bytes }));
    json!({
        "apiVersion": "kplay/v1", "kind": "DiskUsage", "summary": summary,
        "images": images.collect::<Vec<_>>(), "pods": pods.collect::<Vec<_>>(),
        "volumes": volumes.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_sums() {
        let pod = |name: &str, phase, bytes| PodRow {
            name: name.into(),
            phase,
            containers: 1,
            bytes,
        };
        let volume = |name: &str, pods: &[&str], bytes| VolumeRow {
            name: name.into(),
            pods: pods.iter().map(ToString::to_string).collect(),
            bytes,
        };
        let report = Report {
            images: vec![ImageRow {
                reference: None,
                id: "sha256:0123456789abcdef".into(),
                created: None,
                shared: 0,
                unique: 4000,
                pods: vec!["a".into()],
            }],
            image_bytes: 4000,
            image_reclaimable: 1000,
            pods: vec![
                pod("default/a", Phase::Running, 1000),
                pod("default/b", Phase::Succeeded, 3000),
            ],
            volumes: vec![
                volume("default/c", &[], 500),
                volume("default/d", &["a"], 0),
            ],
        };
        let table = table(&report);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["Images", "1", "1", "4.00kB", "1.00kB", "(25%)"]);
        assert_eq!(lines[2], ["Pods", "2", "1", "4.00kB", "3.00kB", "(75%)"]);
        assert_eq!(lines[3], ["Volumes", "2", "1", "500B", "500B", "(100%)"]);
        let details = details(&report, Timestamp::UNIX_EPOCH);
        assert!(details.contains("default/b"), "{details}");
        assert!(details.contains("0123456789ab"), "{details}");
    }
}
