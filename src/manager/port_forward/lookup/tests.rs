use serde_json::json;

use super::*;
use crate::model::cluster::Peer;
use crate::model::names::PodName;
use crate::state::lock::{Locks, Subject};
use crate::state::record::ObjectRecord;
use crate::state::testing::{Scratch, key, object as object_record, record};
use crate::sys::poll::Interrupt;

/// Pods of the application `web`, with what their executors say; none if there is no executor.
fn machine(pods: &[(&str, Option<PeerState>)], services: &[ObjectRecord]) -> Scratch {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    for (name, state) in pods {
        let locks = Locks::try_pod(&layout, &key(name)).unwrap().unwrap();
        let mut record = record(name);
        record.labels = [("app".to_owned(), "web".to_owned())].into();
        locks.pod(&key(name)).unwrap().create(&record).unwrap();
        let Some(state) = *state else { continue };
        let peer = Peer {
            namespace: Namespace::default(),
            name: PodName::parse(name).unwrap(),
            ips: vec![[10, 0, 0, 2].into()],
            labels: record.labels.clone(),
            hostname: None,
            subdomain: None,
            ports: Vec::new(),
            state,
        };
        endpoints::write(&layout.endpoints(), &peer).unwrap();
    }
    let subjects = services.iter().map(|one| Subject::Object(one.key.clone()));
    let interrupt = Interrupt::install().unwrap();
    let locks = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
    for service in services {
        object::write(&locks, service).unwrap();
    }
    drop(locks);
    scratch
}

fn service(name: &str, cluster_ip: &str, app: &str) -> ObjectRecord {
    let mut record = object_record("Service", name);
    record.key.group = String::new();
    record.manifest = json!({"kind": "Service", "spec": {
        "clusterIP": cluster_ip,
        "selector": {"app": app},
        "ports": [
            {"name": "www", "port": 80, "targetPort": 8080},
            {"name": "dns", "port": 80, "targetPort": 53, "protocol": "UDP"},
            {"name": "udp", "port": 81, "protocol": "UDP"},
        ],
    }});
    record
}

fn check(scratch: &Scratch, text: &str, remote: &str, expected: Result<(&str, u16, u16), &str>) {
    let destination = Destination::parse(&Namespace::default(), text).unwrap();
    let found = destination.find(&scratch.layout(), &remote.parse().unwrap());
    let found = found.map(|place| (place.pod.key().name.to_string(), place.port, place.named));
    let found = found.map_err(|error| error.to_string());
    let expected = expected.map(|(pod, port, named)| (pod.to_owned(), port, named));
    assert_eq!(found, expected.map_err(str::to_owned), "{text} {remote}");
}

#[test]
fn a_services_ports_are_those_of_one_of_its_pods() {
    let services = [
        service("web", "10.96.0.1", "web"),
        service("none", "None", "web"),
        service("nobody", "10.96.0.2", "other"),
    ];
    let pods = [
        ("a", None),
        ("b", Some(PeerState::NotReady)),
        ("c", Some(PeerState::Ready)),
        ("d", Some(PeerState::Terminating)),
    ];
    let scratch = machine(&pods, &services);
    check(&scratch, "svc/web", "80", Ok(("c", 8080, 80)));
    check(&scratch, "service/web", "www", Ok(("c", 8080, 80)));
    check(&scratch, "svc/none", "80", Ok(("c", 80, 80)));
    check(&scratch, "pod/a", "1234", Ok(("a", 1234, 1234)));
    let error = "the Service `web` does not have a port 82";
    check(&scratch, "svc/web", "82", Err(error));
    let error = "UDP is not forwarded: port 81 of the Service `web` has no other protocol";
    check(&scratch, "svc/web", "81", Err(error));
    let error = "UDP is not forwarded: port `dns` of the Service `web` has no other protocol";
    check(&scratch, "svc/web", "dns", Err(error));
    let error = "no pod has the labels that the Service `nobody` selects";
    check(&scratch, "svc/nobody", "80", Err(error));
    check(
        &scratch,
        "svc/gone",
        "80",
        Err("services \"gone\" not found"),
    );
    check(&scratch, "gone", "80", Err("pods \"gone\" not found"));
    // One after the other goes.
    endpoints::remove(&scratch.layout().endpoints(), &key("c")).unwrap();
    check(&scratch, "svc/web", "80", Ok(("b", 8080, 80)));
    endpoints::remove(&scratch.layout().endpoints(), &key("b")).unwrap();
    check(&scratch, "svc/web", "80", Ok(("a", 8080, 80)));
}
