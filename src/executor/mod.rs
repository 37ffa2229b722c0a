//! One process per pod; single writer of that pod's status.
#![forbid(unsafe_code)]

pub mod forward;
mod lifecycle;
pub mod log;
mod restart;
mod status;
#[cfg(test)]
mod testing;
