//! Kubernetes objects as `-o json`, `-o yaml` and `-o name` print them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Error, yaml};
use crate::model::status::{Generation, PodStatus, time};

/// What is known of a pod besides its manifest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodFacts<'a> {
    /// `apiVersion`, `kind`, `metadata`, `spec`.
    pub(crate) manifest: &'a Value,
    pub(crate) uid: &'a str,
    pub(crate) created: Timestamp,
    pub(crate) generation: Generation,
    /// If the pod was told to end: by when, and how many seconds it has for that.
    pub(crate) deleted: Option<(Timestamp, u32)>,
    pub(crate) node_name: &'a str,
    pub(crate) status: &'a PodStatus,
}

/// The `v1.Pod` that an API server would show.
pub(crate) fn pod(facts: PodFacts<'_>) -> Value {
    let mut pod = stamped(facts.manifest, facts.uid, facts.created);
    entry(&mut pod, "metadata").insert("generation".into(), json!(facts.generation));
    if let Some((until, grace)) = facts.deleted {
        let metadata = entry(&mut pod, "metadata");
        metadata.insert("deletionTimestamp".into(), json!(time::text(&until)));
        metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    }
    entry(&mut pod, "spec").insert("nodeName".into(), json!(facts.node_name));
    set(&mut pod, "status", json!(facts.status));
    pod
}

/// An object with the metadata that an API server adds.
pub(crate) fn stamped(manifest: &Value, uid: &str, created: Timestamp) -> Value {
    let mut object = manifest.clone();
    let metadata = entry(&mut object, "metadata");
    metadata.insert("uid".into(), json!(uid));
    metadata.insert("creationTimestamp".into(), json!(time::text(&created)));
    object
}

/// Puts `value` into an object.
pub(crate) fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// The map at `key`, made if it is not there.
fn entry<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.get(key).is_some_and(Value::is_object) {
        if !object.is_object() {
            *object = json!({});
        }
        set(object, key, json!({}));
    }
    object
        .get_mut(key)
        .and_then(Value::as_object_mut)
        .expect("the line above made it a map")
}

/// A `v1.List`, as kubectl prints several objects.
pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1",
        "items": items,
        "kind": "List",
        "metadata": { "resourceVersion": "" },
    })
}

/// Which machine-readable form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Json,
    Yaml,
}

/// The text of an object, with a line end.
///
/// # Errors
/// It cannot be written in that notation.
pub(crate) fn text(object: &Value, notation: Notation) -> Result<String, Error> {
    match notation {
        Notation::Json => json(object),
        Notation::Yaml => yaml::text(object),
    }
}

/// JSON with four spaces, as kubectl.
///
/// # Errors
/// It cannot be written.
pub(crate) fn json(object: &Value) -> Result<String, Error> {
    use serde::Serialize as _;

    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    object.serialize(&mut serializer).map_err(Error::Json)?;
    bytes.push(b'\n');
    Ok(String::from_utf8(bytes).expect("serde_json writes UTF-8"))
}

/// `pod/web-0`, `deployment.apps/web`.
pub(crate) fn name(object: &Value) -> String {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let group = match text("apiVersion").rsplit_once('/') {
        Some((group, _)) => format!(".{group}"),
        None => String::new(),
    };
    format!(
        "{}{group}/{}",
        text("kind").to_ascii_lowercase(),
        metadata(object, "name")
    )
}

/// A text of the metadata; empty if it is not there.
pub(crate) fn metadata<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `metadata.creationTimestamp`.
pub(crate) fn created(object: &Value) -> Option<Timestamp> {
    metadata(object, "creationTimestamp").parse().ok()
}

/// The array at a JSON pointer; empty if it is not there.
pub(crate) fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// How many entries the map at a JSON pointer has.
pub(crate) fn entries(object: &Value, pointer: &str) -> usize {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .map_or(0, Map::len)
}

/// The text at a JSON pointer; empty if it is not there.
pub(crate) fn string<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::Phase;

    fn example() -> Value {
        deleted(None)
    }

    fn deleted(deleted: Option<(Timestamp, u32)>) -> Value {
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "containers": [{ "name": "web", "image": "web" }] },
        });
        pod(PodFacts {
            manifest: &manifest,
            uid: "u",
            created: Timestamp::from_second(1_800_000_000).expect("a valid time"),
            generation: Generation::default(),
            deleted,
            node_name: "here",
            status: &PodStatus {
                phase: Phase::Running,
                ..PodStatus::default()
            },
        })
    }

    #[test]
    fn a_pod_is_a_v1_pod() {
        let pod: k8s_openapi::api::core::v1::Pod =
            serde_json::from_value(example()).expect("is a v1.Pod");
        assert_eq!(pod.metadata.uid.as_deref(), Some("u"));
        assert!(pod.metadata.creation_timestamp.is_some());
        assert_eq!(
            pod.spec.and_then(|spec| spec.node_name).as_deref(),
            Some("here")
        );
        assert_eq!(
            pod.status.and_then(|status| status.phase).as_deref(),
            Some("Running")
        );
    }

    #[test]
    fn a_deleted_pod_says_until_when() {
        assert_eq!(metadata(&example(), "deletionTimestamp"), "");
        let until = Timestamp::from_second(1_800_000_005).expect("a valid time");
        let pod = deleted(Some((until, 5)));
        assert_eq!(metadata(&pod, "deletionTimestamp"), "2027-01-15T08:00:05Z");
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 5);
    }

    #[test]
    fn text_is_kubectls() {
        assert_eq!(name(&example()), "pod/web");
        assert_eq!(
            name(
                &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})
            ),
            "deployment.apps/x"
        );
        assert_eq!(
            text(&json!({"a": [1]}), Notation::Json).expect("prints"),
            "{\n    \"a\": [\n        1\n    ]\n}\n"
        );
        assert_eq!(
            text(&json!({"a": "yes", "b": null}), Notation::Yaml).expect("prints"),
            "a: 'yes'\nb: null\n"
        );
    }
}
