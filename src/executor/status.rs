//! The pod's state in the words of `v1.PodStatus` (`kubelet_pods.go:generateAPIPodStatus`, `status/generate.go`). Pure.

use jiff::Timestamp;

use super::lifecycle::{Cause, DEADLINE_EXCEEDED, Ended, Member, Pod, Stage, State};
use crate::model::plan::{ContainerRole, RestartPolicy};
use crate::model::status::{
    ConditionStatus, ContainerState, ContainerStatus, LastState, Phase, PodCondition, PodStatus,
    QosClass, Running, Terminated, Waiting,
};

/// What a status says that does not change while the pod lives.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) host_ip: Option<String>,
    pub(super) qos_class: QosClass,
    /// Per container, in the members' order: the image as the manifest has it, and its id.
    pub(super) images: Vec<(String, String)>,
}

/// The pod's status at `now`; `previous` supplies the times of conditions that did not change.
pub(super) fn of(pod: &Pod, facts: &Facts, previous: &PodStatus, now: Timestamp) -> PodStatus {
    let phase = phase(pod);
    let (reason, message) = end_reason(pod);
    let has_inits = pod.members.iter().any(|m| m.role != ContainerRole::Main);
    let mut init_container_statuses = Vec::new();
    let mut container_statuses = Vec::new();
    for (member, image) in pod.members.iter().zip(&facts.images) {
        let status = container_status(pod, member, image, has_inits);
        match member.role {
            ContainerRole::Init | ContainerRole::Sidecar => init_container_statuses.push(status),
            ContainerRole::Main => container_statuses.push(status),
        }
    }
    container_statuses.sort_by(|a, b| a.name.cmp(&b.name));
    let mut conditions = conditions(pod, phase, now);
    for condition in &mut conditions {
        let unchanged = previous
            .conditions
            .iter()
            .find(|old| old.r#type == condition.r#type && old.status == condition.status);
        if let Some(old) = unchanged {
            condition.last_transition_time = old.last_transition_time;
        }
    }
    PodStatus {
        phase,
        reason,
        message,
        start_time: Some(pod.started),
        host_ip: facts.host_ip.clone(),
        pod_ip: None,
        pod_ips: Vec::new(),
        qos_class: facts.qos_class,
        conditions,
        init_container_statuses,
        container_statuses,
    }
}

/// `getPhase`.
fn phase(pod: &Pod) -> Phase {
    if let Stage::Over(cause) = pod.stage {
        return final_phase(pod, cause);
    }
    let mut waiting = 0;
    let mut initializing = false;
    for member in &pod.members {
        match (member.role, &member.state) {
            (ContainerRole::Init, State::Ended(ended)) if ended.code == 0 => {}
            (ContainerRole::Init, _) => initializing = true,
            (ContainerRole::Sidecar, _) => {}
            (
                ContainerRole::Main,
                State::Running { .. } | State::BackOff { .. } | State::Ended(_),
            ) => {}
            (ContainerRole::Main, State::Waiting | State::Starting | State::Faulty { .. }) => {
                waiting += usize::from(member.last.is_none());
            }
        }
    }
    // Containers that all have stopped are about to be restarted, or wait for their sidecars to end.
    if initializing || waiting > 0 {
        Phase::Pending
    } else {
        Phase::Running
    }
}

fn final_phase(pod: &Pod, cause: Cause) -> Phase {
    let succeeded = pod
        .members
        .iter()
        .filter(|member| member.role == ContainerRole::Main)
        .all(|member| matches!(&member.state, State::Ended(ended) if ended.code == 0));
    match cause {
        Cause::Completed | Cause::Deleted if succeeded => Phase::Succeeded,
        Cause::Completed
        | Cause::Deleted
        | Cause::DeadlineExceeded
        | Cause::BackoffLimitExceeded
        | Cause::InitFailed
        | Cause::SandboxGone => Phase::Failed,
    }
}

fn end_reason(pod: &Pod) -> (Option<String>, Option<String>) {
    let (Stage::Terminating { cause, .. } | Stage::Over(cause)) = pod.stage else {
        return (None, None);
    };
    let (reason, message) = match cause {
        Cause::DeadlineExceeded => ("DeadlineExceeded", DEADLINE_EXCEEDED),
        Cause::BackoffLimitExceeded => (
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ),
        Cause::SandboxGone if pod.policy() == RestartPolicy::Never => {
            ("SandboxGone", "the pod's namespaces were lost")
        }
        Cause::SandboxGone | Cause::Deleted | Cause::Completed | Cause::InitFailed => {
            return (None, None);
        }
    };
    (Some(reason.into()), Some(message.into()))
}

fn container_status(
    pod: &Pod,
    member: &Member,
    (image, image_id): &(String, String),
    has_inits: bool,
) -> ContainerStatus {
    let running = matches!(member.state, State::Running { .. });
    let (state, id) = container_state(pod, member, has_inits);
    ContainerStatus {
        name: member.name.clone(),
        state,
        last_state: LastState {
            terminated: match &member.state {
                State::BackOff { ended, .. } => Some(terminated(ended)),
                _ => member.last.as_ref().map(terminated),
            },
        },
        ready: match member.role {
            ContainerRole::Init => {
                matches!(&member.state, State::Ended(ended) if ended.code == 0)
            }
            ContainerRole::Sidecar | ContainerRole::Main => running,
        },
        restart_count: member.restarts,
        image: image.clone(),
        image_id: image_id.clone(),
        container_id: id.or_else(|| member.last.as_ref().map(|ended| container_id(&ended.id))),
        started: Some(running),
    }
}

fn container_state(
    pod: &Pod,
    member: &Member,
    has_inits: bool,
) -> (ContainerState, Option<String>) {
    let waiting = |reason: &str, message: Option<String>| {
        ContainerState::Waiting(Waiting {
            reason: reason.into(),
            message,
        })
    };
    match &member.state {
        State::Waiting | State::Starting if has_inits && !pod.is_initialized() => {
            (waiting("PodInitializing", None), None)
        }
        State::Waiting | State::Starting => (waiting("ContainerCreating", None), None),
        State::Running { id, started, .. } => (
            ContainerState::Running(Running {
                started_at: *started,
            }),
            Some(container_id(id)),
        ),
        State::BackOff { delay, ended, .. } => {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(delay.as_secs()),
                member.name,
                pod.display_name()
            );
            (
                waiting("CrashLoopBackOff", Some(message)),
                Some(container_id(&ended.id)),
            )
        }
        State::Faulty {
            reason, message, ..
        } => (waiting(reason, Some(message.clone())), None),
        State::Ended(ended) => (
            ContainerState::Terminated(terminated(ended)),
            Some(container_id(&ended.id)),
        ),
    }
}

fn terminated(ended: &Ended) -> Terminated {
    Terminated {
        exit_code: ended.code,
        signal: ended.signal,
        reason: ended.reason.into(),
        message: ended.message.clone(),
        started_at: ended.started,
        finished_at: ended.finished,
        container_id: Some(container_id(&ended.id)),
    }
}

fn container_id(id: &str) -> String {
    format!("kplay://{id}")
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn conditions(pod: &Pod, phase: Phase, now: Timestamp) -> Vec<PodCondition> {
    let condition = |r#type: &str, status, because: Option<(&str, Option<String>)>| {
        let (reason, message) = because.unzip();
        PodCondition {
            r#type: r#type.into(),
            status,
            reason: reason.map(str::to_owned),
            message: message.flatten(),
            last_transition_time: now,
        }
    };
    let terminal = match phase {
        Phase::Succeeded => Some(("PodCompleted", None)),
        Phase::Failed => Some(("PodFailed", None)),
        Phase::Pending | Phase::Running => None,
    };
    let names = |wanted: &dyn Fn(&Member) -> bool| {
        let names: Vec<_> = pod
            .members
            .iter()
            .filter(|member| wanted(member))
            .map(|member| member.name.as_str())
            .collect();
        names.join(" ")
    };
    let initialized = if phase == Phase::Succeeded {
        condition("Initialized", ConditionStatus::True, terminal.clone())
    } else if pod.is_initialized() {
        condition("Initialized", ConditionStatus::True, None)
    } else {
        let incomplete = names(&|member| match member.role {
            ContainerRole::Init => !matches!(&member.state, State::Ended(ended) if ended.code == 0),
            ContainerRole::Sidecar => !matches!(member.state, State::Running { .. }),
            ContainerRole::Main => false,
        });
        condition(
            "Initialized",
            ConditionStatus::False,
            Some((
                "ContainersNotInitialized",
                Some(format!("containers with incomplete status: [{incomplete}]")),
            )),
        )
    };
    let unready = names(&|member| {
        member.role != ContainerRole::Init && !matches!(member.state, State::Running { .. })
    });
    let (status, because) = match terminal {
        Some(because) => (ConditionStatus::False, Some(because)),
        None if unready.is_empty() => (ConditionStatus::True, None),
        None => (
            ConditionStatus::False,
            Some((
                "ContainersNotReady",
                Some(format!("containers with unready status: [{unready}]")),
            )),
        ),
    };
    let sandbox = match pod.stage {
        Stage::Over(_) | Stage::Resurrecting => ConditionStatus::False,
        Stage::Active | Stage::Terminating { .. } => ConditionStatus::True,
    };
    vec![
        condition("PodReadyToStartContainers", sandbox, None),
        initialized,
        condition("Ready", status, because.clone()),
        condition("ContainersReady", status, because),
        condition("PodScheduled", ConditionStatus::True, None),
    ]
}

#[cfg(test)]
mod tests;
