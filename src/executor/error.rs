//! What can go wrong while a pod is set up, and how a container's failure to start is reported.

use std::io;
use std::path::PathBuf;

use super::forward;
use super::lifecycle::Fault;
use crate::model::cause::chain;
use crate::protocol::{FailureClass, LaunchFailure};
use crate::{network, runtime, spec, state, sys, volume};

/// A system call failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct SystemError {
    what: &'static str,
    source: io::Error,
}

/// For `map_err`: a system call that failed.
pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> SystemError {
    move |source| SystemError {
        what,
        source: source.into(),
    }
}

/// Why a pod cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("cannot read the launch file {path:?}")]
    Launch {
        path: std::path::PathBuf,
        source: serde_json::Error,
    },
    #[error("the launch file is of version {found}, this kplay knows version {known}")]
    Version { found: u32, known: u32 },
    #[error("the launch file is of the pod with the uid {uid}")]
    AnotherPod { uid: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\"")]
    Volume {
        volume: String,
        source: volume::Error,
    },
    #[error("no ids of this machine were taken for the pod's users (`hostUsers: false`)")]
    NoIds,
    #[error(transparent)]
    Forward(#[from] forward::Error),
    #[error("cannot give the pod a network")]
    Network(#[from] network::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Cgroup(#[from] sys::cgroup::Error),
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    #[error(transparent)]
    State(#[from] state::Error),
}

impl Error {
    /// What the manager is told about a pod that could not be set up.
    pub(super) fn to_launch_failure(&self) -> LaunchFailure {
        let reason = match self {
            Self::Volume { .. } => "FailedMount",
            _ => "FailedCreatePodSandBox",
        };
        LaunchFailure {
            class: FailureClass::Machine,
            container: None,
            reason: reason.into(),
            message: chain(self),
        }
    }
}

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartFailure {
    /// The kubelet's words (`security_context_others.go`, `kuberuntime_container.go`).
    #[error("{0}")]
    Config(String),
    #[error("{message}")]
    Pull { image: String, message: String },
    /// The kubelet's words (`image_manager.go`).
    #[error("Container image \"{image}\" is not present with pull policy of Never")]
    NeverPulled { image: String },
    /// The kubelet's words, for a name that means nothing here (any more): other names are not in manifests that are
    /// applied.
    #[error("Failed to apply default image tag \"{image}\": {message}")]
    InvalidName { image: String, message: String },
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\"")]
    SubPath {
        volume: String,
        container: String,
        source: volume::Error,
    },
    /// runc's words.
    #[error(
        "container init was OOM-killed (memory limit too low?): the memory limit is {limit} bytes"
    )]
    OutOfMemory { limit: u64 },
    #[error("Cannot enforce AppArmor: AppArmor is not enabled on the host")]
    NoAppArmor,
    #[error("apparmor profile not found {0}")]
    NoAppArmorProfile(String),
    #[error("cannot load seccomp profile {place:?}")]
    SeccompProfile {
        place: PathBuf,
        source: runtime::Error,
    },
    #[error("cannot load seccomp profile {path:?}: it is in none of the folders {folders:?}")]
    NoSeccompProfile {
        path: PathBuf,
        folders: Vec<PathBuf>,
    },
    #[error(transparent)]
    Spec(#[from] spec::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Cgroup(#[from] sys::cgroup::Error),
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    #[error("failed to list services when setting up env vars")]
    Services(#[from] state::Error),
    #[error(transparent)]
    System(#[from] SystemError),
}

impl StartFailure {
    pub(super) fn into_fault(self, id: String) -> Fault {
        let message = chain(&self);
        let (reason, class) = match self {
            Self::Pull { image, .. } => return Fault::Pull { image, message },
            Self::NeverPulled { .. } => {
                let (reason, event) = ("ErrImageNeverPull", "ErrImageNeverPull");
                return Fault::Image {
                    reason,
                    event,
                    message,
                };
            }
            Self::InvalidName { .. } => {
                let (reason, event) = ("InvalidImageName", "InspectFailed");
                return Fault::Image {
                    reason,
                    event,
                    message,
                };
            }
            // containerd reports what fails between creation and execution as the end of the container.
            Self::Runtime(
                runtime::Error::CommandNotFound { .. }
                | runtime::Error::NotExecutable { .. }
                | runtime::Error::WorkingDirectory { .. },
            )
            | Self::OutOfMemory { .. } => return Fault::Start { id, message },
            Self::NoAppArmor => ("AppArmor", FailureClass::Machine),
            Self::Config(_) | Self::SubPath { .. } => {
                ("CreateContainerConfigError", FailureClass::Start)
            }
            Self::Services(_) => ("CreateContainerConfigError", FailureClass::Machine),
            Self::Runtime(
                runtime::Error::NoSuchUser { .. }
                | runtime::Error::NoSuchId { .. }
                | runtime::Error::UserFile { .. }
                | runtime::Error::Misplaced { .. },
            )
            | Self::Spec(
                spec::Error::InsideProc { .. }
                | spec::Error::OverDev
                | spec::Error::NotAbsolute { .. },
            ) => ("CreateContainerError", FailureClass::Start),
            Self::Spec(spec::Error::Value(_))
            | Self::Runtime(_)
            | Self::Cgroup(_)
            | Self::File(_)
            | Self::SeccompProfile { .. }
            | Self::NoSeccompProfile { .. }
            | Self::NoAppArmorProfile(_)
            | Self::System(_) => ("CreateContainerError", FailureClass::Machine),
        };
        Fault::Create {
            reason,
            message,
            class,
        }
    }
}
