//! Datagrams, between namespaces as the tests of connections.

use std::io::{self, Seek as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::super::datagram;
use super::super::{Bound, Forwarder, Limits, Publication};
use super::{LOCALHOST, with_pod};
use crate::model::plan::Protocol;
use crate::sys::netns::NetNs;
use crate::sys::testing::alone;

/// Longer than anything takes here, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn publication(host: &str, target: SocketAddr) -> Publication {
    Publication {
        protocol: Protocol::Udp,
        ..super::publication(host, target)
    }
}

/// A socket inside the pod.
fn server(pod: &NetNs, port: u16) -> (UdpSocket, SocketAddr) {
    let socket = pod.visit(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    let socket = socket.expect("a socket in the pod");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

/// Sends back all that comes.
async fn echo(socket: UdpSocket) {
    let mut buffer = vec![0; 65536];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        socket.send_to(&buffer[..len], from).await.ok();
    }
}

async fn client() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a socket")
}

/// What comes next, and from where.
async fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
    let (len, from) = received.expect("a datagram in time").expect("no error");
    buffer.truncate(len);
    (buffer, from)
}

fn limits(sessions: usize, idle: Duration) -> Limits {
    Limits {
        datagrams: datagram::Limits { sessions, idle },
        ..Limits::new(1024, 1)
    }
}

/// A forwarder from a free port of the host's 127.0.0.1.
fn forward(pod: NetNs, target: SocketAddr, limits: Limits) -> (Forwarder, SocketAddr) {
    let bound = Bound::bind(&[publication("127.0.0.1:0", target)]).expect("a free port");
    let address = bound.addresses().expect("an address")[0];
    (bound.serve_within(pod, &[LOCALHOST], limits), address)
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        tokio::spawn(echo(server));
        let bound = Bound::bind(&[publication(":0", target)]).expect("a free port");
        let addresses = bound.addresses().expect("addresses");
        let ips: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
        assert_eq!(ips, ["0.0.0.0", "::"]);
        assert_eq!(addresses[0].port(), addresses[1].port());
        let _forwarder = bound.serve(pod, &[LOCALHOST]);
        // The same client asks all of them.
        for (from, asked) in [
            ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.0.0.3"][..]),
            ("[::]:0", &["::1"]),
        ] {
            let client = UdpSocket::bind(from).await.expect("a socket");
            for ip in asked {
                let asked = SocketAddr::new(ip.parse().expect("an IP"), addresses[0].port());
                client.send_to(ip.as_bytes(), asked).await.expect("sent");
                assert_eq!(next(&client).await, (ip.as_bytes().to_vec(), asked));
            }
        }
    });
}

#[test]
fn ports_that_cannot_be_had() {
    with_pod(async |_pod| {
        let target = SocketAddr::from(([127, 0, 0, 1], 1));
        let check = |host: &str, expected: &str| {
            let error = Bound::bind(&[publication(host, target)]);
            assert_eq!(error.expect_err(host).to_string(), expected);
        };
        let _v4 = std::net::UdpSocket::bind("127.0.0.1:5000").expect("a free port");
        let _v6 = std::net::UdpSocket::bind("[::1]:5001").expect("a free port");
        check("127.0.0.1:5000", "port 5000 of 127.0.0.1 is in use");
        check(":5000", "port 5000 of 0.0.0.0 is in use");
        check(":5001", "port 5001 of :: is in use");
        check(
            "192.0.2.1:5000",
            "192.0.2.1 is not an address of this machine",
        );
        // TCP's ports are others, also those of the same pod.
        let tcp = super::publication(":5002", target);
        Bound::bind(&[tcp, publication(":5002", target)]).expect("free ports");
    });
}

#[test]
fn clients_do_not_get_each_others_answers() {
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        let (_forwarder, address) = forward(pod, target, limits(10, PATIENCE));
        let clients = [client().await, client().await];
        for (client, name) in clients.iter().zip(["a", "b"]) {
            client
                .send_to(name.as_bytes(), address)
                .await
                .expect("sent");
        }
        let (first, second) = (next(&server).await, next(&server).await);
        assert_ne!(first.1, second.1);
        // In the other order, and more than one each.
        for (name, from) in [&second, &first, &second] {
            server.send_to(name, *from).await.expect("sent");
        }
        for (client, answers) in clients.iter().zip([&["a"][..], &["b", "b"]]) {
            for answer in answers {
                assert_eq!(next(client).await, (answer.as_bytes().to_vec(), address));
            }
            let more = client.try_recv(&mut [0; 8]).expect_err("no more");
            assert_eq!(more.kind(), io::ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn datagrams_of_all_lengths() {
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        tokio::spawn(echo(server));
        let (_forwarder, address) = forward(pod, target, limits(10, PATIENCE));
        let client = client().await;
        for len in [0, 1, 1500, 65_507] {
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            client.send_to(&bytes, address).await.expect("sent");
            assert_eq!(next(&client).await, (bytes, address), "{len}");
        }
    });
}

#[test]
fn a_server_that_starts_late_is_reached() {
    use rustix::net::{AddressFamily, SocketType};
    with_pod(async |pod| {
        let (early, target) = server(&pod, 0);
        drop(early);
        let late = pod.visit(|| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
            Ok(std::net::UdpSocket::from(socket?))
        });
        let late = late.expect("a socket in the pod");
        let sockets = Sockets::of(&pod);
        let (_forwarder, address) = forward(pod, target, limits(10, PATIENCE));
        let client = client().await;
        client.send_to(b"nobody", address).await.expect("sent");
        sockets.until(1).await;
        // What the network says about it is heard, once.
        let before = processor_time();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let used = processor_time() - before;
        assert!(used < Duration::from_millis(50), "{used:?}");
        for _ in 0..3 {
            client.send_to(b"nobody", address).await.expect("sent");
            tokio::task::yield_now().await;
        }
        rustix::net::bind(&late, &target).expect("the port is free");
        late.set_nonblocking(true).expect("an open socket");
        tokio::spawn(echo(UdpSocket::from_std(late).expect("a socket")));
        client.send_to(b"somebody", address).await.expect("sent");
        // Earlier ones may have waited in the host's socket.
        while next(&client).await.0 != b"somebody" {}
        assert_eq!(sockets.count(), 2, "it is still the first session");
    });
}

#[test]
fn idle_sessions_end() {
    const IDLE: Duration = Duration::from_secs(1);
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        let sockets = Sockets::of(&pod);
        let (_forwarder, address) = forward(pod, target, limits(10, IDLE));
        let (busy, idle) = (client().await, client().await);
        idle.send_to(b"once", address).await.expect("sent");
        next(&server).await;
        busy.send_to(b"hello", address).await.expect("sent");
        let (_, session) = next(&server).await;
        assert_eq!(sockets.count(), 3);
        // Answers alone keep a session.
        for _ in 0..15 {
            server.send_to(b"news", session).await.expect("sent");
            assert_eq!(next(&busy).await, (b"news".to_vec(), address));
            tokio::time::sleep(IDLE / 10).await;
        }
        assert_eq!(sockets.count(), 2);
        busy.send_to(b"hello", address).await.expect("sent");
        assert_eq!(next(&server).await.1, session);
        sockets.until(1).await;
        // The timer starts again with the next one.
        busy.send_to(b"again", address).await.expect("sent");
        assert_eq!(next(&server).await.0, b"again");
        assert_eq!(sockets.count(), 2);
        sockets.until(1).await;
    });
}

#[test]
fn the_session_that_rested_longest_makes_room() {
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        let sockets = Sockets::of(&pod);
        let (_forwarder, address) = forward(pod, target, limits(2, PATIENCE));
        let (first, second, third) = (client().await, client().await, client().await);
        let open = async |client: &UdpSocket| {
            client.send_to(b"hello", address).await.expect("sent");
            next(&server).await.1
        };
        let session = open(&first).await;
        let ended = open(&second).await;
        assert_eq!(open(&first).await, session);
        let new = open(&third).await;
        sockets.until(3).await;
        for (client, session) in [(&first, session), (&third, new)] {
            server.send_to(b"answer", session).await.expect("sent");
            assert_eq!(next(client).await, (b"answer".to_vec(), address));
        }
        server.send_to(b"answer", ended).await.expect("sent");
        open(&second).await;
        let nothing = second.try_recv(&mut [0; 8]).expect_err("its session ended");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        sockets.until(3).await;
    });
}

#[test]
fn shutdown_frees_the_port_and_ends_sessions() {
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        let sockets = Sockets::of(&pod);
        let (forwarder, address) = forward(pod, target, limits(10, PATIENCE));
        client()
            .await
            .send_to(b"hello", address)
            .await
            .expect("sent");
        next(&server).await;
        assert_eq!(sockets.count(), 2);
        forwarder.shutdown().await;
        Bound::bind(&[publication(&address.to_string(), target)]).expect("the port is free");
        assert_eq!(sockets.count(), 1);
    });
}

#[test]
fn without_descriptors_sessions_go_on() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if !alone("executor::forward::tests::datagram::without_descriptors_sessions_go_on") {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    with_pod(async |pod| {
        let (server, target) = server(&pod, 0);
        tokio::spawn(echo(server));
        let (_forwarder, address) = forward(pod, target, limits(10, PATIENCE));
        let (early, late) = (client().await, client().await);
        early.send_to(b"a", address).await.expect("sent");
        next(&early).await;
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("may be lowered");
        late.send_to(b"lost", address).await.expect("sent");
        early.send_to(b"b", address).await.expect("sent");
        assert_eq!(next(&early).await.0, b"b");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
        late.send_to(b"c", address).await.expect("sent");
        assert_eq!(next(&late).await.0, b"c");
    });
}

/// The UDP sockets inside a pod: its server's, and one for each session.
struct Sockets(std::fs::File);

impl Sockets {
    fn of(pod: &NetNs) -> Self {
        // It shows the namespace in which it was opened, wherever it is read.
        let list = pod.visit(|| {
            std::fs::OpenOptions::new()
                .read(true)
                .open("/proc/thread-self/net/udp")
        });
        Self(list.expect("proc"))
    }

    fn count(&self) -> usize {
        (&self.0).rewind().expect("a file");
        let list = io::read_to_string(&self.0).expect("text");
        // Without the heading.
        list.lines().count() - 1
    }

    async fn until(&self, expected: usize) {
        let reached = async {
            while self.count() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("{} instead of {expected}", self.count()));
    }
}

/// Of this thread, on which all of a test runs.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("not negative")
}
