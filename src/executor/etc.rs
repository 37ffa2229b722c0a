//! The files in `/etc` that all containers of a pod share: `hosts`, `resolv.conf` and `hostname`.

use std::path::{Path, PathBuf};

use super::context::{Context, Message};
use super::error::Error;
use super::machine_network::MachineNetwork;
use crate::model::event::EventType;
use crate::model::plan::{ContainerPlan, MountAccess};
use crate::network::files::{self, ClusterDns, PodNetwork};
use crate::spec::BindMount;
use crate::sys::fs;

const MODE: u32 = 0o644;

/// Writes what does not change while the pod lives.
pub(super) fn write<R>(context: &Context<R>) -> Result<(), Error> {
    let plan = &context.launch.plan;
    let etc = context.paths().etc();
    fs::create_dir_all(&etc, 0o755)?;
    let of_machine = context.machine_network.borrow();
    let cluster_dns = of_machine.as_ref().and_then(MachineNetwork::resolver);
    let network = if plan.host_network {
        PodNetwork::Machine(cluster_dns.map(|address| ClusterDns {
            address,
            namespace: &plan.namespace,
        }))
    } else {
        PodNetwork::Own(&plan.namespace)
    };
    if files::misses_cluster_dns(plan.dns.policy, network) {
        let refusal = of_machine.as_ref().and_then(MachineNetwork::refusal);
        let why = refusal.map_or_else(String::new, |error| format!(" ({error})"));
        let message = format!(
            "pod: \"{}_{}({})\". There is no cluster DNS in the machine's network{why}, cannot create Pod using \
             \"ClusterFirstWithHostNet\" policy. Falling back to \"Default\" policy.",
            plan.name, plan.namespace, context.launch.uid
        );
        let event = context.event(EventType::Warning, "MissingClusterDNS", message, None);
        context.send(Message::Event(event));
    }
    let resolv_conf = files::resolv_conf(&plan.dns, network, &of_host("resolv.conf")?);
    for message in resolv_conf.omissions {
        let event = context.event(EventType::Warning, "DNSConfigForming", message, None);
        context.send(Message::Event(event));
    }
    let hostname = format!("{}\n", plan.kernel_hostname());
    fs::overwrite(&etc.join("resolv.conf"), MODE, resolv_conf.text.as_bytes())?;
    fs::overwrite(&etc.join("hostname"), MODE, hostname.as_bytes()).map_err(Error::from)
}

/// What a container gets of these files; where it mounts something itself, that. `hosts` is written anew, in place, at
/// each container's start: what another container did to it is gone then, for all of them.
pub(super) fn mounts<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
) -> Result<Vec<BindMount>, fs::Error> {
    let etc = context.paths().etc();
    let own = |path: &str| {
        let mut mounts = plan.mounts.iter();
        mounts.any(|mount| mount.mount_path == Path::new(path))
    };
    let mut mounts = Vec::new();
    // `hosts` is the kubelet's and writable; the others are the runtime's, which protects them with the root.
    let protected = if plan.security.read_only_root_filesystem {
        MountAccess::ReadOnly
    } else {
        MountAccess::ReadWrite
    };
    for (name, destination, access) in [
        ("hosts", "/etc/hosts", MountAccess::ReadWrite),
        ("resolv.conf", "/etc/resolv.conf", protected),
        ("hostname", "/etc/hostname", protected),
    ] {
        if own(destination) {
            continue;
        }
        let source = etc.join(name);
        if name == "hosts" {
            fs::overwrite(&source, MODE, hosts(context)?.as_bytes())?;
        }
        mounts.push(BindMount {
            access,
            ..BindMount::plain(source, PathBuf::from(destination))
        });
    }
    Ok(mounts)
}

fn hosts<R>(context: &Context<R>) -> Result<String, fs::Error> {
    let plan = &context.launch.plan;
    let host_file = plan.host_network.then(|| of_host("hosts")).transpose()?;
    Ok(files::hosts(&files::Hosts {
        hostname: &plan.hostname,
        fqdn: plan.fqdn().as_deref(),
        pod_ips: &context.pod_ips(),
        aliases: &plan.host_aliases,
        host_file: host_file.as_deref(),
    }))
}

/// A file of the machine's `/etc`; a missing one is empty.
fn of_host(name: &str) -> Result<String, fs::Error> {
    let bytes = fs::read_if_there(&Path::new("/etc").join(name))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}
