//! What a published port carries: kplay's forwarder beside a DNAT rule of the kernel that leads to the same pod, and
//! beside podman's published port (which is such a rule, too, with masquerading).
//!
//! One sender at a time, on the machine; in the pod the toolbox's `tcp-sink`, the same binary for both tools.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Bench, Tool};

/// Where the pod listens.
const PORT: u16 = 9000;

/// Part of a DNAT's throughput that is the aim.
const AIM: f64 = 0.7;

impl Bench {
    /// Gigabits per second, and microseconds from the start of a connection to its end.
    pub(super) fn forward(&self, quick: bool) {
        let (rounds, bytes, connections) = if quick {
            (3, 256 << 20, 100)
        } else {
            (9, 1 << 30, 500)
        };
        let (ours, theirs) = (free_port(), free_port());
        let manifest = self.sink(ours);
        let podmans = self.sink(theirs);
        self.kplay.apply(&manifest);
        self.podman.apply(&podmans);
        let pod = ip_of(&self.kplay);
        let machine = address_towards(pod);
        let rule = Dnat::new(SocketAddr::new(machine, free_port()), pod);
        let ways: [SocketAddr; 3] = [
            ([127, 0, 0, 1], ours).into(),
            rule.address,
            ([127, 0, 0, 1], theirs).into(),
        ];
        for way in ways {
            wait_for(way);
        }
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            for (at, way) in ways.into_iter().enumerate() {
                let took = send(way, bytes).expect("it was there before");
                rates[at].push(bytes as f64 * 8.0 / took.as_secs_f64() / 1e9);
                let start = Instant::now();
                for _ in 0..connections {
                    send(way, 1).expect("it was there before");
                }
                let each = start.elapsed().as_secs_f64() / f64::from(connections);
                times[at].push(each * 1e6);
            }
        }
        println!(
            "\n{:<26}{:>10}{:>10}{:>10}{:>12}{:>14}",
            "a published port, median", "kplay", "DNAT", "podman", "of DNAT", "of podman"
        );
        let [ours, dnat, theirs] = rates.map(median);
        println!(
            "{:<26}{ours:>10.1}{dnat:>10.1}{theirs:>10.1}{:>11.2}x{:>13.2}x   aim {AIM} of DNAT",
            "one connection, Gb/s",
            ours / dnat,
            ours / theirs
        );
        let [ours, dnat, theirs] = times.map(median);
        println!(
            "{:<26}{ours:>10.0}{dnat:>10.0}{theirs:>10.0}{:>11.2}x{:>13.2}x",
            "open, one byte, close, µs",
            ours / dnat,
            ours / theirs
        );
        drop(rule);
        self.podman.delete(&podmans);
        self.kplay.delete(&manifest);
    }

    /// A pod that takes what it is sent, published at this port.
    fn sink(&self, port: u16) -> String {
        let path = self.dir.join(format!("sink{port}.yaml"));
        let program = env!("CARGO_BIN_EXE_kplay");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: sink}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
             containers:\n  - name: c0\n    image: localhost/bench:1\n    imagePullPolicy: IfNotPresent\n    \
             command: [/toolbox, tcp-sink, --port, '{PORT}']\n    \
             ports: [{{containerPort: {PORT}, hostPort: {port}}}]\n    \
             volumeMounts: [{{name: toolbox, mountPath: /toolbox, readOnly: true}}]\n  \
             volumes:\n  - name: toolbox\n    hostPath: {{path: {program}, type: File}}\n"
        );
        fs::write(&path, text).expect("writable");
        path.display().to_string()
    }
}

/// The pod's address.
fn ip_of(kplay: &Tool) -> IpAddr {
    let mut command = kplay.command(&["get", "pod", "sink", "-o", "jsonpath={.status.podIP}"]);
    let output = command.stdout(std::process::Stdio::piped()).output();
    let output = output.expect("kplay runs").stdout;
    let text = String::from_utf8_lossy(&output);
    text.trim().parse().expect("an address")
}

/// The machine's own address on the pod's bridge.
fn address_towards(pod: IpAddr) -> IpAddr {
    let output = Command::new("ip")
        .args(["-o", "route", "get", &pod.to_string()])
        .output()
        .expect("iproute2; run .ci/deps");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().skip_while(|word| *word != "src");
    let ip = words.nth(1).and_then(|word| word.parse().ok());
    ip.unwrap_or_else(|| panic!("no way to {pod}: {text}"))
}

/// A rule for what this machine itself sends.
struct Dnat {
    address: SocketAddr,
    target: String,
}

impl Dnat {
    fn new(address: SocketAddr, pod: IpAddr) -> Self {
        let rule = Self {
            address,
            target: SocketAddr::new(pod, PORT).to_string(),
        };
        assert!(rule.iptables("-A"), "iptables; run .ci/deps");
        rule
    }

    fn iptables(&self, what: &str) -> bool {
        let (ip, port) = (self.address.ip().to_string(), self.address.port());
        let status = Command::new("iptables")
            .args(["-w", "-t", "nat", what, "OUTPUT", "-p", "tcp", "-d", &ip])
            .args(["--dport", &port.to_string()])
            .args(["-j", "DNAT", "--to-destination", &self.target])
            .status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Dnat {
    fn drop(&mut self) {
        if !self.iptables("-D") {
            println!("cannot remove the rule for {} from iptables", self.address);
        }
    }
}

/// Sends so much over one connection, and returns how long it took until the pod had it all.
fn send(to: SocketAddr, bytes: usize) -> std::io::Result<Duration> {
    let chunk = vec![0; bytes.min(256 * 1024)];
    let start = Instant::now();
    let mut stream = TcpStream::connect(to)?;
    let mut left = bytes;
    while left > 0 {
        let len = left.min(chunk.len());
        stream.write_all(&chunk[..len])?;
        left -= len;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = start.elapsed();
    assert_eq!(answer.trim(), bytes.to_string(), "{to}");
    Ok(took)
}

/// Until the server in the pod listens.
fn wait_for(way: SocketAddr) {
    let start = Instant::now();
    while let Err(error) = send(way, 1) {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "nobody at {way}: {error}"
        );
        std::thread::yield_now();
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("a free port").port()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
