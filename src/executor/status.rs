//! The pod's state in the words of `v1.PodStatus` (`kubelet_pods.go:generateAPIPodStatus`). Pure.
//!
//! Containers first, each by what the state machine says of it; the phase and the conditions are read off their
//! statuses and nothing else, as in a kubelet.

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::conditions::Conditions;
use super::lifecycle::{
    Cause, DEADLINE_EXCEEDED, Ended, Index, Member, Pod, RESTARTED_ALL, RESTARTING_ALL, Stage,
    State,
};
use crate::model::plan::{ContainerRole, RestartPolicy};
use crate::model::status::{
    ContainerState, ContainerStatus, ContainerUser, Ip, LastState, Phase, PodStatus, Running,
    Terminated, Waiting,
};

mod conditions;
mod facts;
mod phase;

pub(super) use self::facts::{ContainerFacts, Facts};

/// What is known of a container since it was started, by its index.
pub(super) type Observed = BTreeMap<Index, Observation>;

/// What a container turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) user: ContainerUser,
    /// `SIGTERM`
    pub(super) stop_signal: String,
}

/// The pod's status at `now`; `previous` supplies the times of conditions that did not change.
pub(super) fn of(
    pod: &Pod,
    facts: &Facts,
    observed: &Observed,
    previous: &PodStatus,
    now: Timestamp,
) -> PodStatus {
    let mut status = PodStatus {
        observed_generation: Some(facts.generation.0),
        start_time: Some(pod.started),
        host_ip: facts.host_ip.clone(),
        host_ips: facts.host_ip.iter().cloned().map(ip).collect(),
        pod_ip: facts.pod_ips.first().cloned(),
        pod_ips: facts.pod_ips.iter().cloned().map(ip).collect(),
        qos_class: facts.qos_class,
        ..PodStatus::default()
    };
    for (index, (member, of_it)) in pod.members.iter().zip(&facts.containers).enumerate() {
        let container = container_status(pod, member, of_it, observed.get(&index));
        match member.role {
            ContainerRole::Init | ContainerRole::Sidecar => {
                status.init_container_statuses.push(container);
            }
            ContainerRole::Main => status.container_statuses.push(container),
        }
    }
    let is_over = matches!(pod.stage, Stage::Over(_));
    let containers = Containers::new(pod, &status);
    status.phase = match pod.stage {
        Stage::Over(cause) => final_phase(&containers, cause),
        Stage::Active | Stage::Terminating { .. } | Stage::Resurrecting { .. } => {
            match phase::phase(&containers) {
                // Not before everything has ended (`status_manager.go:mergePodStatus`).
                Phase::Succeeded | Phase::Failed => previous.phase,
                lasting @ (Phase::Pending | Phase::Running) => lasting,
            }
        }
    };
    status.conditions = Conditions {
        containers: &containers,
        phase: status.phase,
        has_sandbox: has_sandbox(pod.stage),
        generation: facts.generation,
        readiness_gates: &facts.readiness_gates,
        restarts_all: pod.restarts_all(),
        now,
    }
    .list(&previous.conditions);
    status
        .container_statuses
        .sort_by(|a, b| a.name.cmp(&b.name));
    if is_over {
        status.terminate();
    }
    (status.reason, status.message) = end_reason(pod, status.phase);
    status
}

fn ip(ip: String) -> Ip {
    Ip { ip }
}

/// The statuses of a pod's containers, in the manifest's order, and what they are to the pod.
#[derive(Debug)]
struct Containers {
    list: Vec<Container>,
    /// Whether a main container of the present sandbox has ever run, which means that the pod has been initialized
    /// (`HasAnyActiveRegularContainerStarted`).
    has_main_run: bool,
}

/// One of them.
#[derive(Debug)]
struct Container {
    role: ContainerRole,
    status: ContainerStatus,
    /// Whether it has ended for good.
    is_over: bool,
}

impl Containers {
    fn new(pod: &Pod, status: &PodStatus) -> Self {
        let mut inits = status.init_container_statuses.iter();
        let mut mains = status.container_statuses.iter();
        let list = pod.members.iter().filter_map(|member| {
            let status = match member.role {
                ContainerRole::Init | ContainerRole::Sidecar => inits.next(),
                ContainerRole::Main => mains.next(),
            };
            Some(Container {
                role: member.role,
                status: status?.clone(),
                is_over: matches!(member.state, State::Ended(_)),
            })
        });
        Self {
            list: list.collect(),
            has_main_run: pod.has_main_run(),
        }
    }

    fn of_role(&self, role: ContainerRole) -> impl Iterator<Item = &Container> {
        let all = self.list.iter();
        all.filter(move |container| container.role == role)
    }
}

fn has_sandbox(stage: Stage) -> bool {
    match stage {
        Stage::Active => true,
        Stage::Terminating { cause, .. } => cause != Cause::SandboxGone,
        Stage::Resurrecting { .. } | Stage::Over(_) => false,
    }
}

/// What a pod that has ended came to. A pod that was ended from outside has succeeded only if its containers had
/// (or did, asked to stop).
fn final_phase(containers: &Containers, cause: Cause) -> Phase {
    let succeeded = containers.of_role(ContainerRole::Main).all(
        |main| matches!(&main.status.state, ContainerState::Terminated(end) if end.exit_code == 0),
    );
    match cause {
        Cause::Completed | Cause::Deleted | Cause::SandboxGone if succeeded => Phase::Succeeded,
        Cause::Completed
        | Cause::Deleted
        | Cause::DeadlineExceeded
        | Cause::BackoffLimitExceeded
        | Cause::InitFailed
        | Cause::Evicted
        | Cause::SandboxGone
        // Never the last one.
        | Cause::RestartAll => Phase::Failed,
    }
}

fn end_reason(pod: &Pod, phase: Phase) -> (Option<String>, Option<String>) {
    let Stage::Over(cause) = pod.stage else {
        return (None, None);
    };
    let (reason, message) = match cause {
        Cause::DeadlineExceeded => ("DeadlineExceeded", DEADLINE_EXCEEDED),
        Cause::BackoffLimitExceeded => (
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ),
        Cause::Evicted => ("Evicted", pod.evicted.as_deref().unwrap_or_default()),
        Cause::SandboxGone if phase == Phase::Failed && pod.policy() == RestartPolicy::Never => {
            ("SandboxGone", "the pod's namespaces were lost")
        }
        Cause::SandboxGone
        | Cause::Deleted
        | Cause::Completed
        | Cause::InitFailed
        | Cause::RestartAll => {
            return (None, None);
        }
    };
    (Some(reason.into()), Some(message.into()))
}

fn container_status(
    pod: &Pod,
    member: &Member,
    facts: &ContainerFacts,
    observed: Option<&Observation>,
) -> ContainerStatus {
    let (state, id) = container_state(pod, member);
    let is_removed = matches!(&member.state, State::BackOff { ended, .. } if ended.is_removed());
    let last = member.last.as_ref().filter(|ended| !ended.is_removed());
    let id = id.or_else(|| last.map(|ended| ended.id.as_str()));
    let id = id.filter(|_| !is_removed);
    let waits = matches!(state, ContainerState::Waiting(_));
    ContainerStatus {
        name: member.name.clone(),
        last_state: LastState {
            terminated: match &member.state {
                State::BackOff { ended, .. } if waits => Some(terminated(ended)),
                _ => member.last.as_ref().map(terminated),
            },
        },
        state,
        ready: match member.role {
            ContainerRole::Init => {
                matches!(&member.state, State::Ended(ended) if ended.code == 0)
            }
            ContainerRole::Sidecar | ContainerRole::Main => member.is_ready(),
        },
        // What was removed counts at once.
        restart_count: member.restarts + u32::from(is_removed),
        image: facts.image.clone(),
        image_id: facts.image_id.clone(),
        container_id: id.map(container_id),
        started: Some(member.is_started()),
        // These are of a container that is there, or was.
        allocated_resources: id.and(facts.resources.requests.clone()),
        resources: id.map(|_| facts.resources.clone()),
        volume_mounts: facts.volume_mounts.clone(),
        user: id.and(observed).map(|observed| observed.user.clone()),
        stop_signal: id
            .and(observed)
            .map(|observed| observed.stop_signal.clone()),
    }
}

/// The state, and the id of the container that it is about.
fn container_state<'a>(pod: &Pod, member: &'a Member) -> (ContainerState, Option<&'a str>) {
    let waiting = |reason: &str, message: Option<String>| {
        ContainerState::Waiting(Waiting {
            reason: reason.into(),
            message,
        })
    };
    match &member.state {
        State::Waiting | State::Starting if pod.has_inits() => {
            (waiting("PodInitializing", None), None)
        }
        State::Waiting | State::Starting => (waiting("ContainerCreating", None), None),
        // Not running to the outside before its postStart hook is done.
        State::Running { id, .. } if !member.is_up() => {
            let reason = match pod.has_inits() {
                true => "PodInitializing",
                false => "ContainerCreating",
            };
            (waiting(reason, None), Some(id))
        }
        State::Running { id, started, .. } => (
            ContainerState::Running(Running {
                started_at: *started,
            }),
            Some(id),
        ),
        State::BackOff {
            failed_hook: Some(message),
            ended,
            ..
        } if !matches!(pod.stage, Stage::Over(_)) => (
            waiting("PostStartHookError", Some(message.clone())),
            Some(&ended.id),
        ),
        State::BackOff { delay, ended, .. } if delay.is_zero() && ended.is_removed() => {
            let message = Some(RESTARTED_ALL.into());
            (waiting(RESTARTING_ALL, message), Some(&ended.id))
        }
        State::BackOff { delay, ended, .. } if !matches!(pod.stage, Stage::Over(_)) => {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(delay.as_secs()),
                member.name,
                pod.display_name()
            );
            (waiting("CrashLoopBackOff", Some(message)), Some(&ended.id))
        }
        State::Faulty {
            reason, message, ..
        } => (waiting(reason, Some(message.clone())), None),
        State::BackOff { ended, .. } | State::Ended(ended) => (
            ContainerState::Terminated(terminated(ended)),
            Some(&ended.id),
        ),
    }
}

fn terminated(ended: &Ended) -> Terminated {
    let known = !ended.is_removed();
    Terminated {
        exit_code: ended.code,
        signal: ended.signal,
        reason: ended.reason.into(),
        message: ended.message.clone(),
        started_at: known.then_some(ended.started),
        finished_at: known.then_some(ended.finished),
        container_id: known.then(|| container_id(&ended.id)),
    }
}

fn container_id(id: &str) -> String {
    format!("kplay://{id}")
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub(super) fn go_duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests;
