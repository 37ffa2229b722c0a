//! `storage.conf`: where podman, Buildah and CRI-O keep images, as containers-storage.conf(5) says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Error;
use crate::sys::fs;

/// Where their configuration and images are looked for. Without any place, there are none.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Instead of any other `storage.conf`.
    pub storage_conf: Option<PathBuf>,
    /// The first that is there counts.
    pub files: Vec<PathBuf>,
    /// Where images are unless a file says otherwise.
    pub usual: Option<PathBuf>,
    /// The driver there.
    pub driver: Option<String>,
    /// Whether `graphroot` is this user's: those without rights have `rootless_storage_path`.
    pub rootful: bool,
    /// What `$HOME`, `$USER` and `$UID` mean.
    pub variables: Vec<(&'static str, String)>,
}

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Storage {
    /// In the order in which they are asked.
    pub(super) roots: Vec<PathBuf>,
    /// The only one that counts, if one is named.
    pub(super) driver: Option<String>,
}

impl Places {
    /// Those of this machine and of who runs this process.
    #[must_use]
    pub fn of_process(uid: u32) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::of(uid, variable)
    }

    /// One store, whatever files say.
    #[must_use]
    pub fn at(folder: &Path, driver: Option<&str>) -> Self {
        Self {
            usual: Some(folder.to_owned()),
            driver: driver.map(str::to_owned),
            ..Self::default()
        }
    }

    /// The same, with these environment variables.
    pub(super) fn of(uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let rootful = uid == 0;
        let system = ["/etc/containers", "/usr/share/containers"];
        let system = system.map(|folder| Path::new(folder).join("storage.conf"));
        let home = path("HOME");
        let below =
            |name: &str, usual: &str| path(name).or_else(|| Some(home.clone()?.join(usual)));
        let own = below("XDG_CONFIG_HOME", ".config").filter(|_| !rootful);
        let own = own.map(|folder| folder.join("containers/storage.conf"));
        let usual = if rootful {
            Some(PathBuf::from("/var/lib/containers/storage"))
        } else {
            below("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("containers/storage"))
        };
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let mut variables = vec![("$UID", uid.to_string())];
        variables.extend(text("HOME").map(|home| ("$HOME", home)));
        variables.extend(text("USER").map(|user| ("$USER", user)));
        Self {
            storage_conf: path("CONTAINERS_STORAGE_CONF"),
            files: own.into_iter().chain(system).collect(),
            usual,
            driver: None,
            rootful,
            variables,
        }
    }
}

/// Reads the file that counts.
pub(super) fn read(places: &Places) -> Result<Storage, Error> {
    let own = places.storage_conf.iter();
    let others = places.files.iter();
    let others = others.filter(|_| places.storage_conf.is_none());
    for path in own.chain(others) {
        if let Some(bytes) = fs::read_if_there(path)? {
            return parse(path, &bytes, places);
        }
    }
    Ok(Storage {
        roots: places.usual.iter().cloned().collect(),
        driver: places.driver.clone(),
    })
}

fn parse(path: &Path, bytes: &[u8], places: &Places) -> Result<Storage, Error> {
    let invalid = |why: String| Error::Conf {
        path: path.to_owned(),
        why,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("it is no text".into()))?;
    let table = DeTable::parse(text).map_err(|e| invalid(e.message().to_owned()))?;
    let Some(DeValue::Table(storage)) = value(table.get_ref(), "storage") else {
        return Ok(Storage {
            roots: places.usual.iter().cloned().collect(),
            driver: None,
        });
    };
    let word = |table: &DeTable<'_>, key: &str| match value(table, key) {
        Some(DeValue::String(text)) if !text.is_empty() => Some(text.to_string()),
        _ => None,
    };
    let key = if places.rootful {
        "graphroot"
    } else {
        "rootless_storage_path"
    };
    let root = word(storage, key).map(|text| expanded(&text, places).into());
    let mut roots: Vec<PathBuf> = root.or_else(|| places.usual.clone()).into_iter().collect();
    roots.extend(word(storage, "imagestore").map(|text| PathBuf::from(expanded(&text, places))));
    if let Some(DeValue::Table(options)) = value(storage, "options") {
        for key in ["additionalimagestores", "imagestore"] {
            match value(options, key) {
                Some(DeValue::Array(stores)) => {
                    roots.extend(stores.iter().filter_map(|store| match store.get_ref() {
                        DeValue::String(text) => Some(PathBuf::from(expanded(text, places))),
                        _ => None,
                    }));
                }
                Some(DeValue::String(text)) if !text.is_empty() => {
                    roots.push(expanded(text, places).into());
                }
                _ => {}
            }
        }
    }
    let driver = word(storage, "driver");
    Ok(Storage { roots, driver })
}

fn value<'a, 'b>(table: &'a DeTable<'b>, key: &str) -> Option<&'a DeValue<'b>> {
    table.get(key).map(toml::Spanned::get_ref)
}

fn expanded(text: &str, places: &Places) -> String {
    let mut text = text.to_owned();
    for (name, value) in &places.variables {
        text = text.replace(name, value);
    }
    text
}
