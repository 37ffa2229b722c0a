//! What can go wrong before a pod exists and after it has gone.

use std::io;

use super::services::Fault;
use crate::model::image::ImageUser;
use crate::model::names::{ObjectKey, PodKey};
use crate::model::reference::Reference;
use crate::network;
use crate::protocol::{FailureClass, LaunchFailure, Refusal};
use crate::state;
use crate::sys;

/// Why the manager could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was changed on the machine.
    #[error("{} of the images cannot be had", .0.len())]
    Images(Vec<MissingImage>),
    /// Not [`state::Error::Interrupted`], which becomes [`Error::Interrupted`].
    #[error(transparent)]
    State(state::Error),
    #[error("cannot clean up the network")]
    Network(#[from] network::Error),
    #[error("the pod `{pod}` belongs to {owner} of other files")]
    Conflict { pod: PodKey, owner: ObjectKey },
    #[error("the Service `{}` {fault}", .service.name)]
    Service {
        service: ObjectKey,
        fault: Box<Fault>,
    },
    /// The API server's words, as kubectl tells them.
    #[error("the {} \"{}\" is invalid: {field}: Forbidden: field is immutable when `immutable` is set", key.kind, key.name)]
    Immutable { key: ObjectKey, field: &'static str },
    /// Nothing was changed on the machine.
    #[error(transparent)]
    Port(Box<super::ports::Taken>),
    #[error(transparent)]
    Forward(#[from] super::port_forward::Fault),
    #[error("the claim `{claim}` is in use by the pod `{pod}`")]
    InUse { claim: String, pod: PodKey },
    #[error("cannot {verb}")]
    Io {
        verb: &'static str,
        source: io::Error,
    },
    #[error(
        "no ids are left for the users of the pod `{pod}` (`hostUsers: false`): other pods have all of {all}"
    )]
    NoIds { pod: PodKey, all: String },
    #[error("pods cannot be started: kplay is not root here (it lacks CAP_SYS_ADMIN)")]
    NotRoot,
    #[error(transparent)]
    Rootless(#[from] super::rootless::Error),
    #[error("cannot start an executor for the pod `{pod}`")]
    Spawn { pod: PodKey, source: io::Error },
    #[error("the executor of the pod `{pod}` died while it started the pod{}", said(.log))]
    ExecutorDied {
        pod: PodKey,
        /// The end of what it wrote to its standard error.
        log: String,
    },
    #[error("the pod `{pod}` did not start: {}", told(.failure))]
    Launch { pod: PodKey, failure: LaunchFailure },
    #[error("the pod `{pod}` failed{}{}", said(.reason), said(.message))]
    Workload {
        pod: PodKey,
        /// Empty if there is none beside the message.
        reason: String,
        message: String,
    },
    #[error("timed out waiting for {what} of {}", names(.pods))]
    TimedOut {
        /// `the start`, `readiness`, …
        what: &'static str,
        pods: Vec<PodKey>,
    },
    #[error("interrupted by signal {signal}")]
    Interrupted { signal: i32 },
    /// As kubectl says it: `pods "web" not found`.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: String, name: String },
    #[error("`{name}` is more than one object: {}", .candidates.join(", "))]
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
    #[error("the kind `{0}` is not known")]
    UnknownKind(String),
    #[error("the executor of the pod `{pod}` lives on although it was killed")]
    Undead { pod: PodKey },
    #[error("cannot clean up after the pod `{pod}`")]
    Leftovers {
        pod: PodKey,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the pod `{pod}` is not running")]
    NotRunning { pod: PodKey },
    #[error("cannot talk to the executor of the pod `{pod}`")]
    Control { pod: PodKey, source: io::Error },
    #[error("{message}")]
    Refused { reason: Refusal, message: String },
    /// What was done is undone; `failures` is what could not be.
    #[error("{cause}{}", if .failures.is_empty() { "" } else { "; not everything could be undone" })]
    RolledBack {
        #[source]
        cause: Box<Self>,
        failures: Vec<Self>,
    },
    #[error("{} operations failed, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Several(Vec<Self>),
}

impl From<state::Error> for Error {
    fn from(error: state::Error) -> Self {
        match error {
            state::Error::Interrupted { signal } => Self::Interrupted { signal },
            other => Self::State(other),
        }
    }
}

impl From<sys::fs::Error> for Error {
    fn from(error: sys::fs::Error) -> Self {
        Self::State(error.into())
    }
}

impl Error {
    pub(super) fn io(verb: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { verb, source }
    }

    /// All of these, or nothing if there are none.
    pub(super) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Whose fault a failed launch is, which is also in what order several failures are told.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Launch { failure, .. } => failure.class,
            Self::Workload { .. } => FailureClass::Workload,
            Self::RolledBack { cause, .. } => cause.class(),
            _ => FailureClass::Machine,
        }
    }
}

/// An image that is not there and cannot be pulled.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct MissingImage {
    pub reference: Reference,
    /// Who needs it.
    pub users: Vec<(PodKey, ImageUser)>,
    /// The kubelet's: `ErrImageNeverPull`, `ErrImagePull`, `InvalidImageName`.
    pub reason: &'static str,
    pub message: String,
    pub source: Option<super::images::SourceError>,
}

fn told(failure: &LaunchFailure) -> String {
    let reason = &failure.reason;
    match &failure.container {
        Some(container) => format!(
            "container `{container}`: {reason}{}",
            said(&failure.message)
        ),
        None => format!("{reason}{}", said(&failure.message)),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

fn names(pods: &[PodKey]) -> String {
    let names: Vec<String> = pods.iter().map(|key| format!("`{key}`")).collect();
    names.join(", ")
}
