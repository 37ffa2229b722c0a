//! What the manager tells while it works: values, which `output` turns into lines.

use super::diff::Stale;
use crate::image::PullProgress;
use crate::model::event::PodEvent;
use crate::model::names::{ObjectKey, PodKey};
use crate::model::reference::Reference;
use crate::protocol::LaunchFailure;
use crate::state::lock::Subject;

/// What became of an object; kubectl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Configured,
    Unchanged,
}

/// One step of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another command is at work on this.
    Waiting(Subject),
    ImagePulling(Reference),
    ImageProgress(Reference, PullProgress),
    /// Another engine on this machine has it: the folder of its store.
    ImageImported(Reference, std::path::PathBuf),
    /// The image's ID.
    ImagePulled(Reference, String),
    /// It has a command for its health, which is not run.
    HealthcheckIgnored(Reference),
    /// It is not to be had.
    ImageFailed {
        image: Reference,
        /// The kubelet's: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
        reason: &'static str,
        message: String,
    },
    PodStopping(PodKey),
    PodStarting(PodKey),
    /// What the executor tells while it starts the pod.
    Pod(PodKey, PodEvent),
    /// It has not started yet, and its executor has said nothing for some time: what it waits for, if that is known.
    PodSilent(PodKey, Option<String>),
    PodStarted(PodKey),
    /// It has new files and metadata, and was not restarted.
    PodRefreshed(PodKey, Stale),
    /// It did not start, or failed while it did.
    PodFailed(PodKey, LaunchFailure),
    /// What was waited for has come true for this pod.
    PodReached(PodKey),
    /// The outcome for an object or a pod: `pod/web-0 created`.
    Object(ObjectKey, Change),
    RollingBack,
    /// What was replaced is there again.
    PodRestored(PodKey),
    /// `pod "web-0" deleted`.
    Deleted(ObjectKey),
}

/// Who listens.
pub type Report<'a> = &'a mut dyn FnMut(Event);

/// A pod as an object.
#[must_use]
pub fn pod_object(key: &PodKey) -> ObjectKey {
    ObjectKey {
        kind: "Pod".into(),
        group: String::new(),
        namespace: key.namespace.clone(),
        name: key.name.to_string(),
    }
}
