//! The ports at which the machine listens for Services: `nodePort`, and those of `type: LoadBalancer`.
//!
//! Each pod that is an endpoint listens itself, and shares the port with the others: the kernel spreads connections
//! over them, and nobody has to live but the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::context::{Context, Message};
use super::forward::{Bound, Error, Forwarder, Publication, Sharing};
use super::pod_network::PodNetwork;
use crate::model::cause::chain;
use crate::model::cluster::Cluster;
use crate::model::event::EventType;
use crate::model::names::PodKey;
use crate::model::plan::Protocol;
use crate::model::service::Exposure;
use crate::sys::netns::NetNs;

/// The ports that this pod listens at for Services.
#[derive(Debug, Default)]
pub(super) struct ServicePorts {
    open: BTreeMap<Publication, Forwarder>,
    /// Those that could not be had, and were told.
    refused: BTreeSet<Publication>,
}

impl ServicePorts {
    /// Listens at what is to be listened at now, and no more.
    pub(super) fn update<R>(&mut self, context: &Context<R>) {
        let key = context.launch.plan.key();
        let mut wanted = wanted(&context.cluster.borrow(), &key);
        if context.launch.plan.host_network {
            // There the pod listens itself.
            wanted.retain(|port| port.host_port != port.container_port);
        }
        self.open.retain(|port, _| wanted.contains(port));
        self.refused.retain(|port| wanted.contains(port));
        for port in wanted {
            if self.open.contains_key(&port) {
                continue;
            }
            match open(context, port) {
                Ok(forwarder) => {
                    self.refused.remove(&port);
                    self.open.insert(port, forwarder);
                }
                // Tried again with the next change.
                Err(error) if self.refused.insert(port) => {
                    let message = format!("a Service's port is not published: {error}");
                    let event =
                        context.event(EventType::Warning, "PortNotPublished", message, None);
                    context.send(Message::Event(event));
                }
                Err(_) => {}
            }
        }
    }
}

fn open<R>(context: &Context<R>, port: Publication) -> Result<Forwarder, String> {
    let ips = context.pod_ips();
    if ips.is_empty() {
        return Err("the pod has no address".to_owned());
    }
    let own = context.network.borrow().as_ref().map(PodNetwork::namespace);
    let namespace = match own {
        Some(namespace) => Ok(namespace),
        None => NetNs::open(Path::new("/proc/self/ns/net")),
    };
    let namespace = namespace.map_err(|error| chain(&error))?;
    let bound = Bound::bind(&[port]).map_err(|error: Error| chain(&error))?;
    Ok(bound.serve(namespace, &ips))
}

/// What a pod listens at: the published ports of all Services that lead to it.
fn wanted(cluster: &Cluster, key: &PodKey) -> BTreeSet<Publication> {
    let mut wanted = BTreeSet::new();
    for service in cluster.services.values() {
        let Some(peer) = cluster.endpoints(service).find(|peer| peer.key() == *key) else {
            continue;
        };
        for port in &service.ports {
            let Some(container_port) = peer.target(port) else {
                continue;
            };
            let of_machine = match service.exposure {
                Exposure::Cluster => [None, None],
                Exposure::NodePort => [port.node_port, None],
                Exposure::LoadBalancer => [port.node_port, Some(port.port)],
            };
            let published = matches!(port.protocol, Protocol::Tcp | Protocol::Udp);
            for host_port in of_machine.into_iter().flatten().filter(|_| published) {
                wanted.insert(Publication {
                    protocol: port.protocol,
                    host_ip: None,
                    host_port,
                    container_port,
                    sharing: Sharing::Shared,
                });
            }
        }
    }
    wanted
}
