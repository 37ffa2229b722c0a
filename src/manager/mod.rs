//! Everything before a pod exists and after it has gone.
//!
//! [`apply`] makes the machine match plans, [`delete`] takes pods and objects away, [`sweep`] cleans up after crashes;
//! [`services`] gives Services their addresses; [`wait`] waits for conditions, [`client`] talks to running executors, [`port_forward`]
//! leads connections to pods, [`doctor`] says whether pods can run here, [`reset`] removes everything, [`resolve`] finds pods by what people call them. Which containers a pod has and in what order they start is the executor's business.
//!
//! ```text
//! ports ─ images ─ locks ─ diff ─ objects ─ stop changed ─ launch all ─ wait ─ prune
//!                                 └──────────── undone if one fails ──┘
//! ```
//!
//! A crash at any point leaves pods that `get` shows as failed, that the next `apply` starts again and that `delete`
//! removes: a record is written before its pod is launched and removed after everything else of it.
#![forbid(unsafe_code)]

pub mod apply;

mod cgroups;
pub mod client;
pub mod delete;
pub mod diff;
pub mod doctor;
mod ephemeral;
pub mod error;
mod ids;
pub mod images;
mod jobs;
pub mod launch;
pub mod port_forward;
pub mod ports;
pub mod report;
pub mod reset;
pub mod resolve;
pub mod rootless;
pub mod services;
pub mod stop;
pub mod storage;
pub mod sweep;
mod undo;
pub mod usage;
pub mod wait;

#[cfg(test)]
mod testing;

use crate::state::layout::Layout;
use crate::sys::poll::Interrupt;

pub use error::Error;
pub use launch::Launcher;
pub use report::{Change, Event, Report};

/// What every command of the manager needs.
#[derive(Debug)]
pub struct Manager {
    pub layout: Layout,
    /// How executors are started.
    pub launcher: Launcher,
    /// From where Services have their addresses.
    pub service_ranges: services::Ranges,
    /// Ctrl-C and SIGTERM.
    pub interrupt: Interrupt,
}

impl Manager {
    /// Why something failed: work that a signal makes somebody give up fails because of the signal.
    fn interrupted_or(&self, error: Error) -> Error {
        match self.interrupt.take() {
            Ok(Some(signal)) => Error::Interrupted { signal },
            Ok(None) | Err(_) => error,
        }
    }
}
