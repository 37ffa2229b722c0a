//! `status.phase` of a pod that has not ended (`kubelet_pods.go:getPhase`).

use super::Containers;
use crate::model::plan::{ContainerRole, RestartPolicy};
use crate::model::status::{ContainerState, ContainerStatus, Phase};

/// How many containers of a kind are where.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    pending: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

/// The phase, from nothing but the containers' statuses.
pub(super) fn phase(containers: &Containers, policy: RestartPolicy) -> Phase {
    let mut inits = Count::default();
    let mut failed_init = false;
    for init in containers.of_role(ContainerRole::Init) {
        match end_code(init) {
            Some(0) if matches!(init.state, ContainerState::Terminated(_)) => {}
            Some(code) if code != 0 => failed_init = true,
            Some(_) | None => inits.pending += 1,
        }
    }
    if failed_init && policy == RestartPolicy::Never {
        return Phase::Failed;
    }
    let mut sidecars = Count::default();
    for sidecar in containers.of_role(ContainerRole::Sidecar) {
        match &sidecar.state {
            ContainerState::Running(_) => {
                sidecars.pending += usize::from(sidecar.started != Some(true));
                sidecars.running += 1;
            }
            // One that has ended does not count, whether it comes back or not.
            ContainerState::Terminated(_) => {}
            ContainerState::Waiting(_) if sidecar.last_state.terminated.is_some() => {}
            ContainerState::Waiting(_) => {
                sidecars.pending += 1;
                sidecars.waiting += 1;
            }
        }
    }
    let mut mains = Count::default();
    for main in containers.of_role(ContainerRole::Main) {
        match &main.state {
            ContainerState::Running(_) => mains.running += 1,
            ContainerState::Terminated(end) => {
                mains.stopped += 1;
                mains.succeeded += usize::from(end.exit_code == 0);
            }
            // It waits for its restart: such a pod is not pending.
            ContainerState::Waiting(_) if main.last_state.terminated.is_some() => {
                mains.stopped += 1;
            }
            ContainerState::Waiting(_) => mains.waiting += 1,
        }
    }
    let is_initializing = inits.pending > 0 || (sidecars.pending > 0 && !containers.has_main_run);
    if is_initializing || mains.waiting + sidecars.waiting > 0 {
        return Phase::Pending;
    }
    if mains.running + sidecars.running > 0 {
        return Phase::Running;
    }
    match policy {
        RestartPolicy::Always => Phase::Running,
        _ if mains.stopped == mains.succeeded => Phase::Succeeded,
        RestartPolicy::Never => Phase::Failed,
        RestartPolicy::OnFailure => Phase::Running,
    }
}

/// How the newest run that has ended ended, unless one is under way.
fn end_code(status: &ContainerStatus) -> Option<i32> {
    match &status.state {
        ContainerState::Terminated(end) => Some(end.exit_code),
        ContainerState::Waiting(_) => {
            let last = status.last_state.terminated.as_ref();
            last.map(|end| end.exit_code)
        }
        ContainerState::Running(_) => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
