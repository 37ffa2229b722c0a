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
