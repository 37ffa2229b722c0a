//! A Secret with credentials for registries, as a pod names it in `imagePullSecrets`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Read by the loader, used by the pull, and by those that a running pod may want later: its launch file has them, as it
/// has the Secrets that its containers get.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecret {
    /// The Secret's name.
    pub name: String,
    pub form: SecretForm,
    /// Its file with credentials.
    pub content: Vec<u8>,
}

/// What a Secret's `type` says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretForm {
    /// `kubernetes.io/dockerconfigjson`.
    DockerConfigJson,
    /// `kubernetes.io/dockercfg`.
    DockerCfg,
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullSecret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
