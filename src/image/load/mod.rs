//! Loads images from files: archives of `docker save` (docker-archive), of `podman save --format oci-archive`
//! (oci-archive), and OCI layout folders. Which of them it is shows in the content; an archive may be compressed as a
//! whole, as its layers may be.
//!
//! An archive in a file is read once for where things are, and then each layer from its place. One that comes through
//! a pipe is written to the store's disk first, because its table of contents may come last.

mod contents;
mod docker;
mod oci;

#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::digest::{self, Digest};
use super::error::{self, Class, Error as ImageError};
use super::layer;
use super::manifest::{self, Configuration};
use super::registries::{RegistriesConf, Transport};
use super::store::{NewImage, Store};
use super::unpack::MalformedArchive;
use crate::model::reference::{InvalidReference, Reference};

use contents::Contents;

/// Layers at a time.
const LAYERS_AT_ONCE: usize = 3;

/// Where images are loaded from.
pub enum LoadSource<'a> {
    /// An archive or an OCI layout folder.
    Path(&'a Path),
    /// An archive through a pipe.
    Reader(&'a mut dyn Read),
}

impl std::fmt::Debug for LoadSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Reader(_) => f.debug_tuple("Reader").finish_non_exhaustive(),
        }
    }
}

/// What a source has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    DockerArchive,
    /// The same, from Docker itself.
    DockerDaemon,
    OciArchive,
    OciLayout,
}

impl Shape {
    fn transport(self) -> Transport {
        match self {
            Self::DockerArchive => Transport::DockerArchive,
            Self::DockerDaemon => Transport::DockerDaemon,
            Self::OciArchive => Transport::OciArchive,
            Self::OciLayout => Transport::OciLayout,
        }
    }
}

/// Which images of a source are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// By a name that the source gives it.
    Named(String),
    /// By its place in a docker-archive, from 0 on.
    Number(usize),
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// `sha256:…`.
    pub id: String,
    /// The names that the archive gives it; it may be none.
    pub references: Vec<Reference>,
}

/// Why images cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "it is neither an archive of images nor an OCI layout: it has no `manifest.json` and no `index.json`"
    )]
    Unknown,
    #[error("it is no {0}")]
    OtherShape(&'static str),
    #[error("it has no image `{wanted}`; it has {}", names(there))]
    NoImage { wanted: String, there: Vec<String> },
    #[error("it is compressed with {0}; gzip and zstd are supported")]
    Compression(&'static str),
    #[error("it is damaged")]
    Archive(#[from] MalformedArchive),
    #[error("it has more than {0} entries")]
    TooManyEntries(usize),
    #[error("it has no `{0}`, which it refers to")]
    Missing(String),
    #[error("its `{name}` has more than {most} bytes")]
    TooBig { name: String, most: u64 },
    #[error("its `{name}` is not valid JSON of its kind")]
    Json {
        name: String,
        source: serde_json::Error,
    },
    #[error("its `{name}` is not what its digest says")]
    Digest { name: String },
    #[error("its `{name}` cannot be used")]
    Manifest {
        name: String,
        source: manifest::Error,
    },
    #[error("its layer `{name}` cannot be used")]
    Layer { name: String, source: layer::Error },
    #[error("it has an image of the name `{name}`")]
    Reference {
        name: String,
        source: InvalidReference,
    },
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Store(Box<ImageError>),
}

fn names(there: &[String]) -> String {
    match there {
        [] => "none with a name".to_owned(),
        some => some.join(", "),
    }
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unknown | Self::OtherShape(_) | Self::Compression(_) | Self::Reference { .. } => {
                Class::Unsupported
            }
            Self::NoImage { .. } => Class::NotFound,
            Self::Archive(MalformedArchive::Read(_)) | Self::Read(_) => Class::Machine,
            Self::Archive(_) | Self::Missing(_) | Self::Json { .. } | Self::Digest { .. } => {
                Class::Corrupt
            }
            Self::TooManyEntries(_) | Self::TooBig { .. } => Class::Hostile,
            Self::Manifest { source, .. } => error::manifest_class(source),
            Self::Layer { source, .. } => error::layer_class(source),
            Self::Store(e) => e.class(),
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// An image of an archive, not yet loaded.
struct Plan {
    config: Vec<u8>,
    configuration: Configuration,
    /// Verbatim, with its digest.
    manifest: Option<(Vec<u8>, Digest)>,
    layers: Vec<PlannedLayer>,
    references: Vec<Reference>,
}

/// A layer of an archive.
struct PlannedLayer {
    name: String,
    expected: layer::Expected,
    chain_id: Digest,
}

impl Plan {
    fn new(
        config: Vec<u8>,
        config_name: &str,
        manifest: Option<(Vec<u8>, Digest)>,
        layers: Vec<(String, Option<(Digest, u64)>)>,
        references: Vec<Reference>,
    ) -> Result<Self, Error> {
        let unusable = |source| Error::Manifest {
            name: config_name.to_owned(),
            source,
        };
        let configuration = Configuration::parse(&config).map_err(unusable)?;
        configuration.check_layers(layers.len()).map_err(unusable)?;
        let chain = digest::chain_ids(&configuration.diff_ids);
        let parts = layers.into_iter().zip(&configuration.diff_ids).zip(chain);
        let layers = parts.map(|(((name, blob), diff_id), chain_id)| {
            let (diff_id, most_bytes) = (diff_id.clone(), None);
            PlannedLayer {
                name,
                expected: layer::Expected {
                    blob,
                    diff_id,
                    most_bytes,
                },
                chain_id,
            }
        });
        Ok(Self {
            layers: layers.collect(),
            config,
            configuration,
            manifest,
            references,
        })
    }
}

impl Store {
    /// Loads all images of an archive or OCI layout folder; of an index, those for this machine. A name that another
    /// image had is taken from it. `policy` says what may be loaded.
    ///
    /// # Errors
    /// Why not. Images that were loaded before the one that failed stay.
    pub fn load(
        &self,
        source: LoadSource<'_>,
        policy: &RegistriesConf,
    ) -> Result<Vec<Loaded>, ImageError> {
        self.load_part(source, None, &Part::All, policy)
    }

    /// As [`Self::load`], of a source of a certain shape, some of its images.
    pub(super) fn load_part(
        &self,
        source: LoadSource<'_>,
        shape: Option<Shape>,
        part: &Part,
        policy: &RegistriesConf,
    ) -> Result<Vec<Loaded>, ImageError> {
        let archive = match &source {
            LoadSource::Path(path) => format!("{path:?}"),
            LoadSource::Reader(_) if shape == Some(Shape::DockerDaemon) => "Docker".into(),
            LoadSource::Reader(_) => "the standard input".into(),
        };
        self.load_all(source, shape, part, policy).map_err(|error| {
            let error = match error {
                Error::Store(error) => *error,
                source => ImageError::Load { archive, source },
            };
            self.naming_stop(error)
        })
    }

    fn load_all(
        &self,
        source: LoadSource<'_>,
        shape: Option<Shape>,
        part: &Part,
        policy: &RegistriesConf,
    ) -> Result<Vec<Loaded>, Error> {
        let _hold = self.hold()?;
        let (contents, path) = match source {
            LoadSource::Path(path) => (Contents::of_path(path, self)?, Some(path)),
            LoadSource::Reader(reader) => {
                let mut reader = self.stop().reader(reader);
                (Contents::of_reader(&mut reader, self)?, None)
            }
        };
        let check = |transport| {
            let transport = shape.map_or(transport, Shape::transport);
            let checked = policy.check_load(transport, path);
            checked.map_err(|error| Error::Store(Box::new(error.into())))
        };
        let most = manifest::MOST_MANIFEST_BYTES;
        // What Docker saves has both.
        let table = match shape {
            Some(Shape::OciArchive | Shape::OciLayout) => None,
            Some(Shape::DockerArchive | Shape::DockerDaemon) | None => {
                contents.small("manifest.json", most)?
            }
        };
        let index = match shape {
            Some(Shape::DockerArchive) => None,
            Some(Shape::DockerDaemon | Shape::OciArchive | Shape::OciLayout) | None => {
                contents.small("index.json", most)?
            }
        };
        let plans = match (table, index, shape) {
            (Some(table), _, _) => {
                check(Transport::DockerArchive)?;
                chosen(docker::plans(&contents, &table)?, part)?
            }
            (None, Some(index), _) => {
                check(match contents {
                    Contents::Folder(_) => Transport::OciLayout,
                    Contents::Archive { .. } => Transport::OciArchive,
                })?;
                oci::plans(&contents, &index, part)?
            }
            (None, None, Some(Shape::DockerArchive | Shape::DockerDaemon)) => {
                return Err(Error::OtherShape("archive of `docker save`"));
            }
            (None, None, Some(Shape::OciArchive | Shape::OciLayout)) => {
                return Err(Error::OtherShape("OCI layout"));
            }
            (None, None, None) => return Err(Error::Unknown),
        };
        plans
            .iter()
            .map(|plan| self.load_one(&contents, plan))
            .collect()
    }

    fn load_one(&self, contents: &Contents, plan: &Plan) -> Result<Loaded, Error> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..LAYERS_AT_ONCE.min(plan.layers.len()) {
                scope.spawn(|| {
                    while let Some(layer) = plan.layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.load_layer(contents, layer) {
                            // The others end after the layer they are at; the first error is the one to tell.
                            next.store(plan.layers.len(), Ordering::Relaxed);
                            let mut failed = failed
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner);
                            failed.get_or_insert(error);
                        }
                    }
                });
            }
        });
        if let Some(error) = failed
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            return Err(error);
        }
        let id = Digest::of(&plan.config);
        let stored = match self.image(&id)? {
            Some(image) => image,
            None => self.add_image(&NewImage {
                config: &plan.config,
                configuration: &plan.configuration,
                manifest: plan.manifest.as_ref().map(|(bytes, _)| bytes.as_slice()),
                embedded: false,
            })?,
        };
        for reference in &plan.references {
            self.add_reference(reference, &id)?;
            if let Some((_, digest)) = &plan.manifest {
                let digest = Some(digest.to_string());
                self.add_reference(
                    &Reference {
                        tag: None,
                        digest,
                        ..reference.clone()
                    },
                    &id,
                )?;
            }
        }
        Ok(Loaded {
            id: stored.id,
            references: plan.references.clone(),
        })
    }

    fn load_layer(&self, contents: &Contents, layer: &PlannedLayer) -> Result<(), Error> {
        if self.has_layer(&layer.chain_id) {
            return Ok(());
        }
        let _claim = self.claim_layer(&layer.chain_id)?;
        if self.has_layer(&layer.chain_id) {
            return Ok(());
        }
        let content = contents.open(&layer.name)?;
        let content = content.ok_or_else(|| Error::Missing(layer.name.clone()))?;
        self.add_layer(&layer.chain_id, |place| {
            let reader = self.stop().reader(content.reader);
            let reader = BufReader::with_capacity(1 << 17, reader);
            let unpacked = layer::unpack_verified(reader, &layer.expected, place);
            unpacked.map_err(|source| Error::Layer {
                name: layer.name.clone(),
                source,
            })
        })
    }
}

/// The images of a docker-archive that are wanted.
fn chosen(mut plans: Vec<Plan>, part: &Part) -> Result<Vec<Plan>, Error> {
    let there = || {
        let names = plans.iter().flat_map(|plan| &plan.references);
        names.map(ToString::to_string).collect()
    };
    match part {
        Part::All => Ok(plans),
        Part::Number(number) if *number < plans.len() => Ok(vec![plans.swap_remove(*number)]),
        Part::Number(number) => Err(Error::NoImage {
            wanted: format!("@{number}"),
            there: there(),
        }),
        Part::Named(name) => {
            let wanted = reference(name)?;
            let found = plans
                .iter()
                .position(|plan| plan.references.contains(&wanted));
            let Some(found) = found else {
                return Err(Error::NoImage {
                    wanted: name.clone(),
                    there: there(),
                });
            };
            let mut plan = plans.swap_remove(found);
            plan.references = vec![wanted];
            Ok(vec![plan])
        }
    }
}

/// `RepoTags` and the like, as references.
fn reference(name: &str) -> Result<Reference, Error> {
    Reference::parse(name).map_err(|source| Error::Reference {
        name: name.to_owned(),
        source,
    })
}
