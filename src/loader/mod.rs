//! Manifests in, plans and diagnostics out.
//!
//! ```text
//! source   files, folders, stdin → named bytes (the loader's only I/O)
//! yaml     bytes → documents: trees whose nodes know their places (node)
//! object   document → one typed Kubernetes object (decode), known by its key
//! resolve  what the objects of a run may refer to: ConfigMaps and Secrets
//! binding  claims and PersistentVolumes → which claim gets which storage
//! kinds    object → plan: defaults, the API server's validation, conversion; support says what is ignored or refused
//! ```
//!
//! Nothing here stops at the first fault. A run that has an error among its diagnostics must not be played.

#![forbid(unsafe_code)]

mod binding;
mod decode;
pub(crate) mod fields;
mod kinds;
mod node;
mod object;
mod publish;
mod report;
mod resolve;
mod run;
pub mod selector;
pub mod source;
mod support;
mod yaml;

use std::path::PathBuf;

pub use kinds::{AllowedSysctls, Capacity};
pub use publish::{InvalidPublish, Publish};
pub use run::load;
pub use selector::Selector;
pub use source::Source;
pub use yaml::Substitution;

use crate::model::diagnostic::{Diagnostic, Severity};
use crate::model::names::{ContainerName, Namespace, ObjectKey, PodKey};
use crate::model::plan::PodPlan;
use crate::model::pull_secret::PullSecret;

/// What a run asks for beside its files, and the facts of the machine that plans depend on.
#[derive(Clone, Debug)]
pub struct Options {
    /// For what names no namespace itself.
    pub namespace: Namespace,
    /// Only objects with such labels are taken.
    pub selector: Option<Selector>,
    /// Container name and image: replaces the image in every pod that has such a container.
    pub set_image: Vec<(ContainerName, String)>,
    /// Ports to publish, beside those with a `hostPort`.
    pub publish: Vec<Publish>,
    /// Which of the ports without a `hostPort` are published.
    pub publish_declared: PublishDeclared,
    /// Files with ConfigMaps: as if they were among the sources, but nothing else may be in them.
    pub config_maps: Vec<Source>,
    /// `${NAME}` in values is replaced if this is there.
    pub substitution: Option<Substitution>,
    /// Recorded ConfigMaps, Secrets, claims and PersistentVolumes, as JSON objects: what manifests may refer to without
    /// having it.
    pub existing: Vec<serde_json::Value>,
    /// What the machine has; `None` if no pod can be too large.
    pub capacity: Option<Capacity>,
    /// Which sysctls pods may set beside those that are safe.
    pub allowed_sysctls: AllowedSysctls,
    /// Absolute: where a relative hostPath of standard input starts.
    pub current_dir: PathBuf,
    /// The machine's host name: the pod's own with `hostNetwork`.
    pub node_name: String,
}

/// Which declared container ports are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishDeclared {
    /// Those with a `hostPort`.
    HostPorts,
    /// All, under their own number (`--publish-all`).
    All,
}

/// What a run's files have in them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// In the order of the files. Objects with faults are missing.
    pub objects: Vec<Object>,
    /// In the order of the files. Nothing may be played if there is an error among them.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether anything is wrong enough that nothing may be played.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// One object of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: ObjectKey,
    /// The object with its namespace filled in; a Secret's `stringData` is merged into its `data`.
    pub json: serde_json::Value,
    /// What is played for it: Pods and workloads.
    pub plan: Option<PodPlan>,
    /// What the pod has to show to registries. Not a part of the plan, which is recorded.
    pub pull_secrets: Vec<PullSecret>,
    /// Whether kplay does anything with it; `false` for kinds that are only for clusters.
    pub played: bool,
    pub origin: Origin,
}

/// Why an object is among those of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The files name it.
    Files,
    /// A StatefulSet's template makes it: it stays when that is deleted.
    Template,
    /// An ephemeral volume of this pod makes it: it goes with the pod.
    Volume(PodKey),
}

#[cfg(test)]
mod tests;
