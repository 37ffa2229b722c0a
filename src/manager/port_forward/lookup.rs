//! Which pod, and which of its ports.

use std::collections::BTreeMap;

use super::{Fault, Remote};
use crate::manager::error::Error;
use crate::manager::{launch, resolve};
use crate::model::cluster::PeerState;
use crate::model::names::{Namespace, ObjectKey, PodKey};
use crate::model::plan::{ContainerPort, PodPlan, Protocol};
use crate::model::service::{Service, ServiceAddress, ServicePort, TargetPort};
use crate::state::layout::Layout;
use crate::state::pod_dir::{self, Found, PodDir};
use crate::state::{endpoints, object};

/// Whose ports are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A pod or the pods of a workload, as [`resolve::pods`] takes it.
    Pods(Namespace, String),
    /// The pods that a Service selects.
    Service(Namespace, String),
}

/// Where a connection goes.
#[derive(Debug)]
pub struct Place {
    pub pod: PodDir,
    /// The pod's port.
    pub port: u16,
    /// The number of the port as it was named: the Service's, if it is one of a Service.
    pub named: u16,
}

impl Destination {
    /// Where a connection to `remote` goes at this moment.
    ///
    /// # Errors
    /// The pod or Service is not there, or has no such port.
    pub fn find(&self, layout: &Layout, remote: &Remote) -> Result<Place, Error> {
        let (pods, service) = match self {
            Self::Pods(namespace, text) => (resolve::pods(layout, namespace, text)?, None),
            Self::Service(namespace, name) => {
                let service = service(layout, namespace, name)?;
                (selected(layout, &service)?, Some(service))
            }
        };
        let key = best(layout, pods);
        let pod = PodDir::new(layout, &key);
        let plan = launch::read_launch(&pod)?.map(|launch| launch.plan);
        let ports = Ports::new(&key, plan.as_ref());
        let (port, named) = match &service {
            None => {
                let port = ports.find(remote)?;
                (port, port)
            }
            Some(service) => {
                let declared = port_of(service, remote)?;
                (ports.target(service, declared)?, declared.port)
            }
        };
        Ok(Place { pod, port, named })
    }
}

fn service(layout: &Layout, namespace: &Namespace, name: &str) -> Result<Service, Error> {
    let key = ObjectKey {
        kind: "Service".into(),
        group: String::new(),
        namespace: namespace.clone(),
        name: name.into(),
    };
    let record = object::read(layout, &key)?;
    let service = record.and_then(|record| object::service(&record));
    service.ok_or_else(|| Error::NotFound {
        kind: "services".into(),
        name: name.into(),
    })
}

/// The pods that a Service selects, whether or not they run.
fn selected(layout: &Layout, service: &Service) -> Result<Vec<PodKey>, Error> {
    if service.selector.is_empty() {
        return Err(Fault::NoSelector(service.name.clone()).into());
    }
    let has_all = |labels: &BTreeMap<String, String>| {
        let mut wanted = service.selector.iter();
        wanted.all(|(name, value)| labels.get(name) == Some(value))
    };
    let mut pods = Vec::new();
    for found in pod_dir::list(layout)? {
        let Found::Pod(dir) = found else { continue };
        if dir.key().namespace == service.namespace
            && let Ok(Some(record)) = dir.record()
            && has_all(&record.labels)
        {
            pods.push(dir.key().clone());
        }
    }
    if pods.is_empty() {
        return Err(Fault::NoPods(service.name.clone()).into());
    }
    Ok(pods)
}

/// The first that is ready; or that runs; or the first.
fn best(layout: &Layout, mut pods: Vec<PodKey>) -> PodKey {
    let folder = layout.endpoints();
    let rank = |key: &PodKey| {
        let peer = endpoints::read(&folder.join(endpoints::file_name(key)));
        match peer.map(|peer| peer.state) {
            Some(PeerState::Ready) => 0,
            Some(PeerState::NotReady) => 1,
            None => 2,
            Some(PeerState::Terminating) => 3,
        }
    };
    if pods.len() > 1 {
        pods.sort_by_cached_key(rank);
    }
    pods.swap_remove(0)
}

/// A Service's port.
fn port_of<'a>(service: &'a Service, remote: &Remote) -> Result<&'a ServicePort, Fault> {
    let of = || format!("the Service `{}`", service.name);
    let is_meant = |port: &&ServicePort| match remote {
        Remote::Number(number) => port.port == *number,
        Remote::Name(name) => port.name.as_ref() == Some(name),
    };
    let meant = || service.ports.iter().filter(is_meant);
    match (
        meant().find(|port| port.protocol == Protocol::Tcp),
        meant().next(),
    ) {
        (Some(port), _) => Ok(port),
        (None, Some(_)) => Err(Fault::Udp {
            of: of(),
            port: remote.clone(),
        }),
        (None, None) => Err(Fault::NoPort {
            of: of(),
            port: remote.clone(),
        }),
    }
}

/// What a pod has declared.
struct Ports<'a> {
    pod: &'a PodKey,
    /// None if the pod has never been started, or by another version.
    plan: Option<&'a PodPlan>,
}

impl<'a> Ports<'a> {
    fn new(pod: &'a PodKey, plan: Option<&'a PodPlan>) -> Self {
        Self { pod, plan }
    }

    fn all(&self) -> impl Iterator<Item = &'a ContainerPort> {
        let containers = self.plan.into_iter().flat_map(PodPlan::all_containers);
        containers.flat_map(|container| &container.ports)
    }

    /// A port that is not declared is as good as one that is, but a name has to be.
    fn find(&self, remote: &Remote) -> Result<u16, Fault> {
        let of = || format!("the pod `{}`", self.pod.name);
        let is_meant = |port: &&ContainerPort| match remote {
            Remote::Number(number) => port.container_port == *number,
            Remote::Name(name) => port.name.as_ref() == Some(name),
        };
        let meant = || self.all().filter(is_meant);
        let tcp = meant().find(|port| port.protocol == Protocol::Tcp);
        match (tcp, meant().next(), remote) {
            (Some(port), _, _) => Ok(port.container_port),
            (None, Some(_), _) => Err(Fault::Udp {
                of: of(),
                port: remote.clone(),
            }),
            (None, None, Remote::Number(number)) => Ok(*number),
            (None, None, Remote::Name(_)) => Err(Fault::NoPort {
                of: of(),
                port: remote.clone(),
            }),
        }
    }

    /// Where a Service's port leads to. With a headless one, nothing is translated.
    fn target(&self, service: &Service, port: &ServicePort) -> Result<u16, Fault> {
        match &port.target {
            _ if matches!(service.address, ServiceAddress::Headless(_)) => Ok(port.port),
            TargetPort::Number(number) => Ok(*number),
            TargetPort::Name(name) => self.find(&Remote::Name(name.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
