//! The runtime on the real kernel, through the built binary: containers, commands in them, sandboxes, cgroups.
//!
//! Each test runs in a process of its own (this binary again, with one test), which plays the executor: subreaper,
//! private mount namespace, hidden cgroups. Needs root; without it a test says "skipped".
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a failure is a failed test, also outside the test functions"
)]
#![expect(clippy::print_stderr, reason = "what libtest shows of a failed test")]

mod cgroups;
mod containers;
mod exec;
mod fixture;
mod leftovers;
mod sandbox;
