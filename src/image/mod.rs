//! References to root filesystems: pulls and loads images, keeps them unpacked, and says where their layers are.
//!
//! ```text
//! registry ─ pull ─┐                        ┌─ layers/CHAIN/diff     unpacked, as overlayfs takes them
//! archive  ─ load ─┼─ layer ─ unpack ─ store ┼─ images/ID/…           manifest and configuration, verbatim
//! kplay itself ────┘                        └─ references/…          name → image
//! ```
//!
//! A layer goes through as a stream: its compressed bytes are counted and hashed, inflated, hashed again and
//! written beneath the layer's own folder ([`unpack`]); nothing is used before both digests are right. Compressed
//! layers are not kept. Where a name leads to, and whether it may, is the machine's configuration ([`registries`]).
//! Mounting is the business of `runtime`.
#![forbid(unsafe_code)]

pub mod auth;
mod digest;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod layer;
mod load;
mod manifest;
mod platform;
mod proxy;
mod pull;
mod records;
pub mod registries;
mod registry;
mod remove;
mod store;
mod toolbox;
pub mod unpack;

#[cfg(test)]
mod testing;

pub use auth::{Credentials, Keychain};
pub use digest::{Digest, InvalidDigest};
pub use error::{Class, Error};
pub use layer::Error as LayerError;
pub use load::{Error as LoadError, LoadSource, Loaded};
pub use manifest::Error as ManifestError;
pub use platform::{InvalidPlatform, Platform};
pub use proxy::{InvalidProxy, Proxies};
pub use pull::{PullOptions, PullProgress, Slots, pull};
pub use registry::{
    Error as RegistryError, Fault as RegistryFault, RETRY_WAITS, SILENCE, Then, TlsVerify, Trouble,
};
pub use remove::{Removed, Unnamed};
pub use store::{Hold, Store, StoredImage};
