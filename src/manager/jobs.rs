//! What a Job's controller does for it: its pods name it in their labels, with the uid that is recorded of the Job; and the
//! Job remembers how its pod ended when that is removed, so that it stays what it came to.

use serde_json::Value;

use super::error::Error;
use crate::model::plan::PodPlan;
use crate::model::status::{Phase, PodEnd};
use crate::state::lock::{Locks, Subject};
use crate::state::pod_dir::PodDir;
use crate::state::{object, view};

/// The names of the label: today's, and the one before it.
const LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

/// Whether the pods of a kind of object are those of a Job. A CronJob's Job is no object here, and has its uid.
pub(super) fn has_pods_of(kind: &str) -> bool {
    matches!(kind, "Job" | "CronJob")
}

/// The plan with the uid of the Job that it was made of.
pub(super) fn labelled(plan: &PodPlan, uid: &str) -> PodPlan {
    let mut plan = plan.clone();
    let of_manifest = plan.manifest.pointer_mut("/metadata/labels");
    let mut of_manifest = of_manifest.and_then(Value::as_object_mut);
    for label in LABELS {
        plan.labels.insert(label.to_owned(), uid.to_owned());
        if let Some(labels) = &mut of_manifest {
            labels.insert(label.to_owned(), uid.into());
        }
    }
    plan
}

/// The lock that the removal of a Job's pod needs beside its own. A corrupt record names no Job; its pod is removed all the
/// same.
pub(super) fn subject(dir: &PodDir) -> Option<Subject> {
    let record = dir.record().ok().flatten()?;
    (record.owner.kind == "Job").then_some(Subject::Object(record.owner))
}

/// Notes in a pod's Job how the pod ended, which is about to be removed. One that only ended because its Job is suspended
/// is no end of the Job.
///
/// # Errors
/// The pod or the Job cannot be read, or the Job not be written.
pub(super) fn note_end(locks: &Locks, dir: &PodDir) -> Result<(), Error> {
    let Some(view) = view::view(dir)? else {
        return Ok(());
    };
    let key = &view.record.owner;
    if key.kind != "Job" {
        return Ok(());
    }
    if !locks.has_object(key) {
        // The pod became another one while its lock was waited for.
        tracing::warn!(job = %key, "the end of a pod is not noted: its Job is not locked");
        return Ok(());
    }
    let Some(mut job) = object::read(locks.layout(), key)? else {
        return Ok(());
    };
    let is_suspended = job.manifest.pointer("/spec/suspend") == Some(&Value::Bool(true));
    if is_suspended && view.status.phase != Phase::Succeeded {
        return Ok(());
    }
    job.ended = Some(PodEnd::from(&view.status));
    Ok(object::write(locks, &job)?)
}
