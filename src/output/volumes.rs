//! `volume ls` and `volume inspect`.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::table::{Headers, Table};
use crate::model::names::{ObjectKey, PodKey};
use crate::model::status::time;

/// A claim or a PersistentVolume, as it is listed.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: ObjectKey,
    pub(crate) status: &'static str,
    pub(crate) path: Option<PathBuf>,
    /// `None` for a folder whose claim was deleted.
    pub(crate) created: Option<Timestamp>,
    pub(crate) users: Vec<PodKey>,
    /// The object as it was applied.
    pub(crate) object: Option<Value>,
}

/// The table for people; `namespaces` asks for a column of these.
pub(crate) fn table(rows: &[Row], headers: Headers, namespaces: bool, now: Timestamp) -> String {
    let namespace: &[&'static str] = if namespaces { &["NAMESPACE"] } else { &[] };
    let columns = ["NAME", "KIND", "STATUS", "USED BY", "PATH", "AGE"];
    let mut table = Table::new([namespace, &columns].concat());
    for row in rows {
        let users: Vec<&str> = row.users.iter().map(|pod| pod.name.as_str()).collect();
        let or_none = |text: String| match text.is_empty() {
            true => "<none>".to_owned(),
            false => text,
        };
        let path = row.path.as_ref().map(|path| path.display().to_string());
        let mut cells = vec![
            row.key.name.clone(),
            row.key.kind.clone(),
            row.status.to_owned(),
            or_none(users.join(",")),
            or_none(path.unwrap_or_default()),
            row.created
                .map_or_else(|| "<unknown>".to_owned(), |at| duration::since(at, now)),
        ];
        if namespaces {
            cells.insert(0, row.key.namespace.to_string());
        }
        table.push(cells);
    }
    table.render(headers)
}

/// One of the list for scripts.
pub(crate) fn object(row: &Row) -> Value {
    let users: Vec<String> = row.users.iter().map(ToString::to_string).collect();
    json!({
        "name": row.key.name,
        "namespace": row.key.namespace,
        "kind": row.key.kind,
        "status": row.status,
        "path": row.path,
        "created": row.created.as_ref().map(time::text),
        "usedBy": users,
        "object": row.object,
    })
}

/// The list for scripts.
pub(crate) fn list(rows: &[Row]) -> Value {
    let items: Vec<Value> = rows.iter().map(object).collect();
    json!({ "apiVersion": "kplay/v1", "kind": "VolumeList", "items": items })
}
