//! Where images may be pulled from beside registries, in podman's words (containers-transports(5)):
//! `docker-archive:PATH[:NAME|:@NUMBER]`, `oci-archive:PATH[:NAME]`, `oci:FOLDER[:NAME]`, `docker-daemon:NAME`,
//! `containers-storage:[DRIVER@FOLDER]NAME`; and `docker://NAME`, which is a registry after all.

use std::path::PathBuf;

use super::containers::{OtherStores, Places};
use super::daemon::{self, Daemon};
use super::error::Error;
use super::load::{LoadSource, Loaded, Part, Shape};
use super::registries::RegistriesConf;
use super::store::Store;
use crate::model::reference::{ImageName, InvalidReference};

/// What to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullSource {
    Registry(ImageName),
    File {
        shape: Shape,
        path: PathBuf,
        part: Part,
    },
    /// A name or an id.
    Daemon(String),
    Storage {
        /// Instead of the machine's own.
        store: Option<(PathBuf, Option<String>)>,
        /// A name or the start of an id.
        image: String,
    },
}

/// Why a text says nothing that can be pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error("`{transport}:` needs {what} after it")]
    Incomplete {
        transport: &'static str,
        what: &'static str,
    },
    #[error("`{0}` is no number of an image")]
    Number(String),
    #[error("images cannot be pulled from `{0}:`")]
    Transport(String),
}

/// Transports of podman's that cannot be had here.
const OTHERS: &[&str] = &["dir", "atomic", "ostree", "sif", "tarball", "docker-dir"];

impl PullSource {
    /// Reads what is to be pulled.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidSource> {
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        match transport {
            "docker" if rest.starts_with("//") => {
                Ok(Self::Registry(ImageName::parse(&rest["//".len()..])?))
            }
            "docker-archive" => file(Shape::DockerArchive, "docker-archive", rest),
            "oci-archive" => file(Shape::OciArchive, "oci-archive", rest),
            "oci" => file(Shape::OciLayout, "oci", rest),
            "docker-daemon" | "containers-storage" if rest.is_empty() => {
                Err(InvalidSource::Incomplete {
                    transport: match transport {
                        "docker-daemon" => "docker-daemon",
                        _ => "containers-storage",
                    },
                    what: "an image",
                })
            }
            "docker-daemon" => Ok(Self::Daemon(rest.to_owned())),
            "containers-storage" => Ok(storage(rest)),
            other if OTHERS.contains(&other) => Err(InvalidSource::Transport(other.to_owned())),
            _ => Ok(Self::Registry(ImageName::parse(text)?)),
        }
    }
}

fn file(shape: Shape, transport: &'static str, rest: &str) -> Result<PullSource, InvalidSource> {
    let (path, part) = match rest.split_once(':') {
        Some((path, part)) if !part.is_empty() => (path, Some(part)),
        Some((path, _)) => (path, None),
        None => (rest, None),
    };
    if path.is_empty() {
        let what = "a path";
        return Err(InvalidSource::Incomplete { transport, what });
    }
    let part = match part {
        None => Part::All,
        Some(name) => match name.strip_prefix('@') {
            Some(number) if shape == Shape::DockerArchive => {
                let number = number.parse();
                Part::Number(number.map_err(|_| InvalidSource::Number(name.to_owned()))?)
            }
            _ => Part::Named(name.to_owned()),
        },
    };
    let path = path.into();
    Ok(PullSource::File { shape, path, part })
}

/// `[overlay@/var/lib/containers/storage+/run:options]NAME`, of which only the name is needed.
fn storage(rest: &str) -> PullSource {
    let (store, image) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        None => (None, rest),
        Some((store, image)) => {
            let (driver, path) = match store.split_once('@') {
                Some((driver, path)) => (Some(driver.to_owned()), path),
                None => (None, store),
            };
            let path = path.split(['+', ':']).next().unwrap_or(path);
            (Some((PathBuf::from(path), driver)), image)
        }
    };
    let image = image.to_owned();
    PullSource::Storage { store, image }
}

impl Store {
    /// Brings images here from where there is no registry; `None` for those that have one.
    ///
    /// # Errors
    /// They are not there, cannot be used, or must not be.
    pub fn pull_local(
        &self,
        source: &PullSource,
        stores: &OtherStores,
        daemon: &Daemon,
        policy: &RegistriesConf,
    ) -> Result<Option<Vec<Loaded>>, Error> {
        match source {
            PullSource::Registry(_) => Ok(None),
            PullSource::File { shape, path, part } => {
                let loaded = self.load_part(LoadSource::Path(path), Some(*shape), part, policy)?;
                Ok(Some(loaded))
            }
            PullSource::Daemon(image) => {
                let archive = daemon.image(image, self.stop());
                let mut archive = archive.map_err(|error| self.naming_stop(error.into()))?;
                let source = LoadSource::Reader(&mut archive);
                let loaded = self.load_part(source, Some(Shape::DockerDaemon), &Part::All, policy);
                // A connection that breaks makes the archive look wrong.
                match archive.failure() {
                    Some(_) if self.stop().check().is_err() => loaded.map(Some),
                    Some(failure) => Err(daemon::Error::Broken(failure).into()),
                    None => loaded.map(Some),
                }
            }
            PullSource::Storage { store, image } => {
                let other = store
                    .as_ref()
                    .map(|(path, driver)| OtherStores::new(Places::at(path, driver.as_deref())));
                let stores = other.as_ref().unwrap_or(stores);
                self.pull_stored(image, stores, policy).map(Some)
            }
        }
    }

    fn pull_stored(
        &self,
        image: &str,
        stores: &OtherStores,
        policy: &RegistriesConf,
    ) -> Result<Vec<Loaded>, Error> {
        if let Ok(name) = ImageName::parse(image) {
            for name in policy.stored_names(&name)? {
                if let Some(imported) = self.import(&name, stores, policy)? {
                    return Ok(vec![Loaded {
                        id: imported.image.id,
                        references: vec![name],
                    }]);
                }
            }
        }
        let digits = image.strip_prefix("sha256:").unwrap_or(image);
        let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found = if is_id {
            self.import_id(digits, stores, policy)?
        } else {
            None
        };
        let imported = found.ok_or_else(|| Error::NotElsewhere(image.to_owned()))?;
        Ok(vec![Loaded {
            id: imported.image.id,
            references: Vec::new(),
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_registry_or_says_otherwise() {
        let check = |text: &str, expected: &str| {
            let found = match PullSource::parse(text) {
                Ok(PullSource::Registry(name)) => name.reference().to_string(),
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{text}");
        };
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1", "docker.io/library/busybox:1");
        check(
            "oci:5000/a",
            r#"File { shape: OciLayout, path: "5000/a", part: All }"#,
        );
        check("docker://quay.io/a/b:1", "quay.io/a/b:1");
        check("localhost:5000/a", "localhost:5000/a:latest");
        check(
            "docker-archive:/a/b.tar",
            r#"File { shape: DockerArchive, path: "/a/b.tar", part: All }"#,
        );
        check(
            "docker-archive:/a/b.tar:example.test/a:1",
            r#"File { shape: DockerArchive, path: "/a/b.tar", part: Named("example.test/a:1") }"#,
        );
        check(
            "docker-archive:b.tar:@1",
            r#"File { shape: DockerArchive, path: "b.tar", part: Number(1) }"#,
        );
        check("docker-archive:b.tar:@x", "`@x` is no number of an image");
        check(
            "oci-archive:b.tar:v1",
            r#"File { shape: OciArchive, path: "b.tar", part: Named("v1") }"#,
        );
        check("oci:", "`oci:` needs a path after it");
        check("docker-daemon:busybox:1", r#"Daemon("busybox:1")"#);
        check("docker-daemon:", "`docker-daemon:` needs an image after it");
        check(
            "containers-storage:a:1",
            r#"Storage { store: None, image: "a:1" }"#,
        );
        check(
            "containers-storage:[vfs@/a/b+/run/c]a:1",
            r#"Storage { store: Some(("/a/b", Some("vfs"))), image: "a:1" }"#,
        );
        check("dir:/a", "images cannot be pulled from `dir:`");
        check("Upper", "the repository name must be lower case");
    }
}
