//! What has to be done to a pod or an object: recorded state and plan in, a step out. Pure.
//!
//! | on the machine | plan and images as recorded | different |
//! | --- | --- | --- |
//! | nothing | create | create |
//! | runs | keep | replace; refresh, if that is enough ([`refresh`], [`resize`]) |
//! | ended as it should, or is a bare pod or a Job | keep | replace |
//! | ended, and its owner would make a new one (Deployment, …) | replace | replace |
//! | its executor died, or it is being deleted | replace | replace |

mod refresh;
mod resize;

use std::collections::BTreeMap;

pub use self::refresh::{Stale, stale};
use serde_json::Value;

use super::report::Change;
use crate::model::image::{Image, ImageUser};
use crate::model::names::ObjectKey;
use crate::model::plan::PodPlan;
use crate::model::status::{Phase, PodStatus};
use crate::protocol::Launch;
use crate::state::record::SourceSet;
use crate::state::view::EXECUTOR_DIED;

/// Whether pods that are as they should be are restarted too (`--replace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    Changed,
    All,
}

/// What is known of a pod that is on the machine.
#[derive(Clone, Debug)]
pub struct Recorded<'a> {
    pub owner: &'a ObjectKey,
    pub sources: Option<&'a SourceSet>,
    /// What it was started with; `None` after a reboot, or if it was started by a kplay that said it differently.
    pub launch: Option<&'a Launch>,
    pub life: Life,
}

/// What a recorded pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its executor takes care of it.
    Runs,
    Ended(Ending),
    /// Its executor died before the pod ended.
    Abandoned,
    /// Somebody has begun to delete it.
    Deleting,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Succeeded,
    Failed,
}

impl Life {
    /// What a status says of a pod that nobody takes care of.
    #[must_use]
    pub fn without_executor(status: Option<&PodStatus>) -> Self {
        let Some(status) = status else {
            return Self::Abandoned;
        };
        match status.phase {
            Phase::Succeeded => Self::Ended(Ending::Succeeded),
            Phase::Failed if status.reason.as_deref() == Some(EXECUTOR_DIED) => Self::Abandoned,
            Phase::Failed => Self::Ended(Ending::Failed),
            Phase::Pending | Phase::Running => Self::Abandoned,
        }
    }
}

/// What to do with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStep {
    Create,
    /// Stop what is there, then create.
    Replace,
    /// Give the running pod what can change in it.
    Refresh,
    Keep,
}

impl PodStep {
    /// In kubectl's words.
    #[must_use]
    pub fn change(self) -> Change {
        match self {
            Self::Create => Change::Created,
            Self::Replace | Self::Refresh => Change::Configured,
            Self::Keep => Change::Unchanged,
        }
    }
}

/// The pod is another owner's, who has nothing to do with the files at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub owner: ObjectKey,
}

/// The step for a pod.
///
/// # Errors
/// It belongs to somebody else, unless all is to be replaced.
pub fn pod_step(
    recorded: Option<&Recorded<'_>>,
    plan: &PodPlan,
    images: &BTreeMap<ImageUser, Image>,
    sources: Option<&SourceSet>,
    replace: Replace,
) -> Result<PodStep, Conflict> {
    let Some(recorded) = recorded else {
        return Ok(PodStep::Create);
    };
    if replace == Replace::All {
        return Ok(PodStep::Replace);
    }
    let same_files = sources.is_some() && recorded.sources == sources;
    if *recorded.owner != plan.owner && !same_files {
        return Err(Conflict {
            owner: recorded.owner.clone(),
        });
    }
    let known = recorded.launch.filter(|launch| same_images(launch, images));
    Ok(match known {
        Some(launch) if launch.plan == *plan && may_stay(recorded.life, plan) => PodStep::Keep,
        Some(launch) if recorded.life == Life::Runs && refresh::is_enough(&launch.plan, plan) => {
            PodStep::Refresh
        }
        _ => PodStep::Replace,
    })
}

fn may_stay(life: Life, plan: &PodPlan) -> bool {
    match life {
        Life::Runs => true,
        Life::Ended(Ending::Succeeded) => true,
        // A controller makes a new pod in the place of one that failed; nobody does for a bare pod, and a Job that
        // failed stays failed.
        Life::Ended(Ending::Failed) => plan.runs_to_completion || plan.owner.kind == "Pod",
        Life::Abandoned | Life::Deleting => false,
    }
}

/// By ID: layers may have moved when the image was loaded again.
fn same_images(recorded: &Launch, planned: &BTreeMap<ImageUser, Image>) -> bool {
    let containers = recorded.images.iter();
    let containers = containers.map(|(name, image)| (ImageUser::Container(name.clone()), image));
    let volumes = recorded.volume_images.iter();
    let volumes = volumes.map(|(name, image)| (ImageUser::Volume(name.clone()), image));
    let recorded: BTreeMap<ImageUser, &str> = containers
        .chain(volumes)
        .map(|(user, image)| (user, image.id.as_str()))
        .collect();
    let planned = planned.iter();
    recorded
        .iter()
        .map(|(user, id)| (user, *id))
        .eq(planned.map(|(user, image)| (user, image.id.as_str())))
}

/// What becomes of an object that is not a pod.
#[must_use]
pub fn object_change(recorded: Option<&Value>, manifest: &Value) -> Change {
    match recorded {
        None => Change::Created,
        Some(recorded) if recorded == manifest => Change::Unchanged,
        Some(_) => Change::Configured,
    }
}

/// The fields of a ConfigMap or a Secret that cannot be changed because `immutable` is set, and are.
pub fn forbidden(recorded: &Value, manifest: &Value) -> impl Iterator<Item = &'static str> {
    let is_immutable = |object: &Value| object.get("immutable") == Some(&Value::Bool(true));
    let is_set = is_immutable(recorded);
    let data = |object: &Value, field| {
        let data = object.get(field).and_then(Value::as_object);
        data.cloned().unwrap_or_default()
    };
    let fields = ["immutable", "data", "binaryData"].into_iter();
    fields.filter(move |field| match *field {
        "immutable" => is_set && !is_immutable(manifest),
        field => is_set && data(recorded, field) != data(manifest, field),
    })
}

#[cfg(test)]
mod tests;
