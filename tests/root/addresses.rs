//! The pods' addresses: what they have, who reaches whom.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};

use crate::Kplay;
use crate::harness::{free_port, script_pod, text};
use crate::ports::page;
use crate::traffic::{client, server};

/// An address as it goes into a URL.
fn in_url(ip: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    }
}

/// The gateways of a pod, of each family that it has.
fn gateways(kplay: &Kplay, pod: &str) -> Vec<String> {
    let routes = kplay.shell(pod, "ip route; ip -6 route");
    let defaults = routes
        .lines()
        .filter_map(|line| line.strip_prefix("default via "));
    let gateways: Vec<String> = defaults
        .map(|rest| rest.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert!(!gateways.is_empty(), "{routes}");
    gateways
}

#[test]
fn a_pod_has_the_addresses_that_its_status_says() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fields = "env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, \
         {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}],";
    kplay
        .apply(&script_pod(
            "box",
            "terminationGracePeriodSeconds: 0,",
            fields,
            "exec sleep 1000",
        ))
        .succeeds();
    let ips = kplay.ips("box");
    let pod = kplay.pod("box");
    assert_eq!(text(&pod["status"]["podIP"]), ips[0]);
    assert!(
        ips[0].parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
        "{ips:?}"
    );
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(ips.len(), if has_ipv6 { 2 } else { 1 }, "{ips:?}");
    let own = kplay.shell("box", "ip -o addr show dev eth0 scope global");
    let mut on_link: Vec<&str> = own
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next())
        .collect();
    on_link.sort_by_key(|ip| ip.contains(':'));
    assert_eq!(on_link, ips, "{own}");
    assert_eq!(
        kplay.shell("box", "echo $IP; echo $IPS"),
        format!("{}\n{}\n", ips[0], ips.join(","))
    );
    let hosts = kplay.shell("box", "cat /etc/hosts");
    for ip in &ips {
        assert!(hosts.contains(&format!("\n{ip}\tbox\n")), "{hosts}");
    }
    // The loopback interface and its own; packets as large as those of the machine's way out.
    assert_eq!(kplay.shell("box", "ls /sys/class/net"), "eth0\nlo\n");
    let mtu = kplay.shell("box", "cat /sys/class/net/eth0/mtu");
    let uplink = std::fs::read_to_string("/proc/net/route").expect("the routes");
    let uplink = uplink.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000")).then(|| words[0].to_owned())
    });
    let expected = uplink.map_or("1500\n".to_owned(), |name| {
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).expect("its MTU")
    });
    assert_eq!(mtu, expected);
    for gateway in gateways(&kplay, "box") {
        kplay.shell("box", &format!("ping -c 1 -W 5 {gateway}"));
    }
}

#[test]
fn an_unprivileged_user_may_ping_and_serves_low_ports() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let fields = "securityContext: {runAsUser: 1000, runAsGroup: 1000, allowPrivilegeEscalation: false, \
         capabilities: {drop: [ALL]}},";
    let script = "exec httpd -f -p 80 -h /etc";
    kplay
        .apply(
            &(script_pod("user", "terminationGracePeriodSeconds: 0,", fields, script)
                + "---\n"
                + &client("client")),
        )
        .succeeds();
    kplay.until_ready(&["user", "client"]);
    // Debian's busybox has no ping for those who are not root: this is what the others need.
    let groups = kplay.shell("user", "id -u; cat /proc/sys/net/ipv4/ping_group_range");
    assert_eq!(groups, "1000\n0\t2147483647\n");
    for ip in kplay.ips("user") {
        kplay.until_fetched("client", &format!("{}/hostname", in_url(&ip)), "user\n");
    }
}

#[test]
fn pods_and_the_machine_reach_each_other() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let shell = script_pod(
        "shell",
        "terminationGracePeriodSeconds: 0,",
        "",
        "exec sleep 1000",
    );
    kplay
        .apply(&(server("a", "app: web", "", "") + &client("client") + &shell))
        .succeeds();
    kplay.until_ready(&["a", "client", "shell"]);
    let ips = kplay.ips("a");
    let own = kplay.ips("client");
    for (ip, own) in ips.iter().zip(&own) {
        let url = format!("{}:8080", in_url(ip));
        kplay.until_fetched("client", &format!("{url}/hostname"), "a\n");
        // Who asks is seen as who he is.
        let seen = kplay.fetch("client", &format!("{url}/client")).succeeds();
        assert!(seen.contains(own), "{seen} is not {own}");
        // From the machine.
        let ip: IpAddr = ip.parse().expect("an address");
        let answer = page((ip, 8080), "/hostname").expect("the machine reaches a pod");
        assert!(answer.ends_with("\r\n\r\na\n"), "{answer}");
    }
    // To the machine, by its end of the bridge.
    for gateway in gateways(&kplay, "shell") {
        let ip: IpAddr = gateway.parse().expect("an address");
        let listener = TcpListener::bind((ip, 0)).expect("the machine's own address");
        let port = listener.local_addr().expect("an address").port();
        let greeting = std::thread::spawn(move || {
            let (mut stream, client) = listener.accept().expect("a client");
            let mut request = [0; 512];
            let length = stream.read(&mut request).expect("a request");
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            stream
                .write_all(b"HTTP/1.0 200 OK\r\n\r\nthe machine\n")
                .expect("sent");
            (request, client.ip())
        });
        let said = kplay.fetch("client", &format!("{}:{port}/", in_url(&gateway)));
        assert_eq!(said.succeeds(), "the machine\n");
        let (_, from) = greeting.join().expect("served");
        assert!(own.contains(&from.to_string()), "{from} is none of {own:?}");
    }
}

#[test]
fn a_pod_in_the_machines_network_is_no_stranger() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    let port = free_port();
    let host = server("host", "app: host", "hostNetwork: true,", "")
        .replace("args: [http]", &format!("args: [http, --port, '{port}']"))
        .replace("containerPort: 8080", &format!("containerPort: {port}"));
    let shell = script_pod(
        "shell",
        "terminationGracePeriodSeconds: 0,",
        "",
        "exec sleep 1000",
    );
    let service = crate::traffic::service(
        "host",
        "selector: {app: host}, ports: [{port: 80, targetPort: http}]",
    );
    kplay
        .apply(&(server("a", "app: web", "", "") + &host + &shell + "---\n" + &service))
        .succeeds();
    kplay.until_ready(&["a", "host", "shell"]);
    for ip in kplay.ips("a") {
        kplay.until_fetched("host", &format!("{}:8080/hostname", in_url(&ip)), "a\n");
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    for gateway in gateways(&kplay, "shell") {
        let url = format!("{}:{port}/hostname", in_url(&gateway));
        kplay.until_fetched("a", &url, &machine);
    }
    let status = kplay.pod("host")["status"].clone();
    assert_eq!(status["podIP"], status["hostIP"], "{status}");
    // By the machine's address, and as a Service's endpoint.
    let ip = text(&status["podIP"]);
    kplay.until_fetched("a", &format!("{}:{port}/hostname", in_url(&ip)), &machine);
    kplay.until_fetched("a", "host/hostname", &machine);
}
