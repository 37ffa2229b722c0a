//! `policy.json`: which images may be used. Signatures are not verified: an image that needs one is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Places;
use crate::model::reference::Reference;
use crate::sys::fs;

/// What is wrong with the policy, or what it forbids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error("{file:?} is no policy")]
    Json {
        file: PathBuf,
        source: serde_json::Error,
    },
    #[error("{file:?} has no requirement for {scope}")]
    Empty { file: PathBuf, scope: String },
    #[error("`{image}` is rejected by {file:?}, for {scope}")]
    Rejected {
        image: String,
        file: PathBuf,
        scope: String,
    },
    #[error(
        "`{image}` must be signed (`{requirement}`) according to {file:?}, for {scope}, and kplay does not \
         verify signatures"
    )]
    Signature {
        image: String,
        requirement: &'static str,
        file: PathBuf,
        scope: String,
    },
}

/// A machine's policy.
#[derive(Debug)]
pub(super) struct Policy {
    /// `None` without a file: then everything may be used.
    rules: Option<(PathBuf, Rules)>,
}

/// Where images are loaded from, in podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Transport {
    DockerArchive,
    OciArchive,
    OciLayout,
    ContainersStorage,
    DockerDaemon,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    default: Vec<Requirement>,
    /// By transport, then by scope; the scope `""` is the transport's default.
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Requirement {
    InsecureAcceptAnything,
    Reject,
    SignedBy,
    SignedBaseLayer,
    SigstoreSigned,
}

impl Policy {
    /// The user's, or the system's.
    pub(super) fn read(places: &Places) -> Result<Self, Error> {
        for folder in [&places.user, &places.system].into_iter().flatten() {
            let file = folder.join("policy.json");
            if let Some(bytes) = fs::read_if_there(&file)? {
                let rules = serde_json::from_slice(&bytes);
                let rules = rules.map_err(|source| Error::Json {
                    file: file.clone(),
                    source,
                })?;
                return Ok(Self {
                    rules: Some((file, rules)),
                });
            }
        }
        Ok(Self { rules: None })
    }

    /// Whether an image may be pulled, by the name that it was asked for with.
    pub(super) fn check_pull(&self, image: &Reference) -> Result<(), Error> {
        self.check("docker", &docker_scopes(image), &image.to_string())
    }

    /// Whether images may be loaded from a file or folder, or from a pipe.
    pub(super) fn check_load(
        &self,
        transport: Transport,
        path: Option<&Path>,
    ) -> Result<(), Error> {
        let image = path.map_or_else(
            || match transport {
                Transport::ContainersStorage => "another engine's store".to_owned(),
                Transport::DockerDaemon => "Docker's images".to_owned(),
                Transport::DockerArchive | Transport::OciArchive | Transport::OciLayout => {
                    "the standard input".to_owned()
                }
            },
            |path| path.display().to_string(),
        );
        let (name, has_paths) = match transport {
            // podman gives it no other scope than its own.
            Transport::DockerArchive => ("docker-archive", false),
            Transport::OciArchive => ("oci-archive", true),
            Transport::OciLayout => ("oci", true),
            Transport::ContainersStorage => ("containers-storage", false),
            Transport::DockerDaemon => ("docker-daemon", false),
        };
        let scopes = path
            .filter(|_| has_paths)
            .and_then(|path| path.canonicalize().ok());
        let scopes = scopes.iter().flat_map(|path| path.ancestors());
        let scopes = scopes.filter(|path| path.parent().is_some());
        let mut scopes: Vec<String> = scopes.map(|path| path.display().to_string()).collect();
        scopes.push(String::new());
        self.check(name, &scopes, &image)
    }

    /// The first of the scopes that has requirements decides.
    fn check(&self, transport: &str, scopes: &[String], image: &str) -> Result<(), Error> {
        let Some((file, rules)) = &self.rules else {
            return Ok(());
        };
        let of_transport = rules.transports.get(transport);
        let found = of_transport.and_then(|rules| {
            scopes
                .iter()
                .find_map(|scope| Some((rules.get(scope)?, scope)))
        });
        let (requirements, scope) = match found {
            Some((requirements, scope)) if scope.is_empty() => {
                (requirements, format!("the transport `{transport}`"))
            }
            Some((requirements, scope)) => (requirements, format!("the scope `{scope}`")),
            None => (&rules.default, "everything (`default`)".to_owned()),
        };
        if requirements.is_empty() {
            let file = file.clone();
            return Err(Error::Empty { file, scope });
        }
        for requirement in requirements {
            let (image, file, scope) = (image.to_string(), file.clone(), scope.clone());
            let requirement = match requirement {
                Requirement::InsecureAcceptAnything => continue,
                Requirement::Reject => return Err(Error::Rejected { image, file, scope }),
                Requirement::SignedBy => "signedBy",
                Requirement::SignedBaseLayer => "signedBaseLayer",
                Requirement::SigstoreSigned => "sigstoreSigned",
            };
            return Err(Error::Signature {
                image,
                requirement,
                file,
                scope,
            });
        }
        Ok(())
    }
}

/// The scopes that an image of a registry is in, the narrowest first.
fn docker_scopes(image: &Reference) -> Vec<String> {
    let repository = format!("{}/{}", image.registry, image.repository);
    let mut scopes = Vec::new();
    match (&image.digest, &image.tag) {
        (Some(digest), _) => scopes.push(format!("{repository}@{digest}")),
        (None, Some(tag)) => scopes.push(format!("{repository}:{tag}")),
        (None, None) => {}
    }
    let mut path = repository.as_str();
    scopes.push(path.to_owned());
    while let Some((parent, _)) = path.rsplit_once('/') {
        scopes.push(parent.to_owned());
        path = parent;
    }
    // Of `a.b.example.com:5000`, also `*.b.example.com` and so on.
    let mut host = image.registry.split(':').next().unwrap_or_default();
    while let Some((_, domain)) = host.split_once('.') {
        scopes.push(format!("*.{domain}"));
        host = domain;
    }
    scopes.push(String::new());
    scopes
}
