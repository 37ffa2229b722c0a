//! A Secret with credentials for registries, as a pod names it in `imagePullSecrets`.

use std::fmt;

/// Read by the loader, used by the pull, recorded by nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// The Secret's name.
    pub name: String,
    pub form: SecretForm,
    /// Its file with credentials.
    pub content: Vec<u8>,
}

/// What a Secret's `type` says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
