//! `v1.PodStatus` as kplay writes it: the field names are Kubernetes' own, so that the file on disk is the object.
//!
//! Only fields that kplay fills are here. Times are RFC 3339 with whole seconds, in UTC.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod's `metadata.generation`: 1, and 1 more for each change of its `spec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);

impl Default for Generation {
    fn default() -> Self {
        Self(1)
    }
}

impl Generation {
    /// After another change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// The `metadata.generation` that the rest is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", with = "time::option")]
    pub start_time: Option<Timestamp>,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(rename = "hostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<Ip>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Ip>,
    pub qos_class: QosClass,
    pub conditions: Vec<PodCondition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Sorted by name, as a kubelet does.
    pub container_statuses: Vec<ContainerStatus>,
}

/// A pod's end, as far as the Job that it was made for has to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEnd {
    pub phase: Phase,
    /// `status.reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `status.startTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the last of its containers ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
}

impl From<&PodStatus> for PodEnd {
    fn from(status: &PodStatus) -> Self {
        Self {
            phase: status.phase,
            reason: status.reason.clone(),
            started: status.start_time,
            finished: status.last_end(),
        }
    }
}

/// The reason of a container whose end nobody saw.
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

impl PodStatus {
    /// Completes the status of a pod of which nothing runs any more (`status_manager.go:TerminatePod`): a container
    /// that has no known end is lost, if the pod came so far that it could have been started.
    pub fn terminate(&mut self) {
        let is_initialized = self.init_container_statuses.is_empty()
            || self.is_true("Initialized")
            || self
                .container_statuses
                .iter()
                .any(ContainerStatus::has_begun);
        if is_initialized {
            self.container_statuses
                .iter_mut()
                .for_each(ContainerStatus::lose);
        }
        let inits = &mut self.init_container_statuses;
        let begun = inits.iter().rposition(ContainerStatus::has_begun);
        inits
            .iter_mut()
            .take(begun.unwrap_or_default() + 1)
            .for_each(ContainerStatus::lose);
    }

    /// What keeps a pod from being started, as far as its containers tell.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let inits =
            self.init_container_statuses
                .iter()
                .find_map(|container| match &container.state {
                    ContainerState::Running(_) if container.started != Some(true) => {
                        Some(format!("init container `{}` runs", container.name))
                    }
                    state => waiting("init container", &container.name, state),
                });
        let mut mains = self.container_statuses.iter();
        inits.or_else(|| {
            mains.find_map(|container| waiting("container", &container.name, &container.state))
        })
    }

    /// When the last of its containers ended.
    #[must_use]
    pub fn last_end(&self) -> Option<Timestamp> {
        let inits = self.init_container_statuses.iter();
        let all = inits.chain(&self.container_statuses);
        all.filter_map(|container| match &container.state {
            ContainerState::Terminated(end) => end.finished_at,
            ContainerState::Waiting(_) | ContainerState::Running(_) => None,
        })
        .max()
    }

    /// Whether a condition holds.
    #[must_use]
    pub fn is_true(&self, condition: &str) -> bool {
        self.conditions
            .iter()
            .any(|found| found.r#type == condition && found.status == ConditionStatus::True)
    }
}

/// Says of a container why it is not started, unless others have to come first.
fn waiting(what: &str, name: &str, state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::Waiting(waiting) if waiting.reason != "PodInitializing" => {
            Some(format!("{what} `{name}` waits: {}", waiting.reason))
        }
        ContainerState::Waiting(_) | ContainerState::Running(_) | ContainerState::Terminated(_) => {
            None
        }
    }
}

impl ContainerStatus {
    fn has_begun(&self) -> bool {
        let waits = matches!(self.state, ContainerState::Waiting(_));
        !waits || self.last_state.terminated.is_some()
    }

    /// Says of a container without a known end that it is lost.
    fn lose(&mut self) {
        let started_at = match &self.state {
            ContainerState::Terminated(_) => return,
            ContainerState::Running(running) => Some(running.started_at),
            ContainerState::Waiting(_) => None,
        };
        self.ready = false;
        self.started = Some(false);
        self.state = ContainerState::Terminated(Terminated {
            exit_code: 137,
            signal: None,
            reason: STATUS_UNKNOWN.into(),
            message: Some("The container could not be located when the pod was terminated".into()),
            started_at,
            finished_at: None,
            container_id: started_at.and(self.container_id.clone()),
        });
    }
}

/// `v1.PodIP` and `v1.HostIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    pub ip: String,
}

/// `status.phase`. `Succeeded` and `Failed` never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    #[default]
    BestEffort,
}

impl QosClass {
    /// The name of the cgroup that has its pods' between the one of all pods and each, as with a kubelet: guaranteed pods
    /// are right below that of all.
    #[must_use]
    pub fn cgroup(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// `v1.PodCondition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCondition {
    /// `PodReadyToStartContainers`, `Initialized`, `ContainersReady`, `Ready`, `PodScheduled`.
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub status: ConditionStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(with = "time")]
    pub last_transition_time: Timestamp,
}

/// A condition's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// `v1.ContainerStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub state: ContainerState,
    pub last_state: LastState,
    pub ready: bool,
    pub restart_count: u32,
    pub image: String,
    #[serde(rename = "imageID")]
    pub image_id: String,
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// What the container was promised: its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_resources: Option<ResourceList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMountStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<ContainerUser>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Quantities by resource, as the manifest has them.
pub type ResourceList = BTreeMap<String, String>;

/// `v1.ResourceRequirements`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceList>,
}

/// `v1.VolumeMountStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMountStatus {
    pub name: String,
    pub mount_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// `Disabled` or `Enabled`, of a mount that is read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive_read_only: Option<String>,
}

/// `v1.ContainerUser`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    pub linux: LinuxContainerUser,
}

/// `v1.LinuxContainerUser`: who the container's first process was started as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxContainerUser {
    pub uid: u32,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplemental_groups: Vec<u32>,
}

/// `v1.ContainerState`: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    Waiting(Waiting),
    Running(Running),
    Terminated(Terminated),
}

impl Default for ContainerState {
    fn default() -> Self {
        Self::Waiting(Waiting::default())
    }
}

/// `lastState`: empty, or the previous run's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// `v1.ContainerStateWaiting`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `v1.ContainerStateRunning`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    #[serde(with = "time")]
    pub started_at: Timestamp,
}

/// `v1.ContainerStateTerminated`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// 0–255; 128 + signal for a signal.
    pub exit_code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Not known of a container that was lost.
    #[serde(default, with = "time::option")]
    pub started_at: Option<Timestamp>,
    #[serde(default, with = "time::option")]
    pub finished_at: Option<Timestamp>,
    #[serde(
        rename = "containerID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub container_id: Option<String>,
}

/// RFC 3339, whole seconds: `metav1.Time`'s form.
pub mod time {
    use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
    use serde::{Deserialize as _, Deserializer, Serializer};

    static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

    /// The text of a time, without its fraction.
    #[must_use]
    pub fn text(time: &Timestamp) -> String {
        PRINTER.timestamp_to_string(time)
    }

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&text(time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(d)
    }

    pub(super) mod option {
        use super::{Deserializer, Serializer, Timestamp};
        use serde::Deserialize as _;

        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, s),
                None => s.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Option::<Timestamp>::deserialize(d)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_kubernetes_own_type() {
        let second = Timestamp::from_second(1_800_000_000).expect("a valid time");
        let status = PodStatus {
            phase: Phase::Running,
            start_time: Some(second),
            conditions: vec![PodCondition {
                r#type: "Ready".into(),
                status: ConditionStatus::True,
                reason: None,
                message: None,
                last_transition_time: second,
                observed_generation: Some(1),
            }],
            container_statuses: vec![ContainerStatus {
                name: "web".into(),
                state: ContainerState::Running(Running { started_at: second }),
                last_state: LastState {
                    terminated: Some(Terminated {
                        exit_code: 137,
                        signal: Some(9),
                        reason: "OOMKilled".into(),
                        message: None,
                        started_at: Some(second),
                        finished_at: Some(second),
                        container_id: None,
                    }),
                },
                ready: true,
                restart_count: 1,
                image: "web".into(),
                image_id: "sha256:0".into(),
                container_id: Some("kplay://0".into()),
                started: Some(true),
                resources: Some(ResourceRequirements::default()),
                volume_mounts: vec![VolumeMountStatus {
                    name: "data".into(),
                    mount_path: "/data".into(),
                    read_only: Some(true),
                    recursive_read_only: Some("Disabled".into()),
                }],
                user: Some(ContainerUser::default()),
                stop_signal: Some("SIGTERM".into()),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        };
        let ours = serde_json::to_value(&status).expect("serializes");
        let theirs: k8s_openapi::api::core::v1::PodStatus =
            serde_json::from_value(ours.clone()).expect("is a v1.PodStatus");
        assert_eq!(serde_json::to_value(theirs).expect("serializes"), ours);
        let back: PodStatus = serde_json::from_value(ours).expect("reads back");
        assert_eq!(back, status);
    }
}
