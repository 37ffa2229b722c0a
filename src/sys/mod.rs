//! The kernel, and all of the crate's `unsafe`. Knows nothing of pods or policy.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the path is put into the error"
)]

pub mod append;
pub mod detach;
pub mod fs;
pub mod pump;
pub mod terminal;
pub mod identity;
pub mod lockfile;
pub mod poll;
pub mod socket;
pub mod unmount;
pub mod watch;
