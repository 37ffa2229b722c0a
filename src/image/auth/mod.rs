//! Who asks a registry: finds credentials, and signs in with them.
//!
//! ```text
//! --creds ────────────────────────────┐ alone
//! Secrets of imagePullSecrets ─ secret ┤ all that match, as the kubelet tries them
//! auth.json, config.json, … ─── file ──┴─ the first entry, as podman finds it ── helper: docker-credential-*
//! registries.conf ─────────── helper ──┤
//!                                      └─ sign_in: the registry's challenge → Basic, or a bearer token that is renewed
//! ```
//!
//! Secrets are in no `Debug`, no message and no record. They go to the registry, and to the token server that it names:
//! over http only where the registry itself may be asked without TLS.

mod file;
mod helper;
mod login;
mod secret;
mod sign_in;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use crate::model::pull_secret::PullSecret;

pub use file::Places;
pub use helper::Fault as HelperFault;
pub use login::{LoggedOut, Removed, log_out, log_out_of_all, save, stored, verify};
pub(super) use sign_in::{Grant, Scheme, SignIn, Transport};

/// What proves to a registry who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// `identitytoken`: an OAuth2 refresh token, for which the token server gives others.
    Identity {
        token: String,
    },
    /// `registrytoken`: what the registry itself takes.
    Registry {
        token: String,
    },
}

impl Credentials {
    /// Of one user.
    #[must_use]
    pub fn password(username: &str, password: &str) -> Self {
        Self::Password {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    /// Whose they are, where that is known.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } => Some(username),
            Self::Identity { .. } | Self::Registry { .. } => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Password { .. } => "Password",
            Self::Identity { .. } => "Identity",
            Self::Registry { .. } => "Registry",
        };
        let mut shown = f.debug_struct(kind);
        if let Some(username) = self.username() {
            shown.field("username", &username);
        }
        shown.finish_non_exhaustive()
    }
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--creds`, or what was typed.
    Given,
    File(PathBuf),
    /// `docker-credential-NAME`.
    Helper(String),
    /// A Secret that a pod names.
    Secret(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("that were given"),
            Self::File(path) => write!(f, "of {path:?}"),
            Self::Helper(name) => write!(f, "of `docker-credential-{name}`"),
            Self::Secret(name) => write!(f, "of the Secret `{name}`"),
        }
    }
}

/// Credentials that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub credentials: Credentials,
    pub origin: Origin,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.credentials.username() {
            Some(username) => write!(f, "as `{username}`, with the credentials {}", self.origin),
            None => write!(f, "with the credentials {}", self.origin),
        }
    }
}

/// Why credentials cannot be looked for or stored. No message has anything of a file's content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] crate::sys::fs::Error),
    #[error("the file {path:?}, which has to have credentials, is not there")]
    NotThere { path: PathBuf },
    #[error("the file {path:?} with credentials is damaged at line {line}, column {column}")]
    Damaged {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    #[error("the credential helper `docker-credential-{name}`, which {path:?} names, fails")]
    Helper {
        name: String,
        path: PathBuf,
        source: HelperFault,
    },
    #[error("the thread that looks for credentials ended early")]
    Thread(#[source] std::io::Error),
}

/// All places in which credentials may be.
#[derive(Clone, Debug)]
pub struct Keychain {
    /// `--creds`: then nothing else is looked at.
    pub given: Option<Credentials>,
    /// Of the pods that want the image, in order.
    pub secrets: Vec<PullSecret>,
    /// The user's own files.
    pub places: Places,
}

impl Keychain {
    /// What has no credentials.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            given: None,
            secrets: Vec::new(),
            places: Places::none(),
        }
    }

    /// The credentials for a repository at a registry (`docker.io`, `localhost:5000`), in the order in which they are to
    /// be tried; none if it is to be asked as nobody. `helpers` is the `credential-helpers` of `registries.conf`. May run
    /// a helper, so it blocks.
    ///
    /// # Errors
    /// A file or helper that may have them cannot be asked.
    pub fn find(
        &self,
        registry: &str,
        repository: &str,
        helpers: &[String],
    ) -> Result<Vec<Login>, Error> {
        if let Some(credentials) = self.given.clone() {
            let origin = Origin::Given;
            return Ok(vec![Login {
                credentials,
                origin,
            }]);
        }
        let mut found = secret::find(&self.secrets, registry, repository);
        match self.own(registry, repository, helpers) {
            Ok(own) => found.extend(own),
            // Those of the pod may do; kubelets have no such files.
            Err(error) if !found.is_empty() => {
                tracing::warn!(%error, "cannot look for credentials of the user's own");
            }
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// What the user has himself: the first that one of the helpers knows.
    fn own(
        &self,
        registry: &str,
        repository: &str,
        helpers: &[String],
    ) -> Result<Option<Login>, Error> {
        for name in helpers {
            let found = match name.as_str() {
                "containers-auth.json" => self.places.find(registry, repository)?,
                name => file::ask(name, registry, "registries.conf".as_ref())?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// A file with credentials, whatever is in it.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_file(bytes: &[u8]) {
    use file::{Config, Form};
    for form in [Form::Current, Form::Legacy] {
        match Config::parse(bytes, form, "file".as_ref()) {
            Ok(config) => {
                for (key, credentials) in config.entries() {
                    assert!(file::host_of(key, form).len() <= key.len());
                    let shown = format!("{credentials:?}");
                    assert!(!shown.contains("password:"), "{shown}");
                }
            }
            Err(error) => assert!(error.to_string().contains("is damaged at line")),
        }
    }
}

/// Headers of a registry that wants to know who asks.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_challenge(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    sign_in::fuzz(&lines);
}
