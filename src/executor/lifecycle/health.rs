//! What the probes of a run have found, and what follows from it (`prober_manager.go:UpdatePodStatus`,
//! `kuberuntime_manager.go:computePodActions`).
//!
//! ```text
//! Starting ──(startup probe succeeds; there is none)──► Started ◄──readiness probe──► Ready
//!                                                          └──(no readiness probe)──────┘
//! ```
//!
//! Liveness and readiness probes begin with `Started`. A startup or liveness probe that fails has the container stopped,
//! and started again unless its policy is `Never`, whatever its exit code.

use std::time::Duration;

use super::{Action, Halt, Index, Now, Pod, Stage, State};
use crate::executor::probe::Kind;
use crate::model::plan::{ContainerRole, Probes, RestartPolicy};

/// How far a run is, as far as probes decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Health {
    /// Its startup probe has not succeeded yet.
    Starting,
    Started,
    Ready,
}

impl Health {
    /// Before any probe has been made.
    pub(super) fn new(probes: &Probes) -> Self {
        match probes {
            Probes {
                startup: Some(_), ..
            } => Self::Starting,
            _ => Self::started(probes),
        }
    }

    fn started(probes: &Probes) -> Self {
        match probes.readiness {
            Some(_) => Self::Started,
            None => Self::Ready,
        }
    }
}

impl Pod {
    /// A container has been started and its hook is done: it is probed from now on.
    pub(super) fn begin_probes(&mut self, container: Index, actions: &mut Vec<Action>) {
        let member = &self.members[container];
        if member.probes.startup.is_some() {
            let kind = Kind::Startup;
            actions.push(Action::Probe { container, kind });
        } else {
            self.becomes_started(container, actions);
        }
    }

    fn becomes_started(&mut self, container: Index, actions: &mut Vec<Action>) {
        let member = &mut self.members[container];
        if let State::Running { health, .. } = &mut member.state {
            *health = Health::started(&member.probes);
        }
        for (kind, probe) in [
            (Kind::Liveness, &member.probes.liveness),
            (Kind::Readiness, &member.probes.readiness),
        ] {
            if probe.is_some() {
                actions.push(Action::Probe { container, kind });
            }
        }
    }

    /// A probe of the present run has a new verdict.
    pub(super) fn probed(
        &mut self,
        container: Index,
        kind: Kind,
        succeeded: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let active = self.stage == Stage::Active;
        let State::Running { health, .. } = &mut self.members[container].state else {
            return;
        };
        match (kind, *health, succeeded) {
            (Kind::Readiness, Health::Started | Health::Ready, true) => *health = Health::Ready,
            (Kind::Readiness, Health::Started | Health::Ready, false) => *health = Health::Started,
            // What was asked before the pod's end began decides nothing any more.
            (Kind::Startup | Kind::Liveness, _, _) if !active => {}
            (Kind::Startup, Health::Starting, true) => self.becomes_started(container, actions),
            (Kind::Startup, Health::Starting, false)
            | (Kind::Liveness, Health::Started | Health::Ready, false) => {
                self.probe_failed(container, kind, now, actions);
            }
            (Kind::Startup, Health::Started | Health::Ready, _)
            | (Kind::Liveness, Health::Started | Health::Ready, true)
            | (Kind::Liveness | Kind::Readiness, Health::Starting, _) => {
                tracing::error!(container, %kind, ?health, succeeded, "a verdict out of turn");
            }
        }
    }

    fn probe_failed(&mut self, container: Index, kind: Kind, now: Now, actions: &mut Vec<Action>) {
        let member = &self.members[container];
        let probe = match kind {
            Kind::Startup => &member.probes.startup,
            Kind::Liveness => &member.probes.liveness,
            Kind::Readiness => &member.probes.readiness,
        };
        let own = probe
            .as_ref()
            .and_then(|probe| probe.termination_grace_period);
        let grace = own.map_or(self.grace, |seconds| Duration::from_secs(seconds.into()));
        if !self.comes_back(container) {
            return;
        }
        let again = self.starts_again(container);
        let member = &self.members[container];
        let (name, kind) = (&member.name, kind.to_string().to_lowercase());
        let message = match (member.role, again) {
            (ContainerRole::Init | ContainerRole::Sidecar, _) => {
                format!("Init container {name} failed {kind} probe")
            }
            (ContainerRole::Main, false) => format!("Container {name} failed {kind} probe"),
            (ContainerRole::Main, true) => {
                format!("Container {name} failed {kind} probe, will be restarted")
            }
        };
        self.stop_container(container, grace, message, now, actions);
    }

    /// Notes that a container is about to be ended to be started again; false if it is being ended already.
    pub(super) fn comes_back(&mut self, container: Index) -> bool {
        match &mut self.members[container].state {
            State::Running {
                halt: Halt::No,
                comes_back,
                ..
            } => {
                *comes_back = true;
                true
            }
            State::Waiting
            | State::Starting
            | State::Running { .. }
            | State::BackOff { .. }
            | State::Faulty { .. }
            | State::Ended(_) => false,
        }
    }

    /// Whether a container that was ended for it is started again: if it ever is.
    pub(super) fn starts_again(&self, container: Index) -> bool {
        let own = self.members[container].own.policy;
        own.unwrap_or(self.policy) != RestartPolicy::Never
    }
}
