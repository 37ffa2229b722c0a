//! Takes pods and objects away.
//!
//! All pods at the same time: ask, wait, kill what does not end, clean up, remove the record last. A pod is marked
//! before it is asked to end, so that the next command finishes what this one could not.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::error::Error;
use super::report::{Event, Report, pod_object};
use super::resolve::{self, Kind};
use super::services::is_service;
use super::stop::{self, Grace, OnSignal};
use super::{Manager, client, ephemeral, jobs};
use crate::model::names::{Namespace, ObjectKey, PodKey, PodName};
use crate::network;
use crate::protocol::Request;
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::{self, Deleting, Found, LockedPodDir, PodDir};
use crate::state::record::PodRecord;
use crate::state::{endpoints, object, volumes};
use crate::sys::fs;

/// What is to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A pod or another object. With a workload go its pods.
    Object(ObjectKey),
    /// All pods and objects of this kind in a namespace: `delete pods --all`.
    AllOf {
        kind: &'static str,
        namespace: Namespace,
    },
    /// Everything in a namespace, or everywhere.
    All(Option<Namespace>),
}

/// Whether the claims' folders go with the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    Keep,
    Delete,
}

/// Whether what is not there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Error,
    Ignore,
}

/// Whether the command waits until the pods are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    ForEnd,
    /// `--wait=false`: they end by themselves, and the next command removes them.
    No,
}

/// How to delete.
#[derive(Clone, Copy, Debug)]
pub struct DeleteOptions {
    pub grace: Grace,
    pub volumes: Volumes,
    pub missing: Missing,
    pub wait: Wait,
}

/// Takes the targets away. What is not there is told at the end; the rest is deleted all the same. The order of the
/// events is that in which things are gone.
///
/// # Errors
/// [`Error::NotFound`] for each target that is not there, unless that is to be ignored; what could not be removed;
/// [`Error::Several`] of these; [`Error::Interrupted`].
pub fn delete(
    manager: &Manager,
    targets: &[Target],
    options: DeleteOptions,
    report: Report<'_>,
) -> Result<(), Error> {
    let mut doomed = Doomed::default();
    for target in targets {
        doomed.add(manager, target, options.volumes)?;
    }
    if options.volumes == Volumes::Delete {
        doomed.add_made_claims(manager)?;
    }
    doomed.add_claims_of_sets(manager)?;
    let mut errors = match options.missing {
        Missing::Ignore => Vec::new(),
        Missing::Error => std::mem::take(&mut doomed.missing),
    };
    hasten(manager, &doomed.pods, options.grace);
    let subjects = doomed.pods.iter().cloned().map(Subject::Pod);
    let others = doomed.pods.iter().flat_map(|pod| {
        let dir = PodDir::new(&manager.layout, pod);
        let claims = ephemeral::subjects(&dir).into_iter();
        claims.chain(jobs::subject(&dir))
    });
    let objects = doomed.objects.iter().cloned().map(Subject::Object);
    let locks = Locks::take(
        &manager.layout,
        subjects.chain(others).chain(objects),
        &manager.interrupt,
        &mut |subject| report(Event::Waiting(subject.clone())),
    )?;
    errors.extend(delete_pods(manager, &locks, &doomed.pods, options, report)?);
    // An executor takes the network with it when it is the last one, unless it had to be killed.
    if !doomed.pods.is_empty()
        && let Err(error) = sweep_network(manager)
    {
        errors.push(error);
    }
    for key in &doomed.objects {
        let deleted = doomed.check_unused(manager, key).and_then(|()| {
            let content = match doomed.emptied.contains(key) {
                true => Volumes::Delete,
                false => options.volumes,
            };
            delete_object(&locks, key, content)
        });
        match deleted {
            Ok(()) => report(Event::Deleted(key.clone())),
            Err(error) => errors.push(error),
        }
    }
    if doomed.objects.iter().any(is_service)
        && let Err(error) = endpoints::tell_services(&manager.layout)
    {
        errors.push(error.into());
    }
    Error::all(errors)
}

/// Removes the network if no pod is in it any more.
///
/// # Errors
/// It cannot be removed; [`Error::Interrupted`].
pub(super) fn sweep_network(manager: &Manager) -> Result<(), Error> {
    let stop = manager
        .interrupt
        .stop()
        .map_err(Error::io("handle signals"))?;
    let swept = network::sweep(&manager.layout.network(), &stop);
    swept.map_err(|error| manager.interrupted_or(error.into()))
}

/// What was found of the targets.
#[derive(Debug, Default)]
struct Doomed {
    pods: BTreeSet<PodKey>,
    objects: BTreeSet<ObjectKey>,
    /// Claims whose folders go with them, whatever the command says.
    emptied: BTreeSet<ObjectKey>,
    missing: Vec<Error>,
}

impl Doomed {
    fn add(&mut self, manager: &Manager, target: &Target, content: Volumes) -> Result<(), Error> {
        match target {
            Target::Object(key) if key.kind == "Pod" && key.group.is_empty() => {
                let pod = PodName::parse(&key.name).ok().map(|name| PodKey {
                    namespace: key.namespace.clone(),
                    name,
                });
                match pod.filter(|pod| PodDir::new(&manager.layout, pod).exists()) {
                    Some(pod) => {
                        self.pods.insert(pod);
                    }
                    None => self.missing.push(not_found(key)),
                }
            }
            Target::Object(key) => {
                let owned = resolve::owned(&manager.layout, |owner| owner == key)?;
                let there = fs::read_if_there(&manager.layout.object(key));
                // A claim that was deleted has left it.
                let folder = || match content == Volumes::Delete && key.kind == volumes::CLAIM {
                    true => volumes::exists(&manager.layout, key),
                    false => Ok(false),
                };
                if there?.is_some() || folder()? {
                    self.objects.insert(key.clone());
                } else if owned.is_empty() {
                    self.missing.push(not_found(key));
                }
                self.pods.extend(owned.into_iter().map(|(_, pod)| pod));
            }
            Target::AllOf { kind, namespace } => {
                self.add_all(manager, Some(namespace), Some(kind))?;
            }
            Target::All(namespace) => self.add_all(manager, namespace.as_ref(), None)?,
        }
        Ok(())
    }

    /// The claims of StatefulSets' templates: they are nobody's without the pod that they are named after.
    fn add_made_claims(&mut self, manager: &Manager) -> Result<(), Error> {
        for key in &self.pods {
            // A corrupt record names no claims; its pod is deleted all the same.
            let Ok(Some(record)) = PodDir::new(&manager.layout, key).record() else {
                continue;
            };
            if record.owner.kind != "StatefulSet" {
                continue;
            }
            let own = format!("-{}", key.name);
            for claim in claims(&record).filter(|claim| claim.ends_with(&own)) {
                let claim = volumes::claim_key(&key.namespace, claim);
                if fs::read_if_there(&manager.layout.object(&claim))?.is_some() {
                    self.objects.insert(claim);
                }
            }
        }
        Ok(())
    }

    /// The claims of StatefulSets that want them gone when they are deleted (`persistentVolumeClaimRetentionPolicy`).
    fn add_claims_of_sets(&mut self, manager: &Manager) -> Result<(), Error> {
        let is_set = |key: &&ObjectKey| key.kind == "StatefulSet" && key.group == "apps";
        let sets: Vec<ObjectKey> = self.objects.iter().filter(is_set).cloned().collect();
        for set in sets {
            // A corrupt record names no claims; it is deleted all the same.
            let Ok(Some(record)) = object::read(&manager.layout, &set) else {
                continue;
            };
            let policy = "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted";
            if record.manifest.pointer(policy).and_then(Value::as_str) != Some("Delete") {
                continue;
            }
            let templates = record.manifest.pointer("/spec/volumeClaimTemplates");
            let templates = templates.and_then(Value::as_array).into_iter().flatten();
            let names = templates.filter_map(|one| one.pointer("/metadata/name")?.as_str());
            for name in names {
                let claim = format!("{name}-{}-0", set.name);
                let claim = volumes::claim_key(&set.namespace, &claim);
                if fs::read_if_there(&manager.layout.object(&claim))?.is_some() {
                    self.emptied.insert(claim.clone());
                    self.objects.insert(claim);
                }
            }
        }
        Ok(())
    }

    /// A claim stays as long as a pod uses it, as in Kubernetes.
    fn check_unused(&self, manager: &Manager, key: &ObjectKey) -> Result<(), Error> {
        if key.kind != volumes::CLAIM {
            return Ok(());
        }
        for found in pod_dir::list(&manager.layout)? {
            let Found::Pod(dir) = found else {
                continue;
            };
            let pod = dir.key();
            if pod.namespace != key.namespace || self.pods.contains(pod) {
                continue;
            }
            if let Some(record) = dir.record()?
                && (claims(&record).any(|claim| claim == key.name)
                    || ephemeral::claims(&record).any(|claim| claim == *key))
            {
                return Err(Error::InUse {
                    claim: key.name.clone(),
                    pod: pod.clone(),
                });
            }
        }
        Ok(())
    }

    fn add_all(
        &mut self,
        manager: &Manager,
        namespace: Option<&Namespace>,
        kind: Option<&str>,
    ) -> Result<(), Error> {
        let here = |other: &Namespace| namespace.is_none_or(|namespace| namespace == other);
        // A corrupt object has no key to delete it by; `get` names its file.
        let (records, _corrupt) = object::list(&manager.layout)?;
        let wanted =
            |key: &ObjectKey| kind.is_none_or(|kind| key.kind == kind) && here(&key.namespace);
        let keys = records.into_iter().map(|record| record.key);
        self.objects.extend(keys.filter(wanted));
        for found in pod_dir::list(&manager.layout)? {
            let dir = match found {
                Found::Pod(dir) => dir,
                Found::Nameless(error) => {
                    self.missing.push(error.into());
                    continue;
                }
            };
            let owner_goes = || matches!(dir.record(), Ok(Some(record)) if wanted(&record.owner));
            let all_pods = kind.is_none_or(|kind| kind == "Pod") && here(&dir.key().namespace);
            if all_pods || owner_goes() {
                self.pods.insert(dir.key().clone());
            }
        }
        Ok(())
    }
}

/// The claims that a pod names.
pub(super) fn claims(record: &PodRecord) -> impl Iterator<Item = &str> {
    let volumes = record.manifest.pointer("/spec/volumes");
    let volumes = volumes.and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
}

fn not_found(key: &ObjectKey) -> Error {
    let known = resolve::KINDS
        .iter()
        .find(|kind: &&Kind| kind.kind == key.kind && kind.group == key.group);
    Error::NotFound {
        kind: known.map_or_else(|| key.kind.to_ascii_lowercase(), resolve::full_plural),
        name: key.name.clone(),
    }
}

/// Returns what could not be done.
pub(super) fn delete_pods(
    manager: &Manager,
    locks: &Locks,
    keys: &BTreeSet<PodKey>,
    options: DeleteOptions,
    report: Report<'_>,
) -> Result<Vec<Error>, Error> {
    let mut errors = Vec::new();
    let mut dirs: Vec<LockedPodDir<'_>> = Vec::new();
    let mut unmarked = BTreeSet::new();
    let now = Timestamp::now();
    // Another command may have deleted one while this one waited for the lock: fine.
    for dir in keys
        .iter()
        .filter_map(|key| locks.pod(key))
        .filter(|dir| dir.exists())
    {
        let note = Deleting {
            since: now,
            grace: stop::seconds(&dir, options.grace),
        };
        if let Err(error) = dir.mark_deleting(note) {
            // On a full disk deleting is the remedy. Nobody would finish it, so it is waited for.
            tracing::warn!(%error, "cannot mark a pod that is deleted");
            unmarked.insert(dir.key().clone());
        }
        report(Event::PodStopping(dir.key().clone()));
        dirs.push(dir);
    }
    if options.wait == Wait::No {
        dirs.retain(|dir| {
            let asked = !unmarked.contains(dir.key()) && asked_to_end(dir, options.grace);
            if asked {
                report(Event::Deleted(pod_object(dir.key())));
            }
            !asked
        });
    }
    let plain: Vec<&PodDir> = dirs.iter().map(|dir| &**dir).collect();
    let stopped = stop::stop_all(manager, &plain, options.grace, OnSignal::Leave)?;
    for (dir, stopped) in dirs.iter().zip(stopped) {
        match stopped.and_then(|()| stop::remove(locks, dir)) {
            Ok(()) => report(Event::Deleted(pod_object(dir.key()))),
            Err(error) => errors.push(error),
        }
    }
    Ok(errors)
}

/// Gives pods that another command is deleting no more time than this one does, which waits for it. Best effort: it goes on
/// to ask once more.
fn hasten(manager: &Manager, pods: &BTreeSet<PodKey>, grace: Grace) {
    if grace == Grace::Own {
        return;
    }
    for pod in pods {
        let dir = PodDir::new(&manager.layout, pod);
        if matches!(dir.deleting(), Ok(Some(_))) && !asked_to_end(&dir, grace) {
            tracing::debug!(%pod, "nobody hears that it has less time to end");
        }
    }
}

/// Whether the pod's executor lives and was asked to end it.
fn asked_to_end(dir: &PodDir, grace: Grace) -> bool {
    let request = Request::Stop {
        grace_period: grace.requested(),
    };
    matches!(dir.has_executor(), Ok(true)) && client::send(dir, &request).is_ok()
}

fn delete_object(locks: &Locks, key: &ObjectKey, content: Volumes) -> Result<(), Error> {
    // What was made for a pod is nobody's without it.
    let is_ephemeral = || {
        let record = object::read(locks.layout(), key).ok().flatten();
        record.is_some_and(|record| ephemeral::owner(&record).is_some())
    };
    if key.kind == volumes::CLAIM && (content == Volumes::Delete || is_ephemeral()) {
        volumes::remove(locks, key)?;
    }
    object::remove(locks, key)?;
    Ok(())
}

#[cfg(test)]
mod tests;
