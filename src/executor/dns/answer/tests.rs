use std::collections::BTreeMap;

use hickory_proto::op::OpCode;

use super::*;
use crate::model::cluster::{Cluster, Peer, PeerPort, PeerState};
use crate::model::names::{Namespace, PodName};
use crate::model::plan::Protocol;
use crate::model::service::{Exposure, Families, Service, ServiceAddress, ServicePort, TargetPort};

fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn port(name: Option<&str>, port: u16, protocol: Protocol, target: TargetPort) -> ServicePort {
    ServicePort {
        name: name.map(str::to_owned),
        port,
        protocol,
        target,
        node_port: None,
    }
}

fn http() -> ServicePort {
    let target = TargetPort::Name("web".to_owned());
    port(Some("http"), 80, Protocol::Tcp, target)
}

fn service(name: &str, address: ServiceAddress, app: &str, ports: Vec<ServicePort>) -> Service {
    Service {
        namespace: namespace("default"),
        name: name.to_owned(),
        address,
        selector: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ports,
        affinity_seconds: None,
        publish_not_ready_addresses: false,
        exposure: Exposure::Cluster,
    }
}

fn peer(name: &str, app: &str, ips: &[&str], state: PeerState) -> Peer {
    Peer {
        namespace: namespace("default"),
        name: PodName::parse(name).unwrap(),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        hostname: None,
        subdomain: None,
        ports: vec![PeerPort {
            name: "web".to_owned(),
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        state,
    }
}

fn addresses(texts: &[&str]) -> ServiceAddress {
    ServiceAddress::Cluster(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn external(target: &str) -> ServiceAddress {
    ServiceAddress::External(target.to_owned())
}

fn cluster() -> Cluster {
    use PeerState::{NotReady, Ready, Terminating};
    let dns = || port(Some("dns"), 53, Protocol::Udp, TargetPort::Number(5353));
    let unnamed = || port(None, 5432, Protocol::Tcp, TargetPort::Number(5432));
    let headless = || ServiceAddress::Headless(Families::Both);
    let mut services = vec![
        service("web", addresses(&["10.96.0.1"]), "web", vec![http(), dns()]),
        service(
            "dual",
            addresses(&["10.96.0.2", "fd00::2"]),
            "web",
            vec![unnamed()],
        ),
        service("idle", addresses(&["10.96.0.3"]), "nobody", vec![http()]),
        service("db", headless(), "db", vec![http(), dns()]),
        service("none", headless(), "nobody", vec![http()]),
        service(
            "six",
            ServiceAddress::Headless(Families::V6),
            "db",
            vec![http()],
        ),
        service("bare", headless(), "db", vec![]),
        service("early", headless(), "late", vec![http()]),
        service("out", external("db.example.com"), "", vec![]),
        service("dotted", external("Example.com."), "", vec![]),
        service("in", external("web.default.svc.cluster.local"), "", vec![]),
        service("lost", external("no.default.svc.cluster.local"), "", vec![]),
        service(
            "ring",
            external("ring2.default.svc.cluster.local"),
            "",
            vec![],
        ),
        service(
            "ring2",
            external("ring.default.svc.cluster.local"),
            "",
            vec![],
        ),
        service("number", external("192.0.2.1"), "", vec![]),
    ];
    services[7].publish_not_ready_addresses = true;
    let mut other = service("web", addresses(&["10.96.9.9"]), "web", vec![http()]);
    other.namespace = namespace("other");
    services.push(other);

    let mut peers = vec![
        peer("web-a", "web", &["10.244.0.2"], Ready),
        peer("web-b", "web", &["10.244.0.3"], NotReady),
        peer("db-0", "db", &["10.244.0.5", "fd00::5"], Ready),
        peer("db-1", "db", &["10.244.0.6"], Ready),
        peer("db-2", "db", &["10.244.0.7"], Terminating),
        peer("late", "late", &["10.244.0.8"], NotReady),
    ];
    peers[2].hostname = Some("db-0".to_owned());
    peers[2].subdomain = Some("db".to_owned());
    // Its ports have other names.
    peers[3].ports[0].name = "other".to_owned();
    Cluster {
        peers: peers.into_iter().map(|peer| (peer.key(), peer)).collect(),
        services: services
            .into_iter()
            .map(|service| ((service.namespace.clone(), service.name.clone()), service))
            .collect(),
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn answer_to(query: &Message, turn: usize) -> Answer {
    let (cluster, namespace) = (cluster(), namespace("mine"));
    let view = View {
        cluster: &cluster,
        namespace: &namespace,
        resolver: crate::network::RESOLVER.into(),
        turn,
    };
    answer(query, &view)
}

/// `CODE`, answers, `- ` authorities, `+ ` additionals; what an alias stands for elsewhere, or that it is passed on.
fn lines(answer: Answer) -> Vec<String> {
    let (message, last) = match answer {
        Answer::Local(message) => (message, None),
        Answer::Alias { known, target } => (known, Some(format!("? {target}"))),
        Answer::Relay => return vec!["relay".to_owned()],
    };
    assert!(message.metadata.recursion_available);
    let line = |record: &Record| {
        let kind = record.record_type();
        format!("{} {kind} {}", record.name, record.data)
    };
    let mut lines = vec![format!("{:?}", message.metadata.response_code)];
    lines.extend(message.answers.iter().map(line));
    lines.extend(
        message
            .authorities
            .iter()
            .map(|record| format!("- {}", line(record))),
    );
    lines.extend(
        message
            .additionals
            .iter()
            .map(|record| format!("+ {}", line(record))),
    );
    lines.extend(last);
    lines
}

/// `QUESTION` is `NAME TYPE`; names without a dot at their end are of `default.svc.cluster.local`, there and in the
/// expected lines.
#[track_caller]
fn check(question: &str, expected: &[&str]) {
    const SOA: &str =
        "- cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";
    let (name, kind) = question.split_once(' ').unwrap();
    let full = |name: &str| match name.ends_with('.') {
        true => name.to_owned(),
        false => format!("{name}.default.svc.cluster.local."),
    };
    let answer = answer_to(&query(&full(name), kind.parse().unwrap()), 0);
    let lines: Vec<String> = lines(answer)
        .into_iter()
        .map(|line| {
            line.replace(SOA, "-")
                .replace(".default.svc.cluster.local.", "~")
        })
        .collect();
    assert_eq!(lines, expected, "{question}");
}

#[test]
fn services_with_an_address() {
    check("web A", &["NoError", "web~ A 10.96.0.1"]);
    check(
        "web.other.svc.cluster.local. A",
        &["NoError", "web.other.svc.cluster.local. A 10.96.9.9"],
    );
    // Whether or not anything is behind it.
    check("idle A", &["NoError", "idle~ A 10.96.0.3"]);
    check("dual A", &["NoError", "dual~ A 10.96.0.2"]);
    check("dual AAAA", &["NoError", "dual~ AAAA fd00::2"]);
    check(
        "dual ANY",
        &["NoError", "dual~ A 10.96.0.2", "dual~ AAAA fd00::2"],
    );
    check("web AAAA", &["NoError", "-"]);
    check("web TXT", &["NoError", "-"]);
    check("web MX", &["NoError", "-"]);
    check("web HTTPS", &["NoError", "-"]);
    check("web SOA", &["NoError", "-"]);
    check("web CNAME", &["NoError", "-"]);
    check("web PTR", &["NoError", "-"]);
    check("WeB A", &["NoError", "WeB~ A 10.96.0.1"]);
    check("db.Default.SVC.cluster.LOCAL. TXT", &["NoError", "-"]);
}

#[test]
fn endpoints_of_any_service() {
    check("db A", &["NoError", "db~ A 10.244.0.5", "db~ A 10.244.0.6"]);
    check("db AAAA", &["NoError", "db~ AAAA fd00::5"]);
    check("db-0.db A", &["NoError", "db-0.db~ A 10.244.0.5"]);
    check("db-0.db AAAA", &["NoError", "db-0.db~ AAAA fd00::5"]);
    check(
        "10-244-0-6.db A",
        &["NoError", "10-244-0-6.db~ A 10.244.0.6"],
    );
    check("10-244-0-6.db AAAA", &["NoError", "-"]);
    // It has a name, or belongs to another Service, or is ending, or not ready.
    check("10-244-0-5.db A", &["NXDomain", "-"]);
    check("db-0.bare A", &["NXDomain", "-"]);
    check(
        "10-244-0-5.bare A",
        &["NoError", "10-244-0-5.bare~ A 10.244.0.5"],
    );
    check(
        "fd00--5.bare AAAA",
        &["NoError", "fd00--5.bare~ AAAA fd00::5"],
    );
    check("10-244-0-7.db A", &["NXDomain", "-"]);
    check(
        "10-244-0-2.web A",
        &["NoError", "10-244-0-2.web~ A 10.244.0.2"],
    );
    check("10-244-0-3.web A", &["NXDomain", "-"]);
    check("early A", &["NoError", "early~ A 10.244.0.8"]);
    check("six A", &["NoError", "-"]);
    check("six AAAA", &["NoError", "six~ AAAA fd00::5"]);
    check("10-244-0-5.six A", &["NXDomain", "-"]);
    // Without endpoints there is no such name, as the specification has it.
    check("none A", &["NXDomain", "-"]);
    check("none AAAA", &["NXDomain", "-"]);
}

#[test]
fn one_endpoint_after_the_other_comes_first() {
    let first = |turn| {
        let lines = lines(answer_to(
            &query("db.default.svc.cluster.local.", RecordType::A),
            turn,
        ));
        lines[1].rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(
        [0, 1, 2, usize::MAX].map(first),
        ["10.244.0.5", "10.244.0.6", "10.244.0.5", "10.244.0.6"]
    );
}

#[test]
fn ports() {
    check(
        "_http._tcp.web SRV",
        &[
            "NoError",
            "_http._tcp.web~ SRV 0 100 80 web~",
            "+ web~ A 10.96.0.1",
        ],
    );
    check(
        "_DNS._UDP.web SRV",
        &[
            "NoError",
            "_DNS._UDP.web~ SRV 0 100 53 web~",
            "+ web~ A 10.96.0.1",
        ],
    );
    check("_dns._tcp.web SRV", &["NXDomain", "-"]);
    check("_ssh._tcp.web SRV", &["NXDomain", "-"]);
    check(
        "_http._tcp.web A",
        &["NoError", "_http._tcp.web~ A 10.96.0.1"],
    );
    check("http.tcp.web SRV", &["NXDomain", "-"]);
    check("_._tcp.dual SRV", &["NXDomain", "-"]);
    check(
        "web SRV",
        &[
            "NoError",
            "web~ SRV 0 50 80 web~",
            "web~ SRV 0 50 53 web~",
            "+ web~ A 10.96.0.1",
        ],
    );
    check(
        "dual SRV",
        &[
            "NoError",
            "dual~ SRV 0 50 5432 dual~",
            "+ dual~ A 10.96.0.2",
            "+ dual~ AAAA fd00::2",
        ],
    );
    // The ports of the pods, which is not the Service's; only one of them has a port of that name.
    check(
        "_http._tcp.db SRV",
        &[
            "NoError",
            "_http._tcp.db~ SRV 0 50 8080 db-0.db~",
            "+ db-0.db~ A 10.244.0.5",
            "+ db-0.db~ AAAA fd00::5",
        ],
    );
    check(
        "_dns._udp.db SRV",
        &[
            "NoError",
            "_dns._udp.db~ SRV 0 33 5353 db-0.db~",
            "_dns._udp.db~ SRV 0 33 5353 10-244-0-6.db~",
            "+ db-0.db~ A 10.244.0.5",
            "+ db-0.db~ AAAA fd00::5",
            "+ 10-244-0-6.db~ A 10.244.0.6",
        ],
    );
    check("bare SRV", &["NoError", "-"]);
    check("out SRV", &["NoError", "-"]);
}

#[test]
fn other_names() {
    check(
        "out A",
        &["NoError", "out~ CNAME db.example.com.", "? db.example.com."],
    );
    check(
        "dotted AAAA",
        &["NoError", "dotted~ CNAME Example.com.", "? Example.com."],
    );
    check("out CNAME", &["NoError", "out~ CNAME db.example.com."]);
    check("out ANY", &["NoError", "out~ CNAME db.example.com."]);
    check("out TXT", &["NoError", "-"]);
    check("x.out A", &["NXDomain", "-"]);
    check("in A", &["NoError", "in~ CNAME web~", "web~ A 10.96.0.1"]);
    check("in AAAA", &["NoError", "-"]);
    check("in CNAME", &["NoError", "in~ CNAME web~"]);
    check("lost A", &["NoError", "-"]);
    check("ring A", &["NoError", "-"]);
    check("number A", &["NXDomain", "-"]);
}

#[test]
fn addresses_as_names() {
    let pod = |name: &str, kind: &str, address: &str| {
        check(
            &format!("{name} {kind}"),
            &["NoError", &format!("{name} {kind} {address}")],
        );
    };
    pod("10-244-0-5.default.pod.cluster.local.", "A", "10.244.0.5");
    pod("1-2-3-4.mine.pod.cluster.local.", "A", "1.2.3.4");
    pod("1-2-3-4.other.pod.cluster.local.", "A", "1.2.3.4");
    pod("fd00--5.default.pod.cluster.local.", "AAAA", "fd00::5");
    pod("1-2--3.default.pod.cluster.local.", "AAAA", "1:2::3");
    check("1-2-3-4.default.pod.cluster.local. AAAA", &["NoError", "-"]);
    check("1-2-3-4.nowhere.pod.cluster.local. A", &["NXDomain", "-"]);
    check("1-2-3-400.default.pod.cluster.local. A", &["NXDomain", "-"]);
    check("web-a.default.pod.cluster.local. A", &["NXDomain", "-"]);
    check("x.1-2-3-4.default.pod.cluster.local. A", &["NXDomain", "-"]);
}

#[test]
fn the_domain_itself() {
    let soa =
        "cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";
    check(
        "dns-version.cluster.local. TXT",
        &["NoError", "dns-version.cluster.local. TXT 1.1.0"],
    );
    check("dns-version.cluster.local. A", &["NoError", "-"]);
    check("cluster.local. A", &["NoError", "-"]);
    check("cluster.local. SOA", &["NoError", soa]);
    check(
        "cluster.local. NS",
        &[
            "NoError",
            "cluster.local. NS ns.dns.cluster.local.",
            "+ ns.dns.cluster.local. A 169.254.20.10",
        ],
    );
    check(
        "ns.dns.cluster.local. A",
        &["NoError", "ns.dns.cluster.local. A 169.254.20.10"],
    );
    for parent in [
        "svc",
        "pod",
        "dns",
        "default.svc",
        "other.svc",
        "mine.svc",
        "mine.pod",
    ] {
        check(&format!("{parent}.cluster.local. A"), &["NoError", "-"]);
        check(&format!("{parent}.cluster.local. NS"), &["NoError", "-"]);
    }
    for nothing in [
        "nowhere.svc",
        "nowhere.pod",
        "x",
        "*.default.svc",
        "a.b.c.d.default.svc",
    ] {
        check(&format!("{nothing}.cluster.local. A"), &["NXDomain", "-"]);
    }
    // What resolvers make of search domains.
    check(
        "web.default.svc.cluster.local.cluster.local. A",
        &["NXDomain", "-"],
    );
    check(
        "web.default.svc.cluster.local.svc.cluster.local. A",
        &["NXDomain", "-"],
    );
    check(
        "web.default.svc.cluster.local.default.svc.cluster.local. A",
        &["NXDomain", "-"],
    );
    check(
        "example.com.default.svc.cluster.local. A",
        &["NXDomain", "-"],
    );
}

#[test]
fn reverse_names() {
    check(
        "1.0.96.10.in-addr.arpa. PTR",
        &["NoError", "1.0.96.10.in-addr.arpa. PTR web~"],
    );
    check(
        "5.0.244.10.in-addr.arpa. PTR",
        &[
            "NoError",
            "5.0.244.10.in-addr.arpa. PTR 10-244-0-5.bare~",
            "5.0.244.10.in-addr.arpa. PTR db-0.db~",
        ],
    );
    let v6 = format!("2.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    check(
        &format!("{v6} PTR"),
        &["NoError", &format!("{v6} PTR dual~")],
    );
    check("1.0.96.10.in-addr.arpa. A", &["NoError", "-"]);
    for relayed in [
        "7.0.244.10.in-addr.arpa. PTR",
        "0.96.10.in-addr.arpa. PTR",
        "x.0.96.10.in-addr.arpa. PTR",
        "1.1.0.96.10.in-addr.arpa. PTR",
        "in-addr.arpa. SOA",
    ] {
        check(relayed, &["relay"]);
    }
}

#[test]
fn what_is_not_the_clusters() {
    for relayed in [
        "db. A",
        "local. A",
        "example.com. AAAA",
        "xcluster.local. A",
        "cluster.local.example.com. A",
        ". NS",
    ] {
        check(relayed, &["relay"]);
    }
    check("web AXFR", &["Refused"]);
    let changes = query("example.com.", RecordType::IXFR);
    assert_eq!(lines(answer_to(&changes, 0)), ["Refused"]);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(lines(answer_to(&chaos, 0)), ["Refused"]);
}

#[test]
fn headers() {
    let mut asked = query("web.default.svc.cluster.local.", RecordType::A);
    asked.metadata.checking_disabled = true;
    let Answer::Local(reply) = answer_to(&asked, 0) else {
        panic!("it is known");
    };
    assert_eq!(reply.metadata.id, asked.metadata.id);
    assert_eq!(reply.metadata.op_code, OpCode::Query);
    assert_eq!(reply.queries, asked.queries);
    assert!(reply.metadata.authoritative && reply.metadata.recursion_desired);
    assert!(reply.metadata.checking_disabled && !reply.metadata.truncation);
    assert_eq!(reply.answers[0].ttl, TTL);
    assert!(reply.edns.is_none());
}
