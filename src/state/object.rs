//! Objects that are not pods: ConfigMaps, Secrets, Deployments, Services, … as they were applied.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use super::Error;
use super::layout::Layout;
use super::lock::Locks;
use super::record::{self, ObjectRecord};
use crate::model::names::{Namespace, ObjectKey};
use crate::model::service::{Exposure, Families, Service, ServiceAddress, ServicePort, TargetPort};
use crate::sys::fs::{self, LockMode};

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

/// The Services of a namespace; `objects` is the folder of objects' records.
///
/// # Errors
/// A record cannot be read, or is corrupt.
pub fn services(objects: &Path, namespace: &Namespace) -> Result<Vec<Service>, Error> {
    let folder = objects.join(namespace.as_str());
    let found = services_in(&folder)?.into_iter();
    found.filter_map(Result::transpose).collect()
}

/// What is recorded of Services in a namespace's folder.
fn services_in(folder: &Path) -> Result<Vec<Result<Option<Service>, Error>>, Error> {
    let folder = folder.join("service");
    let names = fs::list(&folder)?.into_iter();
    // A file that is being written has a name that starts with a dot.
    let names = names.filter(|name| !name.to_string_lossy().starts_with('.'));
    let read = |path: &Path| -> Result<Option<ObjectRecord>, Error> {
        record::read(path, || format!("remove {path:?}"))
    };
    Ok(names
        .map(|name| Ok(read(&folder.join(name))?.as_ref().and_then(service)))
        .collect())
}

/// The Services of all namespaces that can be read; the others are passed over.
///
/// # Errors
/// A folder cannot be read.
pub fn readable_services(objects: &Path) -> Result<Vec<Service>, Error> {
    let mut all = Vec::new();
    for namespace in fs::list(objects)? {
        for found in services_in(&objects.join(namespace))? {
            match found {
                Ok(service) => all.extend(service),
                Err(error) => tracing::warn!(%error, "cannot read a Service"),
            }
        }
    }
    Ok(all)
}

/// Another text whenever a record of a Service was written or removed; without opening them.
///
/// # Errors
/// A folder cannot be read.
pub fn fingerprint_of_services(objects: &Path) -> Result<String, Error> {
    let mut text = String::new();
    for namespace in fs::list(objects)? {
        let folder = objects.join(namespace).join("service");
        for name in fs::list(&folder)? {
            // A file that is being written has a name that starts with a dot.
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = folder.join(name);
            if let Some(metadata) = fs::metadata_if_there(&path)? {
                let (inode, seconds) = (metadata.ino(), metadata.mtime());
                let nanoseconds = metadata.mtime_nsec();
                text += &format!("{path:?} {inode} {seconds}.{nanoseconds:09}\n");
            }
        }
    }
    Ok(text)
}

/// What a record of a Service says. It has been checked before it was recorded; what is not understood is left out.
#[must_use]
pub fn service(record: &ObjectRecord) -> Option<Service> {
    service_of(&record.key, &record.manifest)
}

/// What the manifest of a Service says that may not be recorded yet.
#[must_use]
pub fn service_of(key: &ObjectKey, manifest: &Value) -> Option<Service> {
    let spec = manifest.get("spec")?;
    let r#type = text(spec, "type");
    let address = match (r#type.as_deref(), cluster_ips(spec)) {
        (Some("ExternalName"), _) => ServiceAddress::External(text(spec, "externalName")?),
        (_, Some(ips)) => ServiceAddress::Cluster(ips),
        (_, None) => ServiceAddress::Headless(families(spec)),
    };
    let affinity = match text(spec, "sessionAffinity").as_deref() {
        Some("ClientIP") => spec
            .pointer("/sessionAffinityConfig/clientIP/timeoutSeconds")
            .and_then(Value::as_u64)
            .and_then(|seconds| seconds.try_into().ok())
            .or(Some(DEFAULT_AFFINITY_SECONDS)),
        _ => None,
    };
    let ports = spec.get("ports").and_then(Value::as_array);
    let selector = spec.get("selector").cloned().unwrap_or_default();
    Some(Service {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        address,
        selector: serde_json::from_value(selector).unwrap_or_default(),
        ports: ports.into_iter().flatten().filter_map(port).collect(),
        affinity_seconds: affinity,
        publish_not_ready_addresses: spec.get("publishNotReadyAddresses")
            == Some(&Value::Bool(true)),
        exposure: match r#type.as_deref() {
            Some("NodePort") => Exposure::NodePort,
            Some("LoadBalancer") => Exposure::LoadBalancer,
            _ => Exposure::Cluster,
        },
    })
}

/// As the API server defaults it.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// `ipFamilies`; as the API server defaults it, IPv4.
fn families(spec: &Value) -> Families {
    let families = spec.get("ipFamilies").and_then(Value::as_array);
    let has = |name: &str| families.is_some_and(|all| all.iter().any(|family| family == name));
    match (has("IPv4"), has("IPv6")) {
        (true, true) => Families::Both,
        (false, true) => Families::V6,
        (true | false, false) => Families::V4,
    }
}

/// `clusterIPs`, or `clusterIP` where only that is given; none if the Service is headless.
fn cluster_ips(spec: &Value) -> Option<Vec<IpAddr>> {
    let list = spec.get("clusterIPs").and_then(Value::as_array);
    let list = list.into_iter().flatten().filter_map(Value::as_str);
    let ips: Vec<IpAddr> = list.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        Some(vec![text(spec, "clusterIP")?.parse().ok()?])
    } else {
        Some(ips)
    }
}

fn port(port: &Value) -> Option<ServicePort> {
    let number = |name: &str| port.get(name)?.as_u64()?.try_into().ok();
    let protocol = port.get("protocol").cloned();
    let own = number("port")?;
    let target = match port.get("targetPort") {
        Some(Value::String(name)) => TargetPort::Name(name.clone()),
        _ => TargetPort::Number(number("targetPort").unwrap_or(own)),
    };
    Some(ServicePort {
        name: text(port, "name"),
        port: own,
        protocol: protocol
            .and_then(|protocol| serde_json::from_value(protocol).ok())
            .unwrap_or_default(),
        target,
        node_port: number("nodePort"),
    })
}

fn text(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name).and_then(Value::as_str)?;
    Some(text.to_owned()).filter(|text| !text.is_empty())
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

/// Removes what commands that were killed were about to write. Whoever still is has the lock of the object.
///
/// # Errors
/// A folder cannot be read, or a file not removed.
pub fn sweep(layout: &Layout) -> Result<(), Error> {
    for objects in layout.objects() {
        for namespace in fs::list(&objects)? {
            for kind in fs::list(&objects.join(&namespace))? {
                let folder = objects.join(&namespace).join(&kind);
                for name in fs::list(&folder)? {
                    let record = fs::target_of_unfinished(&name);
                    let lock = record.and_then(|record| {
                        layout.lock_of_record([namespace.to_str()?, kind.to_str()?, record])
                    });
                    let Some(lock) = lock else { continue };
                    // Gone with the machine's last run, maybe.
                    fs::create_dir_all(&layout.locks(), 0o700)?;
                    if let Some(_lock) = fs::try_lock(&lock, LockMode::Exclusive)? {
                        fs::remove_file(&folder.join(&name))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn remedy(key: &ObjectKey) -> String {
    let (kind, name) = (key.kind.to_ascii_lowercase(), &key.name);
    format!("`kplay delete {kind} {name} --force` removes it")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
    fn what_the_killed_were_about_to_write_is_swept() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let interrupt = Interrupt::install().unwrap();
        let mut objects = [object("Secret", "a"), object("Deployment", "b.json")].map(|o| o.key);
        objects[1].group = "apps".to_owned();
        let half = objects.each_ref().map(|key| {
            let record = layout.object(key);
            let name = record.file_name().unwrap().to_str().unwrap();
            record.with_file_name(format!(".{name}.{}.7", std::process::id()))
        });
        for file in &half {
            fs::create_dir_all(file.parent().unwrap(), 0o700).unwrap();
            fs::replace(file, 0o600, b"{").unwrap();
        }
        for key in &objects {
            let subjects = [Subject::Object(key.clone())];
            let _writing = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
            sweep(&layout).unwrap();
            let there = half.each_ref().map(|file| file.exists());
            assert_eq!(there, objects.each_ref().map(|other| other == key));
            for file in &half {
                fs::replace(file, 0o600, b"{").unwrap();
            }
        }
        sweep(&layout).unwrap();
        assert_eq!(half.map(|file| file.exists()), [false; 2]);
    }

    #[test]
    fn services_as_they_are_recorded() {
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
                serde_json::json!({"clusterIP": "10.0.0.1", "selector": {"app": "db"},
                    "type": "NodePort", "sessionAffinity": "ClientIP", "ports": [
                    {"port": 53, "name": "dns", "protocol": "UDP", "targetPort": "dns"},
                    {"port": 80, "targetPort": 8080, "nodePort": 30080}]}),
            ),
            service(
                "far",
                serde_json::json!({"type": "ExternalName", "externalName": "example.com"}),
            ),
            service(
                "headless",
                serde_json::json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            ),
        ];
        let subjects = records
            .iter()
            .map(|record| Subject::Object(record.key.clone()));
        let locks = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
        for record in &records {
            write(&locks, record).unwrap();
        }
        let [objects, _] = layout.objects();
        let plain = |name: &str, address| Service {
            namespace: Namespace::default(),
            name: name.into(),
            address,
            selector: BTreeMap::new(),
            ports: Vec::new(),
            affinity_seconds: None,
            publish_not_ready_addresses: false,
            exposure: Exposure::Cluster,
        };
        let db = Service {
            selector: [("app".into(), "db".into())].into(),
            ports: vec![
                ServicePort {
                    name: Some("dns".into()),
                    port: 53,
                    protocol: Protocol::Udp,
                    target: TargetPort::Name("dns".into()),
                    node_port: None,
                },
                ServicePort {
                    name: None,
                    port: 80,
                    protocol: Protocol::Tcp,
                    target: TargetPort::Number(8080),
                    node_port: Some(30080),
                },
            ],
            affinity_seconds: Some(10_800),
            exposure: Exposure::NodePort,
            ..plain("db", ServiceAddress::Cluster(vec![[10, 0, 0, 1].into()]))
        };
        let far = plain("far", ServiceAddress::External("example.com".into()));
        let headless = Service {
            publish_not_ready_addresses: true,
            ..plain("headless", ServiceAddress::Headless(Families::V4))
        };
        let mut found = readable_services(&objects).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(found, [db, far, headless]);
        let other = Namespace::parse("other").unwrap();
        assert_eq!(services(&objects, &other).unwrap(), []);
    }
}
