//! The kernel, and all of the crate's `unsafe`. Knows nothing of pods or policy.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the path is put into the error"
)]

pub mod append;
pub mod beneath;
pub mod buffer;
pub mod capability;
pub mod cgroup;
mod clone;
pub mod datagram;
pub mod device;
pub mod dir;
pub mod exe;
pub mod fd;
pub mod fs;
pub mod holder;
pub mod identity;
pub mod ids;
pub mod inet;
pub mod inhabitants;
pub mod iptables;
pub mod links;
pub mod listeners;
pub mod lockfile;
pub mod memory;
pub mod mount;
pub mod nameless;
pub mod namespace;
pub mod netns;
pub mod notify;
mod pause;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod pump;
pub mod relay;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod stop;
mod systemd;
pub mod terminal;
#[cfg(test)]
pub mod testing;
pub mod timer;
pub mod trial;
pub mod unmount;
pub mod usage;
pub mod userns;
pub mod watch;
