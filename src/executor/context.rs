//! What every part of a running pod's executor can reach.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::clock;
use super::container::{Live, Place};
use super::lifecycle::{self, Index};
use super::machine_network::MachineNetwork;
use super::pod_network::PodNetwork;
use super::status::Observed;
use super::users::Users;
use crate::model::cause::chain;
use crate::model::cluster::Cluster;
use crate::model::event::{EventType, PodEvent};
use crate::model::image::Image;
use crate::model::names::{ContainerName, VolumeName};
use crate::model::plan::ContainerPlan;
use crate::model::status::QosClass;
use crate::protocol::Launch;
use crate::spec::HostFacts;
use crate::state::events::EventLog;
use crate::state::layout::PodPaths;
use crate::state::pod_dir::ExecutorDir;
use crate::sys::cgroup::Hierarchies;
use crate::sys::process::Reaper;

/// What happens to a pod.
#[derive(Debug)]
pub(super) enum Message {
    Lifecycle(lifecycle::Event),
    /// What the pod is to be has changed.
    Refreshed,
    /// Something to tell that changes no state.
    Event(PodEvent),
    /// A container has another image. What is passed is closed once the status says so.
    OtherImage(OwnedFd),
    /// Something was done that takes memory: a command ran.
    Busy,
}

/// The pod, as far as it does not change, and the registries of what does.
#[derive(Debug)]
pub(super) struct Context<R> {
    /// What the pod was started with.
    pub(super) launch: Rc<Launch>,
    /// The same, with what has changed since: metadata, the content of files and variables.
    pub(super) current: RefCell<Rc<Launch>>,
    pub(super) dir: ExecutorDir,
    pub(super) runtime: R,
    pub(super) reaper: Rc<Reaper>,
    pub(super) hierarchies: Hierarchies,
    /// The machine's mount namespace, if mounts of a container are to be seen there.
    pub(super) host_mounts: Option<OwnedFd>,
    /// The pod's user namespace, if it has one of its own.
    pub(super) users: Option<Users>,
    pub(super) facts: Facts,
    /// The pod's place in the network, if it has one of its own.
    pub(super) network: RefCell<Option<PodNetwork>>,
    /// What it has in the machine's network, if that is its own.
    pub(super) machine_network: RefCell<Option<MachineNetwork>>,
    /// The pods and Services that the pod can talk to.
    pub(super) cluster: Rc<RefCell<Cluster>>,
    /// The pause process's number, while there is one: its namespaces are joined.
    pub(super) sandbox: RefCell<Option<crate::runtime::sandbox::Sandbox>>,
    /// The containers that start next.
    pub(super) places: RefCell<BTreeMap<Index, Place>>,
    /// The containers that run.
    pub(super) live: RefCell<BTreeMap<Index, Live>>,
    pub(super) events: RefCell<EventLog>,
    /// What the containers turned out to be.
    pub(super) observed: RefCell<Observed>,
    /// The images that containers got when they started again, if they are others than those of the launch.
    pub(super) pulled: RefCell<BTreeMap<ContainerName, Image>>,
    /// Whether the pod is being ended: then nothing is worth a long wait.
    pub(super) ending: watch::Sender<bool>,
    /// What is bound into containers, by volume.
    pub(super) volumes: RefCell<BTreeMap<VolumeName, PathBuf>>,
    /// Shared by everything that reads from containers.
    pub(super) buffer: RefCell<Vec<u8>>,
    pub(super) messages: UnboundedSender<Message>,
}

/// What was found out about the machine and the pod at its start.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) host: HostFacts,
    pub(super) host_ip: Option<IpAddr>,
    pub(super) qos_class: QosClass,
    /// Bytes of memory of the machine.
    pub(super) memory: u64,
    /// Bytes of the file system that the containers' own files are on.
    pub(super) storage: u64,
    pub(super) cpus: u64,
}

impl<R> Context<R> {
    pub(super) fn paths(&self) -> &PodPaths {
        self.dir.paths()
    }

    /// What the pod is to be now.
    pub(super) fn current(&self) -> Rc<Launch> {
        Rc::clone(&self.current.borrow())
    }

    /// The pod's addresses, the one that counts first: with the machine's network, the machine's.
    pub(super) fn pod_ips(&self) -> Vec<IpAddr> {
        match &*self.network.borrow() {
            Some(network) => network.ips().to_vec(),
            None if self.launch.plan.host_network => self.facts.host_ip.into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Hands something to the driver, which lives as long as the pod.
    pub(super) fn send(&self, message: Message) {
        if self.messages.send(message).is_err() {
            tracing::debug!("the pod has ended already");
        }
    }

    /// The plan of a container.
    pub(super) fn container_plan(&self, index: Index) -> &ContainerPlan {
        let plan = self.launch.plan.all_containers().nth(index);
        plan.expect("an index of the state machine, which was made from this plan")
    }

    /// The image that a container had last, or was launched with.
    pub(super) fn image(&self, container: &ContainerPlan) -> Option<Image> {
        let pulled = self.pulled.borrow();
        let image = pulled.get(&container.name);
        image.or(self.launch.images.get(&container.name)).cloned()
    }

    /// An event of this moment.
    pub(super) fn event(
        &self,
        r#type: EventType,
        reason: &str,
        message: String,
        container: Option<Index>,
    ) -> PodEvent {
        PodEvent {
            time: clock::now().wall,
            r#type,
            reason: reason.into(),
            message,
            container: container.map(|index| self.container_plan(index).name.clone()),
        }
    }

    /// Keeps an event.
    pub(super) fn record(&self, event: &PodEvent) {
        if let Err(error) = self.events.borrow_mut().add(event) {
            // An event that is not kept must not end a pod.
            tracing::error!(
                error = chain(&error),
                reason = event.reason,
                "cannot keep an event"
            );
        }
    }
}
