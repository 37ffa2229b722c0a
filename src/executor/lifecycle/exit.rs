//! What the end of a run means: again, or for good (`container/helpers.go:ShouldContainerBeRestarted`).

use std::time::Duration;

use super::{Action, Cause, Ended, Exit, Index, Now, Pod, PostStart, Stage, State};
use crate::executor::restart::{self, Next};
use crate::model::event::EventType;
use crate::model::plan::{ContainerRole, HookAction, RestartPolicy};
use crate::protocol::FailureClass;

/// The kubelet's reason and message for containers that a rule restarts with all others.
pub(in crate::executor) const RESTARTING_ALL: &str = "RestartingAllContainers";
pub(in crate::executor) const RESTARTED_ALL: &str =
    "The container is removed because RestartAllContainers in place";

impl Pod {
    pub(super) fn exited(
        &mut self,
        container: Index,
        exit: Exit,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get(container) else {
            return;
        };
        let State::Running {
            id,
            started,
            post_start,
            comes_back,
            ..
        } = &member.state
        else {
            tracing::error!(
                container = member.name,
                "exit of a container that is not running"
            );
            return;
        };
        let (post_start, comes_back) = (post_start.clone(), *comes_back);
        let reason = match exit.code {
            _ if exit.out_of_memory => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        let ended = Ended {
            code: exit.code,
            signal: exit.signal,
            reason,
            message: exit.message,
            started: *started,
            finished: now.wall,
            id: id.clone(),
        };
        let failed_hook = match post_start {
            PostStart::Done => None,
            PostStart::Failed(message) => Some(message),
            PostStart::Runs => self.cut_short(container, actions),
        };
        let next = match self.next_after(container, ended.code) {
            Next::Nothing if comes_back && self.starts_again(container) => Next::Again,
            next => next,
        };
        self.ended(container, ended, next, failed_hook, now, actions);
    }

    /// A container ended before its postStart hook returned, which fails any hook that needs it. Returns what is wrong.
    fn cut_short(&mut self, container: Index, actions: &mut Vec<Action>) -> Option<String> {
        match self.members[container].hooks.post_start {
            None | Some(HookAction::Sleep { .. }) => {
                self.up(container, actions);
                None
            }
            Some(HookAction::Exec { .. } | HookAction::HttpGet(_) | HookAction::TcpSocket) => {
                let message = "the container ended before its postStart hook".to_owned();
                self.post_start_failed(container, message.clone(), actions);
                Some(message)
            }
        }
    }

    /// A run is over, with what follows if the pod goes on.
    pub(super) fn ended(
        &mut self,
        container: Index,
        ended: Ended,
        next: Next,
        failed_hook: Option<String>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let next = match self.stage {
            Stage::Active => next,
            Stage::Terminating { .. } | Stage::Resurrecting { .. } | Stage::Over(_) => {
                Next::Nothing
            }
        };
        let failed = ended.code != 0;
        if next != Next::Nothing && self.is_backoff_limit_reached() {
            self.set_ended(container, ended);
            self.terminate(Cause::BackoffLimitExceeded, self.grace, now);
            return;
        }
        if next == Next::All {
            self.set_ended(container, ended);
            self.terminate(Cause::RestartAll, Duration::ZERO, now);
            return;
        }
        if next == Next::Nothing {
            let (role, code) = (self.members[container].role, ended.code);
            self.set_ended(container, ended);
            if role == ContainerRole::Init && failed && self.stage == Stage::Active {
                let name = &self.members[container].name;
                let message = format!("init container `{name}` exited with code {code}");
                self.fail_launch(FailureClass::Workload, container, "Error", message, actions);
                self.terminate(Cause::InitFailed, self.grace, now);
            }
            return;
        }
        let member = &mut self.members[container];
        let delay = member.back_off.delay(now.monotonic);
        let (role, code) = (member.role, ended.code);
        member.state = State::BackOff {
            until: now.monotonic + delay,
            delay,
            finished: now.monotonic,
            ended,
            failed_hook,
        };
        if delay.is_zero() {
            return;
        }
        actions.push(Action::Report {
            r#type: EventType::Warning,
            reason: "BackOff",
            message: format!(
                "Back-off restarting failed container {} in pod {}",
                self.members[container].name, self.display_name
            ),
            container: Some(container),
        });
        if role == ContainerRole::Init {
            let name = &self.members[container].name;
            let message = format!(
                "init container `{name}` exited with code {code} and is restarted with back-off"
            );
            self.fail_launch(
                FailureClass::Workload,
                container,
                "CrashLoopBackOff",
                message,
                actions,
            );
        }
    }

    fn set_ended(&mut self, container: Index, ended: Ended) {
        self.members[container].state = State::Ended(ended);
    }

    pub(super) fn next_after(&self, container: Index, code: i32) -> Next {
        let member = &self.members[container];
        restart::next(member.role, &member.own, self.policy, code)
    }

    /// Everything has ended because a rule wants all containers to run again: they do, each after its back-off. To the
    /// outside the runs that ended were taken away, as in a kubelet.
    pub(super) fn restart_all(&mut self, now: Now) {
        for member in &mut self.members {
            let state = std::mem::replace(&mut member.state, State::Waiting);
            let (State::Ended(ended) | State::BackOff { ended, .. }) = state else {
                continue;
            };
            let delay = member.back_off.delay(now.monotonic);
            member.state = State::BackOff {
                until: now.monotonic + delay,
                delay,
                finished: now.monotonic,
                ended: Ended {
                    code: 137,
                    signal: None,
                    reason: RESTARTING_ALL,
                    message: Some(RESTARTED_ALL.into()),
                    ..ended
                },
                failed_hook: None,
            };
        }
        self.begin_again();
    }

    /// Whether one more restart would fail the Job (`pastBackoffLimitOnFailure`).
    fn is_backoff_limit_reached(&self) -> bool {
        let restarts: u32 = self.members.iter().map(|member| member.restarts).sum();
        self.policy == RestartPolicy::OnFailure
            && self
                .backoff_limit
                .is_some_and(|limit| restarts + 1 >= limit.max(1))
    }
}
