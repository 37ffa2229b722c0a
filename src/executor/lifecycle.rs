//! What a pod and its containers are, and what happens next. Pure: the driver acts.
//!
//! ```text
//! container   Waiting ──start──► Starting ──► Running ──exit──► BackOff ──due──► Starting
//!                                   │                    └────► Ended (terminal)
//!                                   └─────► Faulty ──due──► Starting
//! pod         Active ──(deleted, deadline, completed, failed, sandbox gone)──► Terminating ──► Over (terminal)
//!                ▲───────────────────(sandbox gone, may restart)─────────────────────┘
//! ```
//!
//! Starts are serial, as in a kubelet: a container is created when the one before it runs. The rules and their
//! sources: `SyncPod`, `computePodActions` and `killContainer` in the kubelet's `kuberuntime`.

use std::time::Duration;

use jiff::Timestamp;

pub(super) use self::member::{Ended, Member, State, Told};
pub(super) use self::termination::Step;
use super::restart::BackOff;
use crate::model::event::EventType;
use crate::model::plan::{ContainerRole, PodPlan, RestartPolicy};
use crate::protocol::{FailureClass, LaunchFailure, Progress};

/// How soon a container that could not be created is tried again (the kubelet's sync period).
const FAULT_RETRY: Duration = Duration::from_secs(10);

/// A moment: for people, and for measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    /// Since any fixed moment; does not jump.
    pub(super) monotonic: Duration,
}

/// A container by its position: init containers first, in the manifest's order.
pub(super) type Index = usize;

mod member;
mod termination;

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Started {
        container: Index,
        id: String,
    },
    NotStarted {
        container: Index,
        fault: Fault,
    },
    Exited {
        container: Index,
        exit: Exit,
    },
    /// The pause process ended without having been told to.
    SandboxGone,
    /// The driver made a new sandbox after [`Action::RestartSandbox`].
    SandboxReady,
    Stop {
        grace: Option<Duration>,
        cause: Cause,
    },
    /// Time passed.
    Tick,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never came to be: bad configuration or a machine that said no. Tried again until it works.
    Create {
        reason: &'static str,
        message: String,
        class: FailureClass,
    },
    /// It was created and could not execute its command: counts as an exit with code 128, as in containerd.
    Start { id: String, message: String },
}

/// How a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// 128 + signal for a signal.
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) out_of_memory: bool,
    pub(super) message: Option<String>,
}

/// Why a pod is terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody asked for it.
    Deleted,
    DeadlineExceeded,
    BackoffLimitExceeded,
    /// All main containers have ended for good.
    Completed,
    /// An init container failed and may not be restarted.
    InitFailed,
    SandboxGone,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Start {
        container: Index,
        attempt: u32,
    },
    /// The container's stop signal.
    Stop(Index),
    /// SIGKILL, to all of the container.
    Kill(Index),
    Report {
        r#type: EventType,
        reason: &'static str,
        message: String,
        container: Option<Index>,
    },
    Tell(Progress),
    /// Make a new sandbox and say `SandboxReady`.
    RestartSandbox,
    /// Nothing runs any more and nothing will.
    End,
}

/// Where the pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Active,
    Terminating {
        cause: Cause,
        step: Step,
    },
    /// Everything has ended with the old sandbox; the driver makes a new one.
    Resurrecting,
    Over(Cause),
}

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    display_name: String,
    policy: RestartPolicy,
    grace: Duration,
    deadline: Option<Duration>,
    backoff_limit: Option<u32>,
    pub(super) members: Vec<Member>,
    pub(super) stage: Stage,
    /// `status.startTime`.
    pub(super) started: Timestamp,
    begun: Duration,
    told: bool,
}

impl Pod {
    /// A pod whose sandbox is ready.
    pub(super) fn new(plan: &PodPlan, uid: &str, now: Now) -> Self {
        Self {
            display_name: format!("{}_{}({uid})", plan.name, plan.namespace),
            policy: plan.restart_policy,
            grace: Duration::from_secs(plan.termination_grace_period.into()),
            deadline: plan.active_deadline.map(Duration::from_secs),
            backoff_limit: plan.backoff_limit,
            members: plan
                .all_containers()
                .map(|container| Member {
                    name: container.name.to_string(),
                    role: container.role,
                    state: State::Waiting,
                    last: None,
                    restarts: 0,
                    has_run: false,
                    back_off: BackOff::default(),
                })
                .collect(),
            stage: Stage::Active,
            started: now.wall,
            begun: now.monotonic,
            told: false,
        }
    }

    /// `pod_namespace(uid)`, as the kubelet's messages have it.
    pub(super) fn display_name(&self) -> &str {
        &self.display_name
    }

    /// The pod's restart policy.
    pub(super) fn policy(&self) -> RestartPolicy {
        self.policy
    }

    /// Whether it has containers that run before its main ones.
    pub(super) fn has_inits(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.role != ContainerRole::Main)
    }

    /// Whether a main container has run in the present sandbox.
    pub(super) fn has_main_run(&self) -> bool {
        self.mains().any(|main| main.has_run)
    }

    /// Takes in what happened and says what to do about it.
    pub(super) fn on(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Started { container, id } => self.started(container, id, now, &mut actions),
            Event::NotStarted { container, fault } => {
                self.not_started(container, fault, now, &mut actions);
            }
            Event::Exited { container, exit } => self.exited(container, exit, now, &mut actions),
            Event::SandboxGone => self.sandbox_gone(now, &mut actions),
            Event::SandboxReady => self.start_over(),
            Event::Stop { grace, cause } => {
                self.terminate(cause, grace.unwrap_or(self.grace), now);
            }
            Event::Tick => {}
        }
        self.settle(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_tick(&self) -> Option<Duration> {
        match self.stage {
            Stage::Active => {
                let starts = self.next_starts().map(|(_, due)| due);
                starts
                    .chain(self.deadline.map(|deadline| self.begun + deadline))
                    .min()
            }
            Stage::Terminating { step, .. } => step.until(),
            Stage::Resurrecting | Stage::Over(_) => None,
        }
    }

    fn started(&mut self, container: Index, id: String, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(container) else {
            return;
        };
        member.has_run = true;
        member.state = State::Running {
            id,
            started: now.wall,
            told: Told::Nothing,
        };
        actions.push(Action::Report {
            r#type: EventType::Normal,
            reason: "Started",
            message: format!("Started container {}", member.name),
            container: Some(container),
        });
        let all_run = self.mains().all(|main| main.has_run);
        if all_run {
            self.tell(Progress::Started, actions);
        }
    }

    fn not_started(&mut self, container: Index, fault: Fault, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(container) else {
            return;
        };
        let (class, reason, message) = match fault {
            Fault::Create {
                reason,
                message,
                class,
            } => {
                member.state = State::Faulty {
                    retry: now.monotonic + FAULT_RETRY,
                    reason,
                    message: message.clone(),
                };
                (class, reason, message)
            }
            Fault::Start { id, message } => {
                let ended = Ended {
                    code: 128,
                    signal: None,
                    reason: "StartError",
                    message: Some(message.clone()),
                    started: Timestamp::UNIX_EPOCH,
                    finished: now.wall,
                    id,
                };
                self.ended(container, ended, now, actions);
                (FailureClass::Start, "StartError", message)
            }
        };
        actions.push(Action::Report {
            r#type: EventType::Warning,
            reason: "Failed",
            message: format!("Error: {message}"),
            container: Some(container),
        });
        self.fail_launch(class, container, reason, message, actions);
    }

    fn exited(&mut self, container: Index, exit: Exit, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get(container) else {
            return;
        };
        let State::Running { id, started, .. } = &member.state else {
            tracing::error!(
                container = member.name,
                "exit of a container that is not running"
            );
            return;
        };
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
        self.ended(container, ended, now, actions);
    }

    /// A run is over: again, or for good?
    fn ended(&mut self, container: Index, ended: Ended, now: Now, actions: &mut Vec<Action>) {
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

    fn sandbox_gone(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.stage != Stage::Active {
            return;
        }
        actions.push(Action::Report {
            r#type: EventType::Normal,
            reason: "SandboxChanged",
            message: "Pod sandbox changed, it will be killed and re-created.".into(),
            container: None,
        });
        self.terminate(Cause::SandboxGone, Duration::ZERO, now);
    }

    /// With a new sandbox every container runs again, init containers included.
    fn start_over(&mut self) {
        if self.stage != Stage::Resurrecting {
            return;
        }
        self.stage = Stage::Active;
        for member in &mut self.members {
            member.has_run = false;
            let state = std::mem::replace(&mut member.state, State::Waiting);
            if let State::Ended(ended) | State::BackOff { ended, .. } = state {
                member.last = Some(ended);
                member.restarts += 1;
            }
        }
    }

    fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.stage == Stage::Active {
            let overdue = self
                .deadline
                .is_some_and(|deadline| now.monotonic >= self.begun + deadline);
            if overdue {
                actions.push(Action::Report {
                    r#type: EventType::Normal,
                    reason: "DeadlineExceeded",
                    message: DEADLINE_EXCEEDED.into(),
                    container: None,
                });
                self.terminate(Cause::DeadlineExceeded, self.grace, now);
            } else if self.mains().all(|m| matches!(m.state, State::Ended(_))) {
                self.terminate(Cause::Completed, self.grace, now);
            }
        }
        match self.stage {
            Stage::Active => {
                let next = self.next_starts().find(|(_, due)| *due <= now.monotonic);
                if let Some((container, _)) = next {
                    self.start(container, now, actions);
                }
            }
            Stage::Terminating { .. } => self.press_on(now, actions),
            Stage::Resurrecting | Stage::Over(_) => {}
        }
    }

    /// The containers that may be started before any other event, in order, and when. None while one is being
    /// started.
    fn next_starts(&self) -> impl Iterator<Item = (Index, Duration)> {
        let busy = self.members.iter().any(|m| m.state == State::Starting);
        let mut blocked = busy;
        let reachable = self
            .members
            .iter()
            .enumerate()
            .take_while(move |(_, member)| {
                let reached = !blocked;
                blocked |= !member.lets_the_next_start();
                reached
            });
        reachable.filter_map(|(index, member)| Some((index, member.start_due()?)))
    }

    fn start(&mut self, container: Index, now: Now, actions: &mut Vec<Action>) {
        let member = &mut self.members[container];
        if let State::BackOff {
            finished, ended, ..
        } = std::mem::replace(&mut member.state, State::Starting)
        {
            member.back_off.restarted(finished, now.monotonic);
            member.last = Some(ended);
            member.restarts += 1;
        }
        actions.push(Action::Start {
            container,
            attempt: member.restarts,
        });
    }

    fn finish(&mut self, cause: Cause, actions: &mut Vec<Action>) {
        if cause == Cause::SandboxGone && self.policy != RestartPolicy::Never {
            actions.push(Action::RestartSandbox);
            self.stage = Stage::Resurrecting;
            return;
        }
        self.stage = Stage::Over(cause);
        if !self.told {
            let failure = LaunchFailure {
                class: FailureClass::Workload,
                container: None,
                reason: "PodEnded".into(),
                message: "the pod ended before its containers were started".into(),
            };
            self.tell(Progress::Failed(failure), actions);
        }
        actions.push(Action::End);
    }

    fn fail_launch(
        &mut self,
        class: FailureClass,
        container: Index,
        reason: &str,
        message: String,
        actions: &mut Vec<Action>,
    ) {
        let container =
            crate::model::names::ContainerName::parse(&self.members[container].name).ok();
        let failure = LaunchFailure {
            class,
            container,
            reason: reason.into(),
            message,
        };
        self.tell(Progress::Failed(failure), actions);
    }

    fn tell(&mut self, progress: Progress, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.told, true) {
            actions.push(Action::Tell(progress));
        }
    }

    fn mains(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.role == ContainerRole::Main)
    }
}

/// The kubelet's message (`active_deadline.go`).
pub(super) const DEADLINE_EXCEEDED: &str =
    "Pod was active on the node longer than the specified deadline";

#[cfg(test)]
mod tests;
