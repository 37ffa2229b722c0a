//! Probes: whether a container has started, lives, and is ready (`pkg/kubelet/prober`, `pkg/probe`).
//!
//! ```text
//! lifecycle ── Probe(kind) ──▶ worker: wait ──▶ check ──▶ tally ── a new verdict ──▶ lifecycle (Probed)
//!                                ▲                          │
//!                                └── nothing new: nobody is woken, nothing is written
//! ```
//!
//! What a verdict means, and which probes run when, is in [`lifecycle`](super::lifecycle). A worker belongs to one run
//! of a container and ends with it. That of a startup probe ends with its first verdict, that of a liveness probe with
//! a failure: there is a new one for the next run.
//!
//! **When.** A check comes `initialDelaySeconds` after the container's start, or when the startup probe has succeeded,
//! if that is later, and then once per period. A kubelet hears of a start up to a second later, so that the programs in
//! there have that second: no check counts as a failure before. Whether a container has started, and whether it is
//! ready, is asked in quick succession meanwhile, and a success counts at once.

use std::fmt;

mod alarm;
mod exec;
mod grpc;
mod http;
mod tally;
mod tcp;
mod worker;

pub(super) use self::worker::{Run, Workers};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// What a check found. The texts are the kubelet's, and Go's for what the network says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    /// A success that somebody should look at.
    Warning(String),
    Failure(String),
}

/// A check that could not be made, or has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    state: &'static str,
    message: String,
}

impl Fault {
    fn unknown(message: String) -> Self {
        Self {
            state: "unknown",
            message,
        }
    }
}
