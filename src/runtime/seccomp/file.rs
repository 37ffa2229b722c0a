//! Profiles of the machine, as `Localhost` names them: JSON in the form of the runtime specification, with what Docker
//! adds to it (`archMap`, `includes`, `excludes`).

use oci_spec::runtime::{
    Arch, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use serde::Deserialize;

use super::program::{Action, Condition, Operator, Profile, Rule, Width};
use crate::runtime::Error;
use crate::sys::capability::Set;
use crate::sys::identity;
use crate::sys::seccomp::{self, Architecture};

/// A profile as its file has it. What it comes to depends on the container's capabilities.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileFile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Vec<Arch>,
}

/// Some system calls, and what is done with them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    /// Docker's older form.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Circumstances,
    #[serde(default)]
    excludes: Circumstances,
}

/// Where an entry counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Circumstances {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

const EPERM: u32 = 1;

impl ProfileFile {
    /// Reads a profile.
    ///
    /// # Errors
    /// It is no profile: where, and why.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let file: Self =
            serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        for capabilities in [Set::default(), Set(u64::MAX)] {
            file.profile(capabilities)?;
        }
        Ok(file)
    }

    /// The flags that its program is loaded with.
    pub(super) fn flags(&self) -> u32 {
        self.flags.iter().fold(0, |flags, flag| {
            flags
                | match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => seccomp::LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => seccomp::SPEC_ALLOW,
                    // There is one thread, and nobody is notified.
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync
                    | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
                }
        })
    }

    /// What it means for a process with these capabilities.
    pub(super) fn profile(&self, capabilities: Set) -> Result<Profile, Error> {
        let mut rules = Vec::new();
        let count_here = |calls: &&Calls| {
            calls.includes.hold(capabilities) && !calls.excludes.forbid(capabilities)
        };
        for calls in self.syscalls.iter().filter(count_here) {
            let action = action(calls.action, calls.errno_ret)?;
            let names: Vec<String> = calls.names.iter().chain(&calls.name).cloned().collect();
            let conditions = calls.args.iter().flatten().map(condition);
            let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
            rules.extend(alternatives(conditions).into_iter().map(|conditions| Rule {
                names: names.clone(),
                conditions,
                action,
            }));
        }
        Ok(Profile {
            architectures: self.architectures(),
            rules,
            otherwise: action(self.default_action, self.default_errno_ret)?,
        })
    }

    /// This machine's own always counts.
    fn architectures(&self) -> Vec<Architecture> {
        let mapped = self
            .arch_map
            .iter()
            .filter(|map| architecture(map.architecture) == Some(Architecture::NATIVE));
        let named = mapped.flat_map(|map| &map.sub_architectures);
        let mut known = vec![Architecture::NATIVE];
        for named in self.architectures.iter().chain(named) {
            if let Some(architecture) = architecture(*named)
                && Architecture::ALL.contains(&architecture)
                && !known.contains(&architecture)
            {
                known.push(architecture);
            }
        }
        known
    }
}

impl Circumstances {
    fn hold(&self, capabilities: Set) -> bool {
        self.caps.iter().all(|name| has(capabilities, name))
            && (self.arches.is_empty() || self.arches.iter().any(|name| is_native(name)))
            && self.min_kernel.as_deref().is_none_or(is_kernel_at_least)
    }

    fn forbid(&self, capabilities: Set) -> bool {
        self.caps.iter().any(|name| has(capabilities, name))
            || self.arches.iter().any(|name| is_native(name))
            || self.min_kernel.as_deref().is_some_and(is_kernel_at_least)
    }
}

fn has(capabilities: Set, name: &str) -> bool {
    Set::named(name).is_some_and(|one| capabilities.contains(one))
}

/// In Go's words.
fn is_native(name: &str) -> bool {
    match Architecture::NATIVE {
        Architecture::X86_64 | Architecture::X86 => name == "amd64",
        Architecture::Aarch64 => name == "arm64",
    }
}

fn is_kernel_at_least(minimum: &str) -> bool {
    identity::kernel_version(&identity::kernel_release()) >= identity::kernel_version(minimum)
}

fn architecture(named: Arch) -> Option<Architecture> {
    match named {
        Arch::ScmpArchNative => Some(Architecture::NATIVE),
        Arch::ScmpArchX86_64 => Some(Architecture::X86_64),
        Arch::ScmpArchX86 => Some(Architecture::X86),
        Arch::ScmpArchAarch64 => Some(Architecture::Aarch64),
        _ => None,
    }
}

/// Several conditions on one argument are alternatives: libseccomp cannot have them in one rule, so runc makes a rule of
/// each condition.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut arguments: Vec<u8> = conditions.iter().map(|c| c.argument).collect();
    arguments.sort_unstable();
    arguments.dedup();
    if arguments.len() < conditions.len() {
        conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect()
    } else {
        vec![conditions]
    }
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<Action, Error> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            Action::KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => Action::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => Action::TRAP,
        LinuxSeccompAction::ScmpActErrno => Action::errno(number.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActTrace => Action::trace(number.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActLog => Action::LOG,
        LinuxSeccompAction::ScmpActAllow => Action::ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(invalid("it has the action SCMP_ACT_NOTIFY"));
        }
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition, Error> {
    let value = argument.value();
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Operator::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Operator::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Operator::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (Operator::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (Operator::GreaterOrEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (Operator::Greater, value),
        // The first value is the mask.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let masked = argument.value_two().unwrap_or(0);
            (Operator::MaskedEqual(value), masked)
        }
    };
    let number = u8::try_from(argument.index())
        .ok()
        .filter(|index| *index < 6);
    Ok(Condition {
        argument: number.ok_or_else(|| invalid("an argument's index is above 5"))?,
        width: Width::Whole,
        operator,
        value,
    })
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::Seccomp {
        detail: detail.into(),
    }
}
