//! The pod's volumes: made before its first container, brought up to date when `apply` says so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::context::Context;
use super::error::Error;
use super::{downward, users};
use crate::model::plan::{
    ClaimStorage, ContainerPlan, PodPlan, Propagation, Volume, VolumeMount, VolumeSource,
};
use crate::spec::resources;
use crate::sys::cgroup::{BlockDevice, DeviceAccess};
use crate::sys::{device, fs, mount};
use crate::volume;

/// Whether a container's mounts are to be seen on the machine.
pub(super) fn reach_host(plan: &PodPlan) -> bool {
    let mut volumes = plan.volumes.iter();
    volumes.any(|volume| is_of_host(volume) && is_shared(plan, volume))
}

/// The paths of the volumes that are the machine's own.
pub(super) fn of_host<R>(context: &Context<R>) -> BTreeSet<PathBuf> {
    let paths = context.volumes.borrow();
    let volumes = context.launch.plan.volumes.iter();
    volumes
        .filter(|volume| is_of_host(volume))
        .filter_map(|volume| paths.get(&volume.name).cloned())
        .collect()
}

/// The block devices that a container may use.
///
/// # Errors
/// One cannot be looked at.
pub(super) fn block_devices(
    plan: &PodPlan,
    container: &ContainerPlan,
) -> Result<Vec<BlockDevice>, fs::Error> {
    let mut devices = Vec::new();
    for wanted in &container.devices {
        let mut volumes = plan.volumes.iter();
        let volume = volumes.find(|volume| volume.name == wanted.volume);
        let Some(VolumeSource::Claim {
            storage: ClaimStorage::Device { path },
            read_only,
            ..
        }) = volume.map(|volume| &volume.source)
        else {
            continue;
        };
        // What it is was checked when the volumes were prepared.
        if let Some((major, minor)) = device::block(path)? {
            devices.push(BlockDevice {
                major,
                minor,
                access: match read_only {
                    true => DeviceAccess::Read,
                    false => DeviceAccess::ReadWrite,
                },
            });
        }
    }
    Ok(devices)
}

fn is_of_host(volume: &Volume) -> bool {
    match &volume.source {
        VolumeSource::HostPath { .. } => true,
        VolumeSource::Claim { storage, .. } => *storage != ClaimStorage::Folder,
        VolumeSource::EmptyDir { .. } | VolumeSource::Image { .. } | VolumeSource::Files { .. } => {
            false
        }
    }
}

/// Whether a container mounts something in it for others.
fn is_shared(plan: &PodPlan, volume: &Volume) -> bool {
    let mut mounts = plan
        .all_containers()
        .flat_map(|container| &container.mounts);
    mounts
        .any(|mount| mount.volume == volume.name && mount.propagation == Propagation::Bidirectional)
}

/// Makes all volumes.
///
/// # Errors
/// One cannot be made; those before it go with the pod's folders and mounts.
pub(super) fn prepare<R>(context: &Context<R>) -> Result<(), Error> {
    each(context, |volume, of_pod| {
        let path = volume::prepare(volume, of_pod)?;
        if is_shared(&context.launch.plan, volume) && !is_of_host(volume) {
            // Its containers are each other's peers; all of it goes with the executor's mount namespace.
            mount::share(&path)?;
        }
        let mut paths = context.volumes.borrow_mut();
        paths.insert(volume.name.clone(), path);
        Ok(())
    })
}

/// Brings the volumes of files up to date.
///
/// # Errors
/// One cannot be written; it is as before then, and so are those after it.
pub(super) fn refresh<R>(context: &Context<R>) -> Result<(), Error> {
    each(context, volume::refresh)
}

fn each<R>(
    context: &Context<R>,
    mut act: impl FnMut(&Volume, &volume::Context<'_>) -> Result<(), volume::Error>,
) -> Result<(), Error> {
    let launch = context.current();
    let plan = &launch.plan;
    let mounts: Vec<&[VolumeMount]> = plan
        .all_containers()
        .map(|container| container.mounts.as_slice())
        .collect();
    let images = launch.volume_images.iter();
    let images = images
        .map(|(name, image)| (name.clone(), image.layers.as_slice()))
        .collect();
    let users = users::namespace(context)?;
    let memory = context.facts.memory;
    let limit = resources::of_pod(plan).memory_bytes;
    let of_pod = volume::Context {
        disk: &context.paths().volumes(),
        memory: &context.paths().mounts().join("volumes"),
        memory_size: limit.map_or(memory, |limit| limit.min(memory)),
        fs_group: plan.security.fs_group,
        users: users.as_ref().map(|users| users.as_users().namespace),
        change_policy: plan.security.fs_group_change_policy,
        claims: &launch.claims,
        images: &images,
        mounts: &mounts,
        resolve: &|content| downward::file(context, content),
    };
    plan.volumes.iter().try_for_each(|volume| {
        act(volume, &of_pod).map_err(|source| Error::Volume {
            volume: volume.name.to_string(),
            source,
        })
    })
}
