//! What the layers above need to know of an image that is in the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{ContainerName, VolumeName};

/// An image of the store, ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration: `sha256:…`. Status reports it as `imageID`.
    pub id: String,
    /// Unpacked layers, lowest first, as overlayfs takes them (reversed).
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// The pull that brought it, if the pod's start did: its events are the pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
}

/// How an image came to this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    pub began: jiff::Timestamp,
    pub milliseconds: u64,
    /// Bytes that were fetched.
    pub size: u64,
}

/// The part of an OCI image configuration that a container is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// Empty is `/`.
    pub working_dir: String,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Absolute paths, each of which gets a place of its own that can be written to.
    #[serde(default)]
    pub volumes: Vec<PathBuf>,
    /// Whether it has a command for its health, which nobody runs: Kubernetes has probes.
    #[serde(default)]
    pub healthcheck: bool,
}

/// Who needs an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageUser {
    Container(ContainerName),
    Volume(VolumeName),
}

impl std::fmt::Display for ImageUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container `{name}`"),
            Self::Volume(name) => write!(f, "volume `{name}`"),
        }
    }
}
