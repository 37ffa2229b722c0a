//! The labels by which a Job's pods name it as a controller does: with the uid that is recorded of the Job.

use serde_json::Value;

use crate::model::plan::PodPlan;

/// The names of the label: today's, and the one before it.
const LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

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
