#![expect(
    clippy::print_stderr,
    reason = "says why a test was skipped, or what was measured"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Bound, Forwarder, Limits, Publication, Sharing};
use crate::model::plan::Protocol;
use crate::sys::netns::NetNs;
use crate::sys::testing::alone;

mod datagram;

/// The pod's address: in these namespaces there is no other.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn publication(host: &str, target: SocketAddr) -> Publication {
    let (ip, port) = host.rsplit_once(':').expect("IP:PORT");
    Publication {
        protocol: Protocol::Tcp,
        host_ip: (!ip.is_empty()).then(|| ip.parse().expect("an address")),
        host_port: port.parse().expect("a port"),
        container_port: target.port(),
        sharing: Sharing::Exclusive,
    }
}

/// Runs a test on one thread, as the executor, in a host's namespace of its own and with a pod's.
fn with_pod<T: Send>(test: impl AsyncFnOnce(NetNs) -> T + Send) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root");
        return None;
    }
    let host = NetNs::fresh();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(test(NetNs::fresh())))
    };
    Some(
        host.visit(run)
            .expect("the host's namespace can be entered"),
    )
}

/// A listener inside the pod.
fn listen(pod: &NetNs) -> (TcpListener, SocketAddr) {
    let listener = pod.visit(|| {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listener = listener.expect("a listener in the pod");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// A forwarder from a free port of the host's 127.0.0.1.
fn forward(pod: NetNs, target: SocketAddr) -> (Forwarder, SocketAddr) {
    let bound = Bound::bind(&[publication("127.0.0.1:0", target)]).expect("a free port");
    let address = bound.addresses().expect("an address")[0];
    (bound.serve(pod, &[LOCALHOST]), address)
}

/// Sends back all that comes.
async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

async fn round_trip(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[test]
fn all_addresses_when_none_is_given() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        tokio::spawn(echo(listener));
        let bound = Bound::bind(&[publication(":0", target)]).expect("a free port");
        let port = bound.addresses().expect("an address")[0].port();
        let _forwarder = bound.serve(pod, &[LOCALHOST]);
        for ip in ["127.0.0.1", "127.0.0.2", "::1"] {
            let address = SocketAddr::new(ip.parse().expect("an address"), port);
            round_trip(address).await.expect(ip);
        }
        let again =
            Bound::bind(&[publication(&format!(":{port}"), target)]).expect_err("it is in use");
        assert_eq!(
            again.to_string(),
            format!("port {port} of 0.0.0.0 is in use")
        );
    });
}

#[test]
fn one_address_only() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        tokio::spawn(echo(listener));
        let (_forwarder, address) = forward(pod, target);
        round_trip(address).await.expect("a round trip");
        let other = SocketAddr::new([127, 0, 0, 2].into(), address.port());
        let refused = TcpStream::connect(other)
            .await
            .expect_err("nobody listens there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn ports_that_cannot_be_had() {
    with_pod(async |pod| {
        let (_listener, target) = listen(&pod);
        let check = |host: &str, expected: &str| {
            let error = Bound::bind(&[
                publication("127.0.0.1:4000", target),
                publication(host, target),
            ]);
            assert_eq!(error.expect_err(host).to_string(), expected);
            // All or nothing.
            Bound::bind(&[publication("127.0.0.1:4000", target)])
                .expect("the first one is free again");
        };
        let _taken = std::net::TcpListener::bind("127.0.0.1:5000").expect("a free port");
        check("127.0.0.1:5000", "port 5000 of 127.0.0.1 is in use");
        check(":5000", "port 5000 of 0.0.0.0 is in use");
        check(
            "192.0.2.1:5000",
            "192.0.2.1 is not an address of this machine",
        );
        let sctp = Publication {
            protocol: Protocol::Sctp,
            ..publication(":53", target)
        };
        let error = Bound::bind(&[sctp]).expect_err("not supported");
        assert_eq!(
            error.to_string(),
            "cannot publish port 53: SCTP is not supported"
        );
    });
}

#[test]
fn half_closed_connections_go_on() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        let (_forwarder, address) = forward(pod, target);
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let mut request = String::new();
            stream.read_to_string(&mut request).await?;
            // Only now, after the client has closed its direction.
            stream
                .write_all(format!("{request} world").as_bytes())
                .await
        });
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"hello").await.expect("written");
        client.shutdown().await.expect("closed");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answer, "hello world");
        server.await.expect("the server").expect("no error");
    });
}

#[test]
fn much_data_to_a_slow_reader() {
    const LEN: usize = 64 * 1024 * 1024;
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        tokio::spawn(echo(listener));
        let (_forwarder, address) = forward(pod, target);
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut from, mut to) = stream.into_split();
        let start = Instant::now();
        let writer = tokio::spawn(async move {
            let chunk: Vec<u8> = (0..=255).cycle().take(65536).collect();
            for _ in 0..LEN / chunk.len() {
                to.write_all(&chunk).await?;
            }
            to.shutdown().await
        });
        // Until every buffer on the way is full.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (mut buffer, mut at) = (vec![0; 100_000], 0);
        loop {
            let len = from.read(&mut buffer).await.expect("data");
            if len == 0 {
                break;
            }
            let right = buffer[..len]
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == ((at + i) % 256) as u8);
            assert!(right, "near {at}");
            at += len;
        }
        assert_eq!(at, LEN);
        writer.await.expect("the writer").expect("no error");
        let seconds = start.elapsed().as_secs_f64();
        eprintln!(
            "{:.1} Gb/s there and back",
            LEN as f64 * 8.0 / seconds / 1e9
        );
    });
}

#[test]
fn nobody_listening_in_the_pod_is_a_reset() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        drop(listener);
        let (_forwarder, address) = forward(pod, target);
        let mut client = TcpStream::connect(address).await.expect("connected");
        let error = client.read(&mut [0; 1]).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn resets_reach_the_other_end() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        let (_forwarder, address) = forward(pod, target);
        let mut client = TcpStream::connect(address).await.expect("connected");
        let (server, _) = listener.accept().await.expect("accepted");
        server.set_zero_linger().expect("an open socket");
        drop(server);
        let error = client.read(&mut [0; 1]).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let client = TcpStream::connect(address).await.expect("connected");
        let (mut server, _) = listener.accept().await.expect("accepted");
        client.set_zero_linger().expect("an open socket");
        drop(client);
        let error = server.read(&mut [0; 1]).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn shutdown_frees_the_port_and_keeps_connections() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        tokio::spawn(echo(listener));
        let (forwarder, address) = forward(pod, target);
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(b"a").await.expect("written");
        client.read_u8().await.expect("echoed");
        forwarder.shutdown().await;
        let refused = TcpStream::connect(address)
            .await
            .expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        Bound::bind(&[publication(&address.to_string(), target)]).expect("the port is free");
        client.write_all(b"b").await.expect("written");
        assert_eq!(client.read_u8().await.expect("echoed"), b'b');
    });
}

#[test]
fn limits() {
    let check = |open_files, datagram_sockets, (connections, sessions)| {
        let limits = Limits::new(open_files, datagram_sockets);
        let found = (limits.connections, limits.datagrams.sessions);
        assert_eq!(
            found,
            (connections, sessions),
            "{open_files}, {datagram_sockets}"
        );
    };
    check(0, 0, (1, 1));
    check(4, 0, (1, 1));
    check(1024, 0, (384, 1));
    check(20_000, 0, (7500, 1));
    check(26_668, 0, (10_000, 1));
    check(1 << 20, 0, (393_216, 1));
    check(1024, 2, (256, 128));
    check(1024, 1000, (256, 1));
    check(1 << 20, 1, (262_144, 1024));
    assert!(Limits::new(u64::MAX, 1).connections <= tokio::sync::Semaphore::MAX_PERMITS);
}

#[test]
fn clients_over_the_limit_wait() {
    with_pod(async |pod| {
        const MOST: usize = 3;
        let (listener, target) = listen(&pod);
        let bound = Bound::bind(&[publication("127.0.0.1:0", target)]).expect("a free port");
        let address = bound.addresses().expect("an address")[0];
        let limits = Limits {
            connections: MOST,
            ..Limits::new(1024, 0)
        };
        let _forwarder = bound.serve_within(pod, &[LOCALHOST], limits);
        let mut clients = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..MOST {
            clients.push(TcpStream::connect(address).await.expect("connected"));
            servers.push(listener.accept().await.expect("accepted"));
        }
        let mut waiting = TcpStream::connect(address)
            .await
            .expect("the kernel takes it");
        waiting.write_all(b"x").await.expect("the kernel takes it");
        let nothing = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(nothing.is_err(), "it waits");
        clients.pop();
        servers.pop();
        let (mut server, _) = listener.accept().await.expect("its turn");
        assert_eq!(server.read_u8().await.expect("what it sent"), b'x');
    });
}

#[test]
fn without_descriptors_the_rest_goes_on() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if !alone("executor::forward::tests::without_descriptors_the_rest_goes_on") {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        tokio::spawn(echo(listener));
        let (_forwarder, address) = forward(pod, target);
        let mut early = TcpStream::connect(address).await.expect("connected");
        early.write_all(b"a").await.expect("written");
        early.read_u8().await.expect("echoed");
        let late = tokio::net::TcpSocket::new_v4().expect("a socket");
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("may be lowered");
        let mut late = late.connect(address).await.expect("the kernel takes it");
        late.write_all(b"b").await.expect("written");
        early.write_all(b"c").await.expect("written");
        assert_eq!(early.read_u8().await.expect("goes on"), b'c');
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
        assert_eq!(late.read_u8().await.expect("served at last"), b'b');
    });
}

#[test]
fn a_server_at_one_of_the_pods_addresses_is_found() {
    with_pod(async |pod| {
        const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        for ip in [LOCALHOST, V6] {
            let listener = pod.visit(|| std::net::TcpListener::bind((ip, 0)));
            let listener = listener.expect("a listener in the pod");
            listener.set_nonblocking(true).expect("an open socket");
            let target = listener.local_addr().expect("its address");
            tokio::spawn(echo(TcpListener::from_std(listener).expect("a runtime")));
            let bound = Bound::bind(&[publication("127.0.0.1:0", target)]).expect("a free port");
            let address = bound.addresses().expect("an address")[0];
            let _forwarder = bound.serve(pod.clone(), &[LOCALHOST, V6]);
            round_trip(address).await.expect("served");
        }
    });
}

#[test]
fn a_slow_reader_does_not_hold_others_up() {
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        let (_forwarder, address) = forward(pod, target);
        let slow = TcpStream::connect(address).await.expect("connected");
        let (mut flooding, _) = listener.accept().await.expect("accepted");
        tokio::spawn(echo(listener));
        let flood = tokio::spawn(async move {
            let chunk = vec![1; 65536];
            let mut sent = 0_usize;
            while flooding.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        // While the flood is poured in, and after it has filled every buffer on the way.
        for _ in 0..1000 {
            round_trip(address).await.expect("not held up");
        }
        // It has not read a byte.
        slow.set_zero_linger().expect("an open socket");
        drop(slow);
        let sent = flood.await.expect("it ends");
        assert!(sent < 64 << 20, "{sent} bytes are kept somewhere");
    });
}

/// Ten thousand, or as many as the limit of open files leaves: all four ends are here.
#[test]
fn ten_thousand_connections() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: usize = 10_000;
    const OTHERS: u64 = 200;
    if !alone("executor::forward::tests::ten_thousand_connections") {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let most = usize::try_from(hard.saturating_sub(OTHERS) / 4).unwrap_or(usize::MAX);
    let count = WANTED.min(most);
    if count < 1000 {
        eprintln!("skipped: only {hard} open files");
        return;
    }
    with_pod(async |pod| {
        let (listener, target) = listen(&pod);
        let bound = Bound::bind(&[publication("127.0.0.1:0", target)]).expect("a free port");
        let address = bound.addresses().expect("an address")[0];
        let limits = Limits {
            connections: count,
            ..Limits::new(hard, 0)
        };
        let _forwarder = bound.serve_within(pod, &[LOCALHOST], limits);
        let mut all = Vec::new();
        let (before, start) = (resident(), Instant::now());
        for _ in 0..count {
            let client = TcpStream::connect(address).await.expect("connected");
            let (mut server, _) = listener.accept().await.expect("accepted");
            server.write_all(b"x").await.expect("written");
            all.push((client, server));
        }
        for (client, server) in &mut all {
            assert_eq!(client.read_u8().await.expect("served"), b'x');
            client.write_all(b"y").await.expect("written");
            assert_eq!(server.read_u8().await.expect("passed on"), b'y');
        }
        let each = (resident() - before) / count;
        eprintln!(
            "{count} connections in {:?}: {each} bytes resident for each, the test's own ends included",
            start.elapsed()
        );
        assert!(each < 8192, "{each}");
    });
}

/// Bytes of anonymous memory of this process.
fn resident() -> usize {
    let status = std::io::read_to_string(
        std::fs::OpenOptions::new()
            .read(true)
            .open("/proc/self/status")
            .expect("proc"),
    );
    let status = status.expect("text");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("a field");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .expect("a number")
        * 1024
}
