//! What happens to a pod, in the kubelet's words. Kept as JSON lines; `events` and `describe` show them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::ContainerName;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEvent {
    pub time: Timestamp,
    pub r#type: EventType,
    /// `Pulled`, `Created`, `Started`, `Killing`, `BackOff`, `Failed`, `FailedMount`, …
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
}

/// An event and its history: the same may happen again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSeries {
    /// Which of the pod's events it is.
    pub number: u64,
    /// When it happened for the first time.
    pub first: Timestamp,
    pub count: u32,
    /// As it happened last.
    #[serde(flatten)]
    pub event: PodEvent,
}

/// Whether somebody should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    Normal,
    Warning,
}
