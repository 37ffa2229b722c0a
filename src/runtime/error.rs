//! Why a container or a command did not start.

use std::io;
use std::path::PathBuf;

use crate::sys;

/// Why the runtime could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program in the container; containerd reports `StartError`, exit code 128 (127 for an exec).
    #[error("there is no program `{program}` in the container")]
    CommandNotFound { program: String },
    /// The program is there and cannot be executed (126 for an exec).
    #[error("the container's program `{program}` cannot be executed")]
    NotExecutable { program: String, source: io::Error },
    /// `process.cwd` cannot be entered.
    #[error("the working directory {path:?} cannot be entered: {detail}")]
    WorkingDirectory { path: PathBuf, detail: String },
    /// libcontainer refused, in its own words.
    #[error("the container cannot be created: {detail}")]
    Create { detail: String },
    /// Else a pod could look beneath what covers it (`mount_too_revealing` of the kernel). So it is in most containers.
    #[error(
        "the pod's user namespace (`hostUsers: false`) cannot have a {path} of its own, because something is mounted on \
         parts of this machine's: {detail}"
    )]
    Covered { path: &'static str, detail: String },
    /// A mount would be, or is, where nothing may be mounted.
    #[error("the container cannot be created: {detail}")]
    Misplaced { detail: String },
    /// The helper ended without an answer.
    #[error("the helper that creates the container ended early: {detail}")]
    Helper { detail: String },
    #[error("cannot {what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] sys::fs::Error),
    /// The sandbox's process could not be set up.
    #[error("cannot make the pod's namespaces: {step} failed")]
    Sandbox { step: String, source: io::Error },
    #[error("the pod's user namespace (`hostUsers: false`) has the ids 0 to 65535, not {id}")]
    NoSuchId { id: u32 },
    #[error("there is no {what} `{name}` in the image")]
    NoSuchUser { what: &'static str, name: String },
    #[error("the image's {file} cannot be used")]
    UserFile {
        file: &'static str,
        source: io::Error,
    },
    #[error("the seccomp profile cannot be used: {detail}")]
    Seccomp { detail: String },
    #[error(transparent)]
    Cgroup(#[from] sys::cgroup::Error),
}

impl Error {
    /// For `map_err`: a system call that failed.
    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }

    /// The exit code that a shell would give: 127 for a program that is not there, 126 for one that cannot be
    /// executed; nothing for other failures.
    #[must_use]
    pub fn shell_code(&self) -> Option<u8> {
        match self {
            Self::CommandNotFound { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            Self::WorkingDirectory { .. }
            | Self::Create { .. }
            | Self::Covered { .. }
            | Self::Misplaced { .. }
            | Self::Helper { .. }
            | Self::System { .. }
            | Self::File(_)
            | Self::Sandbox { .. }
            | Self::NoSuchId { .. }
            | Self::NoSuchUser { .. }
            | Self::UserFile { .. }
            | Self::Seccomp { .. }
            | Self::Cgroup(_) => None,
        }
    }
}
