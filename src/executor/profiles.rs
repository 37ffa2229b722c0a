//! Which profiles confine a container, as the kernel takes them.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::context::Context;
use super::error::StartFailure;
use crate::model::plan::{AppArmorProfile, ContainerPlan, SeccompProfile};
use crate::runtime::{self, ProfileFile};
use crate::sys::{fs, identity};

/// Larger than any profile, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Refuses an AppArmor profile that the kernel would not enforce or does not have, in the kubelet's words and those of its
/// runtime.
pub(super) fn check_app_armor(plan: &ContainerPlan) -> Result<(), StartFailure> {
    match &plan.security.app_armor {
        AppArmorProfile::Localhost(_) if !identity::has_app_armor() => {
            Err(StartFailure::NoAppArmor)
        }
        AppArmorProfile::Localhost(profile)
            if identity::has_app_armor_profile(profile) == Some(false) =>
        {
            Err(StartFailure::NoAppArmorProfile(profile.clone()))
        }
        AppArmorProfile::Localhost(_)
        | AppArmorProfile::RuntimeDefault
        | AppArmorProfile::Unconfined => Ok(()),
    }
}

/// A container's seccomp profile. A privileged container is never confined.
pub(super) fn seccomp<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
) -> Result<runtime::SeccompProfile, StartFailure> {
    Ok(match &plan.security.seccomp {
        _ if plan.security.privileged => runtime::SeccompProfile::Unconfined,
        SeccompProfile::RuntimeDefault => runtime::SeccompProfile::RuntimeDefault,
        SeccompProfile::Unconfined => runtime::SeccompProfile::Unconfined,
        SeccompProfile::Localhost(path) => {
            runtime::SeccompProfile::Custom(Rc::new(localhost(context, path)?))
        }
    })
}

/// Reads a profile of the machine. The first folder that has it counts.
fn localhost<R>(context: &Context<R>, path: &Path) -> Result<ProfileFile, StartFailure> {
    let folders = &context.launch.seccomp_folders;
    for folder in folders {
        let place = folder.join(path);
        match fs::read_in_root(folder, path, LARGEST) {
            Ok(text) => {
                return ProfileFile::parse(&text)
                    .map_err(|source| StartFailure::SeccompProfile { place, source });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fs::Error::new("read the seccomp profile", place, e).into()),
        }
    }
    Err(StartFailure::NoSeccompProfile {
        path: path.to_owned(),
        folders: folders.clone(),
    })
}
