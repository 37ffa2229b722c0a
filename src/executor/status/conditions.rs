//! `status.conditions` (`pkg/kubelet/status/generate.go`).

use jiff::Timestamp;

use super::Containers;
use crate::model::plan::ContainerRole;
use crate::model::status::{ConditionStatus, ContainerStatus, Generation, Phase, PodCondition};

/// What the conditions are read off.
#[derive(Debug)]
pub(super) struct Conditions<'a> {
    pub(super) containers: &'a Containers,
    pub(super) phase: Phase,
    pub(super) has_sandbox: bool,
    pub(super) generation: Generation,
    /// Types of conditions that somebody else would have to set; on one machine nobody does.
    pub(super) readiness_gates: &'a [String],
    /// [`Pod::restarts_all`](crate::executor::lifecycle::Pod::restarts_all)
    pub(super) restarts_all: Option<bool>,
    pub(super) now: Timestamp,
}

/// A condition's value, and why it has it.
#[derive(Clone, Debug)]
struct Value {
    status: ConditionStatus,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Value {
    const TRUE: Self = Self {
        status: ConditionStatus::True,
        reason: None,
        message: None,
    };

    fn is_false(reason: &'static str, message: Option<String>) -> Self {
        Self {
            status: ConditionStatus::False,
            reason: Some(reason),
            message,
        }
    }
}

impl Conditions<'_> {
    /// All conditions, in a kubelet's order. One that has the status that it had keeps its time.
    pub(super) fn list(&self, previous: &[PodCondition]) -> Vec<PodCondition> {
        let sandbox = if self.has_sandbox {
            Value::TRUE
        } else {
            Value {
                status: ConditionStatus::False,
                ..Value::TRUE
            }
        };
        let mut list = Vec::with_capacity(5);
        let mut add = |r#type: &str, value: Value| {
            list.push(self.condition(r#type, value, previous));
        };
        add("PodReadyToStartContainers", sandbox);
        add("Initialized", self.initialized(previous));
        let ready = self.containers_ready();
        add("Ready", self.ready(&ready, previous));
        add("ContainersReady", ready);
        add("PodScheduled", Value::TRUE);
        if let Some(restarts_all) = self.restarts_all {
            add("AllContainersRestarting", self.restarting_all(restarts_all));
        }
        list
    }

    fn condition(&self, r#type: &str, value: Value, previous: &[PodCondition]) -> PodCondition {
        let unchanged = previous
            .iter()
            .find(|old| old.r#type == r#type && old.status == value.status);
        PodCondition {
            r#type: r#type.into(),
            observed_generation: Some(self.generation.0),
            status: value.status,
            reason: value.reason.map(str::to_owned),
            message: value.message,
            last_transition_time: unchanged.map_or(self.now, |old| old.last_transition_time),
        }
    }

    /// Once true it stays so: neither sidecars nor init containers that run again take anything back.
    fn initialized(&self, previous: &[PodCondition]) -> Value {
        if self.phase == Phase::Succeeded {
            return Value {
                reason: Some("PodCompleted"),
                ..Value::TRUE
            };
        }
        let mut previous = previous.iter();
        let was_true =
            previous.any(|old| old.r#type == "Initialized" && old.status == ConditionStatus::True);
        if was_true || self.containers.has_main_run {
            return Value::TRUE;
        }
        let incomplete = self.names(|role, status| match role {
            ContainerRole::Init => !status.ready,
            ContainerRole::Sidecar => status.started != Some(true),
            ContainerRole::Main => false,
        });
        if incomplete.is_empty() {
            return Value::TRUE;
        }
        let message = format!("containers with incomplete status: [{incomplete}]");
        Value::is_false("ContainersNotInitialized", Some(message))
    }

    /// `GenerateAllContainersRestartingCondition`
    fn restarting_all(&self, now: bool) -> Value {
        let because = match self.phase {
            Phase::Succeeded => Some("PodCompleted"),
            Phase::Failed => Some("PodFailed"),
            Phase::Pending | Phase::Running => None,
        };
        match because {
            None if now => Value {
                reason: Some("RestartAllContainersStarted"),
                message: Some("container exited with restart policy rule".into()),
                ..Value::TRUE
            },
            reason => Value {
                status: ConditionStatus::False,
                reason,
                message: None,
            },
        }
    }

    fn containers_ready(&self) -> Value {
        match self.phase {
            Phase::Succeeded => return Value::is_false("PodCompleted", None),
            Phase::Failed => return Value::is_false("PodFailed", None),
            Phase::Pending | Phase::Running => {}
        }
        let unready = self.names(|role, status| match role {
            ContainerRole::Init => false,
            ContainerRole::Sidecar | ContainerRole::Main => !status.ready,
        });
        if unready.is_empty() {
            return Value::TRUE;
        }
        let message = format!("containers with unready status: [{unready}]");
        Value::is_false("ContainersNotReady", Some(message))
    }

    fn ready(&self, containers_ready: &Value, previous: &[PodCondition]) -> Value {
        if containers_ready.status != ConditionStatus::True {
            return containers_ready.clone();
        }
        let unmet: Vec<String> = self
            .readiness_gates
            .iter()
            .filter_map(|gate| {
                let found = previous.iter().find(|condition| condition.r#type == *gate);
                match found.map(|condition| condition.status) {
                    Some(ConditionStatus::True) => None,
                    Some(status) => Some(format!(
                        "the status of pod readiness gate \"{gate}\" is not \"True\", but {status:?}"
                    )),
                    None => Some(format!(
                        "corresponding condition of pod readiness gate \"{gate}\" does not exist."
                    )),
                }
            })
            .collect();
        if unmet.is_empty() {
            return Value::TRUE;
        }
        Value::is_false("ReadinessGatesNotReady", Some(unmet.join(", ")))
    }

    /// The names of containers, as Go prints a list.
    fn names(&self, wanted: impl Fn(ContainerRole, &ContainerStatus) -> bool) -> String {
        let names: Vec<&str> = self
            .containers
            .list
            .iter()
            .filter(|container| wanted(container.role, &container.status))
            .map(|container| container.status.name.as_str())
            .collect();
        names.join(" ")
    }
}

#[cfg(test)]
mod tests;
