//! `login` and `logout`: tries credentials, and keeps or forgets them, in podman's file.
//!
//! A file is replaced whole, with mode 0600; what kplay does not know in it stays. A credential helper that the file
//! names keeps the secret instead, and the file has an empty entry then, as Docker writes it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::file::{Config, Form, host, host_of};
use super::sign_in::Scheme;
use super::{Credentials, Error, Login, Origin, Places, SignIn, Transport, helper};
use crate::image::proxy::Proxies;
use crate::image::registries::RegistriesConf;
use crate::image::registry::{Fault, TlsVerify, address, certificates, with_or_without_tls};
use crate::sys::fs;

/// Whether a registry takes credentials.
///
/// # Errors
/// [`Fault::Unauthorized`] if it does not; or it cannot be asked.
pub async fn verify(
    registry: &str,
    credentials: &Credentials,
    tls_verify: TlsVerify,
    registries: &RegistriesConf,
    proxies: &Proxies,
) -> Result<(), Fault> {
    let insecure = registries.is_insecure(registry);
    let insecure = insecure.map_err(|error| Fault::Configuration(error.into()))?;
    let transport = Transport {
        scheme: Scheme::Https,
        verify: tls_verify.holds(insecure),
        certificates: certificates(registries, registry)?,
        proxies: proxies.clone(),
    };
    let by = async |transport| {
        let login = Login {
            credentials: credentials.clone(),
            origin: Origin::Given,
        };
        let sign_in = SignIn::new(registry, address(registry), Some(login), transport)?;
        let grant = sign_in.sign_in(&[]).await?;
        sign_in.check(&grant).await
    };
    with_or_without_tls(registry, transport, by).await
}

/// What is stored for a registry, or for a repository there (`HOST/PATH`), wherever it is.
///
/// # Errors
/// A file or helper cannot be asked.
pub fn stored(places: &Places, key: &str) -> Result<Option<Login>, Error> {
    let (registry, repository) = key.split_once('/').unwrap_or((key, ""));
    places.optional().find(registry, repository)
}

/// Keeps a name and a password for `HOST` or `HOST/PATH`.
///
/// # Errors
/// The file cannot be written, or its helper fails.
pub fn save(path: &Path, key: &str, username: &str, password: &str) -> Result<(), Error> {
    let mut file = ConfigFile::read(path)?;
    let entry = match file.config.keeper(key).filter(|_| !key.contains('/')) {
        Some((name, server)) => {
            let stored = helper::store(name, server, username, password);
            stored.map_err(|source| file.helper_failed(name, source))?;
            json!({})
        }
        None => json!({ "auth": BASE64_STANDARD.encode(format!("{username}:{password}")) }),
    };
    file.auths().insert(key.to_owned(), entry);
    file.write()
}

/// What `logout` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    Removed,
    /// There are credentials, but not where `login` puts them.
    Elsewhere(Origin),
    NotLoggedIn,
}

/// Forgets the credentials for `HOST` or `HOST/PATH`.
///
/// # Errors
/// The file cannot be written, or its helper fails.
pub fn log_out(places: &Places, path: &Path, key: &str) -> Result<LoggedOut, Error> {
    let mut file = ConfigFile::read(path)?;
    let mut removed = false;
    if let Some((name, server)) = file.config.keeper(key).filter(|_| !key.contains('/')) {
        let erased = helper::erase(name, server);
        removed = erased.map_err(|source| file.helper_failed(name, source))?;
    }
    let is_same = |entry: &str| {
        entry == key || (!key.contains('/') && host_of(entry, Form::Current) == host(key))
    };
    let auths = file.auths();
    let before = auths.len();
    auths.retain(|entry, _| !is_same(entry));
    if auths.len() < before {
        removed = true;
        file.write()?;
    }
    if removed {
        return Ok(LoggedOut::Removed);
    }
    let left = stored(places, key)?;
    Ok(left.map_or(LoggedOut::NotLoggedIn, |login| {
        LoggedOut::Elsewhere(login.origin)
    }))
}

/// What `logout --all` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    Some,
    Nothing,
}

/// Forgets all credentials of a file and those that its helpers keep for it.
///
/// # Errors
/// The file cannot be written, or a helper fails.
pub fn log_out_of_all(path: &Path) -> Result<Removed, Error> {
    let mut file = ConfigFile::read(path)?;
    let keys: Vec<String> = file.auths().keys().cloned().collect();
    let mut kept: Vec<(&str, &str)> = file.config.helpers().collect();
    kept.extend(keys.iter().filter_map(|key| file.config.keeper(key)));
    kept.sort_unstable();
    kept.dedup();
    let mut removed = Removed::Nothing;
    for (name, server) in kept {
        let erased = helper::erase(name, server);
        if erased.map_err(|source| file.helper_failed(name, source))? {
            removed = Removed::Some;
        }
    }
    if !keys.is_empty() {
        file.auths().clear();
        file.write()?;
        removed = Removed::Some;
    }
    Ok(removed)
}

/// A file that is changed.
struct ConfigFile {
    path: PathBuf,
    config: Config,
    all: Map<String, Value>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, Error> {
        // A link stays one, and what it leads to is replaced. A file that is not there is made.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let bytes = fs::read_if_there(&path)?.unwrap_or_default();
        let config = Config::parse(&bytes, Form::Current, &path)?;
        let all = match bytes.trim_ascii() {
            [] => Map::new(),
            bytes => serde_json::from_slice(bytes).map_err(|fault| Error::Damaged {
                path: path.clone(),
                line: fault.line(),
                column: fault.column(),
            })?,
        };
        Ok(Self { path, config, all })
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.all.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            // Only `null` was parsed as no entries.
            *auths = json!({});
        }
        auths.as_object_mut().expect("it was made one")
    }

    /// As podman writes it: with tabs.
    fn write(&self) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let style = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut bytes, style);
        self.all
            .serialize(&mut writer)
            .expect("JSON goes into memory");
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir, 0o700)?;
        }
        Ok(fs::replace(&self.path, 0o600, &bytes)?)
    }

    fn helper_failed(&self, name: &str, source: helper::Fault) -> Error {
        Error::Helper {
            name: name.to_owned(),
            path: self.path.clone(),
            source,
        }
    }
}
