//! What is recorded on this machine, as the objects that `get` and `describe` show.

use serde_json::Value;

use super::error::Error;
use super::session::Session;
use crate::model::cause::chain;
use crate::model::names::{Namespace, ObjectKey, PodKey};
use crate::output::{object, workload};
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
        let objects = records
            .into_iter()
            .filter(|record| scope.has(&record.key.namespace))
            .map(|record| {
                let owned: Vec<Value> = pods
                    .iter()
                    .filter(|pod| pod.view.record.owner == record.key)
                    .map(|pod| pod.json.clone())
                    .collect();
                let json = object::stamped(&record.manifest, &record.uid, record.created);
                Object {
                    json: workload::with_status(json, &owned),
                    key: record.key,
                }
            })
            .collect();
        Ok(Self { pods, objects })
    }
}

/// A view as an object.
pub(crate) fn pod(view: PodView, node_name: &str) -> Pod {
    Pod {
        key: view.record.key(),
        json: object::pod(object::PodFacts {
            manifest: &view.record.manifest,
            uid: &view.record.uid,
            created: view.record.created,
            deleted: view.deleting.map(|deleting| deleting.since),
            node_name,
            status: &view.status,
        }),
        view,
    }
}
