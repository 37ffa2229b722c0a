use super::*;
use crate::model::cluster::{Peer, PeerPort, PeerState};
use crate::model::names::{Namespace, PodName};
use crate::model::service::{Exposure, ServicePort, TargetPort};

fn peer(name: &str, last: u8, state: PeerState) -> Peer {
    Peer {
        namespace: Namespace::default(),
        name: PodName::parse(name).unwrap(),
        ips: vec![[10, 244, 0, last].into()],
        labels: [("app".into(), "web".into())].into(),
        hostname: None,
        subdomain: None,
        ports: vec![PeerPort {
            name: "http".into(),
            port: 8000 + u16::from(last),
            protocol: Protocol::Tcp,
        }],
        state,
    }
}

fn service(target: TargetPort) -> Service {
    Service {
        namespace: Namespace::default(),
        name: "web".into(),
        address: ServiceAddress::Cluster(vec![[10, 96, 0, 1].into()]),
        selector: [("app".into(), "web".into())].into(),
        ports: vec![ServicePort {
            name: None,
            port: 80,
            protocol: Protocol::Tcp,
            target,
            node_port: None,
        }],
        affinity_seconds: None,
        publish_not_ready_addresses: false,
        exposure: Exposure::Cluster,
    }
}

fn cluster(service: Service, peers: impl IntoIterator<Item = Peer>) -> Cluster {
    Cluster {
        peers: peers.into_iter().map(|peer| (peer.key(), peer)).collect(),
        services: [(service.key(), service)].into(),
    }
}

/// Where the Service's port leads, as `ADDRESS:PORT`.
fn backends(cluster: &Cluster, chosen: &mut Chosen) -> Vec<String> {
    let addresses = addresses(cluster, chosen);
    let [web] = addresses.as_slice() else {
        panic!("the Service's: {addresses:?}");
    };
    assert_eq!(web.ports.len(), 1);
    web.ports[0]
        .backends
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn only_ready_pods_that_have_the_port_are_led_to() {
    let peers = || {
        let other = Peer {
            labels: [("app".into(), "other".into())].into(),
            ..peer("other", 9, PeerState::Ready)
        };
        let nameless = Peer {
            ports: Vec::new(),
            ..peer("nameless", 8, PeerState::Ready)
        };
        [
            peer("a", 2, PeerState::Ready),
            peer("b", 3, PeerState::NotReady),
            peer("c", 4, PeerState::Terminating),
            peer("d", 5, PeerState::Ready),
            nameless,
            other,
        ]
    };
    let check = |service: Service, expected: &[&str]| {
        let found = backends(&cluster(service, peers()), &mut Chosen::new());
        assert_eq!(found, expected);
    };
    let named = || service(TargetPort::Name("http".into()));
    check(named(), &["10.244.0.2:8002", "10.244.0.5:8005"]);
    let numbered = service(TargetPort::Number(80));
    check(
        numbered,
        &["10.244.0.2:80", "10.244.0.5:80", "10.244.0.8:80"],
    );
    let unready = Service {
        publish_not_ready_addresses: true,
        ..named()
    };
    check(
        unready,
        &[
            "10.244.0.2:8002",
            "10.244.0.3:8003",
            "10.244.0.4:8004",
            "10.244.0.5:8005",
        ],
    );
    let unselecting = Service {
        selector: BTreeMap::new(),
        ..named()
    };
    check(unselecting, &[]);
}

#[test]
fn a_client_keeps_to_one_endpoint_while_that_is_ready() {
    let sticky = || Service {
        affinity_seconds: Some(60),
        ..service(TargetPort::Number(80))
    };
    let both = || {
        let peers = [2, 3].map(|last| peer(&format!("pod-{last}"), last, PeerState::Ready));
        cluster(sticky(), peers)
    };
    let mut chosen = Chosen::new();
    let first = backends(&both(), &mut chosen);
    assert_eq!(first.len(), 1);
    for _ in 0..20 {
        assert_eq!(backends(&both(), &mut chosen), first);
    }
    let mut one = both();
    let gone = one
        .peers
        .values()
        .position(|peer| first[0].starts_with(&peer.ips[0].to_string()));
    let gone = one.peers.keys().nth(gone.unwrap()).cloned().unwrap();
    one.peers.remove(&gone);
    let second = backends(&one, &mut chosen);
    assert_ne!(second, first);
    assert_eq!(
        backends(&both(), &mut chosen),
        second,
        "it does not go back"
    );
    let none = cluster(sticky(), []);
    assert_eq!(backends(&none, &mut chosen), [""; 0]);
    assert_eq!(chosen, Chosen::new());
}

/// With the kernel's own numbers.
#[test]
fn a_refusal_names_what_is_missing() {
    let check = |errno: i32, kernel: (u32, u32), words: &str| {
        let said = what_is_refused(&io::Error::from_raw_os_error(errno), kernel);
        assert!(said.contains(words), "{said}");
    };
    // ENOENT, EINVAL, EOPNOTSUPP, EPERM
    check(2, (6, 1), "nft_chain_nat");
    check(22, (5, 11), "Linux 5.12");
    check(95, (5, 11), "Linux 5.12");
    check(95, (6, 1), "CONFIG_NF_TABLES_INET");
    check(1, (6, 1), "refuses a table");
}
