//! Which files count, and what they say together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::parse::{self, Kind};
use super::{Error, Registries};
use crate::sys::fs;

type Aliases = BTreeMap<String, Option<String>>;

/// Where configuration is looked for. Without any place, there is none.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Instead of any other `registries.conf`: then it has to be there.
    pub registries_conf: Option<PathBuf>,
    /// `~/.config/containers`.
    pub user: Option<PathBuf>,
    /// `/etc/containers`.
    pub system: Option<PathBuf>,
    /// `/usr/share/containers`: where distributions put what nobody has changed.
    pub vendor: Option<PathBuf>,
    /// `short-name-aliases.conf`, which podman writes.
    pub aliases: Option<PathBuf>,
    /// Docker's `certs.d`.
    pub docker_certs: Option<PathBuf>,
    /// Instead of any `certs.d/HOST`.
    pub cert_dir: Option<PathBuf>,
}

impl Places {
    /// Those of this machine and of who runs this process, as environment variables have them.
    #[must_use]
    pub fn of_process(is_root: bool) -> Self {
        Self::of(is_root, |name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// The same, with these environment variables.
    pub(super) fn of(is_root: bool, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HOME");
        // Not `XDG_CONFIG_HOME`: podman does not ask it either for these.
        let user = home.as_ref().map(|home| home.join(".config/containers"));
        let cache = match is_root {
            true => Some(PathBuf::from("/var/cache")),
            false => path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache"))),
        };
        Self {
            registries_conf: path("CONTAINERS_REGISTRIES_CONF")
                .or_else(|| path("REGISTRIES_CONFIG_PATH")),
            user,
            system: Some("/etc/containers".into()),
            vendor: Some("/usr/share/containers".into()),
            aliases: cache.map(|cache| cache.join("containers/short-name-aliases.conf")),
            docker_certs: Some("/etc/docker/certs.d".into()),
            cert_dir: None,
        }
    }
}

/// Reads all files of `registries.conf`. What comes later counts more.
pub(super) fn read(places: &Places) -> Result<Registries, Error> {
    let mut registries = Registries::default();
    let mut from = [&places.user, &places.system, &places.vendor]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("registries.conf"));
    let users = places
        .user
        .as_ref()
        .map(|user| user.join("registries.conf"));
    let main = match &places.registries_conf {
        Some(path) => Some((path.clone(), fs::read(path)?)),
        None => loop {
            let Some(path) = from.next() else { break None };
            if let Some(bytes) = fs::read_if_there(&path)? {
                break Some((path, bytes));
            }
        },
    };
    let mut folders = vec![&places.system, &places.user];
    if let Some((path, bytes)) = main {
        // The user's own file means the user's own folder alone.
        if places.registries_conf.is_none() && Some(&path) == users.as_ref() {
            folders.remove(0);
        }
        registries.add(parsed(&path, bytes, Kind::Main)?);
    }
    for folder in folders.into_iter().flatten() {
        let folder = folder.join("registries.conf.d");
        for name in fs::list(&folder)? {
            let path = folder.join(name);
            if path
                .extension()
                .is_some_and(|extension| extension == "conf")
                && !path.is_dir()
            {
                let bytes = fs::read(&path)?;
                registries.add(parsed(&path, bytes, Kind::DropIn)?);
            }
        }
    }
    if let Some(path) = &places.aliases {
        registries.aliases.extend(read_aliases(path)?);
    }
    if registries.credential_helpers.is_empty() {
        registries.credential_helpers = vec!["containers-auth.json".to_owned()];
    }
    Ok(registries)
}

/// The file of aliases that is written by who asked.
pub(super) fn read_aliases(path: &Path) -> Result<Aliases, Error> {
    match fs::read_if_there(path)? {
        Some(bytes) => Ok(parsed(path, bytes, Kind::DropIn)?.aliases),
        None => Ok(Aliases::new()),
    }
}

/// Writes it anew, as podman does: nobody writes it by hand.
pub(super) fn write_aliases(path: &Path, aliases: &Aliases) -> Result<(), fs::Error> {
    let mut text = String::from("[aliases]\n");
    for (name, value) in aliases {
        // Both are names of images: nothing in them needs an escape.
        let value = value.as_deref().unwrap_or_default();
        text.push_str(&format!("  \"{name}\" = \"{value}\"\n"));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder, 0o700)?;
    }
    fs::replace(path, 0o644, text.as_bytes())
}

fn parsed(path: &Path, bytes: Vec<u8>, kind: Kind) -> Result<parse::Settings, Error> {
    let text = String::from_utf8(bytes).map_err(|_| Error::Text {
        file: path.to_owned(),
    })?;
    parse::parse(path, &text, kind)
}
