//! How a container is brought to its end, alone or with its pod
//! (`kuberuntime_container.go:killContainer`, `kuberuntime_termination_order.go`).
//!
//! ```text
//! No ──► Hook ──► Turn ──► Signalled ──► Killed
//!        preStop  sidecar  stop signal   SIGKILL
//! ```
//!
//! Each step takes its time from the container's grace period, in whole seconds, and ends when that is over. Between
//! the stop signal and SIGKILL there are two seconds at least. Without any grace period there is SIGKILL only.

use std::time::Duration;

use super::{Action, Cause, Index, Member, Now, Outcome, Pod, Stage, State};
use crate::model::event::EventType;
use crate::model::plan::ContainerRole;

/// The least time between the stop signal and SIGKILL (`minimumGracePeriodInSeconds` in the kubelet).
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// How far a running container has been brought to its end. Each variant's `until` is when the next step comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Halt {
    /// Nobody wants it to end.
    No,
    /// Its preStop hook runs.
    Hook { since: Duration, until: Duration },
    /// Its preStop hook is over; a sidecar waits until those that need it have ended.
    Turn { since: Duration, until: Duration },
    /// It got its stop signal.
    Signalled { until: Duration },
    /// It got SIGKILL.
    Killed,
}

impl Halt {
    pub(super) fn until(self) -> Option<Duration> {
        match self {
            Self::Hook { until, .. } | Self::Turn { until, .. } | Self::Signalled { until } => {
                Some(until)
            }
            Self::No | Self::Killed => None,
        }
    }

    /// What is left of a grace period: whole seconds count.
    fn rest(since: Duration, until: Duration, now: Duration) -> Duration {
        let spent = Duration::from_secs(now.saturating_sub(since).as_secs());
        until.saturating_sub(since).saturating_sub(spent)
    }

    /// Makes the rest of it not longer than `grace`.
    fn hasten(&mut self, grace: Duration, now: Duration) {
        match self {
            Self::Hook { until, .. } | Self::Turn { until, .. } => {
                *until = (now + grace).min(*until);
            }
            Self::Signalled { until } => *until = (now + grace.max(MINIMUM_GRACE)).min(*until),
            Self::No | Self::Killed => {}
        }
    }
}

impl Pod {
    /// Begins a termination, or makes the one under way quicker: it never gets slower.
    pub(super) fn terminate(&mut self, cause: Cause, grace: Duration, now: Now) {
        let wanted = (!grace.is_zero()).then(|| now.monotonic + grace);
        match &mut self.stage {
            Stage::Active => {
                self.stage = Stage::Terminating {
                    cause,
                    until: wanted,
                };
            }
            Stage::Resurrecting { .. } => self.stage = Stage::Terminating { cause, until: None },
            Stage::Terminating {
                cause: first,
                until,
            } => {
                *until = wanted.and_then(|wanted| Some(wanted.min((*until)?)));
                // Nobody wants a pod back that was told to end meanwhile.
                if matches!(first, Cause::SandboxGone | Cause::RestartAll) {
                    *first = cause;
                }
            }
            Stage::Over(_) => return,
        }
        for member in &mut self.members {
            if let State::Running { halt, .. } = &mut member.state {
                halt.hasten(grace, now.monotonic);
            }
        }
    }

    /// Brings one running container to its end and leaves the rest to its restart policy.
    pub(super) fn stop_container(
        &mut self,
        container: Index,
        grace: Duration,
        message: String,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let until = (!grace.is_zero()).then(|| now.monotonic + grace);
        self.begin(container, until, message, now, actions);
    }

    /// When the next steps towards the ends of containers are due.
    pub(super) fn next_halts(&self) -> impl Iterator<Item = Duration> {
        self.members.iter().filter_map(|member| match member.state {
            State::Running { halt, .. } => halt.until(),
            _ => None,
        })
    }

    /// Who is told what now, or whether it is over.
    pub(super) fn press_on(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Stage::Terminating { cause, until } = self.stage else {
            return;
        };
        if !self.members.iter().any(lives) {
            self.finish(cause, now, actions);
            return;
        }
        for index in 0..self.members.len() {
            let message = match cause {
                Cause::RestartAll => "killing".to_owned(),
                _ => format!("Stopping container {}", self.members[index].name),
            };
            self.begin(index, until, message, now, actions);
            if until.is_none() {
                self.kill(index, actions);
            }
        }
    }

    /// The first step towards a container's end, if that was not made yet.
    fn begin(
        &mut self,
        index: Index,
        until: Option<Duration>,
        message: String,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let member = &mut self.members[index];
        let State::Running { halt, .. } = &mut member.state else {
            return;
        };
        if *halt != Halt::No {
            return;
        }
        actions.push(Action::Report {
            r#type: EventType::Normal,
            reason: "Killing",
            message,
            container: Some(index),
        });
        // Nobody else is to end it now. Whether it is ready still matters to its clients.
        if member.probes.liveness.is_some() || member.probes.startup.is_some() {
            actions.push(Action::LeaveReadiness(index));
        }
        let since = now.monotonic;
        match until {
            Some(until) if member.hooks.pre_stop.is_some() && until > since => {
                *halt = Halt::Hook { since, until };
                actions.push(Action::PreStop(index));
            }
            Some(until) => *halt = Halt::Turn { since, until },
            None => self.kill(index, actions),
        }
    }

    /// A preStop hook returned: what is left of the grace period is the container's.
    pub(super) fn pre_stop_over(
        &mut self,
        container: Index,
        id: &str,
        outcome: &Outcome,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        // Also if nobody waits for it any more.
        if outcome.is_err() {
            actions.push(Action::Report {
                r#type: EventType::Warning,
                reason: "FailedPreStopHook",
                // What the hook said may be secret.
                message: "PreStopHook failed".into(),
                container: Some(container),
            });
        }
        if let Some(member) = self.members.get_mut(container)
            && let State::Running { id: run, halt, .. } = &mut member.state
            && let Halt::Hook { since, until } = *halt
            && run == id
        {
            let now = now.monotonic;
            let until = now + Halt::rest(since, until, now);
            *halt = Halt::Turn { since: now, until };
        }
    }

    /// Takes the steps towards the end that are due.
    pub(super) fn advance(&mut self, now: Now, actions: &mut Vec<Action>) {
        for index in 0..self.members.len() {
            let is_turn = self.is_turn_to_stop(index);
            let State::Running { halt, .. } = &mut self.members[index].state else {
                continue;
            };
            let now = now.monotonic;
            if let Halt::Hook { until, .. } = *halt
                && now >= until
            {
                *halt = Halt::Turn { since: now, until };
            }
            match *halt {
                Halt::Turn { since, until } if is_turn || now >= until => {
                    let rest = Halt::rest(since, until, now).max(MINIMUM_GRACE);
                    *halt = Halt::Signalled { until: now + rest };
                    actions.push(Action::Stop(index));
                }
                Halt::Signalled { until } if now >= until => self.kill(index, actions),
                Halt::No
                | Halt::Hook { .. }
                | Halt::Turn { .. }
                | Halt::Signalled { .. }
                | Halt::Killed => {}
            }
        }
    }

    fn kill(&mut self, index: Index, actions: &mut Vec<Action>) {
        if let State::Running { halt, .. } = &mut self.members[index].state
            && *halt != Halt::Killed
        {
            *halt = Halt::Killed;
            actions.push(Action::Kill(index));
        }
    }

    /// Mains and init containers at once; a sidecar after all mains and the sidecars behind it (KEP-753). One that is
    /// stopped while its pod goes on waits for nobody.
    fn is_turn_to_stop(&self, index: Index) -> bool {
        let is_waited_for = |member: &Member| member.role != ContainerRole::Init && lives(member);
        match (self.stage, self.members[index].role) {
            (Stage::Terminating { .. }, ContainerRole::Sidecar) => {
                !self.members[index + 1..].iter().any(is_waited_for)
            }
            _ => true,
        }
    }
}

fn lives(member: &Member) -> bool {
    matches!(member.state, State::Starting | State::Running { .. })
}
