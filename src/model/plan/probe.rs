//! What is asked of a running container, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The probes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    pub startup: Option<Probe>,
    pub liveness: Option<Probe>,
    pub readiness: Option<Probe>,
}

/// One of them, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub check: Check,
    /// Seconds after the container's start.
    pub initial_delay: u32,
    /// Seconds, at least 1.
    pub timeout: u32,
    /// Seconds, at least 1.
    pub period: u32,
    /// How many successes in a row make a success. 1 for all but the readiness probe.
    pub success_threshold: u32,
    /// How many failures in a row make a failure.
    pub failure_threshold: u32,
    /// Instead of the pod's, when this probe has the container killed.
    pub termination_grace_period: Option<u32>,
}

impl Probe {
    /// Until when an answer counts.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// From one check to the next.
    #[must_use]
    pub fn period(&self) -> Duration {
        Duration::from_secs(self.period.into())
    }
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Runs a command in the container. `$(NAME)` in it is expanded already.
    Exec { command: Vec<String> },
    /// Asks over HTTP.
    Http(HttpGet),
    /// Connects.
    Tcp {
        /// The pod, if there is none.
        host: Option<String>,
        port: u16,
    },
    /// Asks over `grpc.health.v1`.
    Grpc {
        port: u16,
        service: String,
        transport: Transport,
    },
}

/// `httpGet`, of a probe or of a lifecycle hook; the port's name has been looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGet {
    /// `scheme`
    pub transport: Transport,
    /// The pod, if there is none.
    pub host: Option<String>,
    pub port: u16,
    /// As the manifest has it: may have a query.
    pub path: String,
    /// In the manifest's order; a name may be there more than once.
    pub headers: Vec<(String, String)>,
}

/// What bytes travel on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    #[default]
    Plain,
    /// Without looking at the certificate.
    Tls,
}
