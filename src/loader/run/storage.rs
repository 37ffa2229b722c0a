//! The claims and PersistentVolumes of a run, and those that are recorded.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::super::binding::{Bindings, Candidate, Claim, ClaimKey, PersistentVolume};
use super::super::kinds::{self, Content, Made};
use super::super::report::Report;
use super::super::{Object, Options, Origin};
use super::{Kind, Read};
use crate::model::names::{Namespace, ObjectKey};

/// The claims that StatefulSets' templates make, by the StatefulSet.
pub(super) type MadeClaims = BTreeMap<ObjectKey, Vec<Object>>;

/// Binds all claims.
pub(super) fn bind(
    read: &[Read<'_>],
    options: &Options,
    report: &Report,
) -> (Bindings, MadeClaims) {
    let recorded = Recorded::new(options);
    let mut volumes = recorded.volumes;
    let mut candidates = Vec::new();
    let mut made = MadeClaims::new();
    for object in read {
        let key = &object.metadata.key;
        match (object.kind, &object.content) {
            (Some(Kind::PersistentVolume), Some(Content::Volume(volume))) => {
                volumes.insert(key.name.clone(), volume.clone());
            }
            (Some(Kind::PersistentVolumeClaim), content) => {
                let claim = match content {
                    Some(Content::Claim(claim)) => Some(claim.clone()),
                    _ => None,
                };
                candidates.push(Candidate {
                    key: (key.namespace.clone(), key.name.clone()),
                    claim,
                    at: Some(object.raw.at),
                    recorded: false,
                });
            }
            (_, Some(Content::Workload(workload))) => {
                let claims = kinds::made(workload, key, object.raw.at, report);
                let objects = claims
                    .into_iter()
                    .filter_map(|claim| of_template(claim, key, &recorded.claims, &mut candidates));
                made.insert(key.clone(), objects.collect());
            }
            _ => {}
        }
    }
    // After all others, whose names they may not have.
    let mut taken: BTreeSet<ClaimKey> = candidates.iter().map(|one| one.key.clone()).collect();
    for object in read {
        let Some(Content::Workload(workload)) = &object.content else {
            continue;
        };
        let key = &object.metadata.key;
        for claim in kinds::ephemeral(workload, key, object.raw.at, report) {
            let name = claim.object.metadata.name.clone().unwrap_or_default();
            let claim_key = (key.namespace.clone(), name);
            let others = recorded.claims.get(&claim_key);
            let others = others.is_some_and(|there| !is_owned(&there.json, &claim.origin));
            if !taken.insert(claim_key.clone()) || others {
                not_owner(&claim, &claim_key, report);
                continue;
            }
            let json = serde_json::to_value(&claim.object).ok();
            let objects = made.entry(key.clone()).or_default();
            objects.extend(json.map(|json| add(claim, json, key, &mut candidates)));
        }
    }
    settle(&mut candidates, recorded.claims);
    (Bindings::new(&candidates, &volumes, report), made)
}

/// Whether a recorded claim is that of an ephemeral volume of this pod. Its uid is another one after each replacement.
fn is_owned(claim: &Json, origin: &Origin) -> bool {
    let Origin::Volume(pod) = origin else {
        return false;
    };
    let owners = claim.pointer("/metadata/ownerReferences");
    let owners = owners.and_then(Json::as_array).into_iter().flatten();
    owners.into_iter().any(|owner| {
        let is = |field: &str, value: &str| owner.get(field).and_then(Json::as_str) == Some(value);
        is("kind", "Pod") && is("name", pod.name.as_str())
    })
}

/// Kubernetes' words (`component-helpers/storage/ephemeral`).
fn not_owner(claim: &Made<'_>, key: &ClaimKey, report: &Report) {
    let pod = match &claim.origin {
        Origin::Volume(pod) => pod.name.as_str(),
        Origin::Files | Origin::Template => "",
    };
    let message = format!(
        "the PersistentVolumeClaim `{}` was not created for pod `{pod}` (pod is not owner)",
        key.1
    );
    let hint =
        "an ephemeral volume's claim is called `POD-VOLUME`: rename the volume or the other claim";
    report.error_hint(claim.at, message, hint);
}

/// Adds a claim that is made for a pod of the run.
fn add<'a>(
    made: Made<'a>,
    json: Json,
    workload: &ObjectKey,
    candidates: &mut Vec<Candidate<'a>>,
) -> Object {
    let key = ObjectKey {
        kind: "PersistentVolumeClaim".to_owned(),
        group: String::new(),
        namespace: workload.namespace.clone(),
        name: made.object.metadata.name.unwrap_or_default(),
    };
    candidates.push(Candidate {
        key: (key.namespace.clone(), key.name.clone()),
        claim: made.claim,
        at: Some(made.at),
        recorded: false,
    });
    Object {
        key,
        json,
        plan: None,
        pull_secrets: Vec::new(),
        played: true,
        origin: made.origin,
    }
}

/// Adds what is only recorded, and gives the others the volume that they have been bound to.
fn settle(candidates: &mut Vec<Candidate<'_>>, recorded: BTreeMap<ClaimKey, RecordedClaim>) {
    let mut here = BTreeSet::new();
    for candidate in candidates.iter_mut() {
        here.insert(candidate.key.clone());
        let Some(before) = recorded.get(&candidate.key) else {
            continue;
        };
        candidate.recorded = true;
        if let Some(claim) = &mut candidate.claim {
            let volume = claim.volume_name.take();
            claim.volume_name = volume.or_else(|| before.claim.volume_name.clone());
        }
    }
    let rest = recorded.into_iter().filter(|(key, _)| !here.contains(key));
    candidates.extend(rest.map(|(key, recorded)| Candidate {
        key,
        claim: Some(recorded.claim),
        at: None,
        recorded: true,
    }));
}

/// A template's claim; one that is there already stays as it is, as with the controller.
fn of_template<'a>(
    mut made: Made<'a>,
    set: &ObjectKey,
    recorded: &BTreeMap<ClaimKey, RecordedClaim>,
    candidates: &mut Vec<Candidate<'a>>,
) -> Option<Object> {
    let name = made.object.metadata.name.clone()?;
    let json = match recorded.get(&(set.namespace.clone(), name)) {
        Some(there) => {
            made.claim = Some(there.claim.clone());
            there.json.clone()
        }
        None => serde_json::to_value(&made.object).ok()?,
    };
    Some(add(made, json, set, candidates))
}

struct RecordedClaim {
    claim: Claim,
    json: Json,
}

struct Recorded {
    claims: BTreeMap<ClaimKey, RecordedClaim>,
    volumes: BTreeMap<String, PersistentVolume>,
}

impl Recorded {
    fn new(options: &Options) -> Self {
        let mut recorded = Self {
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
        };
        for json in &options.existing {
            let text = |pointer: &str| json.pointer(pointer).and_then(Json::as_str);
            let Some(name) = text("/metadata/name") else {
                continue;
            };
            match text("/kind") {
                Some("PersistentVolumeClaim") => {
                    let namespace = text("/metadata/namespace");
                    let namespace = namespace.and_then(|text| Namespace::parse(text).ok());
                    let namespace = namespace.unwrap_or_else(|| options.namespace.clone());
                    let object = typed::<core::PersistentVolumeClaim>(json, name);
                    let spec = object.and_then(|object| object.spec);
                    let claim = kinds::recorded_claim(&spec.unwrap_or_default());
                    let json = json.clone();
                    let key = (namespace, name.to_owned());
                    recorded.claims.insert(key, RecordedClaim { claim, json });
                }
                Some("PersistentVolume") => {
                    let Some(object) = typed(json, name) else {
                        continue;
                    };
                    let volume = kinds::recorded_volume(&object);
                    recorded.volumes.insert(name.to_owned(), volume);
                }
                _ => {}
            }
        }
        recorded
    }
}

fn typed<T: DeserializeOwned>(json: &Json, name: &str) -> Option<T> {
    let object = serde_json::from_value(json.clone());
    object
        .inspect_err(|error| tracing::warn!(name, %error, "a recorded object cannot be read"))
        .ok()
}
