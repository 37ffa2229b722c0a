//! `port-forward`: what it prints, where it leads, and that it outlives pods.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::sync::mpsc;

use crate::Kplay;
use crate::harness::free_port;
use crate::ports::{page, served};
use crate::wait::{self, PATIENCE};

/// A running `port-forward`.
struct Forward {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

impl Forward {
    fn start(kplay: &Kplay, args: &[&str]) -> Self {
        let words = ["port-forward"].into_iter().chain(args.iter().copied());
        let mut child = kplay.command(words).spawn();
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The next line on standard output.
    #[track_caller]
    fn says(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line")
    }

    /// The next line on standard error.
    #[track_caller]
    fn complains(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a line")
    }

    /// The port that it listens at, which it says for 127.0.0.1 and, where there is IPv6, ::1.
    #[track_caller]
    fn port(&self, target: u16) -> u16 {
        let line = self.says();
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|line| line.strip_suffix(&format!(" -> {target}")))
            .unwrap_or_else(|| panic!("{line}"));
        let port = port.parse().expect("a port");
        if has_v6() {
            assert_eq!(
                self.says(),
                format!("Forwarding from [::1]:{port} -> {target}")
            );
        }
        port
    }

    /// Ends it as Ctrl-C does, and returns the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our own child");
        assert!(wait::ended(self.child.id(), PATIENCE));
        let status = self.child.wait().expect("our own child");
        status.code().or(status.signal())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It has ended already, or a test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn has_v6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn pod(name: &str, args: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: kplay.local/toolbox, args: [{args}], ports: [{{{port}}}]}}]}}\n---\n"
    )
}

fn web(name: &str) -> String {
    pod(
        name,
        "http, --port, '8080'",
        "name: http, containerPort: 8080",
    )
}

#[test]
fn a_port_leads_to_the_pod_and_to_its_replacement() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply(&web("web")).succeeds();
    let forward = Forward::start(&kplay, &["-v", "web", ":http"]);
    let port = forward.port(8080);
    assert!(served(at(port)).contains("web"));
    assert_eq!(forward.says(), format!("Handling connection for {port}"));
    let ended = loop {
        // The server may not have listened yet.
        let line = forward.complains();
        if !line.contains("connection refused") {
            break line;
        }
    };
    assert!(
        ended.contains("to port 8080 of the pod `web`: closed, after"),
        "{ended}"
    );
    if has_v6() {
        assert!(
            served(SocketAddr::new(
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
                port
            ))
            .contains("web")
        );
        assert!(forward.complains().contains("connection from [::1]:"));
    }

    kplay.run(["delete", "pod", "web"]).succeeds();
    let error = page(at(port), "/").expect_err("there is no pod");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let told = forward.complains();
    let expected =
        format!("error: cannot forward a connection to port {port}: pods \"web\" not found");
    assert_eq!(told, expected);
    kplay.apply(&web("web")).succeeds();
    assert!(served(at(port)).contains("web"));
    assert_eq!(forward.interrupt(), Some(130));
    TcpListener::bind(at(port)).expect("nobody listens any more");
}

#[test]
fn several_ports_and_addresses() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply(&(web("web"))).succeeds();
    let (one, other) = (free_port(), free_port());
    let pairs = [format!("{one}:8080"), format!("{other}:http")];
    let addresses = ["--address", "127.0.0.1,127.0.0.2"];
    let forward = Forward::start(
        &kplay,
        &[&["pod/web", &pairs[0], &pairs[1]], &addresses[..]].concat(),
    );
    for (ip, port) in [
        ("127.0.0.1", one),
        ("127.0.0.2", one),
        ("127.0.0.1", other),
        ("127.0.0.2", other),
    ] {
        assert_eq!(
            forward.says(),
            format!("Forwarding from {ip}:{port} -> 8080")
        );
        let address = SocketAddr::new(ip.parse().expect("an address"), port);
        // In the order of the lines all are listened at.
        wait::until("it is listened at", || page(address, "/").is_ok());
    }
    drop(forward);
    let forward = Forward::start(&kplay, &["web", &pairs[0], "--address=0.0.0.0"]);
    assert_eq!(
        forward.says(),
        format!("Forwarding from 0.0.0.0:{one} -> 8080")
    );
    served(([127, 0, 0, 3], one));
}

#[test]
fn a_services_port_is_translated_and_one_of_its_pods_is_used() {
    let Some(kplay) = Kplay::new() else { return };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: site}\nspec: {selector: {app: web}, \
                   ports: [{name: www, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]}\n";
    kplay
        .apply_with(&(web("a") + &web("b") + service), ["--wait=ready"])
        .succeeds();
    let forward = Forward::start(&kplay, &["-v", "svc/site", ":80", ":www"]);
    let (port, named) = (forward.port(8080), forward.port(8080));
    served(at(port));
    assert!(
        forward
            .complains()
            .contains("to port 8080 of the pod `a`: closed")
    );
    kplay.run(["delete", "pod", "a"]).succeeds();
    served(at(named));
    assert!(
        forward
            .complains()
            .contains("to port 8080 of the pod `b`: closed")
    );
    drop(forward);
    kplay
        .run(["port-forward", "svc/site", ":81"])
        .fails(5, &["the Service `site` does not have a port 81"]);
    kplay.run(["port-forward", "service/site", ":dns"]).fails(
        2,
        &["UDP is not forwarded: port `dns` of the Service `site`"],
    );
    kplay.run(["delete", "pod", "b"]).succeeds();
    kplay
        .run(["port-forward", "svc/site", ":80"])
        .fails(5, &["no pod has the labels"]);
}

#[test]
fn what_cannot_be_forwarded() {
    let Some(kplay) = Kplay::new() else { return };
    let udp = pod(
        "udp",
        "udp-echo, --port, '53'",
        "name: dns, containerPort: 53, protocol: UDP",
    );
    kplay.apply(&(web("web") + &udp)).succeeds();
    let check = |args: &[&str], code, words: &str| {
        let args = ["port-forward"].into_iter().chain(args.iter().copied());
        kplay.run(args).fails(code, &[words]);
    };
    check(&["nobody", "80"], 5, "pods \"nobody\" not found");
    check(
        &["deploy/web", "80"],
        5,
        "deployments.apps \"web\" not found",
    );
    check(&["svc/web", "80"], 5, "services \"web\" not found");
    check(
        &["web", ":https"],
        5,
        "the pod `web` does not have a port `https`",
    );
    check(&["udp", ":dns"], 2, "UDP is not forwarded");
    check(&["udp", ":53"], 2, "UDP is not forwarded");
    check(&["web", "0"], 2, "`0` is not a port");
    check(&["web", "80", "--address=nowhere"], 2, "is not an address");
    check(&["web"], 2, "REMOTE");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address");
    let pair = format!("{}:8080", taken.port());
    check(&["web", &pair], 4, &format!("cannot listen at {taken}"));
}

#[test]
fn servers_that_listen_at_the_pods_loopback_only() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let server = |name: &str, address: &str| {
        crate::harness::script_pod(
            name,
            "terminationGracePeriodSeconds: 0,",
            "",
            &format!(
                "mkdir /w; echo from {name} >/w/index.html; exec httpd -f -h /w -p {address}:80"
            ),
        ) + "---\n"
    };
    kplay
        .apply(&(server("four", "127.0.0.1") + &server("six", "[::1]")))
        .succeeds();
    for name in ["four", "six"] {
        let forward = Forward::start(&kplay, &[name, ":80"]);
        let port = forward.port(80);
        assert!(served(at(port)).contains(&format!("from {name}")));
    }
}

#[test]
fn a_half_closed_connection_goes_on_beside_many_others() {
    let Some(kplay) = Kplay::new() else { return };
    kplay
        .apply(&pod("echo", "tcp-echo, --port, '7'", "containerPort: 7"))
        .succeeds();
    let forward = Forward::start(&kplay, &["-q", "echo", ":7"]);
    let port = forward.port(7);
    let mut streams = Vec::new();
    wait::until("the server listens", || {
        let mut stream = TcpStream::connect(at(port)).expect("it listens");
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
    });
    for _ in 0..200 {
        streams.push(TcpStream::connect(at(port)).expect("it listens"));
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "hello {number}").expect("written");
        stream.shutdown(Shutdown::Write).expect("half closed");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, format!("hello {number}"));
    }
}
