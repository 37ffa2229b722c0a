//! Whether pods can run on this machine, and what to do where they cannot.
//!
//! What can be tried is tried, by a process of its own ([`trials`]) in namespaces of its own, which takes with it what it
//! made. The rest is read ([`facts`]). What both mean, and the remedy, is [`checks`]' business, which touches nothing.
//!
//! ```text
//! examine ─ spawn `kplay internal try ROOT` ─ read the facts ─ read its lines ─ judge
//! ```

mod checks;
mod facts;
mod trials;

use crate::state::layout::Layout;

pub use trials::main as try_all;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// In few words, the same ones for ever: scripts look for them.
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// The one thing that would mend it: a command wherever there is one.
    pub remedy: Option<String>,
}

/// What was found means for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Works,
    /// Pods run, and cannot do everything.
    Limited,
    /// No pod can run.
    Fails,
}

impl Verdict {
    /// As scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::Limited => "limited",
            Self::Fails => "fails",
        }
    }
}

/// Looks at everything. What is tried leaves nothing.
///
/// # Errors
/// The process that tries cannot be started.
pub fn examine(layout: &Layout) -> std::io::Result<Vec<Check>> {
    let trials = trials::Running::start(layout.root())?;
    let facts = facts::Facts::read(layout);
    Ok(checks::judge(&facts, &trials.finish()?))
}

/// The machine, in short.
#[derive(Clone, Debug)]
pub struct Machine {
    pub kernel: String,
    pub user: String,
    pub container: Option<String>,
    /// Of the file system of ROOT.
    pub file_system: String,
    pub free_bytes: Option<u64>,
    pub cgroup_version: Option<u8>,
    pub controllers: Vec<String>,
}

/// Looks at the machine, and tries nothing.
#[must_use]
pub fn machine(layout: &Layout) -> Machine {
    let facts = facts::Facts::read(layout);
    Machine {
        kernel: facts.kernel,
        user: facts.user.name,
        container: facts.container,
        file_system: facts.file_system,
        free_bytes: facts.free_bytes,
        cgroup_version: facts.cgroups.version.map(|version| match version {
            facts::Version::V1 => 1,
            facts::Version::V2 => 2,
        }),
        controllers: facts.cgroups.controllers,
    }
}

/// Whether pods can run where these were found.
#[must_use]
pub fn is_fit(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.verdict != Verdict::Fails)
}
