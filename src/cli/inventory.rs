//! What is recorded on this machine, as the objects that `get` and `describe` show.

use serde_json::Value;

use super::error::Error;
use super::session::Session;
use crate::model::cause::chain;
use crate::model::cluster::Cluster;
use crate::model::names::{Namespace, ObjectKey, PodKey};
use crate::model::service::Service;
use crate::output::endpoints::{self, Subject};
use crate::output::{claims, object, service, workload};
use crate::state::record::ObjectRecord;
use crate::state::view::PodView;
use crate::state::{self, view};

/// A pod and the `v1.Pod` of it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) key: PodKey,
    pub(crate) view: PodView,
    pub(crate) json: Value,
}

/// An object that is not a pod, with its status.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: ObjectKey,
    pub(crate) json: Value,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) pods: Vec<Pod>,
    pub(crate) objects: Vec<Object>,
}

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespace(Namespace),
    /// `-A`.
    All,
}

impl Scope {
    /// Whether it has a namespace.
    pub(crate) fn has(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Namespace(only) => only == namespace,
            Self::All => true,
        }
    }
}

impl Inventory {
    /// Reads what is there now. What cannot be read is told and left out, so that it hides nothing else.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub(crate) fn read(session: &Session, scope: &Scope) -> Result<Self, Error> {
        let (views, unreadable_pods) = view::list(&session.layout)?;
        let (records, unreadable) = state::object::list(&session.layout)?;
        for error in unreadable_pods.iter().chain(&unreadable) {
            session.ui.warning(&chain(error));
        }
        let node_name = crate::sys::identity::node_name();
        let pods: Vec<Pod> = views
            .into_iter()
            .filter(|view| scope.has(&view.record.namespace))
            .map(|view| pod(view, &node_name))
            .collect();
        let all: Vec<(&ObjectKey, &Value)> = records
            .iter()
            .map(|record| (&record.key, &record.manifest))
            .collect();
        let chosen: Vec<&ObjectRecord> = records
            .iter()
            .filter(|record| scope.has(&record.key.namespace))
            .collect();
        let host_ip = crate::sys::identity::host_ip();
        let mut objects: Vec<Object> = chosen
            .iter()
            .map(|record| {
                let owned: Vec<Value> = pods
                    .iter()
                    .filter(|pod| pod.view.record.owner == record.key)
                    .map(|pod| pod.json.clone())
                    .collect();
                let json = object::stamped(&record.manifest, &record.uid, record.created);
                let json = match record.key.kind.as_str() {
                    "Service" => service::with_status(json, host_ip),
                    _ => {
                        let json = workload::with_status(json, &owned, record.ended.as_ref());
                        claims::with_status(json, &all)
                    }
                };
                let key = record.key.clone();
                Object { key, json }
            })
            .collect();
        let made = endpoints_of(session, &chosen, &objects, &node_name)?;
        objects.extend(made);
        Ok(Self { pods, objects })
    }
}

/// The EndpointSlices and Endpoints of the Services.
fn endpoints_of(
    session: &Session,
    records: &[&ObjectRecord],
    objects: &[Object],
    node_name: &str,
) -> Result<Vec<Object>, Error> {
    let services = records.iter().zip(objects).filter_map(|(record, object)| {
        let is_service = record.key.kind == "Service";
        Some((
            state::object::service(record).filter(|_| is_service)?,
            object,
        ))
    });
    let services: Vec<(Service, &Object)> = services.collect();
    let mut cluster = Cluster::default();
    if !services.is_empty() {
        let peers = state::endpoints::list(&session.layout.endpoints())?;
        cluster.peers = peers.into_iter().map(|peer| (peer.key(), peer)).collect();
    }
    let mut made = Vec::new();
    for (service, object) in &services {
        let subject = Subject {
            cluster: &cluster,
            service,
            object: &object.json,
            node_name,
        };
        let slices = endpoints::slices(subject).into_iter();
        made.extend(slices.chain(endpoints::endpoints(subject)).map(|json| {
            let (kind, group) = match object::string(&json, "/kind") {
                "EndpointSlice" => ("EndpointSlice", "discovery.k8s.io"),
                _ => ("Endpoints", ""),
            };
            Object {
                key: ObjectKey {
                    kind: kind.into(),
                    group: group.into(),
                    namespace: service.namespace.clone(),
                    name: object::metadata(&json, "name").into(),
                },
                json,
            }
        }));
    }
    Ok(made)
}

/// A view as an object.
pub(crate) fn pod(view: PodView, node_name: &str) -> Pod {
    Pod {
        key: view.record.key(),
        json: object::pod(object::PodFacts {
            manifest: &view.record.manifest,
            uid: &view.record.uid,
            created: view.record.created,
            generation: view.record.generation,
            deleted: view.deleting.map(|note| (note.until(), note.grace)),
            node_name,
            status: &view.status,
        }),
        view,
    }
}
