//! The pod's own network, and what this process does in it: a table that leads Services' addresses to their endpoints,
//! and the resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::context::{Context, Message};
use super::dns;
use super::error::{Error, system};
use super::service_addresses::{DOMAIN, Scope, ServiceAddresses, resolver_address};
use crate::model::event::EventType;
use crate::network::{self, Attachment, RESOLVER, ServiceTable};
use crate::runtime::sandbox::Sandbox;
use crate::sys::namespace::Namespace;
use crate::sys::netns::NetNs;

/// Where the resolver really listens, so that a container may listen at port 53 of all addresses: far from what
/// programs listen at.
const LISTENING: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53053);

/// The network of a pod that has one of its own.
#[derive(Debug)]
pub(super) struct PodNetwork {
    attachment: Attachment,
    services: ServiceAddresses,
    _resolver: dns::Serving,
}

/// Joins the pod to the network, with what it knows of Services.
pub(super) fn join<R>(context: &Context<R>, sandbox: &Sandbox) -> Result<PodNetwork, Error> {
    let netns = NetNs::open(&sandbox.namespace_path(Namespace::Network))?;
    let plan = &context.launch.plan;
    let attachment = network::attach(&context.launch.network, &plan.key().to_string(), &netns)?;
    for limit in attachment.limits() {
        complain(context, limit.clone());
    }
    let mut services = ServiceAddresses::new(netns.clone(), ServiceTable::of_pod(), Scope::Pod);
    let resolver = resolver_address(RESOLVER.into(), LISTENING, LISTENING);
    let set = services.set_resolver(&context.cluster.borrow(), resolver);
    let listening = match set {
        Ok(()) => LISTENING,
        Err(error) => {
            services.complain_no_more();
            complain(
                context,
                format!(
                    "Services have no addresses in this pod, and its containers cannot listen at port 53: the kernel refuses \
                     to translate addresses with nftables ({error})"
                ),
            );
            network::add_loopback_address(&netns, RESOLVER.into()).map_err(network::Error::from)?;
            SocketAddr::new(RESOLVER.into(), DOMAIN)
        }
    };
    let sockets = netns.visit(|| sockets(listening));
    let sockets = sockets.and_then(dns::Sockets::new);
    let sockets = sockets.map_err(system("listen for the pod's questions"))?;
    Ok(PodNetwork {
        attachment,
        services,
        _resolver: dns::serve(
            sockets,
            std::rc::Rc::clone(&context.cluster),
            plan.namespace.clone(),
            RESOLVER.into(),
        ),
    })
}

impl PodNetwork {
    /// The pod's addresses.
    pub(super) fn ips(&self) -> &[IpAddr] {
        self.attachment.ips()
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> NetNs {
        self.services.netns().clone()
    }

    /// Gives the addresses back.
    pub(super) fn leave(self) -> Result<(), network::Error> {
        self.attachment.release()
    }
}

/// Has the pod's table say what is known now.
pub(super) fn update<R>(context: &Context<R>) {
    if let Some(network) = context.network.borrow_mut().as_mut() {
        network.services.update(context);
    }
}

/// Tells what does not work.
pub(super) fn complain<R>(context: &Context<R>, message: String) {
    let event = context.event(EventType::Warning, "NetworkLimited", message, None);
    context.send(Message::Event(event));
}

/// The resolver's sockets, in the thread's network namespace.
pub(super) fn sockets(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?))
}
