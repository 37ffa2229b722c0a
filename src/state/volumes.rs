//! The folders that claims are bound to: `volumes/NAMESPACE/CLAIM` under ROOT. They outlive their pods, and their claims
//! too, until somebody deletes them on purpose.

use super::Error;
use super::layout::Layout;
use super::lock::Locks;
use crate::model::names::{Namespace, ObjectKey, check_subdomain};
use crate::sys::dir;
use crate::sys::{fs, unmount};

/// Everybody may use it, as with Kubernetes' local provisioners: a container's user is not known to the claim.
const MODE: u32 = 0o777;

/// A claim's kind.
pub const CLAIM: &str = "PersistentVolumeClaim";

/// The key of a claim.
#[must_use]
pub fn claim_key(namespace: &Namespace, name: &str) -> ObjectKey {
    ObjectKey {
        kind: CLAIM.to_owned(),
        group: String::new(),
        namespace: namespace.clone(),
        name: name.to_owned(),
    }
}

/// Whether a claim has a folder.
///
/// # Errors
/// It cannot be looked at.
pub fn exists(layout: &Layout, claim: &ObjectKey) -> Result<bool, Error> {
    Ok(dir::kind(&layout.volume(&claim.namespace, &claim.name))?.is_some())
}

/// The claims that have a folder, recorded or not. One whose name is too long for a file's is not found.
///
/// # Errors
/// A folder cannot be read.
pub fn folders(layout: &Layout) -> Result<Vec<ObjectKey>, Error> {
    let root = layout.volumes();
    let mut claims = Vec::new();
    for namespace in fs::list(&root)? {
        let folder = root.join(&namespace);
        let Some(namespace) = namespace
            .to_str()
            .and_then(|name| Namespace::parse(name).ok())
        else {
            continue;
        };
        let names = fs::list(&folder)?.into_iter();
        let names = names.filter_map(|name| name.into_string().ok());
        let names = names.filter(|name| check_subdomain(name).is_ok());
        claims.extend(names.map(|name| claim_key(&namespace, &name)));
    }
    Ok(claims)
}

/// Makes the folder of a claim; one that is there stays as it is.
///
/// # Errors
/// It cannot be made.
///
/// # Panics
/// The claim is not locked.
pub fn make(locks: &Locks, claim: &ObjectKey) -> Result<(), Error> {
    assert!(locks.has_object(claim), "making needs the lock");
    if exists(locks.layout(), claim)? {
        return Ok(());
    }
    let folder = locks.layout().volume(&claim.namespace, &claim.name);
    if let Some(parent) = folder.parent() {
        dir::create_all(parent, 0o700)?;
    }
    Ok(dir::create_all(&folder, MODE)?)
}

/// Removes the folder of a claim with all that is in it. Fine if there is none.
///
/// # Errors
/// It cannot be removed.
///
/// # Panics
/// The claim is not locked.
pub fn remove(locks: &Locks, claim: &ObjectKey) -> Result<(), Error> {
    assert!(locks.has_object(claim), "removing needs the lock");
    let folder = locks.layout().volume(&claim.namespace, &claim.name);
    unmount::beneath(&folder)?;
    Ok(fs::remove_dir_all(&folder)?)
}

/// Removes the folder of a claim if nothing is in it. Fine if there is none.
///
/// # Errors
/// It cannot be looked at or removed.
///
/// # Panics
/// The claim is not locked.
pub fn remove_empty(locks: &Locks, claim: &ObjectKey) -> Result<(), Error> {
    assert!(locks.has_object(claim), "removing needs the lock");
    let folder = locks.layout().volume(&claim.namespace, &claim.name);
    match fs::list(&folder)?.is_empty() {
        true => Ok(fs::remove_empty_dir(&folder)?),
        false => Ok(()),
    }
}
