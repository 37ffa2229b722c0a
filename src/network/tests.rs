//! Real bridges and links, each in a network namespace that stands for a machine.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::model::plan::Protocol;
use crate::sys::netns::NetNs;
use crate::sys::testing::{alone, eventually};

/// Runs a test on a machine of its own, with nothing but a loopback interface.
fn on_a_machine(test: impl FnOnce(&Machine) + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may unshare");
            ip("link set lo up");
            // As a machine has it that is no router.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            let folder = format!(
                "kplay-network-{}",
                crate::sys::identity::random_hex().unwrap()
            );
            let folder = std::env::temp_dir().join(folder);
            test(&Machine {
                folder: folder.clone(),
            });
            std::fs::remove_dir_all(folder).unwrap();
            assert_eq!(bridges(), [""; 0], "a bridge is left");
        });
        run.join().expect("the test passes");
    });
}

struct Machine {
    folder: PathBuf,
}

struct Pod {
    netns: NetNs,
    attachment: Attachment,
}

impl Machine {
    fn pod(&self, name: &str) -> Pod {
        let netns = NetNs::fresh();
        Pod {
            attachment: attach(&self.folder, name, &netns).unwrap(),
            netns,
        }
    }
}

impl Pod {
    fn ip(&self, index: usize) -> IpAddr {
        self.attachment.ips()[index]
    }

    fn listen(&self, address: &str) -> TcpListener {
        self.netns.visit(|| TcpListener::bind(address)).unwrap()
    }

    fn connect(&self, address: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let address = address.into();
        self.netns.visit(|| TcpStream::connect(address))
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn bridges() -> Vec<String> {
    let list = ip("-o link show type bridge");
    let names = list.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(str::to_owned).collect()
}

/// What the accepted client's address is, after a word was exchanged.
fn talk(listener: &TcpListener, client: TcpStream) -> IpAddr {
    let (mut server, address) = listener.accept().unwrap();
    let mut client = client;
    client.write_all(b"ping").unwrap();
    let mut word = [0; 4];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
    address.ip()
}

#[test]
fn pods_reach_each_other_and_the_machine() {
    on_a_machine(|machine| {
        let (a, b) = (machine.pod("a"), machine.pod("b"));
        assert_eq!(a.ip(0).to_string(), "10.244.0.2");
        assert_eq!(b.ip(0).to_string(), "10.244.0.3");
        assert!(a.ip(1).is_ipv6());
        let server = b.listen("[::]:8080");
        for (index, wildcard) in ["0.0.0.0:9090", "[::]:9090"].iter().enumerate() {
            let client = a.connect((b.ip(index), 8080)).unwrap();
            let seen = talk(&server, client).to_canonical();
            assert_eq!(seen, a.ip(index), "pods see each other's addresses");
            let client = TcpStream::connect((b.ip(index), 8080)).unwrap();
            talk(&server, client);
            let host = TcpListener::bind(wildcard).unwrap();
            let gateway = match a.ip(index) {
                IpAddr::V4(_) => "10.244.0.1".parse().unwrap(),
                IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64 | 1).into()),
            };
            let client = a.connect((gateway, 9090)).unwrap();
            assert_eq!(talk(&host, client).to_canonical(), a.ip(index));
        }
        let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(forwarding.trim(), "1");
        assert_eq!(a.attachment.limits(), [""; 0]);
        a.attachment.release().unwrap();
        assert_eq!(bridges(), ["kplay0"], "somebody has an address yet");
        b.attachment.release().unwrap();
    });
}

#[test]
fn addresses_rest_before_they_are_given_out_again() {
    on_a_machine(|machine| {
        let first = machine.pod("first");
        let second = machine.pod("second");
        first.attachment.release().unwrap();
        let third = machine.pod("third");
        assert_eq!(third.ip(0).to_string(), "10.244.0.4");
        second.attachment.release().unwrap();
        third.attachment.release().unwrap();
        let fourth = machine.pod("fourth");
        assert_eq!(
            fourth.ip(0).to_string(),
            "10.244.0.5",
            "also with a new bridge"
        );
        fourth.attachment.release().unwrap();
    });
}

#[test]
fn what_the_killed_leave_is_swept() {
    on_a_machine(|machine| {
        let killed = machine.pod("killed");
        let alive = machine.pod("alive");
        // The kernel closes files and ends namespaces; nobody releases anything.
        drop(killed);
        sweep(&machine.folder).unwrap();
        assert_eq!(bridges(), ["kplay0"]);
        drop(alive);
        eventually("the bridge is gone", || {
            sweep(&machine.folder).unwrap();
            bridges().is_empty()
        });
        sweep(&machine.folder).unwrap();
        // Its links go with the pods' namespaces, a little later.
        while ip("-o link show type veth").contains("kplay") {
            std::thread::yield_now();
        }
    });
}

#[test]
fn what_is_expected_stays_until_it_has_come_or_not() {
    on_a_machine(|machine| {
        let replaced = machine.pod("replaced");
        let before = ip("-o link show kplay0");
        let expected = expect(machine.folder.clone()).unwrap();
        // Made beside this thread.
        while !machine.folder.join("leases").join(process()).exists() {
            std::thread::yield_now();
        }
        replaced.attachment.release().unwrap();
        let number = |link: &str| link.split(':').next().map(str::to_owned);
        assert_eq!(number(&before), number(&ip("-o link show kplay0")));
        let new = machine.pod("new");
        drop(expected);
        assert_eq!(bridges(), ["kplay0"]);
        new.attachment.release().unwrap();
        assert_eq!(bridges(), [""; 0]);
        let in_vain = expect(machine.folder.clone()).unwrap();
        drop(in_vain);
        assert_eq!(bridges(), [""; 0]);
    });
}

/// The lease of a command that expects pods.
fn process() -> String {
    format!("process-{}", std::process::id())
}

#[test]
fn a_bridge_that_was_taken_away_is_made_again() {
    // The programs that other tests start have copies of a lock that is given up on the way, for a moment.
    if !alone("network::tests::a_bridge_that_was_taken_away_is_made_again") {
        return;
    }
    on_a_machine(|machine| {
        let lost = machine.pod("lost");
        ip("link delete kplay0");
        ip("link add kplay0 type bridge");
        let pod = machine.pod("pod");
        assert_eq!(
            bridges(),
            ["kplay0", "kplay1"],
            "somebody else's is left alone"
        );
        lost.attachment.release().unwrap();
        pod.attachment.release().unwrap();
        ip("link delete kplay0");
    });
}

#[test]
fn subnets_of_the_machine_are_avoided() {
    on_a_machine(|machine| {
        ip("link add other type bridge");
        ip("link set other up mtu 1400");
        ip("route add 10.244.0.0/21 dev other");
        ip("route add default dev other");
        let pod = machine.pod("pod");
        assert_eq!(pod.ip(0).to_string(), "10.244.8.2");
        let other = Machine {
            folder: machine.folder.join("other"),
        };
        let second = other.pod("pod of another run folder");
        assert_eq!(second.ip(0).to_string(), "10.244.12.2");
        let link = ip("-o link show kplay0-2");
        assert!(link.contains("mtu 1400"), "that of the way out: {link}");
        pod.attachment.release().unwrap();
        second.attachment.release().unwrap();
        ip("link delete other");
    });
}

#[test]
fn many_at_once_have_addresses_of_their_own() {
    on_a_machine(|machine| {
        let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let addresses = std::sync::Mutex::new(std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            for number in 0..20 {
                let (here, addresses) = (&here, &addresses);
                scope.spawn(move || {
                    nix::sched::setns(here, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    let pod = machine.pod("pod");
                    assert!(addresses.lock().unwrap().insert(pod.ip(0)));
                    // Half of them are killed.
                    if number % 2 == 0 {
                        pod.attachment.release().unwrap();
                    }
                });
            }
        });
        assert_eq!(addresses.lock().unwrap().len(), 20);
        sweep(&machine.folder).unwrap();
    });
}

fn service(ip: &str, protocol: Protocol, backends: &[SocketAddr]) -> VirtualAddress {
    let port = VirtualPort {
        protocol,
        port: 80,
        backends: backends.to_vec(),
    };
    VirtualAddress::new(ip.parse().unwrap(), vec![port])
}

#[test]
fn connections_to_a_virtual_address_reach_all_backends_and_no_other() {
    on_a_machine(|machine| {
        let (client, a, b) = (machine.pod("c"), machine.pod("a"), machine.pod("b"));
        let mut table = ServiceTable::of_pod();
        for (index, address) in ["10.96.0.10", "fd96::10"].into_iter().enumerate() {
            let virtual_ip: IpAddr = address.parse().unwrap();
            let connect = || client.connect((virtual_ip, 80));
            let (on_a, on_b) = (a.listen("[::]:0"), b.listen("[::]:0"));
            let backends = [(&a, &on_a), (&b, &on_b)].map(|(pod, listener)| {
                let port = listener.local_addr().unwrap().port();
                (pod.ip(index), port).into()
            });
            let rules = |backends: &[SocketAddr]| vec![service(address, Protocol::Tcp, backends)];
            table.set(&client.netns, rules(&backends)).unwrap();
            for listener in [&on_a, &on_b] {
                listener.set_nonblocking(true).unwrap();
            }
            let mut seen = [0, 0];
            let connections: Vec<TcpStream> = (0..64).map(|_| connect().unwrap()).collect();
            for (count, listener) in seen.iter_mut().zip([&on_a, &on_b]) {
                while let Ok((_, from)) = listener.accept() {
                    *count += 1;
                    assert_eq!(from.ip().to_canonical(), client.ip(index));
                }
            }
            drop(connections);
            assert_eq!(seen[0] + seen[1], 64);
            assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
            table.set(&client.netns, rules(&backends[..1])).unwrap();
            connect().unwrap();
            on_a.accept().unwrap();
            table.set(&client.netns, rules(&[])).unwrap();
            let refused = connect().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let other_port = client.connect((virtual_ip, 81)).unwrap_err();
            assert_eq!(other_port.kind(), ErrorKind::ConnectionRefused);
            let network: IpAddr = if index == 0 { "10.96.0.0" } else { "fd96::" }
                .parse()
                .unwrap();
            let range = VirtualAddress {
                prefix: if virtual_ip.is_ipv4() { 16 } else { 112 },
                ..VirtualAddress::new(network, Vec::new())
            };
            let mut rules = rules(&backends[..1]);
            rules.push(range);
            table.set(&client.netns, rules).unwrap();
            connect().unwrap();
            let neighbour: IpAddr = format!("{address}1").parse().unwrap();
            let refused = client.connect((neighbour, 80)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            table.set(&client.netns, Vec::new()).unwrap();
        }
        for pod in [client, a, b] {
            pod.attachment.release().unwrap();
        }
    });
}

#[test]
fn a_pod_reaches_itself_by_a_virtual_address_with_the_same_port() {
    on_a_machine(|machine| {
        let pod = machine.pod("pod");
        let server = pod.listen("0.0.0.0:80");
        let mut table = ServiceTable::of_pod();
        let itself = [(pod.ip(0), 80).into()];
        let rules = vec![service("10.96.0.1", Protocol::Tcp, &itself)];
        table.set(&pod.netns, rules).unwrap();
        let client = pod.connect(([10, 96, 0, 1], 80)).unwrap();
        assert_eq!(talk(&server, client), pod.ip(0));
        pod.attachment.release().unwrap();
    });
}

#[test]
fn datagrams_to_a_virtual_address_are_answered_from_it() {
    on_a_machine(|machine| {
        let (client, server) = (machine.pod("client"), machine.pod("server"));
        let serving = server
            .netns
            .visit(|| UdpSocket::bind("0.0.0.0:5353"))
            .unwrap();
        let asking = client.netns.visit(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let mut table = ServiceTable::of_pod();
        let backend = [(server.ip(0), 5353).into()];
        let rules = vec![service("10.96.0.53", Protocol::Udp, &backend)];
        table.set(&client.netns, rules).unwrap();
        asking.connect("10.96.0.53:80").unwrap();
        asking.send(b"who").unwrap();
        let mut buffer = [0; 8];
        let (length, from) = serving.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"who"[..], client.ip(0)));
        serving.send_to(b"me", from).unwrap();
        assert_eq!(asking.recv(&mut buffer).unwrap(), 2);
        client.attachment.release().unwrap();
        server.attachment.release().unwrap();
    });
}

#[test]
fn datagrams_of_one_client_leave_an_endpoint_that_is_gone() {
    on_a_machine(|machine| {
        let (client, a, b) = (machine.pod("client"), machine.pod("a"), machine.pod("b"));
        let asking = client.netns.visit(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        asking.connect("10.96.0.53:80").unwrap();
        let mut table = ServiceTable::of_pod();
        for pod in [&a, &b] {
            let server = pod.netns.visit(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
            server
                .set_read_timeout(Some(std::time::Duration::from_secs(10)))
                .unwrap();
            let backend = [(pod.ip(0), 53).into()];
            let rules = vec![service("10.96.0.53", Protocol::Udp, &backend)];
            table.set(&client.netns, rules).unwrap();
            asking.send(b"who").unwrap();
            let (length, from) = server.recv_from(&mut [0; 8]).unwrap();
            assert_eq!((length, from.ip()), (3, client.ip(0)));
            server.send_to(b"me", from).unwrap();
            assert_eq!(asking.recv(&mut [0; 8]).unwrap(), 2);
        }
        for pod in [client, a, b] {
            pod.attachment.release().unwrap();
        }
    });
}

#[test]
fn datagrams_that_nobody_takes_are_refused_until_somebody_does() {
    on_a_machine(|machine| {
        let (client, server) = (machine.pod("client"), machine.pod("server"));
        let patience = Some(std::time::Duration::from_secs(10));
        let serving = server.netns.visit(|| UdpSocket::bind("[::]:53")).unwrap();
        serving.set_read_timeout(patience).unwrap();
        let mut table = ServiceTable::of_pod();
        for (index, ip) in ["10.96.0.53", "fd96::53"].into_iter().enumerate() {
            let virtual_ip: IpAddr = ip.parse().unwrap();
            let any: SocketAddr = match virtual_ip {
                IpAddr::V4(_) => ([0; 4], 0).into(),
                IpAddr::V6(_) => ([0; 16], 0).into(),
            };
            let asking = |port: u16| {
                let socket = client.netns.visit(|| UdpSocket::bind(any)).unwrap();
                socket.connect((virtual_ip, port)).unwrap();
                socket.set_read_timeout(patience).unwrap();
                socket
            };
            let rules = |backends: &[SocketAddr]| vec![service(ip, Protocol::Udp, backends)];
            let refused = |socket: &UdpSocket| {
                for _ in 0..3 {
                    socket.send(b"who").unwrap();
                    let error = socket.recv(&mut [0; 8]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                }
            };
            let (socket, undeclared) = (asking(80), asking(81));
            for _ in 0..2 {
                table.set(&client.netns, rules(&[])).unwrap();
                refused(&socket);
                refused(&undeclared);
                let backend = [(server.ip(index), 53).into()];
                table.set(&client.netns, rules(&backend)).unwrap();
                socket.send(b"who").unwrap();
                let (length, from) = serving.recv_from(&mut [0; 8]).unwrap();
                assert_eq!((length, from.ip().to_canonical()), (3, client.ip(index)));
                serving.send_to(b"me", from).unwrap();
                assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 2);
                refused(&undeclared);
            }
        }
        for pod in [client, server] {
            pod.attachment.release().unwrap();
        }
    });
}

#[test]
fn the_machines_programs_reach_services_as_long_as_a_table_is_kept() {
    on_a_machine(|machine| {
        let server = machine.pod("server");
        let listener = server.listen("[::]:0");
        let port = listener.local_addr().unwrap().port();
        let here = NetNs::open(std::path::Path::new("/proc/thread-self/ns/net")).unwrap();
        let before = nft::tables().unwrap();
        for (index, address) in ["10.96.0.10", "fd96::10"].into_iter().enumerate() {
            let virtual_ip: IpAddr = address.parse().unwrap();
            assert!(!has_route_to(virtual_ip).unwrap());
            ip(&format!("route add {address} dev lo"));
            assert!(has_route_to(virtual_ip).unwrap());
            let backend = [(server.ip(index), port).into()];
            let rules = vec![service(address, Protocol::Tcp, &backend)];
            let reaches = || {
                let client = TcpStream::connect((virtual_ip, 80)).unwrap();
                talk(&listener, client);
            };
            let [mut one, mut other] = ["kplay-services-1", "kplay-services-2"]
                .map(|name| ServiceTable::of_machine(name.into()));
            for table in [&mut one, &mut other] {
                table.set(&here, Vec::new()).unwrap();
                assert_eq!(nft::tables().unwrap(), before, "nothing to say");
            }
            for table in [&mut one, &mut other] {
                table.set(&here, rules.clone()).unwrap();
                reaches();
            }
            assert_eq!(nft::tables().unwrap().len(), before.len() + 2);
            // Not somebody else's to remove.
            assert!(nft::remove_table("kplay-services-2").is_err());
            drop(one);
            reaches();
            other
                .set(&here, vec![service(address, Protocol::Tcp, &[])])
                .unwrap();
            let refused = TcpStream::connect((virtual_ip, 80)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            other.set(&here, Vec::new()).unwrap();
            assert_eq!(nft::tables().unwrap(), before);
            other.set(&here, rules).unwrap();
            reaches();
        }
        eventually("the tables are gone", || nft::tables().unwrap() == before);
        server.attachment.release().unwrap();
    });
}

#[test]
fn a_firewall_of_the_older_kind_is_told_of_too() {
    on_a_machine(|machine| {
        for (program, policy) in [("iptables-legacy", "DROP"), ("ip6tables-legacy", "DROP")] {
            let set = |policy: &str| {
                let output = Command::new(program)
                    .args(["-P", "FORWARD", policy])
                    .output()
                    .unwrap();
                let problem = String::from_utf8_lossy(&output.stderr).into_owned();
                // A kernel without it has no such firewall.
                output.status.success() || {
                    assert!(problem.contains("does not exist"), "{problem}");
                    false
                }
            };
            if !set("ACCEPT") {
                continue;
            }
            let pod = machine.pod("before");
            assert_eq!(pod.attachment.limits(), [""; 0]);
            pod.attachment.release().unwrap();
            set(policy);
            let pod = machine.pod("after");
            let [limit] = pod.attachment.limits() else {
                panic!("{:?}", pod.attachment.limits());
            };
            assert!(limit.contains(program), "{limit}");
            let remedy = format!("`{program} -I FORWARD -i kplay0 -j ACCEPT`");
            assert!(limit.contains(&remedy), "{limit}");
            pod.attachment.release().unwrap();
            set("ACCEPT");
        }
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_of() {
    on_a_machine(|machine| {
        let firewall = |arguments: &[&str]| {
            let output = Command::new("iptables").args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let pod = machine.pod("before");
        assert_eq!(pod.attachment.limits(), [""; 0]);
        pod.attachment.release().unwrap();
        firewall(&["-P", "FORWARD", "DROP"]);
        let pod = machine.pod("after");
        let [limit] = pod.attachment.limits() else {
            panic!("{:?}", pod.attachment.limits());
        };
        assert!(limit.contains("`filter FORWARD`"), "{limit}");
        assert!(
            limit.contains("iptables -I FORWARD -i kplay0 -j ACCEPT"),
            "{limit}"
        );
        pod.attachment.release().unwrap();
    });
}

#[test]
fn a_pod_knows_many_services() {
    on_a_machine(|machine| {
        let (client, server) = (machine.pod("client"), machine.pod("server"));
        let listener = server.listen("0.0.0.0:0");
        let backend: SocketAddr = (server.ip(0), listener.local_addr().unwrap().port()).into();
        let services = |count: u16| -> Vec<VirtualAddress> {
            let ten = [backend; 10];
            (1..=count)
                .map(|number| {
                    let ip = format!("10.96.{}.{}", number >> 8, number & 0xff);
                    service(&ip, Protocol::Tcp, &ten)
                })
                .collect()
        };
        let mut table = ServiceTable::of_pod();
        for (count, last) in [(1000, [10, 96, 3, 232]), (300, [10, 96, 1, 44])] {
            table.set(&client.netns, services(count)).unwrap();
            client.connect((last, 80)).unwrap();
            listener.accept().unwrap();
        }
        client.attachment.release().unwrap();
        server.attachment.release().unwrap();
    });
}

#[test]
fn a_network_whose_folder_was_removed_goes_with_its_last_pod() {
    on_a_machine(|machine| {
        let old = ["a", "b"].map(|name| machine.pod(name));
        std::fs::remove_dir_all(&machine.folder).unwrap();
        let new = machine.pod("c");
        assert_eq!(bridges().len(), 2);
        let [a, b] = old;
        a.attachment.release().unwrap();
        // Those who are left still reach each other.
        let listener = new.listen("0.0.0.0:0");
        let port = listener.local_addr().unwrap().port();
        b.connect((new.ip(0), port)).unwrap();
        b.attachment.release().unwrap();
        assert_eq!(bridges().len(), 1);
        new.connect((new.ip(0), port)).unwrap();
        new.attachment.release().unwrap();
    });
}

#[test]
fn a_bridge_that_is_half_made_is_swept_or_made_anew() {
    use super::bridge::Bridge;
    use super::lease::{self, Record, Standing};
    on_a_machine(|machine| {
        // As somebody leaves it who is killed after the link was made.
        let half = || {
            let leases = lease::folder(&machine.folder);
            crate::sys::fs::create_dir_all(&leases, 0o700).unwrap();
            let chosen = Bridge::choose(None, &[]).unwrap();
            ip(&format!("link add {} type bridge", chosen.name));
            ip(&format!(
                "link set {} address {}",
                chosen.name,
                chosen.hardware_address()
            ));
            let record = Record::new(chosen, Standing::Chosen, None);
            record.write(&machine.folder).unwrap();
            assert_eq!(bridges(), ["kplay0"]);
        };
        half();
        sweep(&machine.folder).unwrap();
        assert_eq!(bridges(), [""; 0]);
        half();
        let pod = machine.pod("pod");
        assert_eq!(bridges(), ["kplay0"]);
        assert!(ip("-o address show kplay0").contains("10.244.0.1/22"));
        pod.attachment.release().unwrap();
    });
}
