//! `get pods`: kubectl's columns, and its rule for STATUS.

use jiff::Timestamp;
use serde_json::Value;

use super::duration;
use super::object::{array, created, metadata, string};
use crate::model::status::{ConditionStatus, ContainerState, ContainerStatus, Phase, PodStatus};

/// What a row says about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) ready: usize,
    pub(crate) total: usize,
    /// `Running`, `Init:0/2`, `CrashLoopBackOff`, `Completed`, `Terminating`, …
    pub(crate) status: String,
    pub(crate) restarts: u32,
    pub(crate) last_restart: Option<Timestamp>,
}

/// The columns of `get pods`.
pub(crate) const COLUMNS: [&str; 5] = ["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
/// What `-o wide` adds.
pub(crate) const WIDE_COLUMNS: [&str; 3] = ["IP", "NODE", "IMAGES"];

/// The cells of [`COLUMNS`], without the name.
pub(crate) fn cells(pod: &Value, now: Timestamp) -> Vec<String> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, duration::since(last, now))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        format!("{}/{}", summary.ready, summary.total),
        summary.status,
        restarts,
        age(pod, now),
    ]
}

/// The cells of [`WIDE_COLUMNS`].
pub(crate) fn wide_cells(pod: &Value) -> Vec<String> {
    let images: Vec<&str> = array(pod, "/spec/containers")
        .iter()
        .map(|container| string(container, "/image"))
        .collect();
    vec![
        or_none(string(pod, "/status/podIP")),
        or_none(string(pod, "/spec/nodeName")),
        images.join(","),
    ]
}

/// `metadata.creationTimestamp` as an age.
pub(crate) fn age(object: &Value, now: Timestamp) -> String {
    created(object).map_or_else(
        || "<unknown>".to_owned(),
        |created| duration::since(created, now),
    )
}

/// kubectl's word for nothing.
pub(crate) fn or_none(text: &str) -> String {
    match text {
        "" => "<none>".to_owned(),
        text => text.to_owned(),
    }
}

/// The status of a `v1.Pod`; all defaults if it has none that can be read.
pub(crate) fn status(pod: &Value) -> PodStatus {
    pod.get("status")
        .and_then(|status| serde_json::from_value(status.clone()).ok())
        .unwrap_or_default()
}

impl Summary {
    /// kubectl's `printPod` (`pkg/printers/internalversion/printers.go`), rule for rule.
    pub(crate) fn of(pod: &Value) -> Self {
        let status = status(pod);
        let init_containers = array(pod, "/spec/initContainers");
        let is_sidecar = |name: &str| {
            init_containers.iter().any(|container| {
                string(container, "/name") == name
                    && string(container, "/restartPolicy") == "Always"
            })
        };
        let sidecars = init_containers
            .iter()
            .filter(|container| string(container, "/restartPolicy") == "Always")
            .count();
        let mut summary = Self {
            ready: 0,
            total: array(pod, "/spec/containers").len() + sidecars,
            status: first_reason(&status),
            restarts: 0,
            last_restart: None,
        };
        let initializing = summary.initialize(&status, init_containers.len(), &is_sidecar);
        if !initializing || condition_is_true(&status, "Initialized") {
            summary.run(&status, &is_sidecar);
        }
        let ended = matches!(status.phase, Phase::Succeeded | Phase::Failed);
        if !metadata(pod, "deletionTimestamp").is_empty() && !ended {
            summary.status = "Terminating".to_owned();
        }
        summary
    }

    /// Goes through the init containers; returns whether one of them is still to be done.
    fn initialize(
        &mut self,
        status: &PodStatus,
        count: usize,
        is_sidecar: &dyn Fn(&str) -> bool,
    ) -> bool {
        for (position, container) in status.init_container_statuses.iter().enumerate() {
            self.count_restarts(container);
            let reason = match &container.state {
                ContainerState::Terminated(end) if end.exit_code == 0 => continue,
                _ if is_sidecar(&container.name) && container.started == Some(true) => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                ContainerState::Terminated(end) => match (end.reason.as_str(), end.signal) {
                    ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
                    ("", _) => format!("ExitCode:{}", end.exit_code),
                    (reason, _) => reason.to_owned(),
                },
                ContainerState::Waiting(waiting)
                    if !matches!(waiting.reason.as_str(), "" | "PodInitializing") =>
                {
                    waiting.reason.clone()
                }
                ContainerState::Waiting(_) | ContainerState::Running(_) => {
                    format!("{position}/{count}")
                }
            };
            self.status = format!("Init:{reason}");
            return true;
        }
        false
    }

    /// Goes through the main containers, last first: the first one in the manifest has the last word.
    fn run(&mut self, status: &PodStatus, is_sidecar: &dyn Fn(&str) -> bool) {
        (self.restarts, self.last_restart) = (0, None);
        for container in &status.init_container_statuses {
            if is_sidecar(&container.name) {
                self.count_restarts(container);
            }
        }
        let mut has_running = false;
        for container in status.container_statuses.iter().rev() {
            self.count_restarts(container);
            match &container.state {
                ContainerState::Waiting(waiting) if !waiting.reason.is_empty() => {
                    self.status.clone_from(&waiting.reason);
                }
                ContainerState::Terminated(end) => {
                    self.status = match (end.reason.as_str(), end.signal) {
                        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
                        ("", _) => format!("ExitCode:{}", end.exit_code),
                        (reason, _) => reason.to_owned(),
                    };
                }
                ContainerState::Running(_) if container.ready => {
                    has_running = true;
                    self.ready += 1;
                }
                ContainerState::Waiting(_) | ContainerState::Running(_) => {}
            }
        }
        if self.status == "Completed" && has_running {
            let ready = condition_is_true(status, "Ready");
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn count_restarts(&mut self, container: &ContainerStatus) {
        self.restarts += container.restart_count;
        if let Some(end) = &container.last_state.terminated {
            self.last_restart = self.last_restart.max(end.finished_at);
        }
    }
}

fn first_reason(status: &PodStatus) -> String {
    match &status.reason {
        Some(reason) if !reason.is_empty() => reason.clone(),
        _ => phase(status.phase).to_owned(),
    }
}

/// `status.phase` as text.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
}

/// Whether a pod has a condition, and it is `True`.
pub(crate) fn condition_is_true(status: &PodStatus, name: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.r#type == name && condition.status == ConditionStatus::True)
}

#[cfg(test)]
mod tests;
