//! What a pod has besides its containers: namespaces, volumes, files, published ports, its cgroup. Each is given back
//! at the pod's end; what this process does not live to give back ends with its namespaces, or is swept by the next
//! command.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::context::{Context, Message};
use super::error::{Error, system};
use super::forward::{Bound, Forwarder, Publication, Sharing};
use super::machine_network;
use super::pod_network::{self, PodNetwork};
use super::users::Users;
use super::{container, etc, process, volumes};
use crate::model::cause::chain;
use crate::model::event::EventType;
use crate::model::plan::{ContainerPlan, PodPlan};
use crate::model::status::QosClass;
use crate::runtime::sandbox::{self, Sandbox, SandboxOptions};
use crate::runtime::{Runtime, mount_shared_memory};
use crate::spec::resources;
use crate::state::ids;
use crate::sys::cgroup::{Cgroup, CgroupEntry, Limits, Resource};
use crate::sys::process::Kept;
use crate::sys::signal::Signal;
use crate::sys::{fs, mount, userns};

/// The pod's resources.
#[derive(Debug)]
pub(super) struct PodResources {
    cgroup: Cgroup,
    forwarder: Option<Forwarder>,
    _kept: Option<Kept>,
}

impl PodResources {
    /// Acquires everything, in the order in which it can fail without having been in vain. On an error, what has been
    /// acquired goes with the process, except the cgroup and the network, which are given back here.
    pub(super) fn acquire<R: Runtime + 'static>(context: &Rc<Context<R>>) -> Result<Self, Error> {
        let ports = Bound::bind(&publications(context))?;
        let limits = pod_limits(&context.launch.plan);
        let cgroup = context
            .hierarchies
            .create(&context.launch.cgroup, &limits)?;
        weigh_class(&cgroup);
        tell_what_is_unenforced(context);
        let mut resources = Self {
            cgroup,
            forwarder: None,
            _kept: None,
        };
        let filled = sandbox_cgroup(context).and_then(|cgroup| {
            // What takes longest comes first, and goes on while the rest is done. No cgroup can be made meanwhile.
            container::prepare(context, 0);
            resources.fill(context, ports, cgroup)
        });
        if let Err(error) = filled {
            context.places.borrow_mut().clear();
            leave_network(context);
            resources.remove_cgroup();
            return Err(error);
        }
        Ok(resources)
    }

    fn fill<R: Runtime>(
        &mut self,
        context: &Context<R>,
        ports: Bound,
        cgroup: CgroupEntry,
    ) -> Result<(), Error> {
        self.start_sandbox(context, ports, cgroup)?;
        volumes::prepare(context)?;
        etc::write(context)?;
        renew_shared_memory(context)
    }

    fn start_sandbox<R: Runtime>(
        &mut self,
        context: &Context<R>,
        ports: Bound,
        cgroup: CgroupEntry,
    ) -> Result<(), Error> {
        let plan = &context.launch.plan;
        let sandbox = sandbox::start(&SandboxOptions {
            hostname: (!plan.host_network).then(|| plan.kernel_hostname()),
            ids: context.users.as_ref().map(Users::ids),
            net: !plan.host_network,
            ipc: !plan.host_ipc,
            uts: !plan.host_network,
            pid: plan.share_process_namespace && !plan.host_pid,
            sysctls: &plan.security.sysctls,
            cgroup,
        })?;
        self._kept = Some(context.reaper.keep(sandbox.pid()));
        if plan.host_network {
            // It outlives the sandbox, which has no part in it.
            let mut of_machine = context.machine_network.borrow_mut();
            if of_machine.is_none() {
                *of_machine = Some(machine_network::join(context)?);
            }
        } else {
            let network = pod_network::join(context, &sandbox)?;
            mount_sys(context, &network)?;
            self.forwarder = Some(ports.serve(network.namespace(), network.ips()));
            *context.network.borrow_mut() = Some(network);
        }
        *context.sandbox.borrow_mut() = Some(sandbox);
        Ok(())
    }

    /// Makes new namespaces in the place of lost ones.
    pub(super) async fn renew_sandbox<R: Runtime>(
        &mut self,
        context: &Context<R>,
    ) -> Result<(), Error> {
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.shutdown().await;
        }
        // The namespace that had it is gone.
        leave_network(context);
        let ports = Bound::bind(&publications(context))?;
        self.start_sandbox(context, ports, sandbox_cgroup(context)?)?;
        renew_shared_memory(context)
    }

    /// Gives everything back. No container runs any more.
    pub(super) async fn release<R: Runtime>(&mut self, context: &Context<R>) {
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.shutdown().await;
        }
        context.places.borrow_mut().clear();
        let sandbox = context.sandbox.borrow_mut().take();
        if let Some(sandbox) = sandbox {
            end(&sandbox).await;
        }
        leave_network(context);
        context.machine_network.borrow_mut().take();
        self.remove_cgroup();
        if context.users.is_some()
            && let Err(error) = ids::give_back(context.paths())
        {
            // They are free when the pod is deleted.
            tracing::error!(error = chain(&error), "cannot give the pod's ids back");
        }
    }

    fn remove_cgroup(&self) {
        let removed = self.cgroup.kill();
        if let Err(error) = removed.and_then(|()| self.cgroup.remove_with_parents()) {
            // `delete` and the next command's sweep remove it again.
            tracing::error!(error = chain(&error), "cannot remove the pod's cgroup");
        }
        weigh_class(&self.cgroup);
    }
}

/// Sets what the pods of this one's class weigh together, as a kubelet does: burstable ones what each of them weighs,
/// best-effort ones the least. Nobody else does it: to be called when a pod comes, goes or is resized. Weights bound nothing,
/// so the pod is none the worse for one that is missing.
pub(super) fn weigh_class(pod: &Cgroup) {
    let Some(class) = pod.parent() else { return };
    let weighed = match Some(class.name()) {
        name if name == QosClass::Burstable.cgroup() => class.weigh_together(),
        name if name == QosClass::BestEffort.cgroup() && !class.is_gone() => class.set(&Limits {
            cpu_shares: Some(resources::MIN_SHARES),
            ..Limits::default()
        }),
        _ => Ok(()),
    };
    if let Err(error) = weighed {
        tracing::warn!(error = chain(&error), "cannot weigh a class of pods");
    }
}

/// Gives the pod's addresses back.
fn leave_network<R>(context: &Context<R>) {
    let network = context.network.borrow_mut().take();
    if let Some(Err(error)) = network.map(PodNetwork::leave) {
        // They are free when this process ends; the next command sweeps the rest.
        tracing::error!(error = chain(&error), "cannot leave the network");
    }
}

/// The name of the pause process's cgroup; no container is called so.
const SANDBOX: &str = "_sandbox";

fn sandbox_cgroup<R>(context: &Context<R>) -> Result<CgroupEntry, Error> {
    let path = format!("{}/{SANDBOX}", context.launch.cgroup);
    // Next to the containers it must not count as one that requests a processor.
    let limits = Limits {
        cpu_shares: Some(resources::MIN_SHARES),
        ..Limits::default()
    };
    let cgroup = context.hierarchies.create(&path, &limits)?;
    Ok(cgroup.entry()?)
}

async fn end(sandbox: &Sandbox) {
    let ended = match sandbox.pid_fd().signal(Signal::KILL) {
        Ok(()) => process::wait(sandbox.pid_fd()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        // It has been waited for already if it ended by itself.
        tracing::debug!(%error, "the pause process is gone");
    }
}

/// Ready when the pause process has ended by itself.
pub(super) fn sandbox_end<R: Runtime>(context: &Context<R>) -> impl Future<Output = ()> + use<R> {
    let pid_fd = context
        .sandbox
        .borrow()
        .as_ref()
        .map(|sandbox| sandbox.pid_fd().duplicate());
    async move {
        match pid_fd {
            Some(Ok(pid_fd)) => {
                if let Err(error) = process::wait(&pid_fd).await {
                    tracing::debug!(%error, "the pause process is gone");
                }
            }
            Some(Err(error)) => tracing::error!(%error, "cannot watch the pause process"),
            None => std::future::pending().await,
        }
    }
}

/// What the pod's cgroup is limited to.
pub(super) fn pod_limits(plan: &PodPlan) -> Limits {
    let amounts = resources::of_pod(plan);
    Limits {
        cpu_weight: Some(resources::pod_cpu_weight(amounts.cpu_shares)),
        huge_pages: Some(resources::huge_pages_of_pod(plan)),
        ..cgroup_limits(amounts)
    }
}

/// Says which of the pod's limits nobody enforces.
fn tell_what_is_unenforced<R>(context: &Context<R>) {
    let plan = &context.launch.plan;
    let mut names = Vec::new();
    for resource in context.hierarchies.unenforced() {
        let is_limited = |container: &ContainerPlan| {
            let limits = resources::of_container(plan, container);
            match resource {
                Resource::Cpu => limits.cpu_quota_us.is_some(),
                Resource::Memory => limits.memory_bytes.is_some(),
                Resource::HugePages => {
                    !resources::huge_pages_of_container(plan, container).is_empty()
                }
            }
        };
        if plan.all_containers().any(is_limited) {
            names.push(match resource {
                Resource::Cpu => "cpu",
                Resource::Memory => "memory",
                Resource::HugePages => "huge pages",
            });
        }
    }
    if names.is_empty() {
        return;
    }
    let why = match userns::is_initial() {
        true => "the cgroups are read-only here",
        false => "no cgroup with them has been given to you, as systemd gives one with cgroup v2",
    };
    let message = format!("limits of {} are not enforced: {why}", names.join(", "));
    let event = context.event(EventType::Warning, "LimitsNotEnforced", message, None);
    context.send(Message::Event(event));
}

/// What a container's cgroup is limited to.
pub(super) fn container_limits(plan: &PodPlan, container: &ContainerPlan) -> Limits {
    Limits {
        huge_pages: Some(resources::huge_pages_of_container(plan, container)),
        ..cgroup_limits(resources::of_container(plan, container))
    }
}

/// What a cgroup is limited to, in the kernel's terms.
pub(super) fn cgroup_limits(limits: resources::CgroupLimits) -> Limits {
    Limits {
        cpu_shares: Some(limits.cpu_shares),
        cpu_quota_us: limits.cpu_quota_us,
        cpu_period_us: limits.cpu_quota_us.map(|_| resources::CPU_PERIOD_US),
        memory_bytes: limits.memory_bytes,
        ..Limits::default()
    }
}

/// Where the pod's `/sys` is, if containers cannot mount it: a user namespace within a container, whose own is read-only,
/// must not even for the moment until it is made so have one that is not, as libcontainer would.
pub(super) fn own_sys<R>(context: &Context<R>) -> Option<PathBuf> {
    let needed = !userns::is_initial() && mount::is_read_only(Path::new("/sys")).unwrap_or(false);
    needed.then(|| context.paths().mounts().join("sys"))
}

fn mount_sys<R>(context: &Context<R>, network: &PodNetwork) -> Result<(), Error> {
    let Some(folder) = own_sys(context) else {
        return Ok(());
    };
    fs::create_dir_all(&folder, 0o700)?;
    let mounted = network
        .namespace()
        .visit(|| mount::read_only_sys(&folder).map_err(io::Error::other));
    Ok(mounted.map_err(system("mount the pod's /sys"))?)
}

/// Gives a new sandbox a `/dev/shm`, which is empty as the sandbox's other memory.
fn renew_shared_memory<R>(context: &Context<R>) -> Result<(), Error> {
    if context.launch.plan.host_ipc {
        return Ok(());
    }
    let ids = context.users.as_ref().map(Users::ids);
    Ok(mount_shared_memory(&shared_memory(context), ids)?)
}

/// Where the containers' `/dev/shm` is.
pub(super) fn shared_memory<R>(context: &Context<R>) -> PathBuf {
    match &context.users {
        _ if context.launch.plan.host_ipc => PathBuf::from("/dev/shm"),
        None => context.paths().mounts().join("shm"),
        Some(users) => users.shared_memory(),
    }
}

fn publications<R>(context: &Context<R>) -> Vec<Publication> {
    let plan = &context.launch.plan;
    if plan.host_network {
        return Vec::new();
    }
    let ports = plan
        .containers
        .iter()
        .flat_map(|container| &container.ports);
    ports
        .filter_map(|port| {
            Some(Publication {
                protocol: port.protocol,
                host_ip: port.host_ip,
                host_port: port.host_port?,
                container_port: port.container_port,
                sharing: Sharing::Exclusive,
            })
        })
        .collect()
}
