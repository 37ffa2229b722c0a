//! `lifecycle` of a container: what is done beside it when it has started and before it is stopped.

use serde::{Deserialize, Serialize};

use super::HttpGet;

/// A container's hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    pub post_start: Option<HookAction>,
    pub pre_stop: Option<HookAction>,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookAction {
    /// Runs a command in the container, without a shell and without expanding `$(NAME)`.
    Exec { command: Vec<String> },
    /// Makes a request; any answer will do.
    HttpGet(HttpGet),
    /// Waits, in seconds.
    Sleep { seconds: u32 },
    /// Deprecated: the API server takes it, and a kubelet fails it when it should run.
    TcpSocket,
}
