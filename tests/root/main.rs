//! End-to-end tests: the built binary plays real pods, which needs root.
//!
//! Every test has its own state folders and its own [`Kplay`], which deletes all pods when it is dropped and then
//! looks for what they left: processes, mounts, cgroups, sockets, files. `zz_leftovers.rs` does the same for the
//! whole machine, last. Images are made once per run by podman and skopeo from Debian's busybox-static
//! (`fixtures.rs`). Without root a test says "skipped", which is a failure in CI.
//!
//! With `KPLAY_TEST_AS=USER` that user runs kplay, not root, but in the tests that `user.rs` names, each with a reason.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]
#![expect(clippy::print_stderr, reason = "what libtest shows of a failed test")]

mod faulty;
mod fixtures;
mod harness;
mod leftovers;
mod user;
mod wait;
mod watch;

mod addresses;
mod apply;
mod attach;
mod bad_input;
mod claims;
mod concurrency;
mod containers;
mod copy;
mod crowd;
mod death;
mod environment;
mod events;
mod eviction;
mod exec_logs;
mod hello;
mod hooks;
mod host_network;
mod images;
mod log_files;
mod lookups;
mod mounts;
mod names;
mod nested;
mod pods;
mod port_forward;
mod ports;
mod probes;
mod profiles;
mod pull_policies;
mod pulls;
mod refresh;
mod registries;
mod resources;
mod restarts;
mod rootless;
mod security;
mod services;
mod shows;
mod status;
mod store;
mod system;
mod terminal;
mod traffic;
mod transfers;
mod users;
mod volumes;
mod ways_out;

pub(crate) use harness::Kplay;
