//! What a pod and its containers are, and what happens next. Pure: the driver acts.
//!
//! ```text
//! container   Waiting ──start──► Starting ──► Running ──exit──► BackOff ──due──► Starting
//!                                   │                    └────► Ended (terminal)
//!                                   └─────► Faulty ──due──► Starting
//!             within Running: the postStart hook, what probes find (`health`), the way to the end (`termination`)
//! pod         Active ──(deleted, deadline, completed, failed, sandbox gone)──► Terminating ──► Over (terminal)
//!                ▲──────────(sandbox gone, may restart; all containers restart)──────┘
//! ```
//!
//! Starts are serial, as in a kubelet: a container is created when the one before it runs and its postStart hook has
//! returned. The rules and their sources: `SyncPod`, `computePodActions` and `killContainer` in the kubelet's
//! `kuberuntime`.

use std::time::Duration;

use jiff::Timestamp;

pub(super) use self::exit::{RESTARTED_ALL, RESTARTING_ALL};
pub(super) use self::health::Health;
pub(super) use self::member::{Ended, Member, PostStart, State};
pub(super) use self::termination::Halt;
use super::probe::Kind;
use super::restart::{BackOff, Next};
use crate::model::event::EventType;
use crate::model::plan::{ContainerRole, PodPlan, RestartPolicy};
use crate::protocol::{FailureClass, LaunchFailure, Progress};

/// What a pod gets that takes too much of the disk (`immediateEvictionGracePeriodSeconds`).
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// A moment: for people, and for measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    /// Since any fixed moment; does not jump.
    pub(super) monotonic: Duration,
}

/// A container by its position: init containers first, in the manifest's order.
pub(super) type Index = usize;

mod exit;
mod health;
mod member;
mod start;
mod termination;

/// A container's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    PostStart,
    PreStop,
}

/// How a hook returned, with what its failure has to say.
pub(super) type Outcome = Result<(), String>;

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
    /// A hook of the run with this id returned.
    Hooked {
        container: Index,
        id: String,
        hook: Hook,
        outcome: Outcome,
    },
    /// A probe of the run with this id has a new verdict.
    Probed {
        container: Index,
        id: String,
        kind: Kind,
        succeeded: bool,
    },
    /// The run with this id is to end and to be followed by another one, if its container is ever started again.
    RestartContainer {
        container: Index,
        id: String,
        /// Of the `Killing` event.
        message: String,
    },
    Exited {
        container: Index,
        exit: Exit,
    },
    /// The pause process ended without having been told to.
    SandboxGone,
    /// The driver made a new sandbox after [`Action::RestartSandbox`].
    SandboxReady,
    /// The driver could not make one.
    SandboxFailed,
    Stop {
        grace: Option<Duration>,
        cause: Cause,
    },
    /// The pod takes more of the disk than it may.
    Evict {
        message: String,
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
    /// There is no image for it, and none was asked for. Tried again until there is.
    Image {
        reason: &'static str,
        /// What the event is called that says why.
        event: &'static str,
        message: String,
    },
    /// It got no image. Tried again after longer and longer waits.
    Pull { image: String, message: String },
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
    /// A container's rule restarts all: the pod goes on in its sandbox.
    RestartAll,
    /// It took more of the disk than it may.
    Evicted,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Start {
        container: Index,
        attempt: u32,
    },
    /// Run the hook and say `Hooked`.
    PostStart(Index),
    PreStop(Index),
    /// Probe the present run from now on.
    Probe {
        container: Index,
        kind: Kind,
    },
    /// End the probes of the present run, but not that of its readiness.
    LeaveReadiness(Index),
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
    /// Make a new sandbox and say `SandboxReady` or `SandboxFailed`.
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
        /// When the grace period ends. `None`: there is none.
        until: Option<Duration>,
    },
    /// Everything has ended with the old sandbox; the driver makes a new one.
    Resurrecting {
        /// When it tries that again, if it failed.
        retry: Option<Duration>,
    },
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
    /// The container that was started last: the kubelet tries those behind it before it tries one again.
    cursor: Option<Index>,
    /// Why it was evicted, in the kubelet's words.
    pub(super) evicted: Option<String>,
}

impl Stage {
    /// Whether nobody wants the pod to end: if its containers do, it is to run again, as far as they may.
    pub(super) fn goes_on(self) -> bool {
        match self {
            Self::Active | Self::Resurrecting { .. } => true,
            Self::Terminating { cause, .. } => match cause {
                Cause::SandboxGone | Cause::RestartAll => true,
                Cause::Deleted
                | Cause::DeadlineExceeded
                | Cause::BackoffLimitExceeded
                | Cause::Completed
                | Cause::InitFailed
                | Cause::Evicted => false,
            },
            Self::Over(_) => false,
        }
    }
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
                    done: false,
                    back_off: BackOff::default(),
                    failed_pulls: 0,
                    hooks: container.hooks.clone(),
                    own: container.restarts.clone(),
                    probes: container.probes.clone(),
                })
                .collect(),
            stage: Stage::Active,
            started: now.wall,
            begun: now.monotonic,
            told: false,
            cursor: None,
            evicted: None,
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

    /// Whether a rule may restart all containers; if so, whether one does at this moment.
    pub(super) fn restarts_all(&self) -> Option<bool> {
        let mut members = self.members.iter();
        let may = members.any(|member| member.own.may_restart_all());
        let cause = Cause::RestartAll;
        may.then_some(matches!(self.stage, Stage::Terminating { cause: now, .. } if now == cause))
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
            Event::Hooked {
                container,
                id,
                hook,
                outcome,
            } => match hook {
                Hook::PostStart if self.runs(container, &id) => {
                    self.post_start_over(container, outcome, now, &mut actions);
                }
                // The container was quicker.
                Hook::PostStart => {}
                Hook::PreStop => self.pre_stop_over(container, &id, &outcome, now, &mut actions),
            },
            Event::RestartContainer {
                container,
                id,
                message,
            } => {
                if self.runs(container, &id) && self.comes_back(container) {
                    self.stop_container(container, self.grace, message, now, &mut actions);
                }
            }
            Event::Probed {
                container,
                id,
                kind,
                succeeded,
            } => {
                if self.runs(container, &id) {
                    self.probed(container, kind, succeeded, now, &mut actions);
                }
            }
            Event::Exited { container, exit } => self.exited(container, exit, now, &mut actions),
            Event::SandboxGone => self.sandbox_gone(now, &mut actions),
            Event::SandboxReady if matches!(self.stage, Stage::Resurrecting { .. }) => {
                self.start_over();
            }
            // Somebody ended the pod meanwhile.
            Event::SandboxReady => {}
            Event::SandboxFailed => {
                if let Stage::Resurrecting { retry } = &mut self.stage {
                    *retry = Some(now.monotonic + start::FAULT_RETRY);
                }
            }
            Event::Stop { grace, cause } => {
                self.terminate(cause, grace.unwrap_or(self.grace), now);
            }
            Event::Evict { message } => {
                actions.push(Action::Report {
                    r#type: EventType::Warning,
                    reason: "Evicted",
                    message: message.clone(),
                    container: None,
                });
                self.evicted = Some(message);
                self.terminate(Cause::Evicted, EVICTION_GRACE, now);
            }
            Event::Tick => self.say_more(now, &mut actions),
        }
        self.settle(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_tick(&self) -> Option<Duration> {
        let deadline = self.deadline.map(|deadline| self.begun + deadline);
        let deadline = deadline.filter(|_| self.stage.goes_on());
        match self.stage {
            Stage::Active => {
                let starts = self.next_starts().map(|(_, due)| due);
                let starts = starts.chain(self.members.iter().filter_map(Member::says_more));
                starts.chain(deadline).chain(self.next_halts()).min()
            }
            Stage::Terminating { .. } => self.next_halts().chain(deadline).min(),
            Stage::Resurrecting { retry } => retry.into_iter().chain(deadline).min(),
            Stage::Over(_) => None,
        }
    }

    /// Whether the run with this id goes on.
    fn runs(&self, container: Index, id: &str) -> bool {
        let member = self.members.get(container);
        matches!(member.map(|member| &member.state), Some(State::Running { id: current, .. }) if current == id)
    }

    /// Everything is ended as with the pod, and runs again in another sandbox: what this one has seen the end of does not.
    fn sandbox_gone(&mut self, now: Now, actions: &mut Vec<Action>) {
        let restarts_all = match self.stage {
            Stage::Active => false,
            Stage::Terminating {
                cause: Cause::RestartAll,
                ..
            } => true,
            Stage::Terminating { .. } | Stage::Resurrecting { .. } | Stage::Over(_) => return,
        };
        for member in &mut self.members {
            let has_ended = matches!(member.state, State::Ended(_));
            member.done = has_ended && !restarts_all && member.role == ContainerRole::Main;
        }
        if self.policy != RestartPolicy::Never {
            actions.push(Action::Report {
                r#type: EventType::Normal,
                reason: "SandboxChanged",
                message: "Pod sandbox changed, it will be killed and re-created.".into(),
                container: None,
            });
        }
        self.terminate(Cause::SandboxGone, self.grace, now);
    }

    /// Every container runs again, init containers included, but for those that are done. A main container still waits for
    /// its back-off; of init containers nothing is left (`purgeInitContainers`).
    fn start_over(&mut self) {
        for index in 0..self.members.len() {
            if self.is_done(index) {
                continue;
            }
            let member = &mut self.members[index];
            let is_main = member.role == ContainerRole::Main;
            match std::mem::replace(&mut member.state, State::Waiting) {
                waits @ State::BackOff { .. } if is_main => member.state = waits,
                State::Ended(ended) | State::BackOff { ended, .. } => {
                    member.last = Some(ended);
                    member.restarts += 1;
                }
                State::Waiting | State::Starting | State::Running { .. } | State::Faulty { .. } => {
                }
            }
        }
        self.begin_again();
    }

    /// Whether a main container has ended for good: another sandbox does not bring it back. What was ended with the old one
    /// has not, unless it is never restarted.
    fn is_done(&self, container: Index) -> bool {
        let member = &self.members[container];
        match &member.state {
            State::Ended(ended) if member.role == ContainerRole::Main => {
                let is_last = self.next_after(container, ended.code) == Next::Nothing;
                member.done || (is_last && !self.starts_again(container))
            }
            State::Waiting
            | State::Starting
            | State::Running { .. }
            | State::BackOff { .. }
            | State::Faulty { .. }
            | State::Ended(_) => false,
        }
    }

    /// Begins with the first container, as if none had run.
    fn begin_again(&mut self) {
        self.stage = Stage::Active;
        self.cursor = None;
        for member in &mut self.members {
            member.has_run = false;
        }
    }

    fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.stage.goes_on() {
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
            } else if self.stage == Stage::Active
                && self.mains().all(|m| matches!(m.state, State::Ended(_)))
            {
                self.terminate(Cause::Completed, self.grace, now);
            }
        }
        if let Stage::Resurrecting { retry } = &mut self.stage
            && retry.take_if(|retry| *retry <= now.monotonic).is_some()
        {
            actions.push(Action::RestartSandbox);
        }
        self.press_on(now, actions);
        // Also a pod all of whose containers restart.
        if self.stage == Stage::Active {
            self.start_next(now, actions);
        }
        self.advance(now, actions);
    }

    fn finish(&mut self, cause: Cause, now: Now, actions: &mut Vec<Action>) {
        if cause == Cause::RestartAll {
            self.restart_all(now);
            return;
        }
        let mut mains = (0..self.members.len())
            .filter(|index| self.members[*index].role == ContainerRole::Main);
        if cause == Cause::SandboxGone
            && self.policy != RestartPolicy::Never
            && mains.any(|index| !self.is_done(index))
        {
            actions.push(Action::RestartSandbox);
            self.stage = Stage::Resurrecting { retry: None };
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
