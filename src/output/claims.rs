//! The status of PersistentVolumeClaims and PersistentVolumes: which is bound to which.

use serde_json::{Value, json};

use super::object::{array, set, string};
use crate::model::names::ObjectKey;

const CLAIM: &str = "PersistentVolumeClaim";
const VOLUME: &str = "PersistentVolume";

/// The object with the `status` that a cluster would write; other kinds are returned as they are. `all` are the objects
/// of all namespaces, as they were applied.
pub(crate) fn with_status(object: Value, all: &[(&ObjectKey, &Value)]) -> Value {
    match string(&object, "/kind") {
        CLAIM => claim(object, all),
        VOLUME => volume(object, all),
        _ => object,
    }
}

/// A claim without a volume has a folder of this machine, which is as large as it wants.
fn claim(mut object: Value, all: &[(&ObjectKey, &Value)]) -> Value {
    let name = string(&object, "/spec/volumeName");
    let mut volumes = all.iter().filter(|(key, _)| key.kind == VOLUME);
    let volume = volumes.find(|(key, _)| key.name == name);
    let capacity = match volume {
        Some((_, volume)) => volume.pointer("/spec/capacity"),
        None => object.pointer("/spec/resources/requests"),
    };
    let status = json!({
        "phase": "Bound",
        "accessModes": object.pointer("/spec/accessModes"),
        "capacity": capacity,
    });
    set(&mut object, "status", status);
    object
}

fn volume(mut object: Value, all: &[(&ObjectKey, &Value)]) -> Value {
    let name = string(&object, "/metadata/name");
    let mut claims = all.iter().filter(|(key, _)| key.kind == CLAIM);
    let claim = claims.find(|(_, claim)| string(claim, "/spec/volumeName") == name);
    let phase = match claim {
        Some(_) => "Bound",
        None => "Available",
    };
    if let (Some((key, _)), Some(spec)) = (claim, object.get_mut("spec")) {
        let reference = json!({
            "apiVersion": "v1",
            "kind": CLAIM,
            "namespace": key.namespace.as_str(),
            "name": &key.name,
        });
        set(spec, "claimRef", reference);
    }
    set(&mut object, "status", json!({ "phase": phase }));
    object
}

/// As kubectl writes them: `RWO,ROX`.
pub(super) fn access_modes(object: &Value) -> String {
    let modes: Vec<&str> = array(object, "/spec/accessModes")
        .iter()
        .map(|mode| match mode.as_str().unwrap_or_default() {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    modes.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Namespace;

    #[test]
    fn claims_and_volumes_know_each_other() {
        let key = |kind: &str, name: &str| ObjectKey {
            kind: kind.into(),
            group: "".into(),
            namespace: Namespace::default(),
            name: name.into(),
        };
        let claim = |volume: Option<&str>| {
            json!({ "kind": CLAIM, "metadata": { "name": "c" }, "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeName": volume,
                "resources": { "requests": { "storage": "3Gi" } },
            }})
        };
        let volume = json!({ "kind": VOLUME, "metadata": { "name": "v" }, "spec": {
            "capacity": { "storage": "10Gi" },
        }});
        let status = |storage: &str| {
            json!({
                "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": { "storage": storage },
            })
        };
        let (claim_key, volume_key) = (key(CLAIM, "c"), key(VOLUME, "v"));
        let bound = claim(Some("v"));
        let all = [(&claim_key, &bound), (&volume_key, &volume)];
        assert_eq!(with_status(bound.clone(), &all)["status"], status("10Gi"));
        let shown = with_status(volume.clone(), &all);
        assert_eq!(shown["status"], json!({ "phase": "Bound" }));
        assert_eq!(shown["spec"]["claimRef"]["name"], "c");
        assert_eq!(shown["spec"]["claimRef"]["namespace"], "default");

        let free = claim(None);
        let all = [(&claim_key, &free), (&volume_key, &volume)];
        assert_eq!(with_status(free.clone(), &all)["status"], status("3Gi"));
        let shown = with_status(volume.clone(), &all);
        assert_eq!(shown["status"], json!({ "phase": "Available" }));
        assert_eq!(shown["spec"], volume["spec"]);
    }
}
