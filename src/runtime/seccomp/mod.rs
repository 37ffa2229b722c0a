//! Seccomp profiles: which system calls a container may make, compiled to a BPF program without libseccomp.

mod default;
mod file;
mod program;

use std::rc::Rc;

use super::Error;
use crate::sys::capability::Set;

pub(super) use default::relevant;
pub use file::ProfileFile;

/// Which system calls a container may make.
#[derive(Clone, Debug)]
pub enum SeccompProfile {
    /// All that its capabilities allow.
    Unconfined,
    /// containerd's default, which depends on the container's capabilities.
    RuntimeDefault,
    /// A `Localhost` profile.
    Custom(Rc<ProfileFile>),
}

/// The program of the default profile, for a process with these capabilities in its bounding set.
pub(super) fn compile_default(capabilities: Set) -> Result<Vec<u8>, Error> {
    program::compile(&default::profile(capabilities))
}

/// The program of a profile, for such a process.
pub(super) fn compile_custom(file: &ProfileFile, capabilities: Set) -> Result<Vec<u8>, Error> {
    program::compile(&file.profile(capabilities)?)
}

/// The flags that a profile's program is loaded with.
pub(super) fn flags(profile: &SeccompProfile) -> u32 {
    match profile {
        SeccompProfile::Unconfined | SeccompProfile::RuntimeDefault => 0,
        SeccompProfile::Custom(file) => file.flags(),
    }
}

#[cfg(test)]
mod tests;
