//! What a container has mounted beside its root file system: its volumes, and the pod's own files.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::container::termination_log;
use super::context::Context;
use super::describe::Places;
use super::error::StartFailure;
use super::users::Users;
use super::{etc, volumes};
use crate::model::image::ImageConfig;
use crate::model::plan::{
    ContainerPlan, MountAccess, Propagation, SubPath, VolumeDevice, VolumeMount, VolumeSource,
};
use crate::runtime::late::{self, Origin};
use crate::runtime::{LateMount, rootfs};
use crate::spec::{self, BindMount, Owners, Programs, environment};
use crate::sys::fs;
use crate::volume::{self, Missing};

/// All of them. Parts of volumes are mounted where only the executor sees them.
///
/// # Errors
/// A volume or a part of one cannot be had.
pub(super) fn all<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
    image: &ImageConfig,
    places: &Places,
    variables: &[(String, String)],
) -> Result<Vec<BindMount>, StartFailure> {
    let mut mounts = Vec::new();
    for (number, mount) in plan.mounts.iter().enumerate() {
        let own_place = places.sub_paths.join(number.to_string());
        mounts.push(volume_mount(context, plan, mount, own_place, variables)?);
    }
    for device in &plan.devices {
        mounts.push(volume_device(context, device)?);
    }
    let own = image_volumes(context, image, places, &mounts)?;
    mounts.extend(own);
    let log = termination_log(&places.dir);
    fs::replace_in_memory(&log, 0o666, b"")?;
    fs::set_mode(&log, 0o666)?;
    let log = BindMount::plain(log, plan.termination_message_path.clone());
    // A container that mounts something there itself gets that.
    if !mounts
        .iter()
        .any(|mount: &BindMount| mount.destination == log.destination)
    {
        mounts.push(log);
    }
    mounts.extend(etc::mounts(context, plan)?);
    Ok(mounts)
}

/// What the image calls volumes, where the manifest mounts nothing itself: the run's own, with what the image has there,
/// and to be written to even if the root file system is not (containerd's `container_create.go:volumeMounts`). There it
/// is a copy; here it is the same folder of the same overlay, which goes with the run as well.
fn image_volumes<R>(
    context: &Context<R>,
    image: &ImageConfig,
    places: &Places,
    mounts: &[BindMount],
) -> Result<Vec<BindMount>, StartFailure> {
    let wanted = image.volumes.iter().enumerate().filter(|(_, path)| {
        let mut taken = mounts.iter().map(|mount| &mount.destination);
        !taken.any(|destination| destination == *path)
    });
    let ids = context.users.as_ref().map(Users::ids);
    let mount = |(number, path): (usize, &PathBuf)| {
        let place = places.sub_paths.join(format!("image-{number}"));
        rootfs::mount_own(&places.rootfs, path, &place, ids)?;
        Ok(BindMount {
            owners: Owners::Settled,
            ..BindMount::plain(place, path.clone())
        })
    };
    wanted.map(mount).collect()
}

/// Those that take part in mount propagation, and what is mounted below them.
pub(super) fn late<R>(context: &Context<R>, mounts: &[BindMount]) -> Vec<LateMount> {
    let of_host: BTreeSet<PathBuf> = volumes::of_host(context);
    let late = spec::propagated(mounts).into_iter();
    late.map(|mount| LateMount {
        origin: if mount.propagation == Propagation::Bidirectional
            && of_host.contains(&mount.source)
        {
            Origin::Host
        } else {
            Origin::Pod
        },
        source: mount.source,
        destination: mount.destination,
        access: mount.access,
        propagation: mount.propagation,
        owners: match (&context.users, mount.owners) {
            (Some(_), Owners::ByNumber) => late::Owners::Mapped,
            (None, _) | (Some(_), Owners::Settled) => late::Owners::AsTheyAre,
        },
    })
    .collect()
}

/// The machine's device file, where the container wants it: whether it may be written to is up to the cgroup.
fn volume_device<R>(
    context: &Context<R>,
    device: &VolumeDevice,
) -> Result<BindMount, StartFailure> {
    let missing = || StartFailure::Config(format!("volume \"{}\" is missing", device.volume));
    let volumes = context.volumes.borrow();
    let source = volumes.get(&device.volume).ok_or_else(missing)?;
    Ok(BindMount::plain(source.clone(), device.path.clone()))
}

fn volume_mount<R>(
    context: &Context<R>,
    container: &ContainerPlan,
    mount: &VolumeMount,
    own_place: PathBuf,
    variables: &[(String, String)],
) -> Result<BindMount, StartFailure> {
    let missing = || StartFailure::Config(format!("volume \"{}\" is missing", mount.volume));
    let volumes = context.volumes.borrow();
    let root = volumes.get(&mount.volume).ok_or_else(missing)?;
    let plan = &context.launch.plan;
    let volume = plan
        .volumes
        .iter()
        .find(|volume| volume.name == mount.volume);
    let source = volume.map(|volume| &volume.source);
    let is_image = matches!(source, Some(VolumeSource::Image { .. }));
    let is_read_only = match source {
        Some(VolumeSource::Files { .. } | VolumeSource::Image { .. }) => true,
        Some(VolumeSource::Claim { read_only, .. }) => *read_only,
        Some(VolumeSource::EmptyDir { .. } | VolumeSource::HostPath { .. }) | None => false,
    };
    let source = match &mount.sub_path {
        None => root.clone(),
        Some(sub_path) => {
            let missing = if is_image {
                Missing::Refuse
            } else {
                Missing::Create
            };
            let sub_path = sub_path_of(sub_path, variables)?;
            volume::mount_sub_path(root, &sub_path, missing, &own_place).map_err(|source| {
                StartFailure::SubPath {
                    volume: mount.volume.to_string(),
                    container: container.name.to_string(),
                    source,
                }
            })?;
            own_place
        }
    };
    Ok(BindMount {
        source,
        destination: mount.mount_path.clone(),
        access: match mount.access {
            MountAccess::ReadWrite if is_read_only => MountAccess::ReadOnly,
            access => access,
        },
        programs: if is_image {
            Programs::DoNotRun
        } else {
            Programs::Run
        },
        propagation: mount.propagation,
        owners: if is_image {
            Owners::Settled
        } else {
            Owners::ByNumber
        },
    })
}

/// The path that a mount asks for, with a kubelet's objections (`kubelet_pods.go:makeMounts`).
fn sub_path_of(
    sub_path: &SubPath,
    variables: &[(String, String)],
) -> Result<PathBuf, StartFailure> {
    let template = match sub_path {
        SubPath::Path(path) => return Ok(path.clone()),
        SubPath::Template(template) => template,
    };
    let missing = RefCell::new(BTreeSet::new());
    let expanded = environment::expand(template, &|name| {
        let value = environment::lookup(variables, name).filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value.map(str::to_owned)
    });
    let missing = missing.into_inner();
    let fault = if !missing.is_empty() {
        let names: Vec<String> = missing.into_iter().collect();
        format!("missing value for {}", names.join(", "))
    } else if expanded.starts_with('/') {
        format!("error SubPath `{expanded}` must not be an absolute path")
    } else if expanded.split('/').any(|part| part == "..") {
        format!("unable to provision SubPath `{expanded}`: must not contain '..'")
    } else {
        return Ok(expanded.into());
    };
    Err(StartFailure::Config(fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_needs_all_of_its_variables() {
        let variables = [("A", "a"), ("EMPTY", ""), ("UP", ".."), ("ROOT", "/")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let check = |template: &str, expected: Result<&str, &str>| {
            let path = sub_path_of(&SubPath::Template(template.into()), &variables);
            let path = path.map_err(|failure| failure.to_string());
            let path = path.as_ref().map(|path| path.to_str().unwrap());
            assert_eq!(path.map_err(String::as_str), expected, "{template}");
        };
        check("plain", Ok("plain"));
        check("$(A)/b", Ok("a/b"));
        check("$$(A)", Ok("$(A)"));
        check(
            "$(NONE)/$(EMPTY)/$(A)",
            Err("missing value for EMPTY, NONE"),
        );
        check(
            "$(ROOT)etc",
            Err("error SubPath `/etc` must not be an absolute path"),
        );
        check(
            "x/$(UP)",
            Err("unable to provision SubPath `x/..`: must not contain '..'"),
        );
    }
}
