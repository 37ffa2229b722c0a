//! One container of the state machine.

use std::time::Duration;

use jiff::Timestamp;

use super::RESTARTING_ALL;
use super::health::Health;
use super::termination::Halt;
use crate::executor::restart::BackOff;
use crate::model::plan::{ContainerRole, Hooks, Probes, Restarts};

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) enum State {
    Waiting,
    Starting,
    Running {
        id: String,
        started: Timestamp,
        post_start: PostStart,
        health: Health,
        halt: Halt,
        /// Whether it is being ended to be started again (its probe failed, its resources changed), whatever its exit
        /// code is then.
        comes_back: bool,
    },
    BackOff {
        until: Duration,
        delay: Duration,
        finished: Duration,
        ended: Ended,
        /// Why the postStart hook of the run that ended failed.
        failed_hook: Option<String>,
    },
    Faulty {
        retry: Duration,
        reason: &'static str,
        message: String,
        /// When it is called a back-off, and in which words, if the wait is that long.
        then: Option<(Duration, String)>,
    },
    Ended(Ended),
}

/// Where the postStart hook of a run is. The container counts as started when it is done, and not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) enum PostStart {
    Runs,
    /// Also if there is none.
    Done,
    /// The run is being ended for it.
    Failed(String),
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) struct Ended {
    pub(in crate::executor) code: i32,
    pub(in crate::executor) signal: Option<i32>,
    pub(in crate::executor) reason: &'static str,
    pub(in crate::executor) message: Option<String>,
    pub(in crate::executor) started: Timestamp,
    pub(in crate::executor) finished: Timestamp,
    pub(in crate::executor) id: String,
}

impl Ended {
    /// Whether it was taken away to run again with all others: a kubelet knows nothing more of it then.
    pub(in crate::executor) fn is_removed(&self) -> bool {
        self.reason == RESTARTING_ALL
    }
}

/// A container with its history.
#[derive(Clone, Debug)]
pub(in crate::executor) struct Member {
    pub(in crate::executor) name: String,
    pub(in crate::executor) role: ContainerRole,
    pub(in crate::executor) state: State,
    /// How the run before the present one ended.
    pub(in crate::executor) last: Option<Ended>,
    pub(in crate::executor) restarts: u32,
    /// Whether a run of it got past its postStart hook in the present sandbox.
    pub(super) has_run: bool,
    /// Whether it had ended for good when the sandbox was lost.
    pub(super) done: bool,
    pub(super) back_off: BackOff,
    /// Since its image was there last.
    pub(super) failed_pulls: u32,
    pub(super) hooks: Hooks,
    pub(super) own: Restarts,
    pub(super) probes: Probes,
}

impl Member {
    /// Whether it runs and its postStart hook is done.
    pub(in crate::executor) fn is_up(&self) -> bool {
        matches!(
            self.state,
            State::Running {
                post_start: PostStart::Done,
                ..
            }
        )
    }

    /// Whether it runs and has been started, in the sense of `status.containerStatuses[].started`.
    pub(in crate::executor) fn is_started(&self) -> bool {
        self.is_up()
            && self
                .health()
                .is_some_and(|health| health != Health::Starting)
    }

    /// Whether it runs and is ready.
    pub(in crate::executor) fn is_ready(&self) -> bool {
        self.is_up() && self.health() == Some(Health::Ready)
    }

    fn health(&self) -> Option<Health> {
        match self.state {
            State::Running { health, .. } => Some(health),
            _ => None,
        }
    }

    /// Whether its start is under way, which lets nothing else be started.
    pub(super) fn is_starting(&self) -> bool {
        match &self.state {
            State::Starting => true,
            State::Running { post_start, .. } => *post_start != PostStart::Done,
            State::Waiting | State::BackOff { .. } | State::Faulty { .. } | State::Ended(_) => {
                false
            }
        }
    }

    /// When its long wait is called what it is.
    pub(super) fn says_more(&self) -> Option<Duration> {
        match &self.state {
            State::Faulty { then, .. } => then.as_ref().map(|(at, _)| *at),
            _ => None,
        }
    }

    /// When it is to be started, if it does not run and is not at its end.
    pub(super) fn start_due(&self) -> Option<Duration> {
        match self.state {
            State::Waiting => Some(Duration::ZERO),
            State::BackOff { until, .. } => Some(until),
            State::Faulty { retry, .. } => Some(retry),
            State::Starting | State::Running { .. } | State::Ended(_) => None,
        }
    }
}
