//! The kernel, and all of the crate's `unsafe`. Knows nothing of pods or policy.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the path is put into the error"
)]

pub mod append;
pub mod beneath;
pub mod detach;
pub mod exe;
pub mod fs;
pub mod identity;
pub mod inet;
pub mod inotify;
pub mod lockfile;
pub mod netns;
pub mod poll;
pub mod pump;
pub mod socket;
pub mod terminal;
pub mod unmount;
pub mod watch;
