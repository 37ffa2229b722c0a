//! What is kept for pods on this machine: claims with their storage, folders whose claim was deleted, PersistentVolumes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use super::delete::claims;
use super::ephemeral;
use super::error::Error;
use crate::model::names::{ObjectKey, PodKey};
use crate::state::layout::Layout;
use crate::state::record::ObjectRecord;
use crate::state::{self, object, view, volumes};

/// A claim or a PersistentVolume.
#[derive(Clone, Debug)]
pub struct Stored {
    pub key: ObjectKey,
    /// `None` for a folder whose claim was deleted.
    pub record: Option<ObjectRecord>,
    /// Where its files are, if that is on this machine.
    pub path: Option<PathBuf>,
    pub status: Status,
    pub users: Vec<PodKey>,
}

/// In Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A claim with its storage, a PersistentVolume with its claim.
    Bound,
    /// A PersistentVolume that no claim has.
    Available,
    /// A folder whose claim was deleted.
    Released,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "Bound",
            Self::Available => "Available",
            Self::Released => "Released",
        }
    }
}

const VOLUME: &str = "PersistentVolume";

/// All of it, and what could not be read.
///
/// # Errors
/// A folder cannot be read.
pub fn list(layout: &Layout) -> Result<(Vec<Stored>, Vec<state::Error>), Error> {
    let (records, mut errors) = object::list(layout)?;
    let (users, unreadable) = users(layout)?;
    errors.extend(unreadable);
    let of_kind = |kind: &'static str| {
        let records = records.iter();
        records.filter(move |record| record.key.kind == kind && record.key.group.is_empty())
    };
    let mut stored = BTreeMap::new();
    let mut bound: BTreeMap<&str, Vec<PodKey>> = BTreeMap::new();
    for record in of_kind(volumes::CLAIM) {
        let users = users.get(&record.key).cloned().unwrap_or_default();
        let volume = record.manifest.pointer("/spec/volumeName");
        let path = match volume.and_then(Value::as_str) {
            Some(volume) => {
                bound.entry(volume).or_default().extend(users.clone());
                let mut volumes = of_kind(VOLUME);
                volumes.find(|one| one.key.name == volume).and_then(path)
            }
            None => Some(layout.volume(&record.key.namespace, &record.key.name)),
        };
        let claim = Stored {
            key: record.key.clone(),
            record: Some(record.clone()),
            path,
            status: Status::Bound,
            users,
        };
        stored.insert(record.key.clone(), claim);
    }
    for record in of_kind(VOLUME) {
        let users = bound.get(record.key.name.as_str());
        let volume = Stored {
            key: record.key.clone(),
            record: Some(record.clone()),
            path: path(record),
            status: users.map_or(Status::Available, |_| Status::Bound),
            users: users.cloned().unwrap_or_default(),
        };
        stored.insert(record.key.clone(), volume);
    }
    for key in volumes::folders(layout)? {
        stored.entry(key).or_insert_with_key(|key| Stored {
            key: key.clone(),
            record: None,
            path: Some(layout.volume(&key.namespace, &key.name)),
            status: Status::Released,
            users: users.get(key).cloned().unwrap_or_default(),
        });
    }
    Ok((stored.into_values().collect(), errors))
}

/// The pods of each claim.
type Users = BTreeMap<ObjectKey, Vec<PodKey>>;

/// Which pods have which claims.
fn users(layout: &Layout) -> Result<(Users, Vec<state::Error>), Error> {
    let (views, errors) = view::list(layout)?;
    let mut users = Users::new();
    for view in &views {
        let record = &view.record;
        let named = claims(record).map(|name| volumes::claim_key(&record.namespace, name));
        let all: BTreeSet<ObjectKey> = named.chain(ephemeral::claims(record)).collect();
        for claim in all {
            users.entry(claim).or_default().push(record.key());
        }
    }
    Ok((users, errors))
}

/// The path of a PersistentVolume.
fn path(record: &ObjectRecord) -> Option<PathBuf> {
    let source = ["/spec/hostPath/path", "/spec/local/path"];
    let mut paths = source.iter().filter_map(|at| record.manifest.pointer(at));
    Some(paths.next()?.as_str()?.into())
}
