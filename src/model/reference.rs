//! Image references, normalised as Docker does.

use serde::{Deserialize, Serialize};

/// An image reference: registry, repository, and a tag or digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, `kplay.local`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest` if the text had neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}
