//! Limits of local storage: a pod that takes more than it may is ended (`eviction_manager.go:localStorageEviction`).
//!
//! A kubelet counts every 10 s; here a count waits a hundred times as long as it takes, and at least a second. A pod
//! without such limits is not counted.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::context::{Context, Message};
use super::lifecycle::Event;
use crate::model::plan::{Medium, VolumeSource};
use crate::model::quantity::Quantity;
use crate::sys::fs;
use crate::sys::usage::Usage;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);
/// How many entries are looked at before others have their turn.
const AT_ONCE: usize = 500;

/// What a pod may take.
#[derive(Debug, Default)]
struct Limits {
    volumes: Vec<Limit>,
    containers: Vec<Limit>,
    /// What the containers may take together.
    pod: Option<u64>,
}

#[derive(Debug)]
struct Limit {
    name: String,
    bytes: u64,
    /// As the manifest has it.
    text: String,
}

/// Counts until the pod takes too much, which is told to the driver. Returns at once if there are no limits.
pub(super) async fn watch<R>(context: Rc<Context<R>>) {
    let limits = Limits::of(&context);
    if limits.volumes.is_empty() && limits.pod.is_none() {
        return;
    }
    let mut pause = SHORTEST;
    loop {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        match excess(&context, &limits).await {
            Ok(None) => {}
            Ok(Some(message)) => {
                context.send(Message::Lifecycle(Event::Evict { message }));
                return;
            }
            Err(error) => tracing::warn!(%error, "cannot count what the pod takes of the disk"),
        }
        let cost = begun.elapsed();
        pause = (cost * 100).clamp(SHORTEST, LONGEST).max(cost * 10);
    }
}

impl Limits {
    fn of<R>(context: &Context<R>) -> Self {
        let plan = &context.launch.plan;
        let text = |pointer: String| {
            let value = plan.manifest.pointer(&pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let volumes = plan.volumes.iter().filter_map(|volume| {
            let VolumeSource::EmptyDir {
                medium: Medium::Disk,
                size_limit: Some(bytes),
                ..
            } = volume.source
            else {
                return None;
            };
            let manifest = plan.manifest.pointer("/spec/volumes")?.as_array()?;
            let index = manifest
                .iter()
                .position(|v| v["name"] == volume.name.as_str())?;
            Some(Limit {
                name: volume.name.to_string(),
                bytes,
                text: text(format!("/spec/volumes/{index}/emptyDir/sizeLimit")),
            })
        });
        let lists = [
            ("initContainers", &plan.init_containers),
            ("containers", &plan.containers),
        ];
        let mut containers = Vec::new();
        for (list, plans) in lists {
            for (index, container) in plans.iter().enumerate() {
                if let Some(bytes) = container
                    .resources
                    .limits
                    .ephemeral_storage
                    .filter(|b| *b > 0)
                {
                    let pointer =
                        format!("/spec/{list}/{index}/resources/limits/ephemeral-storage");
                    containers.push(Limit {
                        name: container.name.to_string(),
                        bytes,
                        text: text(pointer),
                    });
                }
            }
        }
        let together = || plan.most_at_once(|one| one.resources.limits.ephemeral_storage);
        Self {
            volumes: volumes.collect(),
            pod: (!containers.is_empty()).then(together),
            containers,
        }
    }
}

/// What is too much, in the kubelet's words (`eviction/helpers.go`).
async fn excess<R>(context: &Context<R>, limits: &Limits) -> Result<Option<String>, fs::Error> {
    for limit in &limits.volumes {
        let used = count([context.paths().volumes().join(&limit.name)]).await?;
        if used > limit.bytes {
            return Ok(Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ",
                limit.name, limit.text
            )));
        }
    }
    let Some(pod) = limits.pod else {
        return Ok(None);
    };
    let mut used = Vec::new();
    for container in context.launch.plan.all_containers() {
        let name = container.name.as_str();
        used.push((name, count(of_runs(context, name)?).await?));
    }
    let volumes = count([context.paths().volumes()]).await?;
    if used.iter().map(|(_, bytes)| bytes).sum::<u64>() + volumes > pod {
        return Ok(Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            quantity(pod, limits)
        )));
    }
    let over = limits.containers.iter().find(|limit| {
        let mut used = used.iter();
        used.any(|(name, bytes)| *name == limit.name && *bytes > limit.bytes)
    });
    Ok(over.map(|limit| {
        format!(
            "Container {} exceeded its local ephemeral storage limit \"{}\". ",
            limit.name, limit.text
        )
    }))
}

/// What a container writes to its root file system, in the runs that are not cleaned up, and its logs.
fn of_runs<R>(context: &Context<R>, name: &str) -> Result<Vec<PathBuf>, fs::Error> {
    let runs = context.paths().data().join("containers");
    let mut folders = vec![context.launch.log_dir.join(name)];
    for run in fs::list(&runs)? {
        let text = run.to_string_lossy();
        if text.rsplit_once('-').is_some_and(|(of, _)| of == name) {
            folders.push(runs.join(run).join("upper"));
        }
    }
    Ok(folders)
}

async fn count(folders: impl IntoIterator<Item = PathBuf>) -> Result<u64, fs::Error> {
    let mut usage = Usage::default();
    for folder in folders {
        usage.add(&folder)?;
    }
    let mut looked = 0;
    while let Some(entries) = usage.step() {
        looked += entries + 1;
        if looked >= AT_ONCE {
            looked = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(usage.bytes())
}

/// A sum as Kubernetes writes it: as the first of what was added is written.
fn quantity(bytes: u64, limits: &Limits) -> String {
    let first = limits.containers.first();
    let like = first.map_or("", |limit| limit.text.as_str());
    Quantity::from_milli(i128::from(bytes) * 1000).written_like(like)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_kubernetes_writes_them() {
        let check = |bytes, like: &str, expected: &str| {
            let limits = Limits {
                containers: vec![Limit {
                    name: "first".into(),
                    bytes,
                    text: like.into(),
                }],
                ..Limits::default()
            };
            assert_eq!(quantity(bytes, &limits), expected);
        };
        check(3 << 20, "1Mi", "3Mi");
        check((1 << 30) + (1 << 20), "1Gi", "1025Mi");
        check(3_000_000, "1M", "3M");
        assert_eq!(quantity(0, &Limits::default()), "0");
    }
}
