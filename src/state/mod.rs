//! What kplay keeps on disk, and where. Decides nothing about pods.
//!
//! Every file has one writer at a time: whoever holds the lock of the pod or of the object ([`lock`]), except that
//! a pod's status and events are its executor's ([`pod_dir::ExecutorDir`]). Files are replaced, never changed, so
//! that everybody may read them at any time without a lock.
#![forbid(unsafe_code)]

pub mod endpoints;
pub mod error;
pub mod events;
pub mod ids;
pub mod layout;
pub mod lock;
pub mod logs;
pub mod object;
pub mod pod_dir;
pub mod record;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
pub mod volumes;
pub mod watch;

pub use error::Error;
