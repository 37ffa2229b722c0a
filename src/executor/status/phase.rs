//! `status.phase` of a pod that has not ended (`kubelet_pods.go:getPhase`).

use super::Containers;
use crate::model::plan::ContainerRole;
use crate::model::status::{ContainerState, Phase};

/// How many containers of a kind are where.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    pending: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    /// Of these, those that are not started again.
    over: usize,
    succeeded: usize,
}

/// The phase, from nothing but the containers' statuses and whether they are started again.
pub(super) fn phase(containers: &Containers) -> Phase {
    let mut inits = Count::default();
    let mut failed_init = false;
    for init in containers.of_role(ContainerRole::Init) {
        match &init.status.state {
            ContainerState::Terminated(end) if end.exit_code == 0 => {}
            ContainerState::Terminated(_) if init.is_over => failed_init = true,
            ContainerState::Terminated(_)
            | ContainerState::Running(_)
            | ContainerState::Waiting(_) => inits.pending += 1,
        }
    }
    if failed_init {
        return Phase::Failed;
    }
    let mut sidecars = Count::default();
    for sidecar in containers.of_role(ContainerRole::Sidecar) {
        let sidecar = &sidecar.status;
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
        match &main.status.state {
            ContainerState::Running(_) => mains.running += 1,
            ContainerState::Terminated(end) => {
                mains.stopped += 1;
                mains.over += usize::from(main.is_over);
                mains.succeeded += usize::from(end.exit_code == 0);
            }
            // It waits for its restart: such a pod is not pending.
            ContainerState::Waiting(_) if main.status.last_state.terminated.is_some() => {
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
    if mains.stopped > mains.over {
        Phase::Running
    } else if mains.stopped == mains.succeeded {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

#[cfg(test)]
pub(super) mod tests;
