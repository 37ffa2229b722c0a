//! What happens to a pod, in the kubelet's words. Kept as JSON lines; `describe` shows them.

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

/// Whether somebody should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    Normal,
    Warning,
}
