//! `certs.d`: a folder for each registry with the authorities that it is trusted by, and a client's certificates.
//! Only the first folder that is there counts.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Places;
use crate::sys::fs;

/// Why a registry's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] fs::Error),
    #[error(
        "the client certificates {first:?} and {second:?} are for the same registry, and one counts"
    )]
    Several { first: PathBuf, second: PathBuf },
    #[error("the key {0:?} has no private key in PEM without a password")]
    Key(PathBuf),
    #[error("the client certificate {certificate:?} does not go with the key beside it")]
    Pair {
        certificate: PathBuf,
        source: reqwest::Error,
    },
    #[error("the client certificate {0:?} has no key beside it")]
    NoKey(PathBuf),
    #[error("the client key {0:?} has no certificate beside it")]
    NoCertificate(PathBuf),
    #[error("{0:?} has no certificate in PEM")]
    Pem(PathBuf),
}

/// What `certs.d` has for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Certificates {
    /// Authorities beside those that the machine trusts, each file in PEM.
    pub(in super::super) authorities: Vec<Vec<u8>>,
    /// What kplay shows to a registry that wants to know who asks.
    pub(in super::super) client: Option<ClientCertificate>,
}

/// A certificate, and what proves that it is one's own.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct ClientCertificate {
    pub(in super::super) path: PathBuf,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ClientCertificate {
    /// Both, in PEM.
    pub(in super::super) fn pem(&self) -> Vec<u8> {
        [&self.certificate, b"\n".as_slice(), &self.key].concat()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientCertificate");
        shown.field("path", &self.path).finish_non_exhaustive()
    }
}

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
    let mut certificates = Certificates::default();
    let names = fs::list(folder)?;
    let has = |path: &Path| {
        path.file_name()
            .is_some_and(|name| names.iter().any(|n| n == name))
    };
    for name in &names {
        let path = folder.join(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => certificates.authorities.push(certificate(&path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !has(&key) {
                    return Err(Error::NoKey(path));
                }
                if let Some(first) = certificates.client.take() {
                    let (first, second) = (first.path, path);
                    return Err(Error::Several { first, second });
                }
                certificates.client = Some(ClientCertificate {
                    certificate: certificate(&path)?,
                    key: private_key(&key)?,
                    path,
                });
            }
            Some("key") if !has(&path.with_extension("cert")) => {
                return Err(Error::NoCertificate(path));
            }
            _ => {}
        }
    }
    Ok(certificates)
}

fn certificate(path: &Path) -> Result<Vec<u8>, Error> {
    let pem = fs::read(path)?;
    match contains(&pem, b"-----BEGIN CERTIFICATE-----") {
        true => Ok(pem),
        false => Err(Error::Pem(path.to_owned())),
    }
}

/// A private key's file without what else is in it: parameters of its curve, for one.
fn private_key(path: &Path) -> Result<Vec<u8>, Error> {
    let pem = fs::read(path)?;
    let text = String::from_utf8_lossy(&pem);
    let kinds = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let key = kinds.into_iter().find_map(|kind| {
        let (begin, end) = (
            format!("-----BEGIN {kind}-----"),
            format!("-----END {kind}-----"),
        );
        let start = text.find(&begin)?;
        let length = text[start..].find(&end)? + end.len();
        Some(&text[start..start + length])
    });
    // OpenSSL's old way of encryption.
    let key = key.filter(|key| !key.contains("ENCRYPTED"));
    let key = key.ok_or_else(|| Error::Key(path.to_owned()))?;
    Ok(format!("{key}\n").into_bytes())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
