//! The embedded image `kplay.local/toolbox`: kplay itself as `/toolbox`, and the least that a root filesystem needs.
//!
//! Its layer does not come from an archive: its digest is that of the files' description and of the binary.

use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::error::Error;
use super::manifest::Configuration;
use super::platform::Platform;
use super::records::{self, ToolboxRecord, VERSION};
use super::store::{NewImage, Store};
use crate::model::image::Image;
use crate::model::reference::Reference;
use crate::sys::beneath::{self, Name};
use crate::sys::exe::Binary;
use crate::sys::fs::Error as FileError;

/// Folders, with their modes.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];
const PASSWD: &str = "root:x:0:0:root:/root:/toolbox\nnobody:x:65534:65534:nobody:/:/toolbox\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

impl Store {
    /// The embedded image, made of this very binary if it is missing or was made of another build. Costs a few system
    /// calls otherwise. Images of other builds stay until `collect` finds them unused.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn toolbox(&self) -> Result<Image, Error> {
        let made = self.toolbox_if_current().and_then(|found| match found {
            Some(image) => Ok(image),
            None => self.make_toolbox(),
        });
        made.map_err(|error| error.naming_no_space(self.dir()))
    }

    fn toolbox_if_current(&self) -> Result<Option<Image>, Error> {
        let record = match records::read::<ToolboxRecord>(&self.toolbox_path()) {
            // Not worth more than making it again.
            Err(Error::Record { .. }) | Ok(None) => return Ok(None),
            other => other?,
        };
        match record {
            Some(record) if record.binary == Binary::open()?.identity()? => {
                self.image(&record.image)
            }
            _ => Ok(None),
        }
    }

    fn make_toolbox(&self) -> Result<Image, Error> {
        let _hold = self.hold()?;
        let binary = Binary::open()?;
        let identity = binary.identity()?;
        let (layer, size) = describe(&binary)?;
        let config = configuration(&layer);
        let invalid = |source| Error::Manifest {
            image: "kplay.local/toolbox".into(),
            source,
        };
        let parsed = Configuration::parse(config.as_bytes()).map_err(invalid)?;
        let _claim = self.claim_layer(&layer)?;
        if !self.has_layer(&layer) {
            self.add_layer(&layer, |place| fill(place.folder, &binary).map(|()| size))?;
        }
        let image = self.add_image(&NewImage {
            config: config.as_bytes(),
            configuration: &parsed,
            manifest: None,
            embedded: true,
        })?;
        let id = Digest::of(config.as_bytes());
        self.add_reference(&reference(), &id)?;
        let (version, image_id) = (VERSION, id);
        let record = ToolboxRecord {
            version,
            binary: identity,
            image: image_id,
        };
        records::write(&self.toolbox_path(), &record)?;
        Ok(image)
    }

    fn toolbox_path(&self) -> std::path::PathBuf {
        self.dir().join("toolbox.json")
    }
}

/// `kplay.local/toolbox:latest`.
pub(super) fn reference() -> Reference {
    Reference {
        registry: "kplay.local".into(),
        repository: "toolbox".into(),
        tag: Some("latest".into()),
        digest: None,
    }
}

/// The layer's digest and size.
fn describe(binary: &Binary) -> Result<(Digest, u64), Error> {
    let mut hash = Sha256::new();
    hash.update(format!("kplay toolbox 1\n{FOLDERS:?}\n{PASSWD}\n{GROUP}\n"));
    let mut reader = binary.reader()?;
    let mut buffer = vec![0; 1 << 18];
    let mut size = (PASSWD.len() + GROUP.len()) as u64;
    loop {
        let length = reader
            .read(&mut buffer)
            .map_err(|e| FileError::new("read", "/proc/self/exe", e))?;
        if length == 0 {
            return Ok((Digest::from_hash(hash), size));
        }
        hash.update(&buffer[..length]);
        size += length as u64;
    }
}

fn configuration(layer: &Digest) -> String {
    let Platform {
        os, architecture, ..
    } = Platform::host();
    serde_json::json!({
        "os": os,
        "architecture": architecture,
        "config": {
            "Env": ["PATH=/"],
            "Entrypoint": ["/toolbox"],
            "WorkingDir": "/",
            "Labels": { "org.opencontainers.image.title": "kplay toolbox" },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
    .to_string()
}

fn fill(folder: &Path, binary: &Binary) -> Result<(), Error> {
    let root =
        beneath::Folder::open(folder).map_err(|e| FileError::new("open the folder", folder, e))?;
    for (name, mode) in FOLDERS {
        let made = Name::parse(name.as_bytes()).map_or(Ok(()), |name| {
            root.make_folder(name, 0o700)
                .and_then(|()| root.set_mode(name, *mode))
        });
        made.map_err(|e| FileError::new("create the folder", folder.join(name), e))?;
    }
    binary.copy_to(&folder.join("toolbox"), 0o755)?;
    crate::sys::fs::replace(&folder.join("etc/passwd"), 0o644, PASSWD.as_bytes())?;
    crate::sys::fs::replace(&folder.join("etc/group"), 0o644, GROUP.as_bytes())?;
    Ok(())
}
