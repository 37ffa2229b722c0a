//! The claims of pods' ephemeral volumes: made with their pod, gone with it. A claim is its pod's if its
//! `ownerReferences` say so, by the pod's name: a pod that is replaced gets another uid, and its claims with it.
//!
//! Whoever has the pod's lock and the claim's may write it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::error::Error;
use crate::model::names::{ObjectKey, PodKey};
use crate::protocol::Launch;
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::PodDir;
use crate::state::record::{ObjectRecord, PodRecord};
use crate::state::{object, volumes};

/// The names of the claims of a pod's ephemeral volumes.
pub(super) fn names<'a>(pod: &'a str, manifest: &'a Value) -> impl Iterator<Item = String> + 'a {
    let volumes = manifest.pointer("/spec/volumes");
    let volumes = volumes.and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(move |volume| {
        volume.get("ephemeral").filter(|source| !source.is_null())?;
        Some(format!("{pod}-{}", volume.get("name")?.as_str()?))
    })
}

/// The claims of a recorded pod's ephemeral volumes.
pub(super) fn claims(record: &PodRecord) -> impl Iterator<Item = ObjectKey> + '_ {
    let names = names(record.name.as_str(), &record.manifest);
    names.map(|name| volumes::claim_key(&record.namespace, &name))
}

/// Those of them that have a folder of kplay's own.
pub(super) fn folders(record: &PodRecord, launch: &Launch) -> impl Iterator<Item = ObjectKey> {
    let folders = launch.plan.claim_folders();
    let folders: BTreeSet<String> = folders.map(|(_, name)| name.to_owned()).collect();
    let claims: Vec<ObjectKey> = claims(record).collect();
    claims
        .into_iter()
        .filter(move |claim| folders.contains(&claim.name))
}

/// The locks that the removal of a pod needs beside its own. A corrupt record names no claims; its pod is removed all the
/// same.
pub(super) fn subjects(dir: &PodDir) -> Vec<Subject> {
    let record = dir.record().ok().flatten();
    let claims = record.iter().flat_map(claims);
    claims.map(Subject::Object).collect()
}

/// A claim's manifest with its pod as the owner.
pub(super) fn owned(claim: &Value, pod: &PodKey, uid: &str) -> Value {
    let mut claim = claim.clone();
    let metadata = claim.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        let owner = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        });
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
    }
    claim
}

/// The name of the pod that a claim was made for, if it is one of an ephemeral volume.
pub(super) fn owner(claim: &ObjectRecord) -> Option<&str> {
    let owners = claim.manifest.pointer("/metadata/ownerReferences");
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    owners.find_map(|owner| {
        let text = |field: &str| owner.get(field).and_then(Value::as_str);
        text("name").filter(|_| text("kind") == Some("Pod"))
    })
}

/// Removes the claims of a pod that goes, with what is in them.
///
/// # Errors
/// One cannot be removed.
pub(super) fn remove(locks: &Locks, record: &PodRecord) -> Result<(), Error> {
    for claim in claims(record) {
        if !locks.has_object(&claim) {
            // The pod became another one while its lock was waited for. `delete` finds the claim by name.
            tracing::warn!(%claim, "a claim stays: it is not locked");
            continue;
        }
        let Some(there) = object::read(locks.layout(), &claim)? else {
            continue;
        };
        if owner(&there) == Some(record.name.as_str()) {
            volumes::remove(locks, &claim)?;
            object::remove(locks, &claim)?;
        }
    }
    Ok(())
}

/// Makes the folder of a claim anew: each pod finds it empty.
///
/// # Errors
/// It cannot be made.
pub(super) fn make_folder(locks: &Locks, claim: &ObjectKey) -> Result<(), Error> {
    volumes::remove(locks, claim)?;
    Ok(volumes::make(locks, claim)?)
}
