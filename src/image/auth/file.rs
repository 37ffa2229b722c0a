//! Files with credentials: where they are, and which entry is a repository's.
//!
//! ```text
//! { "auths": { "host/namespace": { "auth": base64(user:password), "identitytoken": …, "registrytoken": … } },
//!   "credHelpers": { "host": NAME }, "credsStore": NAME }
//! ```
//!
//! `.dockercfg`, the oldest form, is the content of `auths` alone. As in podman, the longest key that is the repository's
//! path or a parent of it wins, then the host under any of the spellings that `docker login` has used.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::helper;
use super::{Credentials, Error, Login, Origin};
use crate::sys::fs;

/// The key that Docker has for `docker.io`.
pub(super) const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// The user's files that may have credentials, in the order in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    form: Form,
    /// Whether it was named, and so has to be there.
    named: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Current,
    /// `.dockercfg`.
    Legacy,
}

impl Places {
    /// No file at all.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Podman's places: `--authfile` or `REGISTRY_AUTH_FILE` alone, or the usual ones.
    pub fn new(
        authfile: Option<&Path>,
        uid: u32,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let named = authfile.map(Path::to_owned);
        if let Some(path) = named.or_else(|| set("REGISTRY_AUTH_FILE").map(PathBuf::from)) {
            let (form, named) = (Form::Current, true);
            return Self(vec![Place { path, form, named }]);
        }
        let place = |path: PathBuf, form| Place {
            path,
            form,
            named: false,
        };
        let run = set("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/containers/{uid}/auth.json")),
            |dir| Path::new(&dir).join("containers/auth.json"),
        );
        let home = set("HOME").map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = set("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| Some(home.as_ref()?.join(".docker")));
        let usual = [
            Some(run),
            config.map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
        ];
        let usual = usual.into_iter().flatten();
        let legacy = home.map(|home| place(home.join(".dockercfg"), Form::Legacy));
        Self(
            usual
                .map(|path| place(path, Form::Current))
                .chain(legacy)
                .collect(),
        )
    }

    /// The file that `login` writes, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<&Path> {
        self.0.first().map(|place| place.path.as_path())
    }

    /// The first file's entry for a repository, or for a registry if the repository is empty.
    ///
    /// # Errors
    /// A file or helper cannot be asked.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, Error> {
        for place in &self.0 {
            let Some(bytes) = fs::read_if_there(&place.path)? else {
                if place.named {
                    let path = place.path.clone();
                    return Err(Error::NotThere { path });
                }
                continue;
            };
            let config = Config::parse(&bytes, place.form, &place.path)?;
            let found = config.find(registry, repository, place.form, &place.path)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The same for `login` and `logout`, which make a named file.
    pub(super) fn optional(&self) -> Self {
        let mut places = self.clone();
        places.0.iter_mut().for_each(|place| place.named = false);
        places
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Config {
    auths: BTreeMap<String, Entry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// One registry's credentials, in any of the forms that there are.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl Config {
    pub(super) fn parse(bytes: &[u8], form: Form, path: &Path) -> Result<Self, Error> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let raw = match form {
            Form::Current => serde_json::from_slice(bytes),
            Form::Legacy => serde_json::from_slice(bytes).map(|auths| Raw {
                auths,
                cred_helpers: None,
                creds_store: None,
            }),
        };
        // The message of the parser would quote what is there.
        let raw: Raw = raw.map_err(|fault| Error::Damaged {
            path: path.to_owned(),
            line: fault.line(),
            column: fault.column(),
        })?;
        let auths = raw.auths.unwrap_or_default().into_iter();
        Ok(Self {
            auths: auths
                .map(|(key, entry)| (key, entry.unwrap_or_default()))
                .collect(),
            helpers: raw.cred_helpers.unwrap_or_default(),
            store: raw.creds_store.filter(|name| !name.is_empty()),
        })
    }

    /// All entries that have credentials.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, Credentials)> {
        let entries = self.auths.iter();
        entries.filter_map(|(key, entry)| Some((key.as_str(), entry.credentials()?)))
    }

    fn find(
        &self,
        registry: &str,
        repository: &str,
        form: Form,
        path: &Path,
    ) -> Result<Option<Login>, Error> {
        if let Some((name, server)) = self.helper_for(registry) {
            return ask(name, server, path);
        }
        if let Some(credentials) = self.entry(registry, repository, form) {
            let origin = Origin::File(path.to_owned());
            return Ok(Some(Login {
                credentials,
                origin,
            }));
        }
        match &self.store {
            Some(name) => ask(name, server_name(registry), path),
            None => Ok(None),
        }
    }

    /// The helper for a registry alone, and the registry's name there.
    pub(super) fn helper_for<'a>(&'a self, registry: &'a str) -> Option<(&'a str, &'a str)> {
        let same = |key: &str| key == registry || host_of(key, Form::Current) == host(registry);
        let exact = self.helpers.get_key_value(registry);
        let found = exact.or_else(|| self.helpers.iter().find(|(key, _)| same(key)));
        found.map(|(key, name)| (name.as_str(), key.as_str()))
    }

    /// What stores credentials of a registry instead of the file, and the registry's name there.
    pub(super) fn keeper<'a>(&'a self, registry: &'a str) -> Option<(&'a str, &'a str)> {
        let store = self.store.as_deref();
        self.helper_for(registry)
            .or_else(|| Some((store?, server_name(registry))))
    }

    pub(super) fn helpers(&self) -> impl Iterator<Item = (&str, &str)> {
        let helpers = self.helpers.iter();
        helpers.map(|(server, name)| (name.as_str(), server.as_str()))
    }

    fn entry(&self, registry: &str, repository: &str, form: Form) -> Option<Credentials> {
        let mut key = match form {
            Form::Current if !repository.is_empty() => format!("{registry}/{repository}"),
            Form::Current | Form::Legacy => registry.to_owned(),
        };
        loop {
            if let Some(entry) = self.auths.get(&key) {
                return entry.credentials();
            }
            match key.rfind('/') {
                Some(slash) => key.truncate(slash),
                None => break,
            }
        }
        let mut others = self.auths.iter();
        let (_, entry) = others.find(|(key, _)| host_of(key, form) == host(registry))?;
        entry.credentials()
    }
}

pub(super) fn ask(name: &str, server: &str, path: &Path) -> Result<Option<Login>, Error> {
    let fail = |source| Error::Helper {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    };
    let found = helper::get(name, server).map_err(fail)?;
    Ok(found.map(|credentials| Login {
        credentials,
        origin: Origin::Helper(name.to_owned()),
    }))
}

/// How Docker names a registry to its helpers.
fn server_name(registry: &str) -> &str {
    match host(registry) {
        "index.docker.io" => DOCKER_KEY,
        _ => registry,
    }
}

/// One of the names of a registry that has several.
pub(super) fn host(registry: &str) -> &str {
    match registry {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

/// The registry of a key; keys were URLs once.
pub(super) fn host_of(key: &str, form: Form) -> &str {
    let bare = without_scheme(key);
    match form {
        Form::Current if bare.len() == key.len() => host(bare),
        Form::Current | Form::Legacy => host(bare.split('/').next().unwrap_or_default()),
    }
}

pub(super) fn without_scheme(key: &str) -> &str {
    let https = key.strip_prefix("https://");
    https.or_else(|| key.strip_prefix("http://")).unwrap_or(key)
}

impl Entry {
    /// `None` if there are none, or `auth` is not what it should be: docker passes over that as well.
    fn credentials(&self) -> Option<Credentials> {
        let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = set(&self.registrytoken) {
            return Some(Credentials::Registry { token });
        }
        if let Some(token) = set(&self.identitytoken) {
            return Some(Credentials::Identity { token });
        }
        if let Some(auth) = set(&self.auth) {
            let bytes = BASE64_STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (username, password) = text.split_once(':')?;
            return Some(Credentials::password(
                username,
                password.trim_end_matches('\0'),
            ));
        }
        let (username, password) = (set(&self.username)?, self.password.as_ref()?);
        Some(Credentials::password(&username, password))
    }
}
