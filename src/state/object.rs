//! Objects that are not pods: ConfigMaps, Secrets, Deployments, Services, … as they were applied.

use std::path::Path;

use serde_json::Value;

use super::Error;
use super::layout::Layout;
use super::lock::Locks;
use super::record::{self, ObjectRecord};
use crate::model::names::{Namespace, ObjectKey};
use crate::model::service::{Service, ServicePort};
use crate::sys::fs;

/// An object's record; `None` if it was not applied.
///
/// # Errors
/// It cannot be read, or is corrupt.
pub fn read(layout: &Layout, key: &ObjectKey) -> Result<Option<ObjectRecord>, Error> {
    record::read(&layout.object(key), || remedy(key))
}

/// The records of all objects, by kind and name, and what could not be read: one corrupt file hides no other object.
///
/// # Errors
/// A folder cannot be read.
pub fn list(layout: &Layout) -> Result<(Vec<ObjectRecord>, Vec<Error>), Error> {
    let mut records = Vec::new();
    let mut errors = Vec::new();
    for folder in layout.objects() {
        for namespace in fs::list(&folder)? {
            let folder = folder.join(namespace);
            for kind in fs::list(&folder)? {
                let folder = folder.join(kind);
                for name in fs::list(&folder)? {
                    // A file that is being written has a name that starts with a dot.
                    if name.to_string_lossy().starts_with('.') {
                        continue;
                    }
                    let path = folder.join(name);
                    match record::read(&path, || format!("remove {path:?}")) {
                        Ok(Some(record)) => records.push(record),
                        // Removed since the folder was read.
                        Ok(None) => {}
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
    }
    records.sort_by(|a: &ObjectRecord, b| a.key.cmp(&b.key));
    Ok((records, errors))
}

/// The Services of a namespace that have an address; `objects` is the folder of objects' records.
///
/// # Errors
/// A record cannot be read, or is corrupt.
pub fn services(objects: &Path, namespace: &Namespace) -> Result<Vec<Service>, Error> {
    let folder = objects.join(namespace.as_str()).join("service");
    let mut services = Vec::new();
    for name in fs::list(&folder)? {
        // A file that is being written has a name that starts with a dot.
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = folder.join(name);
        let record: Option<ObjectRecord> = record::read(&path, || format!("remove {path:?}"))?;
        services.extend(record.as_ref().and_then(service));
    }
    Ok(services)
}

fn service(record: &ObjectRecord) -> Option<Service> {
    let spec = record.manifest.get("spec")?;
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let ports = spec.get("ports").and_then(Value::as_array);
    let ports = ports.into_iter().flatten().filter_map(|port| {
        let protocol = port.get("protocol").cloned();
        Some(ServicePort {
            name: text(port, "name"),
            port: port.get("port")?.as_u64()?.try_into().ok()?,
            protocol: protocol
                .and_then(|protocol| serde_json::from_value(protocol).ok())
                .unwrap_or_default(),
        })
    });
    Some(Service {
        namespace: record.key.namespace.clone(),
        name: record.key.name.clone(),
        cluster_ip: text(spec, "clusterIP").filter(|ip| !ip.is_empty() && ip != "None")?,
        ports: ports.collect(),
    })
}

/// Writes an object's record.
///
/// # Errors
/// It cannot be written.
///
/// # Panics
/// The object is not locked.
pub fn write(locks: &Locks, record: &ObjectRecord) -> Result<(), Error> {
    assert!(locks.has_object(&record.key), "writing needs the lock");
    let path = locks.layout().object(&record.key);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder, 0o700)?;
    }
    record::write(&path, record)
}

/// Removes an object's record, corrupt or not; fine if there is none. Returns whether there was one.
///
/// # Errors
/// It cannot be removed.
///
/// # Panics
/// The object is not locked.
pub fn remove(locks: &Locks, key: &ObjectKey) -> Result<bool, Error> {
    assert!(locks.has_object(key), "writing needs the lock");
    let path = locks.layout().object(key);
    let there = fs::read_if_there(&path)?.is_some();
    fs::remove_file(&path)?;
    Ok(there)
}

fn remedy(key: &ObjectKey) -> String {
    let (kind, name) = (key.kind.to_ascii_lowercase(), &key.name);
    format!("`kplay delete {kind} {name} --force` removes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::Protocol;
    use crate::state::lock::Subject;
    use crate::state::testing::{Scratch, object};
    use crate::sys::poll::Interrupt;

    #[test]
    fn secrets_stay_in_memory_and_a_corrupt_record_hides_no_other() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let interrupt = Interrupt::install().unwrap();
        let records = [object("ConfigMap", "a"), object("Secret", "b")];
        let subjects = records
            .iter()
            .map(|record| Subject::Object(record.key.clone()));
        let locks = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
        for record in &records {
            write(&locks, record).unwrap();
            assert_eq!(read(&layout, &record.key).unwrap().as_ref(), Some(record));
        }
        let [config, secret] = &records;
        assert!(layout.object(&secret.key).starts_with(layout.runroot()));
        assert_eq!(list(&layout).unwrap().0, records);

        fs::replace(&layout.object(&config.key), 0o600, b"{").unwrap();
        let (rest, errors) = list(&layout).unwrap();
        assert_eq!((rest.len(), errors.len()), (1, 1));
        let error = read(&layout, &config.key).unwrap_err().to_string();
        assert!(
            error.contains("`kplay delete configmap a --force`"),
            "{error}"
        );
        assert!(remove(&locks, &config.key).unwrap());
        assert!(!remove(&locks, &config.key).unwrap());
        assert_eq!(config.key.namespace, Namespace::default());
    }

    #[test]
    fn services_are_those_with_an_address() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let interrupt = Interrupt::install().unwrap();
        let service = |name: &str, spec: Value| {
            let mut record = object("Service", name);
            record.manifest = serde_json::json!({"spec": spec});
            record
        };
        let records = [
            service(
                "db",
                serde_json::json!({"clusterIP": "10.0.0.1", "ports": [
                    {"port": 53, "name": "dns", "protocol": "UDP"}, {"port": 80}]}),
            ),
            service("headless", serde_json::json!({"clusterIP": "None"})),
            service("without", serde_json::json!({"ports": [{"port": 1}]})),
        ];
        let subjects = records
            .iter()
            .map(|record| Subject::Object(record.key.clone()));
        let locks = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
        for record in &records {
            write(&locks, record).unwrap();
        }
        let [objects, _] = layout.objects();
        let port = |name: Option<&str>, port, protocol| ServicePort {
            name: name.map(str::to_owned),
            port,
            protocol,
        };
        let expected = Service {
            namespace: Namespace::default(),
            name: "db".into(),
            cluster_ip: "10.0.0.1".into(),
            ports: vec![
                port(Some("dns"), 53, Protocol::Udp),
                port(None, 80, Protocol::Tcp),
            ],
        };
        assert_eq!(
            services(&objects, &Namespace::default()).unwrap(),
            [expected]
        );
        let other = Namespace::parse("other").unwrap();
        assert_eq!(services(&objects, &other).unwrap(), []);
    }
}
