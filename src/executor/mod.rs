//! One process per pod; single writer of that pod's status.
#![forbid(unsafe_code)]

pub mod forward;
pub mod log;
