//! Which PersistentVolumeClaim gets which storage, by the rules of Kubernetes' volume controller (`pv_controller.go`,
//! `volume/persistentvolume/index.go`).
//!
//! A claim that names a PersistentVolume, or is named by one, gets that. Any other gets the smallest free one that
//! satisfies it; if there is none, kplay provisions: the claim gets a folder of kplay's own. What a claim got is noted in
//! its `volumeName`, as in Kubernetes, and stays.

use std::collections::{BTreeMap, BTreeSet};

use super::node::At;
use super::report::Report;
use super::selector::Selector;
use crate::model::names::{Namespace, ObjectKey};
use crate::model::plan::ClaimStorage;
use crate::model::quantity::Quantity;

/// A claim's namespace and name.
pub(super) type ClaimKey = (Namespace, String);

/// What a claim asks for.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) volume_name: Option<String>,
    /// Empty if none is named.
    pub(super) class: String,
    pub(super) access_modes: BTreeSet<String>,
    pub(super) request: Quantity,
    pub(super) mode: VolumeMode,
    pub(super) selector: Selector,
}

/// `volumeMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeMode {
    Filesystem,
    Block,
}

/// What a PersistentVolume offers.
#[derive(Clone, Debug)]
pub(super) struct PersistentVolume {
    pub(super) class: String,
    pub(super) access_modes: BTreeSet<String>,
    pub(super) capacity: Quantity,
    pub(super) mode: VolumeMode,
    pub(super) claim: Option<ClaimKey>,
    pub(super) labels: BTreeMap<String, String>,
    /// `None` if it is on no machine.
    pub(super) storage: Option<ClaimStorage>,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// With the PersistentVolume's name, if it got one.
    Bound(Option<String>, ClaimStorage),
    /// It has a fault, which is in the report.
    Faulty,
    /// It was recorded, and cannot be had any more.
    Lost(String),
}

/// Every claim's binding.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    bound: BTreeMap<ClaimKey, Binding>,
}

/// A claim that is to be bound.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) key: ClaimKey,
    /// `None` if it has faults.
    pub(super) claim: Option<Claim>,
    /// Where it is in the run's files, for faults; `None` if it is only recorded.
    pub(super) at: Option<At<'a>>,
    /// Whether it is recorded: it is bound then, to a folder if it names no volume.
    pub(super) recorded: bool,
}

impl Bindings {
    /// Binds all claims: those first that are sure of their volume, then the others in their order.
    pub(super) fn new(
        claims: &[Candidate<'_>],
        volumes: &BTreeMap<String, PersistentVolume>,
        report: &Report,
    ) -> Self {
        let mut bindings = Self::default();
        let mut taken = BTreeSet::new();
        for candidate in claims {
            let binding = match &candidate.claim {
                None => Binding::Faulty,
                Some(claim) => {
                    let reserved = || {
                        let mut all = volumes.iter();
                        all.find(|(_, volume)| volume.claim.as_ref() == Some(&candidate.key))
                            .map(|(name, _)| name.as_str())
                    };
                    let Some(name) = claim.volume_name.as_deref().or_else(reserved) else {
                        continue;
                    };
                    match named(&candidate.key, claim, name, volumes, &taken) {
                        Ok(storage) => {
                            taken.insert(name.to_owned());
                            Binding::Bound(Some(name.to_owned()), storage)
                        }
                        Err(fault) => refused(candidate, fault, report),
                    }
                }
            };
            bindings.bound.insert(candidate.key.clone(), binding);
        }
        for candidate in claims {
            let Some(claim) = &candidate.claim else {
                continue;
            };
            if bindings.bound.contains_key(&candidate.key) {
                continue;
            }
            let binding = match smallest(claim, volumes, &taken) {
                Some((name, storage)) if !candidate.recorded => {
                    taken.insert(name.clone());
                    Binding::Bound(Some(name), storage)
                }
                _ if claim.mode == VolumeMode::Block => {
                    let fault = "no free PersistentVolume with `volumeMode: Block` satisfies it, and kplay makes folders only";
                    refused(candidate, fault.to_owned(), report)
                }
                _ => {
                    note_class(candidate, report);
                    Binding::Bound(None, ClaimStorage::Folder)
                }
            };
            bindings.bound.insert(candidate.key.clone(), binding);
        }
        bindings
    }

    pub(super) fn get(&self, namespace: &Namespace, name: &str) -> Option<&Binding> {
        self.bound.get(&(namespace.clone(), name.to_owned()))
    }

    /// Notes in a claim which PersistentVolume it got, as Kubernetes does.
    pub(super) fn note_volume(&self, key: &ObjectKey, claim: &mut serde_json::Value) {
        if key.kind != "PersistentVolumeClaim" {
            return;
        }
        let bound = self.get(&key.namespace, &key.name);
        let spec = claim.get_mut("spec").and_then(|spec| spec.as_object_mut());
        if let (Some(Binding::Bound(Some(volume), _)), Some(spec)) = (bound, spec) {
            spec.insert("volumeName".to_owned(), volume.as_str().into());
        }
    }

    /// The names of the claims in a namespace.
    pub(super) fn names(&self, namespace: &Namespace) -> Vec<&str> {
        let here = self.bound.keys().filter(|(other, _)| other == namespace);
        here.map(|(_, name)| name.as_str()).collect()
    }
}

fn refused(candidate: &Candidate<'_>, fault: String, report: &Report) -> Binding {
    let message = format!(
        "the PersistentVolumeClaim `{}` cannot be bound: {fault}",
        candidate.key.1
    );
    match candidate.at {
        Some(at) => {
            let spec = at.key("spec");
            let volume_name = spec.field("volumeName");
            let place = if volume_name.exists() {
                volume_name
            } else {
                spec
            };
            report.error(place, message);
            Binding::Faulty
        }
        None => Binding::Lost(message),
    }
}

/// Says that nobody provisions storage of another kind.
fn note_class(candidate: &Candidate<'_>, report: &Report) {
    let class = candidate.at.map(|at| at.path("spec.storageClassName"));
    if let Some(class) =
        class.filter(|class| class.node.is_some_and(|node| node.as_str() != Some("")))
    {
        let message = format!(
            "`storageClassName` is ignored: the claim `{}` gets a folder of this machine",
            candidate.key.1
        );
        report.note(class, message);
    }
}

/// The storage of the volume that a claim names, or that is reserved for it.
fn named(
    key: &ClaimKey,
    claim: &Claim,
    name: &str,
    volumes: &BTreeMap<String, PersistentVolume>,
    taken: &BTreeSet<String>,
) -> Result<ClaimStorage, String> {
    let volume = volumes
        .get(name)
        .ok_or_else(|| format!("there is no PersistentVolume `{name}`"))?;
    if let Some((namespace, other)) = volume.claim.as_ref().filter(|other| *other != key) {
        return Err(format!(
            "the PersistentVolume `{name}` is reserved for the claim `{other}` in namespace `{namespace}`"
        ));
    }
    if taken.contains(name) {
        return Err(format!(
            "the PersistentVolume `{name}` is bound to another claim"
        ));
    }
    if let Some(difference) = difference(claim, volume) {
        return Err(format!("the PersistentVolume `{name}` {difference}"));
    }
    volume.storage.clone().ok_or_else(|| {
        format!(
            "the PersistentVolume `{name}` is on no path of this machine (`hostPath` or `local`)"
        )
    })
}

/// Why a volume does not do for a claim.
fn difference(claim: &Claim, volume: &PersistentVolume) -> Option<&'static str> {
    if volume.mode != claim.mode {
        Some("has another `volumeMode`")
    } else if volume.class != claim.class {
        Some("has another `storageClassName`")
    } else if volume.capacity < claim.request {
        Some("is smaller than what is requested")
    } else if !claim.access_modes.is_subset(&volume.access_modes) {
        Some("does not have all of its `accessModes`")
    } else {
        None
    }
}

/// The smallest free volume that satisfies a claim; of several, the first by name.
fn smallest(
    claim: &Claim,
    volumes: &BTreeMap<String, PersistentVolume>,
    taken: &BTreeSet<String>,
) -> Option<(String, ClaimStorage)> {
    let fitting = volumes.iter().filter(|(name, volume)| {
        volume.claim.is_none()
            && !taken.contains(*name)
            && claim.selector.matches(&volume.labels)
            && difference(claim, volume).is_none()
    });
    fitting
        .filter_map(|(name, volume)| Some((name, volume, volume.storage.clone()?)))
        .min_by_key(|(_, volume, _)| volume.capacity)
        .map(|(name, _, storage)| (name.clone(), storage))
}

#[cfg(test)]
mod tests;
