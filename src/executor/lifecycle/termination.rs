//! How a pod is brought to its end: who gets which signal, and when
//! (`kuberuntime_container.go:killContainer`, `kuberuntime_termination_order.go`).

use std::time::Duration;

use super::{Action, Cause, Index, Member, Now, Pod, Stage, State, Told};
use crate::model::event::EventType;
use crate::model::plan::ContainerRole;

/// The least time between the stop signal and SIGKILL, unless the pod is to be killed at once
/// (`minimumGracePeriodInSeconds` in the kubelet).
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// How hard the pod is pressed to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Step {
    /// Each container gets its stop signal when its turn comes.
    Asked { until: Duration },
    /// The grace period is over: who waited for a turn has been told now, the others have been killed.
    Pressed { until: Duration },
    /// Whatever runs is killed.
    Killed,
}

impl Step {
    pub(super) fn until(self) -> Option<Duration> {
        match self {
            Self::Asked { until } | Self::Pressed { until } => Some(until),
            Self::Killed => None,
        }
    }
}

impl Pod {
    /// Begins a termination, or makes the one under way quicker: it never gets slower.
    pub(super) fn terminate(&mut self, cause: Cause, grace: Duration, now: Now) {
        let wanted = match grace {
            Duration::ZERO => Step::Killed,
            grace => Step::Asked {
                until: now.monotonic + grace.max(MINIMUM_GRACE),
            },
        };
        match &mut self.stage {
            Stage::Active => {
                self.stage = Stage::Terminating {
                    cause,
                    step: wanted,
                };
            }
            Stage::Resurrecting => {
                self.stage = Stage::Terminating {
                    cause,
                    step: Step::Killed,
                };
            }
            Stage::Terminating { cause: first, step } => {
                *step = sooner(*step, wanted);
                // Nobody wants a pod back that was told to end meanwhile.
                if *first == Cause::SandboxGone {
                    *first = cause;
                }
            }
            Stage::Over(_) => {}
        }
    }

    /// Who is told what now, or whether it is over.
    pub(super) fn press_on(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Stage::Terminating { cause, step } = self.stage else {
            return;
        };
        if !self.members.iter().any(lives) {
            self.finish(cause, actions);
            return;
        }
        let expired = step.until().is_some_and(|until| now.monotonic >= until);
        let next = match step {
            Step::Asked { .. } if expired && self.members.iter().any(is_untold) => Step::Pressed {
                until: now.monotonic + MINIMUM_GRACE,
            },
            Step::Asked { .. } | Step::Pressed { .. } if expired => Step::Killed,
            same => same,
        };
        self.stage = Stage::Terminating { cause, step: next };
        for index in 0..self.members.len() {
            let wish = match next {
                Step::Asked { .. } if self.is_turn_to_stop(index) => Told::Stop,
                Step::Asked { .. } => Told::Nothing,
                Step::Pressed { .. } if expired && !is_untold(&self.members[index]) => Told::Kill,
                Step::Pressed { .. } => Told::Stop,
                Step::Killed => Told::Kill,
            };
            self.signal(index, wish, actions);
        }
    }

    fn signal(&mut self, index: Index, wish: Told, actions: &mut Vec<Action>) {
        let member = &mut self.members[index];
        let State::Running { told, .. } = &mut member.state else {
            return;
        };
        if *told >= wish {
            return;
        }
        if *told == Told::Nothing {
            actions.push(Action::Report {
                r#type: EventType::Normal,
                reason: "Killing",
                message: format!("Stopping container {}", member.name),
                container: Some(index),
            });
        }
        *told = wish;
        actions.push(match wish {
            Told::Kill => Action::Kill(index),
            Told::Nothing | Told::Stop => Action::Stop(index),
        });
    }

    /// Mains and init containers at once; a sidecar after all mains and the sidecars behind it (KEP-753).
    fn is_turn_to_stop(&self, index: Index) -> bool {
        match self.members[index].role {
            ContainerRole::Init | ContainerRole::Main => true,
            ContainerRole::Sidecar => !self.members[index + 1..].iter().any(lives),
        }
    }
}

fn sooner(a: Step, b: Step) -> Step {
    match (a.until(), b.until()) {
        (Some(first), Some(second)) if second < first => match a {
            Step::Asked { .. } | Step::Killed => b,
            Step::Pressed { .. } => a,
        },
        (Some(_), Some(_)) => a,
        (None, _) | (_, None) => Step::Killed,
    }
}

fn lives(member: &Member) -> bool {
    matches!(member.state, State::Starting | State::Running { .. })
}

fn is_untold(member: &Member) -> bool {
    matches!(
        member.state,
        State::Running {
            told: Told::Nothing,
            ..
        }
    )
}
