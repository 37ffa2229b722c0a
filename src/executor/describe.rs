//! From a container's plan to what the runtime is told: user, environment, command, mounts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::container::termination_log;
use super::context::Context;
use super::error::StartFailure;
use super::pod::shared_memory;
use super::{downward, etc};
use crate::model::image::{Image, ImageConfig};
use crate::model::plan::{
    ContainerPlan, SubPath, SupplementalGroupsPolicy, VolumeMount, VolumeSource,
};
use crate::model::status::{ContainerUser, LinuxContainerUser};
use crate::runtime::user::{self, User};
use crate::spec::{
    self, BindMount, ContainerInput, NamespaceChoice, Namespaces, ResolvedUser, Spec, arguments,
    environment, resources,
};
use crate::sys::cgroup::Version;
use crate::sys::fs;
use crate::sys::namespace::Namespace;
use crate::volume::{self, Missing};

/// Who a container's first process is started as.
pub(super) fn user(spec: &Spec) -> ContainerUser {
    let user = spec.process().as_ref().map(|process| process.user());
    let linux = user.map(|user| LinuxContainerUser {
        uid: user.uid(),
        gid: user.gid(),
        supplemental_groups: user.additional_gids().clone().unwrap_or_default(),
    });
    ContainerUser {
        linux: linux.unwrap_or_default(),
    }
}

/// Where one run of a container is on the host.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Its mounted root file system.
    pub(super) rootfs: PathBuf,
    /// Its files.
    pub(super) dir: PathBuf,
    /// The mount points of its parts of volumes.
    pub(super) sub_paths: PathBuf,
}

/// Describes a container, and mounts the parts of volumes that it gets.
pub(super) fn container<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
    image: &Image,
    places: &Places,
) -> Result<Spec, StartFailure> {
    let pod = &context.launch.plan;
    let display_name = format!("{}_{}({})", pod.name, pod.namespace, context.launch.uid);
    let user = resolve_user(plan, &image.config, &places.rootfs, &display_name)?;
    let services = downward::services(context)?;
    let resolve = |value: &_| downward::variable(context, plan, value);
    let declared = environment::declared(&plan.env, &services, &resolve)?;
    let args = arguments(plan, &image.config, &declared);
    if args.is_empty() {
        return Err(StartFailure::Config(
            "no command specified: neither the image nor the manifest names one".into(),
        ));
    }
    let mounts = mounts(context, plan, places, &declared)?;
    let mut additional_gids: Vec<u32> = pod.security.supplemental_groups.clone();
    additional_gids.extend(pod.security.fs_group);
    match pod.security.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => additional_gids.extend(&user.groups),
        SupplementalGroupsPolicy::Strict => {}
    }
    // Not only the primary group: files of that group stay readable after a program has changed it (CVE-2022-36109).
    additional_gids.push(user.gid);
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let working_dir = plan
        .working_dir
        .as_deref()
        .filter(|dir| !dir.is_empty())
        .unwrap_or(&image.config.working_dir);
    let defaults = environment::Defaults {
        hostname: &pod.kernel_hostname(),
        home: &user.home,
        tty: plan.tty,
    };
    let launch = context.current();
    let mut containers = launch.plan.all_containers();
    let current = containers
        .find(|container| container.name == plan.name)
        .unwrap_or(plan);
    let devices = if plan.security.privileged {
        super::machine::devices()?
    } else {
        Vec::new()
    };
    Ok(spec::container(&ContainerInput {
        plan,
        args,
        env: environment::complete(defaults, &image.config.env, &declared),
        working_dir: &Path::new("/").join(working_dir),
        user: ResolvedUser {
            uid: user.uid,
            gid: user.gid,
            additional_gids,
        },
        rootfs: &places.rootfs,
        namespaces: namespaces(context),
        mounts,
        shared_memory: &shared_memory(context),
        oom_score_adj: resources::oom_score_adj(&launch.plan, current, context.facts.memory),
        cgroup2: context.hierarchies.version() == Version::V2,
        host: &context.facts.host,
        devices,
    })?)
}

/// The user of the manifest or the image, and the kubelet's three objections to root.
fn resolve_user(
    plan: &ContainerPlan,
    image: &ImageConfig,
    rootfs: &Path,
    pod: &str,
) -> Result<User, StartFailure> {
    let security = &plan.security;
    // Only the user: a kubelet does not ask for the group that an image names beside it
    // (https://github.com/kubernetes/kubernetes/issues/61967).
    let name = image.user.split(':').next().unwrap_or_default();
    if security.run_as_non_root {
        let objection = match (security.run_as_user, name.parse::<u32>()) {
            (Some(0), _) => Some("container's runAsUser breaks non-root policy".to_owned()),
            (Some(_), _) => None,
            (None, Ok(uid)) if uid > 0 => None,
            (None, Err(_)) if !name.is_empty() => Some(format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
            )),
            (None, _) => Some("container has runAsNonRoot and image will run as root".to_owned()),
        };
        if let Some(objection) = objection {
            return Err(StartFailure::Config(format!(
                "{objection} (pod: \"{pod}\", container: {})",
                plan.name
            )));
        }
    }
    let mut user = match security.run_as_user {
        Some(uid) => user::lookup_uid(rootfs, uid)?,
        None => user::lookup(rootfs, name)?,
    };
    if let Some(gid) = security.run_as_group {
        user.gid = gid;
    }
    Ok(user)
}

fn arguments(
    plan: &ContainerPlan,
    image: &ImageConfig,
    declared: &[(String, String)],
) -> Vec<String> {
    let expand = |words: &Vec<String>| {
        let lookup = |name: &str| environment::lookup(declared, name).map(str::to_owned);
        let expanded = words.iter().map(|word| environment::expand(word, &lookup));
        expanded.collect()
    };
    arguments::choose(
        plan.command.as_ref().map(expand),
        plan.args.as_ref().map(expand),
        &image.entrypoint,
        &image.cmd,
    )
}

fn namespaces<R>(context: &Context<R>) -> Namespaces {
    let pod = &context.launch.plan;
    let sandbox = context.sandbox.borrow();
    let joined = |host: bool, namespace: Namespace| match (host, sandbox.as_ref()) {
        (false, Some(sandbox)) => NamespaceChoice::Join(sandbox.namespace_path(namespace)),
        _ => NamespaceChoice::Host,
    };
    Namespaces {
        network: joined(pod.host_network, Namespace::Network),
        ipc: joined(pod.host_ipc, Namespace::Ipc),
        uts: joined(pod.host_network, Namespace::Uts),
        pid: match (pod.host_pid, pod.share_process_namespace) {
            (true, _) => NamespaceChoice::Host,
            (false, true) => joined(false, Namespace::Pid),
            (false, false) => NamespaceChoice::New,
        },
    }
}

fn mounts<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
    places: &Places,
    variables: &[(String, String)],
) -> Result<Vec<BindMount>, StartFailure> {
    let mut mounts = Vec::new();
    for (number, mount) in plan.mounts.iter().enumerate() {
        let own_place = places.sub_paths.join(number.to_string());
        mounts.push(volume_mount(context, mount, own_place, variables)?);
    }
    let log = termination_log(&places.dir);
    fs::replace_in_memory(&log, 0o666, b"")?;
    fs::set_mode(&log, 0o666)?;
    let log = BindMount {
        source: log,
        destination: plan.termination_message_path.clone(),
        read_only: false,
    };
    // A container that mounts something there itself gets that.
    if !mounts
        .iter()
        .any(|mount| mount.destination == log.destination)
    {
        mounts.push(log);
    }
    mounts.extend(etc::mounts(context, plan)?);
    Ok(mounts)
}

fn volume_mount<R>(
    context: &Context<R>,
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
    let is_files = matches!(source, Some(VolumeSource::Files { .. }));
    let is_read_only = match source {
        Some(VolumeSource::Claim { read_only, .. }) => *read_only,
        _ => is_files,
    };
    let source = match &mount.sub_path {
        None => root.clone(),
        Some(sub_path) => {
            let missing = if is_files {
                Missing::Refuse
            } else {
                Missing::Create
            };
            let sub_path = sub_path_of(sub_path, variables)?;
            volume::mount_sub_path(root, &sub_path, missing, &own_place).map_err(|source| {
                StartFailure::SubPath {
                    volume: mount.volume.to_string(),
                    source,
                }
            })?;
            own_place
        }
    };
    Ok(BindMount {
        source,
        destination: mount.mount_path.clone(),
        read_only: mount.read_only || is_read_only,
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
