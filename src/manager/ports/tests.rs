use std::net::{TcpListener, UdpSocket};

use serde_json::{Value, json};

use super::*;
use crate::manager::apply::{AppliedObject, Kept};
use crate::manager::testing::{Machine, input, plan};
use crate::state::testing::object_key;
use crate::sys::netns::NetNs;

/// That nobody has at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn published(port: u16, ip: Option<&str>, protocol: Protocol) -> ContainerPort {
    ContainerPort {
        name: None,
        container_port: 80,
        host_port: Some(port),
        host_ip: ip.map(|ip| ip.parse().unwrap()),
        protocol,
    }
}

fn tcp(port: u16) -> ContainerPort {
    published(port, None, Protocol::Tcp)
}

/// Pods that are labelled with their name, each with these ports.
fn pods(pods: &[(&str, &[ContainerPort])]) -> ApplyInput {
    let names: Vec<(&str, &str)> = pods.iter().map(|(name, _)| (*name, "run")).collect();
    let mut input = input(&names);
    input.plans = pods
        .iter()
        .map(|(name, ports)| {
            let mut plan = plan(name, "run");
            plan.labels.insert("app".into(), (*name).into());
            plan.containers[0].ports = ports.to_vec();
            plan
        })
        .collect();
    input
}

fn with_service(mut input: ApplyInput, name: &str, spec: Value) -> ApplyInput {
    input.objects.push(AppliedObject {
        key: object_key("Service", "", name),
        manifest: json!({"kind": "Service", "spec": spec}),
        kept: Kept::WithFiles,
    });
    input
}

fn balanced(port: u16, app: &str) -> Value {
    let ports = json!([{"port": port, "protocol": "TCP"}]);
    json!({
        "type": "LoadBalancer", "clusterIPs": ["None"], "ports": ports, "selector": {"app": app},
        "allocateLoadBalancerNodePorts": false,
    })
}

#[track_caller]
fn check(machine: &mut Machine, input: &ApplyInput, expected: Result<(), &[&str]>) {
    let told = match machine.apply(input) {
        Ok(_) => Ok(()),
        Err(Error::Several(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
        Err(error) => Err(vec![error.to_string()]),
    };
    let expected = expected.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(told, expected);
}

/// On a machine on whose network no other test listens.
fn alone(test: fn(&mut Machine)) {
    if crate::sys::capability::may_administer() {
        let namespace = NetNs::fresh();
        let run = || {
            test(&mut Machine::new());
            Ok(())
        };
        namespace.visit(run).unwrap();
    }
}

#[test]
fn another_pods_port_is_refused_before_anything_is_done() {
    alone(|machine| {
        let (port, other) = (free_port(), free_port());
        check(machine, &pods(&[("a-0", &[tcp(port)])]), Ok(()));
        let told = format!(
            "cannot publish the pod `default/b-0`: port {port} of 0.0.0.0 is in use by the pod `default/a-0`"
        );
        let mut taking = pods(&[("b-0", &[tcp(other), tcp(port)])]);
        // It would be pulled.
        let missing = crate::model::reference::Reference::parse("other:1").unwrap();
        taking.plans[0].containers[0].reference = missing.clone();
        machine.images.there.insert(missing);
        check(machine, &taking, Err(&[&told]));
        assert!(machine.images.pulled.borrow().is_empty());
        // Its own port is no obstacle, nor is one that it gives up.
        check(machine, &pods(&[("a-0", &[tcp(port)])]), Ok(()));
        let moved = pods(&[("a-0", &[tcp(other)]), ("b-0", &[tcp(port)])]);
        check(machine, &moved, Ok(()));
        // One that is not running any more has no ports.
        machine.kill("b-0");
        check(machine, &pods(&[("c-0", &[tcp(port)])]), Ok(()));
    });
}

#[test]
fn ports_of_the_same_files() {
    alone(|machine| {
        let port = free_port();
        let twice = pods(&[("a-0", &[tcp(port), tcp(port)]), ("b-0", &[tcp(port)])]);
        let told = [
            format!(
                "cannot publish the pod `default/a-0`: port {port} of 0.0.0.0 is published twice"
            ),
            format!(
                "cannot publish the pod `default/b-0`: port {port} of 0.0.0.0 is in use by the pod `default/a-0`"
            ),
        ];
        check(machine, &twice, Err(&[&told[0], &told[1]]));
        let apart = [
            published(port, Some("127.0.0.1"), Protocol::Tcp),
            published(port, Some("127.0.0.2"), Protocol::Tcp),
            published(port, Some("127.0.0.1"), Protocol::Udp),
        ];
        check(machine, &pods(&[("a-0", &apart)]), Ok(()));
    });
}

#[test]
fn services_and_pods() {
    alone(|machine| {
        let port = free_port();
        let alone = |name: &str, app| with_service(pods(&[]), name, balanced(port, app));
        check(machine, &alone("web", "a-0"), Ok(()));
        // Applied again it has what it had.
        check(machine, &alone("web", "a-0"), Ok(()));
        let told = format!(
            "cannot publish the Service `default/other`: port {port} of 0.0.0.0 is in use by the Service `default/web`"
        );
        check(machine, &alone("other", "b-0"), Err(&[&told]));
        let told = format!(
            "cannot publish the pod `default/b-0`: port {port} of 0.0.0.0 is in use by the Service `default/web`"
        );
        check(machine, &pods(&[("b-0", &[tcp(port)])]), Err(&[&told]));
        // The Service leads to this pod anyway.
        check(machine, &pods(&[("a-0", &[tcp(port)])]), Ok(()));
        check(machine, &alone("web", "a-0"), Ok(()));
    });
}

#[test]
fn other_programs() {
    alone(|machine| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
        let comm = std::io::read_to_string(
            std::fs::OpenOptions::new()
                .read(true)
                .open("/proc/self/comm")
                .unwrap(),
        );
        let own = format!("{}, process {}", comm.unwrap().trim(), std::process::id());
        let port = listener.local_addr().unwrap().port();
        let datagrams = socket.local_addr().unwrap().port();
        let ports = [
            tcp(port),
            published(datagrams, Some("127.0.0.2"), Protocol::Udp),
            published(port, Some("127.0.0.3"), Protocol::Tcp),
        ];
        let told = [
            format!(
                "cannot publish the pod `default/a-0`: port {port} of 0.0.0.0 is in use by another program: {own}"
            ),
            format!(
                "cannot publish the pod `default/a-0`: port {datagrams} of 127.0.0.2 is in use by another program: {own}"
            ),
            format!(
                "cannot publish the Service `default/web`: port {port} of 0.0.0.0 is in use by another program: {own}"
            ),
        ];
        let meets = [ports[0].clone(), ports[1].clone()];
        let all = with_service(pods(&[("a-0", &meets)]), "web", balanced(port, "a-0"));
        // What the pod cannot have is told once.
        check(machine, &all, Err(&[&told[0], &told[1]]));
        let service = with_service(pods(&[]), "web", balanced(port, "a-0"));
        check(machine, &service, Err(&[&told[2]]));
        check(machine, &pods(&[("a-0", &ports[2..])]), Ok(()));
    });
}
