//! `certs.d`: a folder for each registry with the authorities that it is trusted by, and a client's certificates.
//! Only the first folder that is there counts.

use std::path::{Path, PathBuf};

use super::Places;
use crate::sys::fs;

/// Why a registry's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error(
        "kplay does not sign in with client certificates, and {certificate:?} and {key:?} are one"
    )]
    Client { certificate: PathBuf, key: PathBuf },
    #[error("the client certificate {0:?} has no key beside it")]
    NoKey(PathBuf),
    #[error("the client key {0:?} has no certificate beside it")]
    NoCertificate(PathBuf),
    #[error("{0:?} has no certificate in PEM")]
    Pem(PathBuf),
}

/// Certificates of authorities beside those that the machine trusts, each file in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Certificates(pub(in super::super) Vec<Vec<u8>>);

/// The certificates for `host[:port]`.
pub(super) fn of_registry(places: &Places, registry: &str) -> Result<Certificates, Error> {
    match &places.cert_dir {
        Some(folder) => read(folder),
        None => {
            let certs = |folder: &PathBuf| folder.join("certs.d");
            let folders = [
                places.user.as_ref().map(certs),
                places.system.as_ref().map(certs),
                places.docker_certs.clone(),
            ];
            let folder = folders
                .into_iter()
                .flatten()
                .map(|folder| folder.join(registry))
                .find(|folder| folder.is_dir());
            folder.map_or_else(|| Ok(Certificates::default()), |folder| read(&folder))
        }
    }
}

fn read(folder: &Path) -> Result<Certificates, Error> {
    let mut authorities = Vec::new();
    let names = fs::list(folder)?;
    let has = |path: &Path| {
        path.file_name()
            .is_some_and(|name| names.iter().any(|n| n == name))
    };
    for name in &names {
        let path = folder.join(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let pem = fs::read(&path)?;
                if !contains(&pem, b"-----BEGIN CERTIFICATE-----") {
                    return Err(Error::Pem(path));
                }
                authorities.push(pem);
            }
            Some("cert") => {
                let key = path.with_extension("key");
                return Err(match has(&key) {
                    true => Error::Client {
                        certificate: path,
                        key,
                    },
                    false => Error::NoKey(path),
                });
            }
            Some("key") if !has(&path.with_extension("cert")) => {
                return Err(Error::NoCertificate(path));
            }
            _ => {}
        }
    }
    Ok(Certificates(authorities))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
