//! The kernel, and all of the crate's `unsafe`. Knows nothing of pods or policy.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the path is put into the error"
)]

pub mod fs;
pub mod pump;
pub mod terminal;
