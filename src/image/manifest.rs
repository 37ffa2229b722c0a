//! Manifests, indexes and configurations: read once from JSON into what the rest of `image` needs. The bytes
//! themselves are kept verbatim by the store.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::digest::{Digest, InvalidDigest};
use super::export::{Export, LayerCompression};
use super::platform::Platform;
use crate::model::image::ImageConfig;

/// Most bytes of a manifest or index. containers/image has the same limit.
pub(super) const MOST_MANIFEST_BYTES: u64 = 4 << 20;
/// Most bytes of a configuration.
pub(super) const MOST_CONFIG_BYTES: u64 = 8 << 20;
/// Most layers of an image: overlayfs takes no more.
pub(super) const MOST_LAYERS: usize = 500;

/// What the registry is asked for.
pub(super) const ACCEPTED: &[&str] = &[OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER_PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// The two kinds of manifests, which say the same in other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFormat {
    Oci,
    /// Docker's schema 2.
    Docker,
}

impl ManifestFormat {
    /// Of a manifest, by its configuration: its own media type may not be said.
    pub(super) fn of(manifest: &Manifest) -> Self {
        if manifest.config.media_type == DOCKER_CONFIG {
            Self::Docker
        } else {
            Self::Oci
        }
    }

    /// Of the manifest.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// A manifest of these layers, with the annotations that the image came with.
    pub(super) fn manifest(self, export: &Export, layers: Vec<serde_json::Value>) -> Vec<u8> {
        let config_type = match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        };
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": self.media_type(),
            "config": { "mediaType": config_type, "digest": export.record.id, "size": export.config.len() },
            "layers": layers,
        });
        let annotations = export.original.as_ref().map(|o| &o.manifest.annotations);
        if let (Self::Oci, Some(annotations)) = (self, annotations)
            && !annotations.is_empty()
        {
            manifest["annotations"] = serde_json::json!(annotations);
        }
        manifest.to_string().into_bytes()
    }
}

/// The media type of a layer.
pub(super) fn layer_type(format: ManifestFormat, compression: LayerCompression) -> &'static str {
    match (format, compression) {
        (ManifestFormat::Oci, LayerCompression::Gzip) => OCI_GZIP,
        (ManifestFormat::Oci, LayerCompression::Zstd) => OCI_ZSTD,
        // Docker's has no name for another one.
        (ManifestFormat::Docker, _) => DOCKER_GZIP,
    }
}

/// The media type that a layer of another manifest has in this one, if there is one.
pub(super) fn translated(format: ManifestFormat, media_type: &str) -> Option<&'static str> {
    match (format, media_type) {
        (ManifestFormat::Oci, OCI_GZIP | DOCKER_GZIP) => Some(OCI_GZIP),
        (ManifestFormat::Oci, OCI_ZSTD) => Some(OCI_ZSTD),
        (ManifestFormat::Oci, OCI_PLAIN | DOCKER_PLAIN) => Some(OCI_PLAIN),
        (ManifestFormat::Docker, OCI_GZIP | DOCKER_GZIP) => Some(DOCKER_GZIP),
        (ManifestFormat::Docker, OCI_PLAIN | DOCKER_PLAIN) => Some(DOCKER_PLAIN),
        _ => None,
    }
}

/// What tells an entry of an index from the same image with slower layers.
const ZSTD: &str = "io.github.containers.compression.zstd";

/// Why a manifest, index or configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {what} is not valid JSON of its kind")]
    Json {
        what: &'static str,
        source: serde_json::Error,
    },
    #[error("the {what} names the digest of a {of} that cannot be used")]
    Digest {
        what: &'static str,
        of: &'static str,
        source: InvalidDigest,
    },
    #[error("the {what} has more than {most} bytes")]
    TooBig { what: &'static str, most: u64 },
    #[error("manifests of schema version 1 are not supported; they are obsolete since 2017")]
    Schema1,
    #[error("it is of the type `{0}`, which is not a container image")]
    MediaType(String),
    #[error("its layers are encrypted, and kplay has no keys")]
    Encrypted,
    #[error("it has {0} layers; the most is {MOST_LAYERS}")]
    TooManyLayers(usize),
    #[error("the manifest has {layers} layers, but the configuration has {diff_ids}")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("an index within an index within an index")]
    Nested,
    #[error("the image is for {offered}, and this machine needs {wanted}")]
    OtherPlatform {
        wanted: Box<Platform>,
        offered: Box<Platform>,
    },
    #[error("there is no image for {wanted}; there is: {}", list(offered))]
    NoPlatform {
        wanted: Box<Platform>,
        offered: Vec<Platform>,
    },
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "nothing".into();
    }
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    names.join(", ")
}

/// Content that is fetched by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
    /// Where it is if its registry may not give it.
    pub(super) urls: Vec<String>,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    /// Lowest first.
    pub(super) layers: Vec<Descriptor>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// One of an index's images.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    pub(super) platform: Option<Platform>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What is under a reference.
#[derive(Clone, Debug)]
pub(super) enum Document {
    Image(Manifest),
    Index(Vec<Entry>),
}

/// An image's configuration, as far as kplay reads it.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) diff_ids: Vec<Digest>,
    /// RFC 3339, as the image has it.
    pub(super) created: Option<String>,
    pub(super) platform: Platform,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
    annotations: Option<BTreeMap<String, String>>,
    urls: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawConfiguration {
    config: Option<RawConfig>,
    rootfs: Option<RawRootFs>,
    created: Option<String>,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    /// In the words of Go: a set.
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealthcheck {
    test: Option<Vec<String>>,
}

impl RawHealthcheck {
    /// `NONE` takes back what an image below says.
    fn is_there(&self) -> bool {
        let kind = self.test.as_deref().unwrap_or_default().first();
        kind.is_some_and(|kind| kind != "NONE")
    }
}

#[derive(Deserialize)]
struct RawRootFs {
    diff_ids: Option<Vec<String>>,
}

impl Document {
    /// Reads a manifest or an index; which of the two is told by its content where it has no media type.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let what = "manifest";
        within(bytes, what, MOST_MANIFEST_BYTES)?;
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })?;
        match (
            raw.schema_version,
            raw.media_type.as_deref().unwrap_or_default(),
        ) {
            (Some(1), _) => return Err(Error::Schema1),
            (_, "" | OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST) => {}
            (_, other) => return Err(Error::MediaType(other.to_owned())),
        }
        match raw {
            // A document that claims to be both would be read differently by different tools.
            RawDocument {
                config: None,
                layers: None,
                manifests: Some(manifests),
                ..
            } => Ok(Self::Index(
                manifests.into_iter().map(entry).collect::<Result<_, _>>()?,
            )),
            RawDocument {
                config: Some(config),
                layers,
                manifests: None,
                artifact_type,
                media_type,
                annotations,
                ..
            } => {
                let layers = layers.unwrap_or_default();
                if layers.len() > MOST_LAYERS {
                    return Err(Error::TooManyLayers(layers.len()));
                }
                let config = descriptor(config, "configuration")?;
                check_config_type(&config.media_type, media_type.as_deref(), artifact_type)?;
                let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
                let annotations = annotations.unwrap_or_default();
                Ok(Self::Image(Manifest {
                    config,
                    layers,
                    annotations,
                }))
            }
            _ => Err(Error::MediaType("neither a manifest nor an index".into())),
        }
    }
}

impl Configuration {
    /// Reads a configuration.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let what = "configuration";
        within(bytes, what, MOST_CONFIG_BYTES)?;
        let raw: RawConfiguration =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what, source })?;
        let diff_ids = raw
            .rootfs
            .and_then(|rootfs| rootfs.diff_ids)
            .unwrap_or_default();
        if diff_ids.len() > MOST_LAYERS {
            return Err(Error::TooManyLayers(diff_ids.len()));
        }
        let diff_ids = diff_ids
            .iter()
            .map(|text| digest(text, what, "layer"))
            .collect::<Result<_, _>>()?;
        let config = raw.config.unwrap_or_default();
        Ok(Self {
            diff_ids,
            created: raw.created,
            platform: Platform {
                os: raw.os.unwrap_or_default(),
                architecture: raw.architecture.unwrap_or_default(),
                variant: raw.variant.unwrap_or_default(),
            },
            config: ImageConfig {
                env: config.env.unwrap_or_default(),
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
                user: config.user.unwrap_or_default(),
                working_dir: config.working_dir.unwrap_or_default(),
                stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
                labels: config.labels.unwrap_or_default(),
                volumes: volumes(config.volumes.unwrap_or_default().into_keys()),
                healthcheck: config.healthcheck.is_some_and(|check| check.is_there()),
            },
        })
    }

    /// Checks that the configuration belongs to a manifest of so many layers.
    pub(super) fn check_layers(&self, layers: usize) -> Result<(), Error> {
        let diff_ids = self.diff_ids.len();
        if layers == diff_ids {
            Ok(())
        } else {
            Err(Error::LayerCount { layers, diff_ids })
        }
    }

    /// Checks that the image is for the processor of `wanted`. An image that does not say what it is for is taken; what
    /// it says of a variant is often wrong, and the index that names it knows better.
    pub(super) fn check_platform(&self, wanted: &Platform) -> Result<(), Error> {
        let own = &self.platform;
        let unsaid = own.os.is_empty() || own.architecture.is_empty();
        if unsaid || (own.os == wanted.os && own.architecture == wanted.architecture) {
            return Ok(());
        }
        Err(Error::OtherPlatform {
            wanted: Box::new(wanted.clone()),
            offered: Box::new(self.platform.clone()),
        })
    }
}

/// The entry that fits best, as containers/image chooses it; of those that fit as well the first that zstd made, or else
/// the first. An only entry without a platform fits.
pub(super) fn choose<'a>(entries: &'a [Entry], wanted: &Platform) -> Result<&'a Entry, Error> {
    if let [only] = entries
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let ranked = entries.iter().filter_map(|entry| {
        let rank = wanted.rank(entry.platform.as_ref()?)?;
        let zstd = entry
            .annotations
            .get(ZSTD)
            .is_some_and(|zstd| zstd == "true");
        Some(((rank, !zstd), entry))
    });
    let best = ranked.min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry).ok_or_else(|| {
        let known = |platform: &Platform| platform.architecture != "unknown";
        Error::NoPlatform {
            wanted: Box::new(wanted.clone()),
            offered: entries
                .iter()
                .filter_map(|e| e.platform.clone())
                .filter(known)
                .collect(),
        }
    })
}

fn within(bytes: &[u8], what: &'static str, most: u64) -> Result<(), Error> {
    if bytes.len() as u64 <= most {
        Ok(())
    } else {
        Err(Error::TooBig { what, most })
    }
}

fn digest(text: &str, what: &'static str, of: &'static str) -> Result<Digest, Error> {
    Digest::parse(text).map_err(|source| Error::Digest { what, of, source })
}

fn descriptor(raw: RawDescriptor, of: &'static str) -> Result<Descriptor, Error> {
    Ok(Descriptor {
        digest: digest(&raw.digest, "manifest", of)?,
        media_type: raw.media_type,
        size: raw.size,
        urls: raw.urls.unwrap_or_default(),
    })
}

fn entry(raw: RawDescriptor) -> Result<Entry, Error> {
    let platform = raw.platform.as_ref().map(|platform| Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    });
    let annotations = raw.annotations.clone().unwrap_or_default();
    Ok(Entry {
        descriptor: descriptor(raw, "manifest")?,
        platform,
        annotations,
    })
}

fn layer(raw: RawDescriptor) -> Result<Descriptor, Error> {
    let layer = descriptor(raw, "layer")?;
    // Only who has a key can read it, and the bytes would look broken.
    if layer.media_type.ends_with("+encrypted") {
        return Err(Error::Encrypted);
    }
    // The compression is told by the bytes; the type only tells a file system layer from something else.
    let known = [
        "application/vnd.oci.image.layer.",
        "application/vnd.docker.image.rootfs.",
    ];
    if known
        .iter()
        .any(|prefix| layer.media_type.starts_with(prefix))
    {
        Ok(layer)
    } else {
        Err(Error::MediaType(layer.media_type))
    }
}

/// Refuses what is stored in registries and is no image: charts, signatures, WebAssembly.
fn check_config_type(
    media_type: &str,
    of_manifest: Option<&str>,
    artifact_type: Option<String>,
) -> Result<(), Error> {
    match (media_type, of_manifest) {
        (
            OCI_CONFIG
            | DOCKER_CONFIG,
            _,
        )
        // What some registries once stored; Docker takes it too.
        | ("" | "application/octet-stream", Some(DOCKER_MANIFEST)) => Ok(()),
        (other, _) => {
            let own = artifact_type.filter(|own| !own.is_empty());
            Err(Error::MediaType(own.unwrap_or_else(|| other.to_owned())))
        }
    }
}

/// The paths as they are in a container, without what is none of its own.
fn volumes(paths: impl Iterator<Item = String>) -> Vec<PathBuf> {
    let clean = |path: String| {
        let mut clean = PathBuf::from("/");
        for part in Path::new(&path).components() {
            match part {
                Component::Normal(part) => clean.push(part),
                Component::ParentDir => drop(clean.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        clean
    };
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| !path.contains('\0'))
        .map(clean)
        .filter(|path| path != Path::new("/"))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}
