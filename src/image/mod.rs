//! References to root filesystems: pulls and loads images, keeps them unpacked, and says where their layers are.
//!
//! ```text
//! registry ──────── pull ─┐                         ┌─ layers/CHAIN/diff     unpacked, as overlayfs takes them
//! archive, Docker ─ load ─┼─ layer ─ unpack ─ store ┼─ images/ID/…           manifest and configuration, verbatim
//! kplay itself ───────────┤                         └─ references/…          name → image
//! podman ──── containers ─┘ hard links
//!
//! store ─ export ─┬─ save ─ archive, folder
//!                 └─ push ─ registry
//! ```
//!
//! A layer goes through as a stream: its compressed bytes are counted and hashed, inflated, hashed again and
//! written beneath the layer's own folder ([`unpack`]); nothing is used before both digests are right. Compressed
//! layers are not kept; what is needed to make their archives again is. Where a name leads to, and whether it may, is
//! the machine's configuration ([`registries`]). Mounting is the business of `runtime`.
#![forbid(unsafe_code)]

pub mod auth;
pub mod containers;
mod daemon;
mod digest;
mod error;
mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod layer;
mod load;
mod manifest;
mod names;
mod platform;
mod proxy;
mod pull;
mod push;
mod records;
pub mod registries;
mod registry;
mod remove;
mod save;
mod store;
mod toolbox;
mod transport;
pub mod unpack;
mod usage;

#[cfg(test)]
mod testing;

pub use auth::{Credentials, Keychain};
pub use daemon::{Daemon, Error as DaemonError};
pub use digest::{Digest, InvalidDigest};
pub use error::{Class, Error};
pub use export::{Error as ExportError, LayerCompression};
pub use layer::Error as LayerError;
pub use load::{Error as LoadError, LoadSource, Loaded, Part, Shape};
pub use manifest::{Error as ManifestError, ManifestFormat};
pub use names::Details;
pub use platform::{InvalidPlatform, Platform};
pub use proxy::{InvalidProxy, Proxies};
pub use pull::{PullOptions, PullProgress, Slots, pull};
pub use push::{PushHow, PushProgress, push};
pub use registry::{
    Error as RegistryError, Fault as RegistryFault, Purpose, RETRY_WAITS, SILENCE, Then, TlsVerify,
    Trouble,
};
pub use remove::{Removed, Unnamed};
pub use save::{ArchiveFormat, ToSave};
pub use store::{Hold, Store, StoredImage};
pub use transport::{InvalidSource, PullSource};
pub use unpack::RecipeError;
pub use usage::{ImageUsage, UsedImage};
