//! What the pod knows of the other pods and of Services, and what they know of it.
//!
//! ```text
//!  other executors ─▶ endpoints/KEY.json ─┐                ┌─▶ the table in the pod's network: Services' addresses
//!  apply, delete ───▶ endpoints/services ─┼─▶ `Cluster` ───┼─▶ the pod's resolver: names
//!  this one ────────▶ endpoints/KEY.json ─┘                └─▶ the ports that the machine publishes for Services
//! ```
//!
//! All executors watch one folder and do the same with what they find there; nobody stands between pods. What one of
//! them has told and did not live to take back, another one removes ([`next`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

mod next;

use self::next::Next;
use super::context::{Context, Message};
use super::error::{Error, system};
use super::lifecycle::{Event, Stage};
use super::machine_network;
use super::pod_network;
use super::service_ports::ServicePorts;
use crate::model::cause::chain;
use crate::model::cluster::{Peer, PeerPort, PeerState};
use crate::model::event::EventType;
use crate::model::plan::{ContainerRole, PodPlan};
use crate::model::status::PodStatus;
use crate::state::{endpoints, object};
use crate::sys::{fs, watch};

/// The folder in which all tell each other, and what was seen of it.
#[derive(Debug)]
pub(super) struct Neighbours {
    changes: Signal,
    _watched: OwnedFd,
    seen: Seen,
    /// Whose end is waited for.
    next: Option<Next>,
}

/// The files of the folder, each with what tells it from the one that was there before.
type Seen = BTreeMap<OsString, (u64, Option<SystemTime>)>;

impl Neighbours {
    /// Begins to watch, and takes in what is there already.
    pub(super) fn meet<R>(context: &Context<R>) -> Result<Self, Error> {
        let folder = &context.launch.endpoints;
        fs::create_dir_all(folder, 0o700)?;
        // Before anything is read, so that nothing is missed.
        let changes = signal(SignalKind::io()).map_err(system("watch the other pods"))?;
        let mut neighbours = Self {
            changes,
            _watched: watch::notify_of(folder)?,
            seen: Seen::new(),
            next: None,
        };
        read_services(context)?;
        neighbours.look(context)?;
        Ok(neighbours)
    }

    /// Follows what changes, as long as the pod lives.
    pub(super) async fn follow<R: 'static>(mut self, context: Rc<Context<R>>) {
        let mut ports = ServicePorts::default();
        ports.update(&context);
        loop {
            tokio::select! {
                changed = self.changes.recv() => if changed.is_none() {
                    return;
                },
                () = next::end_of(self.next.as_ref()) => {
                    let ended = self.next.take();
                    self.next = ended.and_then(|ended| next::after_end(&context, ended));
                    // The rest is seen as a change.
                    continue;
                }
            }
            if context.hierarchies.version().is_none() {
                tokio::task::spawn_local(look_after_itself(Rc::clone(&context)));
            }
            match self.look(&context) {
                Ok(()) => {
                    pod_network::update(&context);
                    machine_network::update(&context);
                    ports.update(&context);
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "cannot see the other pods");
                }
            }
        }
    }

    /// Reads what is new.
    fn look<R>(&mut self, context: &Context<R>) -> Result<(), Error> {
        let folder = &context.launch.endpoints;
        let mut found = Seen::new();
        for name in fs::list(folder)? {
            // A file that is being written has a name that starts with a dot.
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            if let Some(metadata) = fs::metadata_if_there(&folder.join(&name))? {
                found.insert(name, (metadata.ino(), metadata.modified().ok()));
            }
        }
        let before = std::mem::replace(&mut self.seen, found);
        let new = |(name, mark): &(&OsString, &_)| before.get(*name) != Some(*mark);
        for (name, _) in self.seen.iter().filter(new) {
            if name == endpoints::SERVICES {
                read_services(context)?;
            } else if let Some(peer) = endpoints::read(&folder.join(name)) {
                let mut cluster = context.cluster.borrow_mut();
                cluster.peers.insert(peer.key(), peer);
            }
        }
        if before.keys().any(|name| !self.seen.contains_key(name)) {
            let mut cluster = context.cluster.borrow_mut();
            let files = &self.seen;
            cluster
                .peers
                .retain(|key, _| files.contains_key(&endpoints::file_name(key)));
        }
        self.next = next::watch(context, self.next.take());
        Ok(())
    }
}

/// Has the driver look whether the pod can still be found, for as long as somebody may be removing the folder of all pods: who
/// is not root may have no cgroup by which the next command would find it.
async fn look_after_itself<R>(context: Rc<Context<R>>) {
    const LOOKS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        if !context.dir.is_there() {
            context.send(Message::Lifecycle(Event::Tick));
            return;
        }
        if !matches!(fs::metadata_if_there(&context.launch.endpoints), Ok(None)) {
            return;
        }
    }
}

fn read_services<R>(context: &Context<R>) -> Result<(), Error> {
    let services = object::readable_services(&context.launch.objects)?;
    let services = services.into_iter().map(|service| (service.key(), service));
    context.cluster.borrow_mut().services = services.collect();
    Ok(())
}

/// What this pod has told the others last.
#[derive(Debug, Default)]
pub(super) struct Announced(Option<Peer>);

impl Announced {
    /// Tells the others what the pod is now, if that is new.
    pub(super) fn update<R>(&mut self, context: &Context<R>, stage: &Stage, status: &PodStatus) {
        let folder = &context.launch.endpoints;
        let peer = peer(context, stage, status);
        if peer == self.0 {
            return;
        }
        let told = match &peer {
            Some(peer) => endpoints::write(folder, peer),
            None => endpoints::remove(folder, &context.launch.plan.key()),
        };
        match told {
            Ok(()) => self.0 = peer,
            // The next change of the status tries again.
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot tell the other pods");
                let message = format!("other pods do not see this one: {}", chain(&error));
                let event = context.event(EventType::Warning, "NetworkLimited", message, None);
                context.send(Message::Event(event));
            }
        }
    }
}

/// What others have to know of the pod; nothing once it is over.
fn peer<R>(context: &Context<R>, stage: &Stage, status: &PodStatus) -> Option<Peer> {
    let launch = context.current();
    let plan = &launch.plan;
    let state = match stage {
        Stage::Over(_) => return None,
        Stage::Active | Stage::Terminating { .. } | Stage::Resurrecting { .. } => {
            match (stage.goes_on(), status.is_true("Ready")) {
                (false, _) => PeerState::Terminating,
                (true, true) => PeerState::Ready,
                (true, false) => PeerState::NotReady,
            }
        }
    };
    let text = |name: &str| {
        let value = plan.manifest.pointer(&format!("/spec/{name}"))?.as_str()?;
        Some(value.to_owned()).filter(|value| !value.is_empty())
    };
    Some(Peer {
        namespace: plan.namespace.clone(),
        name: plan.name.clone(),
        ips: context.pod_ips(),
        labels: plan.labels.clone(),
        hostname: text("hostname"),
        subdomain: text("subdomain"),
        ports: ports(plan),
        state,
    })
}

fn ports(plan: &PodPlan) -> Vec<PeerPort> {
    let containers = plan.all_containers();
    let lasting = containers.filter(|container| container.role != ContainerRole::Init);
    lasting
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            Some(PeerPort {
                name: port.name.clone()?,
                port: port.container_port,
                protocol: port.protocol,
            })
        })
        .collect()
}
