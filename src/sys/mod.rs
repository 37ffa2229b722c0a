//! The kernel, and all of the crate's `unsafe`. Knows nothing of pods or policy.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the path is put into the error"
)]

pub mod capability;
pub mod cgroup;
mod clone;
pub mod fd;
pub mod fs;
pub mod holder;
pub mod mount;
pub mod namespace;
mod pause;
pub mod pidfd;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod terminal;
pub mod within;
