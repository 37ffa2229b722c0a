//! What can go wrong with images, and what kind of failure it is.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::{auth, containers, daemon, export, layer, load, manifest, registries, registry};
use crate::model::cause::chain;
use crate::sys::stop::Stopped;

/// Why an image cannot be found, pulled, loaded or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] crate::sys::fs::Error),
    #[error("no space left for images in {dir:?}")]
    NoSpace {
        dir: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("no space left for {path:?}")]
    NoSpaceFor {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the record {path:?} of the image store is damaged")]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Registries(#[from] registries::Error),
    #[error(
        "the short name `{name}` is at none of the registries that are searched: {}",
        each(failed)
    )]
    Nowhere { name: String, failed: Vec<Self> },
    #[error("cannot look for credentials")]
    Auth(#[from] auth::Error),
    #[error("cannot use the image `{image}`")]
    Manifest {
        image: String,
        source: manifest::Error,
    },
    #[error("cannot use layer {layer} of the image `{image}`")]
    Layer {
        image: String,
        layer: Digest,
        source: layer::Error,
    },
    #[error("cannot load images from {archive}")]
    Load {
        archive: String,
        source: load::Error,
    },
    #[error("cannot save `{what}`")]
    Export { what: String, source: export::Error },
    #[error("cannot take over the image `{image}` from another engine's store")]
    Import {
        image: String,
        source: Box<containers::Error>,
    },
    #[error("no other engine on this machine has the image `{0}`")]
    NotElsewhere(String),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    #[error("the image `{0}` is not stored here")]
    NotStored(String),
    #[error("images of `kplay.local` are made by kplay itself, and `{0}` is none that it has")]
    NotEmbedded(String),
    #[error("the id `{prefix}` fits more than one image: {}", ids.join(", "))]
    AmbiguousId { prefix: String, ids: Vec<String> },
    #[error("the image `{image}` is used by a pod")]
    InUse { image: String },
    #[error("a worker thread ended early")]
    Worker(#[source] io::Error),
    #[error("cannot read the standard input")]
    Input(#[source] io::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn each(errors: &[Error]) -> String {
    let texts: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    texts.join("; ")
}

/// Kinds of failure, for exit codes and remedies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The registry does not have the image.
    NotFound,
    /// The registry wants other credentials, or none are enough.
    Unauthorized,
    /// Nothing answers at the registry's address, or its name has none.
    Unreachable,
    /// The registry's certificate is not trusted, or what answers does not speak TLS.
    Tls,
    /// The registry fails, or asks to come back later.
    Registry,
    /// What came is not what its digest or size says.
    Corrupt,
    /// A kind of image or archive that kplay does not run.
    Unsupported,
    /// There is no image for this machine.
    Platform,
    /// A layer that tries to write where it must not, or is too big.
    Hostile,
    NoSpace,
    /// A reference or id that the store does not have, or that is not one image.
    NotStored,
    InUse,
    /// This machine's configuration of registries forbids it, or is wrong.
    Configuration,
    /// The file system or this machine.
    Machine,
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoSpace { .. } | Self::NoSpaceFor { .. } => Class::NoSpace,
            Self::Registry(e) => e.class(),
            Self::Registries(_) => Class::Configuration,
            Self::Nowhere { failed, .. } => failed.last().map_or(Class::NotFound, Self::class),
            Self::Manifest { source, .. } => manifest_class(source),
            Self::Layer { source, .. } => layer_class(source),
            Self::Load { source, .. } => source.class(),
            Self::Export { source, .. } => source.class(),
            Self::Import { source, .. } => import_class(source),
            Self::NotElsewhere(_) => Class::NotFound,
            Self::Daemon(e) => e.class(),
            Self::NotStored(_) | Self::NotEmbedded(_) | Self::AmbiguousId { .. } => {
                Class::NotStored
            }
            Self::InUse { .. } => Class::InUse,
            Self::Files(_)
            | Self::Record { .. }
            | Self::Auth(_)
            | Self::Worker(_)
            | Self::Input(_)
            | Self::Stopped(_) => Class::Machine,
        }
    }

    /// A remedy, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self.class() {
            Class::Tls => Some(
                "if the registry's certificate is of a private authority, put its certificate as \
                 /etc/containers/certs.d/HOST/ca.crt, or name it in SSL_CERT_FILE; a registry without TLS, or one to be trusted anyway, needs TLS verification turned off",
            ),
            Class::Unauthorized => Some("the image may be private, or its name misspelt"),
            Class::NoSpace if matches!(self, Self::NoSpaceFor { .. }) => {
                Some("make room there, or save to another place")
            }
            Class::NoSpace => {
                Some("remove images that are not needed, or use another folder for kplay's data")
            }
            Class::Corrupt => {
                Some("try again; if it stays so, the registry's or archive's copy is damaged")
            }
            Class::NotFound
            | Class::Unreachable
            | Class::Registry
            | Class::Unsupported
            | Class::Platform
            | Class::Hostile
            | Class::NotStored
            | Class::InUse
            | Class::Configuration
            | Class::Machine => None,
        }
    }

    /// Whether the image's name means no image, whatever registries have: `registries.conf` leaves it open, or makes no
    /// name of it.
    #[must_use]
    pub fn is_invalid_name(&self) -> bool {
        use registries::Error as E;
        matches!(
            self,
            Self::Registries(E::Ambiguous { .. } | E::Complete { .. })
        )
    }

    /// Whether the same image may be had by another name: it is the name's registry that says no, or who forbids it.
    pub(super) fn is_of_name(&self) -> bool {
        matches!(self, Self::Registry(_) | Self::Registries(_))
    }

    /// Names a full disk of the store as such, wherever it was met.
    pub(super) fn naming_no_space(self, dir: &Path) -> Self {
        if !self.is_of_full_disk() {
            return self;
        }
        let (dir, source) = (dir.to_owned(), Box::new(self));
        Self::NoSpace { dir, source }
    }

    /// Names a full disk of what is written to as such, unless it is the store's.
    pub(super) fn naming_no_space_for(self, path: &Path) -> Self {
        if self.class() == Class::NoSpace || !self.is_of_full_disk() {
            return self;
        }
        let (path, source) = (path.to_owned(), Box::new(self));
        Self::NoSpaceFor { path, source }
    }

    fn is_of_full_disk(&self) -> bool {
        let full = |e: &io::Error| {
            matches!(
                e.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(full) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

fn import_class(error: &containers::Error) -> Class {
    use containers::Error as E;
    match error {
        E::Files(_) | E::Copy(_) | E::Archive { .. } => Class::Machine,
        E::Conf { .. } => Class::Configuration,
        E::Record { .. } | E::Image { .. } => Class::Unsupported,
        E::Ambiguous { .. } => Class::NotStored,
        E::Layer { source, .. } => layer_class(source),
        E::Store(error) => error.class(),
    }
}

pub(super) fn manifest_class(error: &manifest::Error) -> Class {
    use manifest::Error as E;
    match error {
        E::Schema1 | E::MediaType(_) | E::Encrypted => Class::Unsupported,
        E::OtherPlatform { .. } | E::NoPlatform { .. } => Class::Platform,
        E::TooBig { .. } | E::TooManyLayers(_) | E::Nested => Class::Hostile,
        E::Json { .. } | E::Digest { .. } | E::LayerCount { .. } => Class::Corrupt,
    }
}

pub(super) fn layer_class(error: &layer::Error) -> Class {
    use super::unpack::{Error as U, MalformedArchive};
    use layer::Error as E;
    match error {
        E::Digest { .. }
        | E::DiffId { .. }
        | E::Truncated { .. }
        | E::TooLong { .. }
        | E::Inflate(_) => Class::Corrupt,
        E::Compression(_) => Class::Unsupported,
        E::Bomb { .. } => Class::Hostile,
        E::Read(_) | E::Thread(_) => Class::Machine,
        E::Unpack(e) => match e {
            U::Escape { .. }
            | U::LinkEscape { .. }
            | U::LinkTarget { .. }
            | U::Root { .. }
            | U::Whiteout { .. }
            | U::TooMany { .. } => Class::Hostile,
            U::Kind { .. } => Class::Unsupported,
            U::Archive(MalformedArchive::Read(_))
            | U::NoSuchId { .. }
            | U::Write { .. }
            | U::Prepare(_)
            | U::Recipe(_) => Class::Machine,
            U::Archive(_) => Class::Corrupt,
        },
    }
}
