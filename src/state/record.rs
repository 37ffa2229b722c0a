//! The records: JSON with the format's version first.
//!
//! ```json
//! {"version": 1, "uid": "…", "created": "2026-01-01T00:00:00Z", …}
//! ```
//!
//! Fields that this kplay does not know are kept when it writes the record again. A record of a newer version is
//! read as far as it is understood and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;
use crate::model::names::{ContainerName, Namespace, ObjectKey, PodKey, PodName};
use crate::model::status::{Generation, PodEnd};
use crate::sys::fs;

/// The version of all formats here.
pub const VERSION: u32 = 1;

/// What is remembered of a pod that was applied. Holds no content of Secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    pub namespace: Namespace,
    pub name: PodName,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    #[serde(default)]
    pub generation: Generation,
    /// The pod itself, or the Deployment, Job, … that asked for it.
    pub owner: ObjectKey,
    /// Whether its end is its purpose.
    pub runs_to_completion: bool,
    /// Seconds.
    pub termination_grace_period: u32,
    pub labels: BTreeMap<String, String>,
    /// The `v1.Pod` without status.
    pub manifest: Value,
    /// Each container's image ID.
    pub images: BTreeMap<ContainerName, String>,
    /// The IDs of the images that are volumes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub volume_images: BTreeSet<String>,
    /// Where it was applied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceSet>,
    /// Fields of another version.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl PodRecord {
    /// Which pod it is.
    #[must_use]
    pub fn key(&self) -> PodKey {
        PodKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// What is remembered of an object that is not a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRecord {
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// The object as it was applied.
    pub manifest: Value,
    /// Where it was applied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourceSet>,
    /// Of a Job: how its pod ended, if that has been removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<PodEnd>,
    /// Fields of another version.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The files that were applied together: what `--prune` compares. The names themselves, not a digest of them,
/// because two sets that are taken for one would delete each other's pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceSet(Vec<String>);

impl SourceSet {
    /// The set of these absolute paths and URLs, in whatever order and however often they are named. `None` if there
    /// are none, or if one is relative (or `-`): such a name means another file tomorrow.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names.dedup();
        let lasting = |name: &String| Path::new(name).is_absolute() || name.contains("://");
        (!names.is_empty() && names.iter().all(lasting)).then_some(Self(names))
    }
}

#[derive(Serialize)]
struct Stored<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Reads a record; `None` if there is none. `remedy` says what to do about a corrupt one.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    remedy: impl FnOnce() -> String,
) -> Result<Option<T>, Error> {
    let Some(bytes) = fs::read_if_there(path)? else {
        return Ok(None);
    };
    let decoded = serde_json::from_slice::<Map<String, Value>>(&bytes).and_then(|mut fields| {
        fields.remove("version");
        serde_json::from_value(Value::Object(fields))
    });
    decoded.map(Some).map_err(|source| Error::Corrupt {
        path: path.to_owned(),
        remedy: remedy(),
        source,
    })
}

/// Writes a record, unless a newer kplay wrote the one that is there. A corrupt one is replaced.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    write_with(path, record, fs::replace)
}

/// As [`write`], of what nobody needs after a restart of the machine.
pub(super) fn write_in_memory<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    write_with(path, record, fs::replace_in_memory)
}

fn write_with<T: Serialize>(
    path: &Path,
    record: &T,
    replace: fn(&Path, u32, &[u8]) -> fs::Result<()>,
) -> Result<(), Error> {
    if let Some(bytes) = fs::read_if_there(path)?
        && let Ok(Version { version }) = serde_json::from_slice(&bytes)
        && version > VERSION
    {
        return Err(Error::Newer {
            path: path.to_owned(),
            version,
        });
    }
    let stored = Stored {
        version: VERSION,
        record,
    };
    replace(path, 0o600, &json(&stored))?;
    Ok(())
}

/// A value of ours as JSON.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the keys of our maps are strings")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::{Scratch, record};

    #[test]
    fn a_record_survives_and_so_do_fields_of_another_version() {
        let scratch = Scratch::new();
        let path = scratch.path("record.json");
        let read = || super::read::<PodRecord>(&path, String::new);
        assert!(read().unwrap().is_none());
        let record = record("web-0");
        write(&path, &record).unwrap();
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        assert!(text.starts_with("{\"version\":1,"), "{text}");
        assert_eq!(read().unwrap().unwrap(), record);

        fs::replace(
            &path,
            0o600,
            text.replacen('{', "{\"new\":[1],", 1).as_bytes(),
        )
        .unwrap();
        let with_more = read().unwrap().unwrap();
        write(&path, &with_more).unwrap();
        assert_eq!(
            read().unwrap().unwrap().unknown["new"],
            serde_json::json!([1])
        );
    }

    #[test]
    fn a_newer_record_is_read_and_not_written_and_a_corrupt_one_names_the_remedy() {
        let scratch = Scratch::new();
        let path = scratch.path("record.json");
        write(&path, &record("web-0")).unwrap();
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        fs::replace(&path, 0o600, newer.as_bytes()).unwrap();
        assert!(read::<PodRecord>(&path, String::new).unwrap().is_some());
        let refused = write(&path, &record("web-0")).unwrap_err();
        assert!(matches!(refused, Error::Newer { version: 2, .. }));

        fs::replace(&path, 0o600, b"{\"version\":1,").unwrap();
        let corrupt = read::<PodRecord>(&path, || "do this".into()).unwrap_err();
        assert_eq!(
            corrupt.to_string(),
            format!("{path:?} is corrupt (do this)")
        );
        write(&path, &record("web-0")).unwrap();
    }

    #[test]
    fn only_names_that_last_make_a_set() {
        let set = |names: &[&str]| SourceSet::new(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(set(&["/b", "/a", "/b"]), set(&["/a", "/b"]));
        assert!(set(&["https://x/y.yaml"]).is_some());
        assert_eq!(set(&["/a", "-"]), None);
        assert_eq!(set(&[]), None);
    }
}
