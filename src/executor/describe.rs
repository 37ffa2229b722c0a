//! From a container's plan to what the runtime is told: user, environment, command, mounts.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::error::StartFailure;
use super::pod::{own_sys, shared_memory};
use super::{downward, mounts, users};
use crate::model::image::{Image, ImageConfig};
use crate::model::plan::{ContainerPlan, SupplementalGroupsPolicy};
use crate::model::status::{ContainerUser, LinuxContainerUser};
use crate::runtime::user::{self, User};
use crate::runtime::{self, LateMount};
use crate::spec::{
    self, ContainerInput, NamespaceChoice, Namespaces, ResolvedUser, Spec, arguments, environment,
    resources,
};
use crate::sys::cgroup::Version;
use crate::sys::namespace::Namespace;

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
    /// The run's name.
    pub(super) run: String,
    /// Its mounted root file system.
    pub(super) rootfs: PathBuf,
    /// Its files.
    pub(super) dir: PathBuf,
    /// The mount points of its parts of volumes.
    pub(super) sub_paths: PathBuf,
}

/// What the runtime is told.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) spec: Spec,
    pub(super) late_mounts: Vec<LateMount>,
}

/// Describes a container, and mounts the parts of volumes that it gets.
pub(super) fn container<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
    image: &Image,
    places: &Places,
) -> Result<Description, StartFailure> {
    let pod = &context.launch.plan;
    let display_name = format!("{}_{}({})", pod.name, pod.namespace, context.launch.uid);
    let user = resolve_user(plan, &image.config, &places.rootfs, &display_name)?;
    let launch = context.current();
    let mut containers = launch.plan.all_containers();
    let current = containers.find(|container| container.name == plan.name);
    let current = current.unwrap_or(plan);
    let services = downward::services(context)?;
    let resolve = |value: &_| downward::variable(context, current, value);
    let declared = environment::declared(&current.env, &services, &resolve)?;
    let args = arguments(plan, &image.config, &declared);
    if args.is_empty() {
        return Err(StartFailure::Config(
            "no command specified: neither the image nor the manifest names one".into(),
        ));
    }
    let mounts = mounts::all(context, plan, &image.config, places, &declared)?;
    let late_mounts = mounts::late(context, &mounts);
    let mounts = users::make_ready(context, &places.run, mounts)?;
    if let Some(users) = &context.users {
        let ids = users.ids();
        for id in [user.uid, user.gid].iter().chain(&user.groups) {
            ids.on_host(*id)
                .ok_or(runtime::Error::NoSuchId { id: *id })?;
        }
    }
    if let Some(ids) = context.facts.host.ids {
        let mut wanted = [user.uid, user.gid].into_iter().chain(user.groups.clone());
        if let Some(id) = wanted.find(|id| *id >= ids) {
            return Err(StartFailure::Config(format!(
                "the user or group {id} is not among the {ids} that you have: /etc/subuid and /etc/subgid give more"
            )));
        }
    }
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
    if context.facts.host.ids == Some(1) {
        // There are none, and the kernel lets nobody set them.
        additional_gids.clear();
    }
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
    let spec = spec::container(&ContainerInput {
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
        sys: own_sys(context).as_deref(),
        cgroup2: context.hierarchies.version() == Some(Version::V2),
        host: &context.facts.host,
        devices,
    })?;
    Ok(Description { spec, late_mounts })
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
    if security.run_as_non_root
        && let Some(objection) = objection_to_root(security.run_as_user, name)
    {
        return Err(StartFailure::Config(format!(
            "{objection} (pod: \"{pod}\", container: {})",
            plan.name
        )));
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

/// What speaks against a container that may not be root's (`verifyRunAsNonRoot`): the manifest's user counts, or else
/// the image's, which may be a name.
fn objection_to_root(user: Option<u32>, of_image: &str) -> Option<String> {
    match (user, of_image.parse::<u32>()) {
        (Some(0), _) => Some("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => None,
        (None, Ok(uid)) if uid > 0 => None,
        (None, Err(_)) if !of_image.is_empty() => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({of_image}), cannot verify user is non-root"
        )),
        (None, _) => Some("container has runAsNonRoot and image will run as root".to_owned()),
    }
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
        user: joined(context.users.is_none(), Namespace::User),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_objected_to_in_a_kubelets_words() {
        let check = |user: Option<u32>, of_image: &str, expected: Option<&str>| {
            let objection = objection_to_root(user, of_image);
            assert_eq!(objection.as_deref(), expected, "{user:?} {of_image:?}");
        };
        let root = Some("container has runAsNonRoot and image will run as root");
        check(None, "", root);
        check(None, "0", root);
        check(None, "1000", None);
        check(
            None,
            "app",
            Some(
                "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
            ),
        );
        let own = Some("container's runAsUser breaks non-root policy");
        check(Some(0), "1000", own);
        check(Some(7), "", None);
        check(Some(7), "root", None);
    }
}
