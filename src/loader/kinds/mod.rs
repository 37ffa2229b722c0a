//! Objects to what kplay makes of them: one file per thing that a pod is made of.

mod claim;
mod config;
mod container;
mod defaults;
mod env;
mod field_ref;
mod hooks;
mod host;
mod pod;
mod pod_resources;
mod ports;
mod probe;
mod profiles;
mod pull_secrets;
mod resources;
mod restarts;
mod security;
mod service;
mod sysctl;
mod volume;
mod volume_files;
mod workload;

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) use self::claim::{Made, ephemeral, made, recorded_claim, recorded_volume};
pub(super) use self::pod::{Scope, plan, write_ports};
pub(super) use self::pull_secrets::pull_secrets;
pub use self::resources::Capacity;
pub use self::sysctl::AllowedSysctls;
pub(super) use self::workload::Workload;
use super::binding;
use super::decode::decode;
use super::object::{Kind, Raw};
use super::report::Report;
use super::resolve::{self, Data};
use super::support;

/// What an object is for kplay.
#[derive(Debug)]
pub(super) enum Content {
    /// Becomes a pod.
    Workload(Box<Workload>),
    /// Others refer to it.
    Data(resolve::Kind, Data),
    /// Asks for storage.
    Claim(binding::Claim),
    /// Offers storage.
    Volume(binding::PersistentVolume),
    /// Is recorded and shown, and has no effect yet.
    Recorded,
}

/// An object as JSON, and what it is for.
pub(super) type Read = (serde_json::Value, Content);

/// Reads one object strictly and checks what is its own; `None` if it has faults.
pub(super) fn read(kind: Kind, raw: Raw<'_>, report: &Report) -> Option<Read> {
    match kind {
        Kind::Pod => typed(raw, report, |pod: core::Pod| workload(workload::pod(pod))),
        Kind::Deployment => typed(raw, report, |object: apps::Deployment| {
            workload(workload::deployment(object)?)
        }),
        Kind::ReplicaSet => typed(raw, report, |object: apps::ReplicaSet| {
            workload(workload::replica_set(object)?)
        }),
        Kind::ReplicationController => typed(raw, report, |object: core::ReplicationController| {
            workload(workload::replication_controller(object)?)
        }),
        Kind::DaemonSet => typed(raw, report, |object: apps::DaemonSet| {
            workload(workload::daemon_set(object)?)
        }),
        Kind::StatefulSet => typed(raw, report, |object: apps::StatefulSet| {
            workload(workload::stateful_set(object)?)
        }),
        Kind::Job => typed(raw, report, |object: batch::Job| {
            workload(workload::job(object)?)
        }),
        Kind::CronJob => typed(raw, report, |object: batch::CronJob| {
            workload(workload::cron_job(object)?)
        }),
        Kind::ConfigMap => {
            config::check_config_map(raw.at, report);
            typed(raw, report, |map| {
                Some(Content::Data(
                    resolve::Kind::ConfigMap,
                    resolve::config_map(map),
                ))
            })
        }
        Kind::Secret => {
            config::check_secret(raw.at, report);
            let (mut json, content) = typed(raw, report, |secret| {
                Some(Content::Data(
                    resolve::Kind::Secret,
                    resolve::secret(secret),
                ))
            })?;
            resolve::merge_string_data(&mut json);
            Some((json, content))
        }
        Kind::PersistentVolumeClaim => typed(raw, report, |object: core::PersistentVolumeClaim| {
            support::fields(raw.kind, raw.at, report);
            let spec = object.spec.unwrap_or_default();
            let claim = claim::claim(&spec, raw.at.key("spec"), report);
            Some(claim.map_or(Content::Recorded, Content::Claim))
        }),
        Kind::PersistentVolume => {
            let mut volume: core::PersistentVolume = decode(raw.at, report)?;
            claim::resolve_path(&mut volume, &raw.at.file.base_dir);
            let offer = claim::persistent_volume(&volume, raw.at, report)?;
            let json = to_json(&volume, raw, report)?;
            Some((json, Content::Volume(offer)))
        }
        Kind::Service => {
            let mut service: core::Service = decode(raw.at, report)?;
            service::apply_defaults(&mut service);
            service::check(&service, raw.at, report);
            let json = to_json(&service, raw, report)?;
            Some((json, Content::Recorded))
        }
        Kind::Namespace => recorded::<core::Namespace>(raw, report),
        Kind::ServiceAccount => recorded::<core::ServiceAccount>(raw, report),
    }
}

fn workload(workload: Workload) -> Option<Content> {
    Some(Content::Workload(Box::new(workload)))
}

fn recorded<T: DeserializeOwned + Serialize>(raw: Raw<'_>, report: &Report) -> Option<Read> {
    typed(raw, report, |_object: T| Some(Content::Recorded))
}

fn typed<T: DeserializeOwned + Serialize>(
    raw: Raw<'_>,
    report: &Report,
    content: impl FnOnce(T) -> Option<Content>,
) -> Option<Read> {
    let object: T = decode(raw.at, report)?;
    let json = to_json(&object, raw, report)?;
    match content(object) {
        Some(content) => Some((json, content)),
        None => {
            report.error(
                raw.at.key("spec"),
                format!("the {} has no `spec` with a pod `template`", raw.kind),
            );
            None
        }
    }
}

fn to_json(object: &impl Serialize, raw: Raw<'_>, report: &Report) -> Option<serde_json::Value> {
    let json = serde_json::to_value(object);
    json.map_err(|error| {
        let message = format!("the object cannot be kept as JSON: {error}");
        report.error(raw.at, message);
    })
    .ok()
}
