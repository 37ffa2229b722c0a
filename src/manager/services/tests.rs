//! Through `apply` on a layout of its own.

use std::net::{TcpListener, UdpSocket};

use super::draft::{family, ports, text, texts};
use super::*;
use crate::manager::apply::{Applied, Kept};
use crate::manager::delete::{Target, delete};
use crate::manager::report::Change;
use crate::manager::sweep::sweep;
use crate::manager::testing::{Machine, delete_options, input, manager};
use crate::manager::{apply, stop};
use crate::model::names::Namespace;
use crate::state::endpoints;
use crate::state::testing::{Scratch, object_key};
use crate::sys::fs;

fn key(name: &str) -> ObjectKey {
    object_key("Service", "", name)
}

fn input_of(services: &[(&str, Value)]) -> ApplyInput {
    let objects = services.iter().map(|(name, spec)| AppliedObject {
        key: key(name),
        manifest: json!({"kind": "Service", "spec": spec}),
        kept: Kept::WithFiles,
    });
    ApplyInput {
        objects: objects.collect(),
        ..input(&[])
    }
}

fn change(applied: &Applied) -> Change {
    applied.objects[0].1
}

/// What is recorded.
fn spec(machine: &Machine, name: &str) -> Value {
    let record = object::read(&machine.manager.layout, &key(name)).unwrap();
    record.unwrap().manifest["spec"].clone()
}

fn address(machine: &Machine, name: &str) -> String {
    text(&spec(machine, name), "clusterIP").to_owned()
}

fn remove(machine: &Machine, name: &str) {
    let options = delete_options(stop::Grace::Own);
    delete(
        &machine.manager,
        &[Target::Object(key(name))],
        options,
        &mut |_| {},
    )
    .unwrap();
}

/// The fault that keeps a Service from being applied.
#[track_caller]
fn refused(machine: &mut Machine, services: &[(&str, Value)], expected: &str) {
    let error = machine.apply(&input_of(services)).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

fn web() -> Value {
    json!({"type": "ClusterIP", "ports": [{"port": 80}]})
}

#[test]
fn an_address_is_allocated_kept_and_freed() {
    let mut machine = Machine::new();
    let folder = machine.manager.layout.endpoints();
    let told = || fs::read_if_there(&folder.join(endpoints::SERVICES)).unwrap();
    assert_eq!(told(), None);
    let applied = machine.apply(&input_of(&[("web", web())])).unwrap();
    assert_eq!(change(&applied), Change::Created);
    let first = told();
    let ip = address(&machine, "web");
    assert!(ip.starts_with("10.96."), "{ip}");
    assert_eq!(
        spec(&machine, "web"),
        json!({"type": "ClusterIP", "ports": [{"port": 80}], "clusterIP": ip, "clusterIPs": [ip],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
    );
    let applied = machine.apply(&input_of(&[("web", web())])).unwrap();
    assert_eq!(change(&applied), Change::Unchanged);
    assert_eq!(told(), first, "nothing has changed");

    let mut other = web();
    other["selector"] = json!({"app": "web"});
    let applied = machine.apply(&input_of(&[("web", other)])).unwrap();
    assert_eq!(change(&applied), Change::Configured);
    assert_eq!(address(&machine, "web"), ip);
    let second = told();
    assert_ne!(second, first);

    remove(&machine, "web");
    assert_ne!(told(), second);
    // Another Service does not get what pods may still know; this one has what it had.
    machine.apply(&input_of(&[("other", web())])).unwrap();
    assert_ne!(address(&machine, "other"), ip);
    machine.apply(&input_of(&[("web", web())])).unwrap();
    assert_eq!(address(&machine, "web"), ip);
}

#[test]
fn an_address_that_is_given_is_nobody_elses() {
    let mut machine = Machine::new();
    let given = |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]});
    machine
        .apply(&input_of(&[("a", given("192.0.2.1"))]))
        .unwrap();
    let taken = "the Service `b` is invalid: spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: \
                 failed to allocate IP 192.0.2.1: provided IP is already allocated";
    refused(
        &mut machine,
        &[("c", web()), ("b", given("192.0.2.1"))],
        taken,
    );
    assert_eq!(
        object::read(&machine.manager.layout, &key("c")).unwrap(),
        None
    );
    refused(
        &mut machine,
        &[("a", given("192.0.2.2"))],
        "the Service `a` is invalid: spec.clusterIPs[0]: Invalid value: [\"192.0.2.2\"]: may not change once set",
    );
    refused(
        &mut machine,
        &[("a", given("None"))],
        "the Service `a` is invalid: spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set",
    );
    // Left out, it stays.
    machine.apply(&input_of(&[("a", web())])).unwrap();
    assert_eq!(address(&machine, "a"), "192.0.2.1");
    // What one gives up, another one of the same files may have.
    let external = json!({"type": "ExternalName", "externalName": "x"});
    machine
        .apply(&input_of(&[
            ("b", given("192.0.2.1")),
            ("a", external.clone()),
        ]))
        .unwrap();
    assert_eq!(address(&machine, "b"), "192.0.2.1");
    assert_eq!(spec(&machine, "a"), external);
    // And what somebody gives is not allocated to one that comes before it.
    let auto = address_of_new(&mut machine, "auto");
    remove(&machine, "auto");
    machine
        .apply(&input_of(&[("auto", web()), ("z", given(&auto))]))
        .unwrap();
    assert_ne!(address(&machine, "auto"), auto);
}

fn address_of_new(machine: &mut Machine, name: &str) -> String {
    machine.apply(&input_of(&[(name, web())])).unwrap();
    address(machine, name)
}

#[test]
fn a_range_has_an_end() {
    let mut machine = Machine::new();
    machine.manager.service_ranges.v4 = Range::new([10, 0, 0, 0], 29);
    let names: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    let mut found = BTreeSet::new();
    for name in &names {
        found.insert(address_of_new(&mut machine, name));
    }
    let expected: BTreeSet<String> = (1..7).map(|last| format!("10.0.0.{last}")).collect();
    assert_eq!(found, expected);
    refused(
        &mut machine,
        &[("more", web())],
        "the Service `more` cannot have an address: all of 10.0.0.0/29 are taken",
    );
    let freed = address(&machine, "s3");
    remove(&machine, "s3");
    assert_eq!(address_of_new(&mut machine, "more"), freed);
}

#[test]
fn addresses_that_people_choose_from_are_allocated_last() {
    let range = Ranges::default().v4;
    let all: Vec<IpAddr> = range.candidates(u64::MAX).collect();
    assert_eq!(all.len(), 65_534);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let at = |ip: [u8; 4]| all.iter().position(|other| *other == IpAddr::from(ip));
    assert_eq!(at([10, 96, 0, 0]), None);
    assert_eq!(at([10, 96, 255, 255]), None);
    assert!(at([10, 96, 0, 10]) > at([10, 96, 1, 0]));
}

#[test]
fn families_decide_how_many_addresses_there_are() {
    let mut machine = Machine::new();
    let mut check = |name: &str, more: Value, families: &[&str], policy: &str| {
        let mut wanted = web();
        for (key, value) in more.as_object().unwrap() {
            wanted[key] = value.clone();
        }
        machine.apply(&input_of(&[(name, wanted)])).unwrap();
        let spec = spec(&machine, name);
        let ips = texts(&spec, "clusterIPs");
        assert_eq!(texts(&spec, "ipFamilies"), families, "{more}");
        assert_eq!(text(&spec, "ipFamilyPolicy"), policy, "{more}");
        let of_ips: Vec<&str> = ips
            .iter()
            .filter_map(|ip| Some(family(ip.parse().ok()?)))
            .collect();
        if ips != ["None"] {
            assert_eq!(of_ips, families, "{more}");
        }
        ips
    };
    let (v4, v6, both) = (["IPv4"], ["IPv6"], ["IPv4", "IPv6"]);
    let six = check("six", json!({"ipFamilies": ["IPv6"]}), &v6, "SingleStack");
    assert!(six[0].starts_with("fd96:"), "{six:?}");
    let prefer = json!({"ipFamilyPolicy": "PreferDualStack"});
    let one = check("grows", json!({}), &v4, "SingleStack");
    let two = check("grows", prefer.clone(), &both, "PreferDualStack");
    assert_eq!(two[0], one[0]);
    // As it is recorded, until the manifest says otherwise.
    assert_eq!(check("grows", json!({}), &both, "PreferDualStack"), two);
    let single = json!({"ipFamilyPolicy": "SingleStack"});
    assert_eq!(check("grows", single, &v4, "SingleStack"), one);
    check(
        "back",
        json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
        &["IPv6", "IPv4"],
        "RequireDualStack",
    );
    let given = json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]});
    check("given", given, &v6, "SingleStack");
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
    check("headless", headless.clone(), &both, "RequireDualStack");
    let mut selecting = headless;
    selecting["selector"] = json!({"a": "b"});
    check("selecting", selecting, &v4, "SingleStack");
    refused(
        &mut machine,
        &[(
            "grows",
            json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]}),
        )],
        "the Service `grows` is invalid: spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
    );
}

fn node_ports(machine: &Machine, name: &str) -> Vec<Option<u16>> {
    let ports = ports(&spec(machine, name));
    ports.into_iter().map(|port| port.node_port).collect()
}

#[test]
fn node_ports_are_allocated_kept_and_given_up() {
    let mut machine = Machine::new();
    let with = |r#type: &str, ports: Value| json!({"type": r#type, "ports": ports});
    let dns = json!([
        {"name": "udp", "port": 53, "protocol": "UDP"},
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "http", "port": 80, "protocol": "TCP"},
    ]);
    let apply = |machine: &mut Machine, name: &str, spec: Value| {
        change(&machine.apply(&input_of(&[(name, spec)])).unwrap())
    };
    apply(&mut machine, "dns", with("NodePort", dns.clone()));
    let first = node_ports(&machine, "dns");
    let [Some(udp), Some(tcp), Some(http)] = first[..] else {
        panic!("{first:?}")
    };
    assert_eq!(udp, tcp, "one number for both protocols of a port");
    assert_ne!(udp, http);
    assert!((FIRST_NODE_PORT..=LAST_NODE_PORT).contains(&udp));
    let again = apply(&mut machine, "dns", with("NodePort", dns.clone()));
    assert_eq!(again, Change::Unchanged);
    apply(&mut machine, "dns", with("LoadBalancer", dns.clone()));
    assert_eq!(node_ports(&machine, "dns"), first);
    // By its name, whatever its number.
    let moved = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    apply(&mut machine, "dns", with("NodePort", moved.clone()));
    assert_eq!(node_ports(&machine, "dns"), [Some(http)]);

    let given = json!([{"port": 1, "nodePort": http}]);
    refused(
        &mut machine,
        &[("other", with("NodePort", given.clone()))],
        &format!(
            "the Service `other` is invalid: spec.ports[0].nodePort: Invalid value: {http}: provided port is already allocated"
        ),
    );
    apply(&mut machine, "dns", with("ClusterIP", moved));
    assert_eq!(node_ports(&machine, "dns"), [None]);
    apply(&mut machine, "other", with("NodePort", given));
    assert_eq!(node_ports(&machine, "other"), [Some(http)]);
    // Back again, but its number is somebody else's now.
    apply(&mut machine, "dns", with("NodePort", dns.clone()));
    assert_ne!(node_ports(&machine, "dns")[2], Some(http));

    let mut without = with("LoadBalancer", dns);
    without["allocateLoadBalancerNodePorts"] = json!(false);
    apply(&mut machine, "without", without);
    assert_eq!(node_ports(&machine, "without"), [None; 3]);
}

#[test]
fn a_node_port_is_not_one_that_is_in_use() {
    let wanted = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let (key, free) = (key("web"), 31_234);
    let wanted = [Wanted {
        key: &key,
        manifest: &wanted,
        recorded: None,
    }];
    let run = |in_use: &dyn Fn(u16, Protocol) -> bool| {
        Allocator::new(&[], &wanted, Ranges::default(), in_use).run(&wanted)
    };
    let manifests = run(&|port, _| port != free).unwrap();
    let port = manifests[&key].pointer("/spec/ports/0/nodePort");
    assert_eq!(port, Some(&json!(free)));
    let error = run(&|_, _| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the Service `web` cannot have a node port: all from 30000 to 32767 are taken"
    );

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(is_in_use(port, Protocol::Tcp));
    drop(listener);
    assert!(!is_in_use(port, Protocol::Tcp));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    assert!(is_in_use(port, Protocol::Udp));
}

#[test]
fn commands_at_the_same_time_choose_different_addresses() {
    let scratch = Scratch::new();
    // So few that they would meet.
    let ranges = Ranges {
        v4: Range::new([10, 0, 0, 0], 26),
        ..Ranges::default()
    };
    let run = |thread: usize| {
        let mut manager = manager(scratch.layout());
        manager.service_ranges = ranges;
        move || {
            let images = crate::manager::testing::FakeImages::with(&[]);
            for number in 0..10 {
                let name = format!("s{thread}-{number}");
                let mut spec = web();
                spec["type"] = json!("NodePort");
                let input = input_of(&[(&name, spec)]);
                apply::apply(&manager, &images, &input, &mut |_| {}).unwrap();
            }
        }
    };
    let threads: Vec<_> = (0..6).map(|n| std::thread::spawn(run(n))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let [objects, _] = scratch.layout().objects();
    let services = object::services(&objects, &Namespace::default()).unwrap();
    let addresses: BTreeSet<IpAddr> = services
        .iter()
        .flat_map(|service| match &service.address {
            ServiceAddress::Cluster(ips) => ips.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let ports = services.iter().flat_map(|service| &service.ports);
    let ports: BTreeSet<_> = ports.map(|port| port.node_port).collect();
    assert_eq!((services.len(), addresses.len(), ports.len()), (60, 60, 60));
}

#[test]
fn what_is_undone_is_told() {
    let mut machine = Machine::new();
    let folder = machine.manager.layout.endpoints();
    let told = || fs::read_if_there(&folder.join(endpoints::SERVICES)).unwrap();
    machine.apply(&input_of(&[("web", web())])).unwrap();
    let (before, first) = (spec(&machine, "web"), told());
    let mut changed = web();
    changed["selector"] = json!({"app": "web"});
    let mut failing = input(&[("web-0", "start-error")]);
    failing
        .objects
        .extend(input_of(&[("web", changed), ("new", web())]).objects);
    machine.apply(&failing).unwrap_err();
    assert_eq!(spec(&machine, "web"), before);
    assert_eq!(
        object::read(&machine.manager.layout, &key("new")).unwrap(),
        None
    );
    assert_ne!(told(), first);
}

#[test]
fn what_a_killed_command_wrote_is_told_by_the_next() {
    let mut machine = Machine::new();
    machine.apply(&input_of(&[("web", web())])).unwrap();
    let layout = &machine.manager.layout;
    let told = || fs::read_if_there(&layout.endpoints().join(endpoints::SERVICES)).unwrap();
    let next = || assert!(sweep(layout, &mut |_| {}).unwrap().is_empty());
    let first = told();
    next();
    assert_eq!(told(), first);
    let record = layout.object(&key("web"));
    fs::replace(&record, 0o600, &fs::read(&record).unwrap()).unwrap();
    assert_eq!(told(), first);
    next();
    let second = told();
    assert_ne!(second, first);
    fs::remove_file(&record).unwrap();
    next();
    assert_ne!(told(), second);
}
