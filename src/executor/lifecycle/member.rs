//! One container of the state machine.

use std::time::Duration;

use jiff::Timestamp;

use crate::executor::restart::BackOff;
use crate::model::plan::ContainerRole;

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) enum State {
    Waiting,
    Starting,
    Running {
        id: String,
        started: Timestamp,
        told: Told,
    },
    BackOff {
        until: Duration,
        delay: Duration,
        finished: Duration,
        ended: Ended,
    },
    Faulty {
        retry: Duration,
        reason: &'static str,
        message: String,
    },
    Ended(Ended),
}

/// Which signals a running container got from the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::executor) enum Told {
    Nothing,
    Stop,
    Kill,
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

/// A container with its history.
#[derive(Clone, Debug)]
pub(in crate::executor) struct Member {
    pub(in crate::executor) name: String,
    pub(in crate::executor) role: ContainerRole,
    pub(in crate::executor) state: State,
    /// How the run before the present one ended.
    pub(in crate::executor) last: Option<Ended>,
    pub(in crate::executor) restarts: u32,
    pub(super) has_run: bool,
    pub(super) back_off: BackOff,
}

impl Member {
    /// Whether the containers behind it may start.
    pub(super) fn lets_the_next_start(&self) -> bool {
        match self.role {
            ContainerRole::Init => matches!(&self.state, State::Ended(ended) if ended.code == 0),
            ContainerRole::Sidecar => self.has_run,
            ContainerRole::Main => true,
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
