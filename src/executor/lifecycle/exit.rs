//! What the end of a run means: again, or for good (`container/helpers.go:ShouldContainerBeRestarted`).

use super::{Action, Cause, Ended, Exit, Index, Now, Pod, PostStart, Stage, State};
use crate::model::event::EventType;
use crate::model::plan::{ContainerRole, HookAction, RestartPolicy};
use crate::protocol::FailureClass;

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
            ..
        } = &member.state
        else {
            tracing::error!(
                container = member.name,
                "exit of a container that is not running"
            );
            return;
        };
        let post_start = post_start.clone();
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
        self.ended(container, ended, failed_hook, now, actions);
    }

    /// A container ended before its postStart hook returned, which fails any hook that needs it. Returns what is wrong.
    fn cut_short(&mut self, container: Index, actions: &mut Vec<Action>) -> Option<String> {
        match self.members[container].hooks.post_start {
            None | Some(HookAction::Sleep { .. }) => {
                self.up(container, actions);
                None
            }
            Some(HookAction::Exec { .. } | HookAction::TcpSocket) => {
                let message = "the container ended before its postStart hook".to_owned();
                self.post_start_failed(container, message.clone(), actions);
                Some(message)
            }
        }
    }

    /// A run is over: again, or for good?
    pub(super) fn ended(
        &mut self,
        container: Index,
        ended: Ended,
        failed_hook: Option<String>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let again = self.stage == Stage::Active && self.restarts_after(container, ended.code);
        let failed = ended.code != 0;
        if again && failed && self.is_backoff_limit_reached() {
            self.set_ended(container, ended);
            self.terminate(Cause::BackoffLimitExceeded, self.grace, now);
            return;
        }
        if !again {
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

    /// `ShouldContainerBeRestarted`.
    fn restarts_after(&self, container: Index, code: i32) -> bool {
        match self.members[container].role {
            ContainerRole::Sidecar => true,
            ContainerRole::Init => code != 0 && self.policy != RestartPolicy::Never,
            ContainerRole::Main => match self.policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => code != 0,
                RestartPolicy::Never => false,
            },
        }
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
