//! `v1.PodStatus` as kplay writes it: the field names are Kubernetes' own, so that the file on disk is the object.
//!
//! Only fields that kplay fills are here. Times are RFC 3339 with whole seconds, in UTC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", with = "time::option")]
    pub start_time: Option<Timestamp>,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<PodIp>,
    pub qos_class: QosClass,
    pub conditions: Vec<PodCondition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Sorted by name, as a kubelet does.
    pub container_statuses: Vec<ContainerStatus>,
}

/// `v1.PodIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIp {
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

/// `v1.PodCondition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCondition {
    /// `PodReadyToStartContainers`, `Initialized`, `ContainersReady`, `Ready`, `PodScheduled`.
    pub r#type: String,
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
    #[serde(skip_serializing_if = "LastState::is_none")]
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

impl LastState {
    fn is_none(&self) -> bool {
        self.terminated.is_none()
    }
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
    #[serde(with = "time")]
    pub started_at: Timestamp,
    #[serde(with = "time")]
    pub finished_at: Timestamp,
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
                        started_at: second,
                        finished_at: second,
                        container_id: None,
                    }),
                },
                ready: true,
                restart_count: 1,
                image: "web".into(),
                image_id: "sha256:0".into(),
                container_id: Some("kplay://0".into()),
                started: Some(true),
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
