//! The built binary as a person or a script meets it: help, usage, exit codes, `check`, and what an empty machine
//! answers. Nothing here needs root or a running pod.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]

mod answers;
mod check;
mod explain;
mod harness;
mod help;
