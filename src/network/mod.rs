//! Files and sockets of the pod's network.
#![forbid(unsafe_code)]

pub mod files;
