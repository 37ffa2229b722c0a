//! Virtual addresses, and who answers at them.

use std::io::ErrorKind;
use std::net::UdpSocket;

use super::*;
use crate::model::plan::Protocol;

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
                eventually("nothing to say", || nft::tables().unwrap() == before);
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
            eventually("the tables are gone", || nft::tables().unwrap() == before);
            other.set(&here, rules).unwrap();
            reaches();
        }
        eventually("the tables are gone", || nft::tables().unwrap() == before);
        server.attachment.release().unwrap();
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
