//! The crate's own words: values that every layer shares.
//!
//! Nothing here knows a foreign wire type or does I/O. The types derive serde because two kplay processes hand
//! them to each other (`protocol`) and because records hold them (`state`); what Kubernetes reads is spelled as
//! Kubernetes spells it (`status`).
#![forbid(unsafe_code)]

pub mod cause;
pub mod cluster;
pub mod diagnostic;
pub mod event;
pub mod expansion;
pub mod field;
pub mod image;
pub mod names;
pub mod plan;
pub mod pull_secret;
pub mod quantity;
pub mod reference;
pub mod service;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
