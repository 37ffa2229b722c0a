//! The resolver on real sockets, before nameservers that the tests play.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hickory_proto::op::MessageType;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time;

use super::nameservers::Nameservers;
use super::relay::{Patience, framed};
use super::*;
use crate::model::plan::Protocol;
use crate::model::service::{Exposure, Service, ServiceAddress, ServicePort, TargetPort};
use crate::sys::fs;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test as the executor runs: one thread, tasks of its own.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        time::timeout(PATIENCE, test).await.expect("it hangs");
    });
}

/// A `resolv.conf` of a test.
struct ResolvConf(PathBuf);

impl ResolvConf {
    fn new(content: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kplay-dns-{}-{number}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        fs::overwrite(&self.0, 0o600, content.as_bytes()).unwrap();
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// A nameserver: both sockets, at the same port of 127.0.0.N.
struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    /// `count` of them at one port.
    async fn several(count: u8) -> (Vec<Self>, u16) {
        'ports: loop {
            let mut servers: Vec<Self> = Vec::new();
            let mut port = 0;
            for last in 1..=count {
                let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
                let Ok(tcp) = TcpListener::bind(address).await else {
                    continue 'ports;
                };
                let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await else {
                    continue 'ports;
                };
                port = tcp.local_addr().unwrap().port();
                servers.push(Self { udp, tcp });
            }
            return (servers, port);
        }
    }

    async fn query(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 4096];
        let (length, from) = self.udp.recv_from(&mut buffer).await.unwrap();
        (buffer[..length].to_vec(), from)
    }

    async fn send(&self, answer: &[u8], to: SocketAddr) {
        self.udp.send_to(answer, to).await.unwrap();
    }

    /// Takes one query and answers it.
    async fn answer(&self, last: u8) {
        let (query, client) = self.query().await;
        self.send(&answer_to(&query, last), client).await;
    }
}

/// `10.0.0.LAST` for whatever was asked.
fn answer_to(query: &[u8], last: u8) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let mut answer = message::reply(&query);
    let data = RData::A(A::new(10, 0, 0, last));
    let name = query.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 60, data));
    answer.to_vec().unwrap()
}

fn refusal_of(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    message::refusal(&query, code).to_vec().unwrap()
}

const QUICK: Patience = Patience {
    next: Duration::from_millis(100),
    all: Duration::from_millis(600),
};
const PATIENT: Patience = Patience {
    next: PATIENCE,
    all: PATIENCE,
};

fn service(name: &str, address: ServiceAddress) -> ((Namespace, String), Service) {
    let service = Service {
        namespace: Namespace::default(),
        name: name.to_owned(),
        address,
        selector: BTreeMap::new(),
        ports: vec![ServicePort {
            name: None,
            port: 80,
            protocol: Protocol::Tcp,
            target: TargetPort::Number(80),
            node_port: None,
        }],
        affinity_seconds: None,
        publish_not_ready_addresses: false,
        exposure: Exposure::Cluster,
    };
    ((service.namespace.clone(), service.name.clone()), service)
}

fn cluster() -> Cluster {
    let many = (0..200).map(|last| Ipv4Addr::new(10, 96, 1, last).into());
    Cluster {
        peers: BTreeMap::new(),
        services: BTreeMap::from([
            service(
                "web",
                ServiceAddress::Cluster(vec!["10.96.0.1".parse().unwrap()]),
            ),
            service("many", ServiceAddress::Cluster(many.collect())),
            service("out", ServiceAddress::External("db.example.com".to_owned())),
        ]),
    }
}

fn resolver(file: &ResolvConf, port: u16, patience: Patience, most: usize) -> Resolver {
    let upstream = Upstream::new(Nameservers::new(file.0.clone(), port), patience, most);
    let cluster = Rc::new(RefCell::new(cluster()));
    Resolver {
        cluster,
        namespace: Namespace::default(),
        address: Ipv4Addr::LOCALHOST.into(),
        upstream,
    }
}

/// A pod's side: the resolver at work, and a socket to ask it.
struct Pod {
    socket: UdpSocket,
    address: SocketAddr,
    _serving: Serving,
}

impl Pod {
    async fn new(resolver: Resolver) -> Self {
        let (mut servers, _) = Server::several(1).await;
        let Server { udp, tcp } = servers.remove(0);
        let address = udp.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        let _serving = serve_by(Sockets { udp, tcp }, resolver);
        Self {
            socket,
            address,
            _serving,
        }
    }

    async fn send(&self, query: &Message) {
        self.socket.send(&query.to_vec().unwrap()).await.unwrap();
    }

    async fn receive(&self) -> Message {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn ask(&self, name: &str) -> Message {
        let query = query(name);
        self.send(&query).await;
        let answer = self.receive().await;
        assert_eq!(answer.metadata.id, query.metadata.id);
        assert_eq!(answer.queries, query.queries);
        answer
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn query(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message
}

/// The last number of the one address in an answer.
fn last(answer: &Message) -> u8 {
    match answer.answers[..] {
        [
            Record {
                data: RData::A(A(address)),
                ..
            },
        ] => address.octets()[3],
        _ => panic!("{answer}"),
    }
}

fn code(answer: &Message) -> ResponseCode {
    assert!(answer.answers.is_empty(), "{answer}");
    answer.metadata.response_code
}

async fn receive(stream: &mut TcpStream) -> Message {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn ended(mut stream: TcpStream) {
    assert!(stream.read_u8().await.is_err());
}

const WEB: &str = "web.default.svc.cluster.local.";

#[test]
fn names_of_the_cluster_need_no_nameserver() {
    run(async {
        let none = ResolvConf::new("");
        let pod = Pod::new(resolver(&none, 53, PATIENT, 9)).await;
        assert_eq!(last(&pod.ask(WEB).await), 1);
        assert_eq!(
            code(
                &pod.ask("web.default.svc.cluster.local.cluster.local.")
                    .await
            ),
            ResponseCode::NXDomain
        );
        // The others need one.
        assert_eq!(code(&pod.ask("example.com.").await), ResponseCode::ServFail);
        // What is no query gets no answer: the next answer is that to the next query.
        pod.send(&query(WEB).into_response()).await;
        pod.socket.send(b"?").await.unwrap();
        assert_eq!(last(&pod.ask(WEB).await), 1);
    });
}

#[test]
fn other_names_are_passed_on() {
    run(async {
        let (servers, port) = Server::several(2).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, 9)).await;
        let mut asked = query("eXample.com.");
        asked.set_edns(Edns::new());
        pod.send(&asked).await;
        let (relayed, client) = servers[0].query().await;
        let asked = asked.to_vec().unwrap();
        // All but the number.
        assert_eq!(relayed[2..], asked[2..]);
        servers[0].send(&answer_to(&relayed, 7), client).await;
        assert_eq!(last(&pod.receive().await), 7);
        // A changed file counts at once.
        file.write("# another\nnameserver 127.0.0.2\n");
        tokio::join!(servers[1].answer(8), async {
            assert_eq!(last(&pod.ask("example.com.").await), 8);
        });
    });
}

#[test]
fn only_the_server_can_answer_and_only_what_was_asked() {
    run(async {
        let (servers, port) = Server::several(2).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, 9)).await;
        pod.send(&query("example.com.")).await;
        let (relayed, client) = servers[0].query().await;
        let good = answer_to(&relayed, 1);
        servers[1].send(&good, client).await;
        let mut wrong_number = answer_to(&relayed, 2);
        wrong_number[0] ^= 1;
        servers[0].send(&wrong_number, client).await;
        let other = query("other.com.").to_vec().unwrap();
        let mut wrong_question = answer_to(&other, 3);
        wrong_question[..2].copy_from_slice(&relayed[..2]);
        servers[0].send(&wrong_question, client).await;
        servers[0].send(b"", client).await;
        servers[0].send(&relayed, client).await;
        let mut later = answer_to(&relayed, 4);
        later[2] |= 0x02;
        servers[0].send(&later, client).await;
        let answer = pod.receive().await;
        assert_eq!(last(&answer), 4);
        assert!(answer.metadata.truncation, "it is passed on as it is");
    });
}

#[test]
fn the_next_server_is_asked_when_one_is_slow_and_the_first_answer_counts() {
    run(async {
        let (servers, port) = Server::several(3).await;
        let file =
            ResolvConf::new("nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n");
        let patience = Patience {
            all: PATIENCE,
            ..QUICK
        };
        let pod = Pod::new(resolver(&file, port, patience, 9)).await;
        // The second answers.
        pod.send(&query("example.com.")).await;
        servers[0].query().await;
        servers[1].answer(2).await;
        assert_eq!(last(&pod.receive().await), 2);
        // The first answers after all.
        pod.send(&query("example.com.")).await;
        let (relayed, client) = servers[0].query().await;
        servers[1].query().await;
        servers[0].send(&answer_to(&relayed, 1), client).await;
        assert_eq!(last(&pod.receive().await), 1);
    });
}

#[test]
fn servers_that_cannot_help_are_passed_over() {
    run(async {
        let (servers, port) = Server::several(2).await;
        // Nobody listens at the third.
        let file =
            ResolvConf::new("nameserver 127.0.0.3\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, 9)).await;
        for (code_of_second, expected) in [(None, 2), (Some(ResponseCode::Refused), 0)] {
            pod.send(&query("example.com.")).await;
            let (relayed, client) = servers[0].query().await;
            servers[0]
                .send(&refusal_of(&relayed, ResponseCode::ServFail), client)
                .await;
            let (relayed, client) = servers[1].query().await;
            match code_of_second {
                None => {
                    servers[1].send(&answer_to(&relayed, 2), client).await;
                    assert_eq!(last(&pod.receive().await), expected);
                }
                Some(refused) => {
                    servers[1]
                        .send(&refusal_of(&relayed, refused), client)
                        .await;
                    assert_eq!(code(&pod.receive().await), refused);
                }
            }
        }
    });
}

#[test]
fn a_server_that_is_silent_ends_in_a_failure() {
    run(async {
        let (servers, port) = Server::several(1).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, QUICK, 9)).await;
        assert_eq!(code(&pod.ask("example.com.").await), ResponseCode::ServFail);
        // It was asked twice.
        servers[0].query().await;
        servers[0].query().await;
    });
}

#[test]
fn who_waits_keeps_nobody_waiting() {
    run(async {
        const MOST: usize = 20;
        let (servers, port) = Server::several(1).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, MOST)).await;
        let mut waiting = BTreeMap::new();
        for number in 0..MOST {
            pod.send(&query(&format!("q{number}.example."))).await;
            let (relayed, client) = servers[0].query().await;
            waiting.insert(number, (relayed, client));
        }
        assert_eq!(code(&pod.ask("more.example.").await), ResponseCode::Refused);
        assert_eq!(last(&pod.ask(WEB).await), 1);
        for (number, (relayed, client)) in waiting.into_iter().rev() {
            let last_number = u8::try_from(number).unwrap();
            servers[0]
                .send(&answer_to(&relayed, last_number), client)
                .await;
            let answer = pod.receive().await;
            assert_eq!(
                answer.queries[0].name().to_string(),
                format!("q{number}.example.")
            );
            assert_eq!(last(&answer), last_number);
        }
        tokio::join!(servers[0].answer(5), async {
            assert_eq!(last(&pod.ask("more.example.").await), 5);
        });
    });
}

#[test]
fn what_another_name_stands_for_is_looked_up() {
    run(async {
        let (servers, port) = Server::several(1).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, 9)).await;
        let out = "out.default.svc.cluster.local.";
        for code in [
            ResponseCode::NoError,
            ResponseCode::NXDomain,
            ResponseCode::ServFail,
        ] {
            pod.send(&query(out)).await;
            let (relayed, client) = servers[0].query().await;
            let answer = match code {
                ResponseCode::NoError => answer_to(&relayed, 9),
                _ => refusal_of(&relayed, code),
            };
            servers[0].send(&answer, client).await;
            let answer = pod.receive().await;
            let names: Vec<String> = answer
                .answers
                .iter()
                .map(|record| record.name.to_string())
                .collect();
            let (expected, names_expected) = match code {
                ResponseCode::NoError => (code, vec![out, "db.example.com."]),
                ResponseCode::NXDomain => (ResponseCode::NoError, vec![out]),
                _ => (code, vec![]),
            };
            assert_eq!(
                (answer.metadata.response_code, names),
                (
                    expected,
                    names_expected.into_iter().map(str::to_owned).collect()
                )
            );
        }
    });
}

#[test]
fn what_is_too_long_for_a_datagram_comes_by_tcp() {
    run(async {
        let file = ResolvConf::new("");
        let pod = Pod::new(resolver(&file, 53, PATIENT, 9)).await;
        let many = "many.default.svc.cluster.local.";
        let short = pod.ask(many).await;
        assert!(short.metadata.truncation && short.answers.len() < 200);
        let mut stream = pod.connect().await;
        stream
            .write_all(&framed(&query(many).to_vec().unwrap()))
            .await
            .unwrap();
        let whole = receive(&mut stream).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    });
}

#[test]
fn a_connection_takes_many_queries_and_answers_as_it_can() {
    run(async {
        let (servers, port) = Server::several(1).await;
        let file = ResolvConf::new("nameserver 127.0.0.1\n");
        let pod = Pod::new(resolver(&file, port, PATIENT, 9)).await;
        let mut stream = pod.connect().await;
        let slow = query("example.com.");
        let mut bytes = framed(&slow.to_vec().unwrap());
        bytes.extend(framed(&query(WEB).to_vec().unwrap()));
        // As slowly as a client can.
        for byte in bytes {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(last(&receive(&mut stream).await), 1);
        // What came by TCP goes by TCP.
        let (mut upstream, _) = servers[0].tcp.accept().await.unwrap();
        let mut relayed = vec![0; usize::from(upstream.read_u16().await.unwrap())];
        upstream.read_exact(&mut relayed).await.unwrap();
        // The client has no more to ask, and gets its answer.
        stream.shutdown().await.unwrap();
        upstream
            .write_all(&framed(&answer_to(&relayed, 3)))
            .await
            .unwrap();
        let answer = receive(&mut stream).await;
        assert_eq!(answer.metadata.id, slow.metadata.id);
        assert_eq!(last(&answer), 3);
        ended(stream).await;
        // More at once than are looked into at a time.
        let mut stream = pod.connect().await;
        let bytes = framed(&query(WEB).to_vec().unwrap()).repeat(100);
        stream.write_all(&bytes).await.unwrap();
        for _ in 0..100 {
            assert_eq!(last(&receive(&mut stream).await), 1);
        }
    });
}

#[test]
fn connections_that_speak_something_else_are_closed() {
    run(async {
        let file = ResolvConf::new("");
        let pod = Pod::new(resolver(&file, 53, PATIENT, 9)).await;
        for hostile in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0, 0],
            &[0, 11],
            &[0xff, 0xff, 0],
        ] {
            let mut stream = pod.connect().await;
            stream.write_all(hostile).await.unwrap();
            ended(stream).await;
        }
        // One that says nothing, and clients that vanish, are in nobody's way.
        let quiet = pod.connect().await;
        for _ in 0..100 {
            let mut stream = pod.connect().await;
            stream
                .write_all(&framed(&query(WEB).to_vec().unwrap()))
                .await
                .unwrap();
            drop(stream);
        }
        assert_eq!(last(&pod.ask(WEB).await), 1);
        drop(quiet);
    });
}

#[test]
fn it_ends_with_its_value() {
    run(async {
        let file = ResolvConf::new("");
        let Pod {
            address, _serving, ..
        } = Pod::new(resolver(&file, 53, PATIENT, 9)).await;
        let stream = TcpStream::connect(address).await.unwrap();
        drop(_serving);
        ended(stream).await;
        assert!(TcpStream::connect(address).await.is_err());
    });
}

proptest! {
    #[test]
    fn anything_is_answered_or_not(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), like_a_query in any::<bool>()) {
        if like_a_query && bytes.len() > 12 {
            bytes[2] &= 1;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let file = ResolvConf::new("");
        let resolver = resolver(&file, 53, QUICK, 9);
        run(async {
            let answer = resolver.resolve(&bytes, Transport::Udp).await;
            let is_answer = bytes.get(2).is_none_or(|flags| flags & 0x80 != 0);
            if let Some(answer) = answer {
                let answer = Message::from_vec(&answer).unwrap();
                assert!(!is_answer);
                assert_eq!(answer.metadata.message_type, MessageType::Response);
            }
        });
    }
}
