//! What the tests of this module and of the manager share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use serde_json::json;

use super::layout::Layout;
use super::record::{ObjectRecord, PodRecord};
use crate::model::names::{ContainerName, Namespace, ObjectKey, PodKey, PodName};
use crate::model::status::Generation;
use crate::sys::fs;

/// A folder that goes with its value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kplay-state-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path, 0o700).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.0.join("root"), self.0.join("run")).on_machine(self.0.join("machine"))
    }

    /// Another state on the same machine.
    pub(super) fn other_layout(&self) -> Layout {
        Layout::new(self.0.join("root-2"), self.0.join("run-2")).on_machine(self.0.join("machine"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(crate) fn key(name: &str) -> PodKey {
    PodKey {
        namespace: Namespace::default(),
        name: PodName::parse(name).unwrap(),
    }
}

pub(crate) fn object_key(kind: &str, group: &str, name: &str) -> ObjectKey {
    ObjectKey {
        kind: kind.into(),
        group: group.into(),
        namespace: Namespace::default(),
        name: name.into(),
    }
}

pub(crate) fn record(name: &str) -> PodRecord {
    PodRecord {
        namespace: Namespace::default(),
        name: PodName::parse(name).unwrap(),
        uid: "b2c3".into(),
        created: Timestamp::UNIX_EPOCH,
        generation: Generation::default(),
        owner: object_key("Pod", "", name),
        runs_to_completion: false,
        termination_grace_period: 30,
        labels: [("app".to_owned(), "web".to_owned())].into(),
        manifest: json!({"spec": {"containers": [{"name": "main", "image": "web"}]}}),
        images: [(ContainerName::parse("main").unwrap(), "sha256:1".to_owned())].into(),
        volume_images: std::collections::BTreeSet::new(),
        sources: None,
        unknown: serde_json::Map::new(),
    }
}

pub(crate) fn object(kind: &str, name: &str) -> ObjectRecord {
    ObjectRecord {
        key: object_key(kind, "", name),
        uid: "a1".into(),
        created: Timestamp::UNIX_EPOCH,
        manifest: json!({"kind": kind, "metadata": {"name": name}}),
        sources: None,
        ended: None,
        unknown: serde_json::Map::new(),
    }
}
