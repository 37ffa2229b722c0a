//! What a machine's configuration says about registries, as containers-registries.conf(5), containers-certs.d(5) and
//! containers-policy.json(5) have it for podman: which registries a short name means, where an image really is and
//! which mirrors it has, which certificates count, and what must not be pulled at all.
//!
//! ```text
//! ImageName ─ names ─▶ Reference ─ policy ─ endpoints ─▶ Endpoint, Endpoint, …   mirrors first, the location last
//! ```
//!
//! Files are read when they are first needed. Who signs in at a registry is not decided here.

mod certs;
mod files;
mod parse;
mod policy;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::model::reference::{ImageName, InvalidReference, Reference};
use crate::sys::fs;

pub use certs::Error as CertsError;
pub use files::Places;
pub use parse::{Fault, Place};
pub use policy::Error as PolicyError;

pub(super) use certs::Certificates;
pub(super) use policy::Transport;

use parse::{Mirror, PullFromMirror, Registry, Settings, ShortNameMode};
use policy::Policy;

/// What is wrong with the configuration, or what it forbids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error("{place}: {fault}")]
    Setting { place: Place, fault: Fault },
    #[error("{file:?} is no text")]
    Text { file: PathBuf },
    #[error("the image `{image}` is blocked by {place}")]
    Blocked { image: String, place: Place },
    #[error("{place}: the location `{location}` cannot be used for `{image}`")]
    Location {
        place: Place,
        location: String,
        image: String,
        source: NoLocation,
    },
    #[error("the short name `{name}` cannot be completed with `{with}`")]
    Complete {
        name: String,
        with: String,
        source: InvalidReference,
    },
    #[error(
        "the short name `{name}` can mean {}, and `short-name-mode` is `enforcing`",
        candidates.join(" or ")
    )]
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
    #[error(transparent)]
    Policy(#[from] policy::Error),
}

/// Why a location is none.
#[derive(Debug, thiserror::Error)]
pub enum NoLocation {
    #[error("it does not begin with a registry: a host with a dot or a port, or `localhost`")]
    NoRegistry,
    #[error(transparent)]
    Reference(#[from] InvalidReference),
}

/// One place that an image can be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) reference: Reference,
    /// Any certificate is taken, and http where https does not answer.
    pub(super) insecure: bool,
    /// Whether it is another's copy: credentials that are given for the image are not for it.
    pub(super) mirror: bool,
}

/// The configuration of a machine and user.
#[derive(Debug, Default)]
pub struct RegistriesConf {
    places: Places,
    registries: OnceLock<Registries>,
    policy: OnceLock<Policy>,
}

impl RegistriesConf {
    /// What these files say, when it is asked for.
    #[must_use]
    pub fn new(places: Places) -> Self {
        Self {
            places,
            ..Self::default()
        }
    }

    /// What a pull of this name may try, in order.
    ///
    /// # Errors
    /// The files cannot be used, or leave the name open.
    pub fn names(&self, image: &ImageName) -> Result<Vec<Reference>, Error> {
        match image.short() {
            None => Ok(vec![image.reference().clone()]),
            Some(short) => self.registries()?.names(image, short),
        }
    }

    /// What podman asks whoever sits at a terminal: which of several images a short name means. Nothing if that is clear,
    /// or not to be asked.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn candidates(&self, image: &ImageName) -> Result<Option<Vec<Reference>>, Error> {
        match image.short() {
            None => Ok(None),
            Some(short) => self.registries()?.candidates(image, short),
        }
    }

    /// Writes down what a short name means, for podman too. Who has no file for it is asked again.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn record_alias(&self, short: &str, chosen: &Reference) -> Result<(), Error> {
        let Some(path) = &self.places.aliases else {
            return Ok(());
        };
        let mut aliases = files::read_aliases(path)?;
        let repository = format!("{}/{}", chosen.registry, chosen.repository);
        aliases.insert(short.to_owned(), Some(repository));
        Ok(files::write_aliases(path, &aliases)?)
    }

    /// What an image of this name may be called in the store, the likeliest first.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn stored_names(&self, image: &ImageName) -> Result<Vec<Reference>, Error> {
        match image.short() {
            None => Ok(vec![image.reference().clone()]),
            Some(short) => self.registries()?.stored_names(image, short),
        }
    }

    /// `credential-helpers`: who is asked for credentials, in order; `containers-auth.json` stands for the files.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn credential_helpers(&self) -> Result<&[String], Error> {
        Ok(&self.registries()?.credential_helpers)
    }

    /// Where an image is pulled from, in order: there is at least one place.
    pub(super) fn endpoints(&self, image: &Reference) -> Result<Vec<Endpoint>, Error> {
        self.policy()?.check_pull(image)?;
        self.registries()?.endpoints(image)
    }

    /// Where an image is pushed to: its own registry, for mirrors are others' copies.
    pub(super) fn push_endpoint(&self, image: &Reference) -> Result<Endpoint, Error> {
        self.registries()?.push_endpoint(image)
    }

    /// Whether a registry as such is called insecure.
    pub(super) fn is_insecure(&self, registry: &str) -> Result<bool, Error> {
        let registry = self.registries()?.of(registry);
        Ok(registry.is_some_and(|(registry, _)| registry.insecure))
    }

    /// Whether images may be loaded from a file or folder, or from a pipe.
    pub(super) fn check_load(
        &self,
        transport: Transport,
        path: Option<&Path>,
    ) -> Result<(), Error> {
        Ok(self.policy()?.check_load(transport, path)?)
    }

    /// The certificates for a registry.
    pub(super) fn certificates(&self, registry: &str) -> Result<Certificates, certs::Error> {
        certs::of_registry(&self.places, registry)
    }

    fn registries(&self) -> Result<&Registries, Error> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries);
        }
        let registries = files::read(&self.places)?;
        Ok(self.registries.get_or_init(|| registries))
    }

    fn policy(&self) -> Result<&Policy, Error> {
        if let Some(policy) = self.policy.get() {
            return Ok(policy);
        }
        let policy = Policy::read(&self.places)?;
        Ok(self.policy.get_or_init(|| policy))
    }
}

/// All files of `registries.conf` together.
#[derive(Debug, Default)]
struct Registries {
    search: Vec<String>,
    mode: ShortNameMode,
    credential_helpers: Vec<String>,
    aliases: BTreeMap<String, Option<String>>,
    registries: Vec<Registry>,
}

impl Registries {
    /// Adds what a further file says, which counts more.
    fn add(&mut self, settings: Settings) {
        if let Some(search) = settings.search {
            self.search = search;
        }
        if let Some(mode) = settings.mode {
            self.mode = mode;
        }
        if !settings.credential_helpers.is_empty() {
            self.credential_helpers = settings.credential_helpers;
        }
        self.aliases.extend(settings.aliases);
        for registry in settings.registries {
            self.registries
                .retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
    }

    fn alias(&self, image: &ImageName, short: &str) -> Result<Option<Reference>, Error> {
        let Some(Some(alias)) = self.aliases.get(short) else {
            return Ok(None);
        };
        complete(image, short, alias).map(Some)
    }

    fn searched(&self, image: &ImageName, short: &str) -> Result<Vec<Reference>, Error> {
        let complete = |registry| complete(image, short, &format!("{registry}/{short}"));
        self.search.iter().map(complete).collect()
    }

    fn names(&self, image: &ImageName, short: &str) -> Result<Vec<Reference>, Error> {
        if let Some(alias) = self.alias(image, short)? {
            return Ok(vec![alias]);
        }
        let names = self.searched(image, short)?;
        match (names.len(), self.mode) {
            // podman would give up; a kubelet takes it for Docker's.
            (0, _) => Ok(vec![image.reference().clone()]),
            (1, _) | (_, ShortNameMode::Permissive | ShortNameMode::Disabled) => Ok(names),
            // podman asks whoever sits at a terminal; a manifest is applied without questions.
            (_, ShortNameMode::Enforcing) => Err(Error::Ambiguous {
                name: short.to_owned(),
                candidates: names.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    fn candidates(&self, image: &ImageName, short: &str) -> Result<Option<Vec<Reference>>, Error> {
        let asks = match self.mode {
            ShortNameMode::Enforcing | ShortNameMode::Permissive => true,
            ShortNameMode::Disabled => false,
        };
        if !asks || self.alias(image, short)?.is_some() {
            return Ok(None);
        }
        let names = self.searched(image, short)?;
        Ok((names.len() > 1).then_some(names))
    }

    fn stored_names(&self, image: &ImageName, short: &str) -> Result<Vec<Reference>, Error> {
        let alias = self.alias(image, short)?;
        if alias.is_none() && self.search.is_empty() {
            return Ok(vec![image.reference().clone()]);
        }
        let local = complete(image, short, &format!("localhost/{short}"))?;
        let mut names: Vec<Reference> = alias.into_iter().chain([local]).collect();
        names.extend(self.searched(image, short)?);
        Ok(names)
    }

    /// What goes for a reference or a part of one, and how much of it the prefix covers.
    fn of(&self, text: &str) -> Option<(&Registry, usize)> {
        let matching = self.registries.iter().filter_map(|registry| {
            let length = matched(text, &registry.prefix)?;
            Some((registry, length))
        });
        matching.max_by_key(|(registry, _)| registry.prefix.len())
    }

    fn push_endpoint(&self, image: &Reference) -> Result<Endpoint, Error> {
        let text = image.to_string();
        let found = self.of(&text).map(|(registry, _)| registry);
        if let Some(registry) = found.filter(|registry| registry.blocked) {
            return Err(Error::Blocked {
                image: text,
                place: registry.place.clone(),
            });
        }
        // As with podman, a location is where images are pulled from.
        Ok(Endpoint {
            reference: image.clone(),
            insecure: found.is_some_and(|registry| registry.insecure),
            mirror: false,
        })
    }

    fn endpoints(&self, image: &Reference) -> Result<Vec<Endpoint>, Error> {
        let text = image.to_string();
        let unchanged = Endpoint {
            reference: image.clone(),
            insecure: false,
            mirror: false,
        };
        let Some((registry, length)) = self.of(&text) else {
            return Ok(vec![unchanged]);
        };
        if registry.blocked {
            return Err(Error::Blocked {
                image: text,
                place: registry.place.clone(),
            });
        }
        let at = |location: &str| {
            let rewritten = rewritten(location, &text[length..]);
            rewritten.map_err(|source| Error::Location {
                place: registry.place.clone(),
                location: location.to_owned(),
                image: text.clone(),
                source,
            })
        };
        let mut endpoints = Vec::new();
        for mirror in &registry.mirrors {
            if takes(registry, mirror, image.digest.is_some()) {
                endpoints.push(Endpoint {
                    reference: at(&mirror.location)?,
                    insecure: mirror.insecure,
                    mirror: true,
                });
            }
        }
        endpoints.push(Endpoint {
            reference: match &registry.location {
                Some(location) => at(location)?,
                None => image.clone(),
            },
            insecure: registry.insecure,
            mirror: false,
        });
        Ok(endpoints)
    }
}

fn complete(image: &ImageName, short: &str, repository: &str) -> Result<Reference, Error> {
    image
        .of_repository(repository)
        .map_err(|source| Error::Complete {
            name: short.to_owned(),
            with: repository.to_owned(),
            source,
        })
}

/// Whether a mirror is for pulls by digest, or for those by tag.
fn takes(registry: &Registry, mirror: &Mirror, by_digest: bool) -> bool {
    match mirror.pull {
        _ if registry.mirror_by_digest_only => by_digest,
        PullFromMirror::All => true,
        PullFromMirror::DigestOnly => by_digest,
        PullFromMirror::TagOnly => !by_digest,
    }
}

/// How much of a reference a prefix covers, if it does.
fn matched(reference: &str, prefix: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        // `.example.com`: whatever is before it has no `/`.
        Some(domain) => {
            let host = reference.split([':', '/']).next().unwrap_or_default();
            host.ends_with(domain).then_some(host.len())?
        }
        None => reference.starts_with(prefix).then_some(prefix.len())?,
    };
    // So `example.com` covers `example.com:5000` too, as for podman.
    let rest = &reference[length..];
    (rest.is_empty() || rest.starts_with([':', '/', '@'])).then_some(length)
}

fn rewritten(location: &str, rest: &str) -> Result<Reference, NoLocation> {
    let text = format!("{location}{rest}");
    let name = ImageName::parse(&text)?;
    match name.short() {
        None => Ok(name.reference().clone()),
        Some(_) => Err(NoLocation::NoRegistry),
    }
}

/// What a file says, whatever is in it, and what that makes of some names.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(text: &str) {
    for kind in [parse::Kind::Main, parse::Kind::DropIn] {
        let settings = match parse::parse("registries.conf".as_ref(), text, kind) {
            Ok(settings) => settings,
            Err(error) => {
                assert!(error.to_string().contains("registries.conf"), "{error}");
                continue;
            }
        };
        let mut registries = Registries::default();
        registries.add(settings);
        for name in ["box", "a.test/x:1", "m.example.com/a/b:2", "c.test:5000/y"] {
            let Ok(image) = ImageName::parse(name) else {
                continue;
            };
            let short = image.short().unwrap_or_default();
            for reference in registries.names(&image, short).into_iter().flatten() {
                let endpoints = registries.endpoints(&reference);
                assert!(endpoints.is_err() || endpoints.is_ok_and(|places| !places.is_empty()));
            }
        }
    }
}
