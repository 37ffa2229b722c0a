//! Published ports, and what comes through them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use crate::Kplay;
use crate::harness::free_port;
use crate::wait;

/// What the page at an address says; an error while nobody serves it.
pub(crate) fn page(address: impl Into<SocketAddr>, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), wait::PATIENCE)?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until a page is served, and returns it.
#[track_caller]
pub(crate) fn served(address: impl Into<SocketAddr>) -> String {
    let address = address.into();
    let mut answer = String::new();
    wait::until(&format!("{address} is served"), || {
        answer = page(address, "/").unwrap_or_default();
        answer.starts_with("HTTP/1.1 200")
    });
    answer
}

fn on(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().expect("an address"), port).into()
}

fn web(port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: kplay.local/toolbox, args: [http, --port, '8080'], \
         ports: [{{containerPort: 8080, {port}}}]}}]}}\n"
    )
}

#[test]
fn a_host_port_is_served_on_every_address_while_the_pod_lives() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    kplay.apply(&web(&format!("hostPort: {port}"))).succeeds();
    assert!(served(on("127.0.0.1", port)).contains("web"));
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(served(on("::1", port)).contains("web"));
    }
    kplay.run(["delete", "pod", "web"]).succeeds();
    assert!(
        page(on("127.0.0.1", port), "/").is_err(),
        "nobody listens any more"
    );
    // The port is free again at once.
    kplay.apply(&web(&format!("hostPort: {port}"))).succeeds();
    served(on("127.0.0.1", port));
}

#[test]
fn a_host_address_is_the_only_one() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    kplay
        .apply(&web(&format!("hostPort: {port}, hostIP: 127.0.0.2")))
        .succeeds();
    served(on("127.0.0.2", port));
    assert!(page(on("127.0.0.1", port), "/").is_err());
}

#[test]
fn publish_without_touching_the_manifest() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    let publish = format!("{port}:8080");
    kplay
        .apply_with(&web("name: http"), ["--publish", &publish])
        .succeeds();
    served(on("127.0.0.1", port));
}

#[test]
fn the_port_outlives_a_container() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    kplay.apply(&web(&format!("hostPort: {port}"))).succeeds();
    served(on("127.0.0.1", port));
    let init = kplay.pids("web", "main")[0];
    let pid = i32::try_from(init)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL)
        .expect("our own container");
    kplay.until("web", "main runs again", |status| {
        let main = &status["containerStatuses"][0];
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    });
    served(on("127.0.0.1", port));
}

#[test]
fn datagrams_come_back() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    let pod = web(&format!("hostPort: {port}, protocol: UDP"))
        .replace("args: [http,", "args: [udp-echo,");
    kplay.apply(&pod).succeeds();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
        .expect("a timeout");
    let mut buffer = [0; 64];
    let mut echoed = 0;
    // Datagrams that come before the server listens are lost, as they should be.
    wait::until("an echo", || {
        socket.send_to(b"there and back", ("127.0.0.1", port)).ok();
        echoed = socket.recv(&mut buffer).unwrap_or(0);
        echoed > 0
    });
    assert_eq!(&buffer[..echoed], b"there and back");
}

/// A pod of the application `site` that serves at its port 8080.
fn replica(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: site}}}}\nspec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: kplay.local/toolbox, args: [http], \
         ports: [{{name: http, containerPort: 8080}}], \
         readinessProbe: {{httpGet: {{port: http, path: /ready}}, periodSeconds: 1, failureThreshold: 1}}}}]}}\n---\n"
    )
}

fn pod_ip(kplay: &Kplay, name: &str) -> IpAddr {
    let ip = crate::harness::text(&kplay.pod(name)["status"]["podIP"]);
    ip.parse().expect("an address")
}

/// Who answers at a port; empty if nobody does.
fn who(port: u16) -> String {
    let page = page(on("127.0.0.1", port), "/").unwrap_or_default();
    let name = page.split("hello from ").nth(1);
    name.and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_default()
        .to_owned()
}

#[track_caller]
fn both_answer(port: u16) {
    let mut seen = std::collections::BTreeSet::new();
    wait::until("both pods answer", || {
        seen.insert(who(port));
        seen.contains("a") && seen.contains("b")
    });
}

fn says_ready(kplay: &Kplay, pod: &str, ready: &str) {
    page((pod_ip(kplay, pod), 8080), &format!("/ready/{ready}")).expect("it serves");
}

fn services_lead_to_ready_pods(kind: &str, port: u16, service_port: &str) {
    let Some(kplay) = Kplay::new() else { return };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: site}}\nspec: {{type: {kind}, selector: {{app: site}}, \
         ports: [{{{service_port}, targetPort: http}}]}}\n"
    );
    let all = replica("a") + &replica("b") + &service;
    kplay.apply_with(&all, ["--wait=ready"]).succeeds();
    both_answer(port);
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        served(on("::1", port));
    }
    // One that is not ready does not listen.
    says_ready(&kplay, "a", "no");
    wait::until("one answers", || (0..20).all(|_| who(port) == "b"));
    says_ready(&kplay, "b", "no");
    wait::until("nobody listens", || {
        std::net::TcpStream::connect(on("127.0.0.1", port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    says_ready(&kplay, "a", "yes");
    says_ready(&kplay, "b", "yes");
    both_answer(port);
    // Without the Service the port is free, while the pods run on.
    kplay.run(["delete", "service", "site"]).succeeds();
    wait::until("the port is free", || {
        std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
    });
    kplay.apply_with(&all, ["--wait=ready"]).succeeds();
    both_answer(port);
    kplay.run(["delete", "pod", "a", "b"]).succeeds();
    std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
}

#[test]
fn node_ports_lead_to_the_pods_that_are_ready() {
    // Between those that are allocated and those that `free_port` gives.
    let port = (30_000..32_768)
        .rev()
        .find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free one");
    services_lead_to_ready_pods("NodePort", port, &format!("port: 80, nodePort: {port}"));
}

#[test]
fn load_balancers_are_published_ports() {
    let port = free_port();
    services_lead_to_ready_pods("LoadBalancer", port, &format!("port: {port}"));
}

#[test]
fn a_taken_port_is_an_error_before_anything_starts() {
    let Some(kplay) = Kplay::new() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let foreign = listener.local_addr().expect("an address").port();
    let port = free_port();
    let mine = |name: &str, port: u16| {
        web(&format!("hostPort: {port}")).replace("name: web", &format!("name: {name}")) + "---\n"
    };
    kplay.apply(&mine("first", port)).succeeds();
    let first = kplay.pod("first")["metadata"]["uid"].clone();
    kplay.apply(&mine("second", port)).fails(
        4,
        &[&format!(
            "error: cannot publish the pod `default/second`: port {port} of 0.0.0.0 is in use by the pod `default/first`\n\
             hint: `kplay delete pod first` first, or publish another port\n"
        )],
    );
    let told = kplay.apply(&mine("first", foreign)).fails(
        4,
        &[&format!(
            "cannot publish the pod `default/first`: port {foreign} of 0.0.0.0 is in use by another program: "
        )],
    );
    let own = format!(", process {}\n", std::process::id());
    assert!(told.ends_with(&own), "{told}");
    // Nothing was stopped or made.
    assert_eq!(kplay.pod("first")["metadata"]["uid"], first);
    served(on("127.0.0.1", port));
    kplay.run(["get", "pod", "second"]).fails(5, &[]);
    // What a pod gives up is free for another one of the same files.
    drop(listener);
    kplay
        .apply(&(mine("first", foreign) + &mine("second", port)))
        .succeeds();
    assert!(served(on("127.0.0.1", port)).contains("second"));
    assert!(served(on("127.0.0.1", foreign)).contains("first"));
}

#[test]
fn ports_of_sidecars_are_not_published() {
    let Some(kplay) = Kplay::new() else { return };
    let (port, of_sidecar) = (free_port(), free_port());
    let sidecar = format!(
        "initContainers: [{{name: side, restartPolicy: Always, image: kplay.local/toolbox, \
         args: [http, --port, '8081'], ports: [{{containerPort: 8081, hostPort: {of_sidecar}}}]}}], containers:"
    );
    let pod = web(&format!("hostPort: {port}")).replace("containers:", &sidecar);
    kplay.apply(&pod).succeeds();
    served(on("127.0.0.1", port));
    // As a kubelet, which maps those of `containers` only.
    let refused = page(on("127.0.0.1", of_sidecar), "/").expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn all_declared_ports_are_published_on_demand() {
    let Some(kplay) = Kplay::new() else { return };
    let port = free_port();
    let pod = web("name: http").replace("8080", &port.to_string());
    kplay.apply(&pod).succeeds();
    assert!(page(on("127.0.0.1", port), "/").is_err());
    kplay.apply_with(&pod, ["--publish-all"]).succeeds();
    assert!(served(on("127.0.0.1", port)).contains("web"));
}

#[test]
fn an_ipv6_address_and_a_protocol_that_is_not_published() {
    let Some(kplay) = Kplay::new() else { return };
    let sctp = web("hostPort: 9000, protocol: SCTP");
    kplay.apply(&sctp).fails(
        3,
        &["`hostPort` is for TCP and UDP only: SCTP is not published"],
    );
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let port = free_port();
    kplay
        .apply(&web(&format!("hostPort: {port}, hostIP: '::1'")))
        .succeeds();
    served(on("::1", port));
    assert!(page(on("127.0.0.1", port), "/").is_err());
}
