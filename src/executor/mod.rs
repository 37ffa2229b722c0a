//! One process per pod; single writer of that pod's status.
#![forbid(unsafe_code)]

mod lifecycle;
mod restart;
mod status;
#[cfg(test)]
mod testing;
