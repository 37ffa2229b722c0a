//! Seccomp profiles: which system calls a container may make, compiled to a BPF program without libseccomp.

mod default;
mod program;

use std::rc::Rc;

use oci_spec::runtime::LinuxSeccomp;

use super::Error;
use crate::sys::capability::Set;

pub(super) use default::relevant;

/// Which system calls a container may make.
#[derive(Clone, Debug)]
pub enum SeccompProfile {
    /// All that its capabilities allow.
    Unconfined,
    /// containerd's and Docker's default, which depends on the container's capabilities.
    RuntimeDefault,
    /// A `Localhost` profile, in the form of the runtime specification.
    Custom(Rc<LinuxSeccomp>),
}

/// The program of the default profile, for a process with these capabilities in its bounding set.
pub(super) fn compile_default(capabilities: Set) -> Result<Vec<u8>, Error> {
    program::compile(&default::profile(capabilities))
}

/// The program of a profile.
pub(super) fn compile_custom(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    program::compile(&program::from_specification(profile)?)
}

#[cfg(test)]
mod tests;
