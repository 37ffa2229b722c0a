//! What the executor and its helper say to each other: one request, and the answers, one JSON message each, on a
//! SEQPACKET socket, the helper's descriptor 3. Both ends are of the same build, so there is no version.
//!
//! The request is the message [`GO`] with descriptors: a sealed memory file with the [`Request`], then, if that says so,
//! the seccomp program, stdin, stdout, stderr, and the machine's mount namespace. The helper waits for it, because it may
//! be started ahead.

use std::os::fd::RawFd;
use std::path::PathBuf;

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use super::Tenancy;
use super::late::LateMount;
use crate::sys::process::FIRST_FD;

/// Where the helper, and the processes it makes, find the socket.
pub(super) const SOCKET: RawFd = FIRST_FD;

/// The longest text in an answer, in bytes; what is longer is cut.
const LONGEST_TEXT: usize = 4 * 1024;

/// The longest answer: a text all of whose bytes are escaped. Less than a socket takes at once.
pub(super) const LONGEST_ANSWER: usize = 32 * 1024;

/// Cuts a text to what fits into an answer.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// What the executor says to a helper that has its request, and to a process whose terminal is ready.
pub(super) const GO: &[u8] = b"go";

/// What the helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) state: PathBuf,
    pub(super) action: Action,
    pub(super) stdio: StdioKind,
    /// The program is the first of the optional descriptors.
    pub(super) seccomp: Option<SeccompLoad>,
    /// What the program is loaded with.
    pub(super) seccomp_flags: u32,
    /// The user that gets the pipes, by the machine's number.
    pub(super) uid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Action {
    /// Start the container of this bundle, whose `config.json` is written.
    Start {
        bundle: PathBuf,
        late_mounts: Vec<LateMount>,
        /// The files that are hidden in the container.
        masked: Vec<PathBuf>,
        /// Whether the last of the optional descriptors is the machine's mount namespace.
        host_mounts: bool,
    },
    /// Run this process in the container.
    Exec {
        process: Box<Process>,
        tenancy: Option<Tenancy>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StdioKind {
    Pipes,
    Terminal,
}

/// How the seccomp program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SeccompLoad {
    /// The process has no_new_privs, which is enough.
    NoNewPrivileges,
    /// The process was given CAP_SYS_ADMIN for loading it; these capabilities (a bit set) are what it may keep.
    Privileged { keep: u64 },
}

/// What the helper, and the processes it makes, answer. The end of file comes when all of them have gone or executed
/// the container's program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// From the process itself: it waits to be started by the helper, for ever if that ends before. A pidfd of it comes with
    /// this.
    Waiting,
    /// libcontainer's part is done; the process is on its way to `execve`. The terminal's master comes with it.
    Started { pid: i32 },
    /// From the process itself, before `execve`: its terminal, which comes with it, is to be given to its user and
    /// sized. The process waits for [`GO`]: it may no longer do that itself, and its program must not see it happen.
    Terminal,
    /// From the process itself, instead of `execve`.
    CommandNotFound { program: String },
    /// The same.
    NotExecutable { program: String, errno: i32 },
    /// A mount is where nothing may be mounted.
    Misplaced { detail: String },
    /// libcontainer failed.
    Failed { detail: String },
    /// What libcontainer says about a failure before it fails.
    Trace { message: String },
}
