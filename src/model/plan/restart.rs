//! When a container is started again, where it says so itself: `restartPolicy` and `restartPolicyRules`.

use serde::{Deserialize, Serialize};

use super::RestartPolicy;

/// A container's own say in its restarts; empty if it leaves that to its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    pub policy: Option<RestartPolicy>,
    /// The first one that matches wins over the policy.
    pub rules: Vec<RestartRule>,
}

/// One of `restartPolicyRules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRule {
    pub action: RestartAction,
    pub codes: ExitCodes,
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartAction {
    /// The container is started again.
    Restart,
    /// All containers of the pod are, from the first init container on.
    RestartAllContainers,
}

/// Which exit codes a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCodes {
    In(Vec<i32>),
    NotIn(Vec<i32>),
}

impl ExitCodes {
    fn has(&self, code: i32) -> bool {
        match self {
            Self::In(codes) => codes.contains(&code),
            Self::NotIn(codes) => !codes.contains(&code),
        }
    }
}

impl Restarts {
    /// What the rules ask for after an exit with this code.
    #[must_use]
    pub fn action_after(&self, code: i32) -> Option<RestartAction> {
        let matching = self.rules.iter().find(|rule| rule.codes.has(code));
        matching.map(|rule| rule.action)
    }

    /// Whether an end of this container may restart all.
    #[must_use]
    pub fn may_restart_all(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.action == RestartAction::RestartAllContainers)
    }
}
