//! Pods with the machine's network: Services' addresses and the cluster's names are there, too, and nothing is left of
//! them on the machine.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::Kplay;
use crate::crowd::{kill, listening_of};
use crate::harness::text;
use crate::leftovers;
use crate::ports::page;
use crate::traffic::{server, service};
use crate::wait;

/// A pod that does nothing, in the machine's network.
fn guest(name: &str) -> String {
    let fields = "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet,";
    server(name, "role: guest", fields, "")
        .replace("args: [http]", "args: [sleep, infinity]")
        .replace("ports: [{name: http, containerPort: 8080}],", "")
}

/// A Service's name that no other test has: Services of the same name have the same address, and the machine's network is
/// everybody's.
fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

/// The tables of this pod in the machine's packet filter.
fn tables(kplay: &Kplay, pod: &str) -> Vec<String> {
    let uid = text(&kplay.pod(pod)["metadata"]["uid"]);
    leftovers::tables_of_uid(&uid)
}

#[test]
fn services_are_reached_by_name_from_the_machines_network() {
    let Some(kplay) = Kplay::new() else { return };
    let (web, echo) = (unique("web"), unique("echo"));
    let manifest = service(
        &web,
        "selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: http}]",
    ) + &service(
        &echo,
        "selector: {app: echo}, ports: [{port: 7, targetPort: 7000, protocol: UDP}]",
    ) + &server("a", "app: web", "", "")
        + &guest("one")
        + &guest("two");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "one", "two"]);
    let address =
        |ip: &str| -> SocketAddr { (ip.parse::<IpAddr>().expect("an address"), 80).into() };
    let ips = kplay.found("one", &[&web, "A"]);
    let ip = address(ips.first().expect("an address"));
    for pod in ["one", "two"] {
        for name in [web.clone(), format!("{web}.default.svc.cluster.local")] {
            kplay.until_fetched(pod, &format!("{name}/hostname"), "a\n");
        }
        for ip in kplay.found(pod, &[&web, "AAAA"]) {
            kplay.until_fetched(pod, &format!("http://[{ip}]/hostname"), "a\n");
        }
        assert_eq!(tables(&kplay, pod).len(), 1);
    }
    // For the machine's own programs, too.
    let served = page(ip, "/hostname").expect("it is served");
    assert!(served.ends_with("\r\n\r\na\n"), "{served}");
    let nobody = "nobody.default.svc.cluster.local";
    // `NXDOMAIN`
    kplay.toolbox("one", &["lookup", nobody]).fails(3, &[]);

    let refused = || {
        kplay
            .toolbox("one", &["say", "--udp", &format!("{echo}:7"), "hello"])
            .fails(1, &["refused"])
    };
    refused();
    let echoing = server("echo", "app: echo", "", "")
        .replace("args: [http]", "args: [udp-echo, --port, '7000']")
        .replace("containerPort: 8080", "containerPort: 7000, protocol: UDP");
    kplay.apply(&echoing).succeeds();
    wait::until("datagrams come back", || {
        let run = kplay.toolbox("one", &["say", "--udp", &format!("{echo}:7"), "hello"]);
        run.code == Some(0) && run.stdout.contains("hello")
    });

    // Nothing that other machines could reach.
    let listening = listening_of(&kplay);
    assert_eq!(listening.len(), 4, "{listening:?}");
    for address in listening {
        let ip = address.ip();
        assert!(ip.is_loopback(), "{address}");
    }

    let (of_one, of_two) = (tables(&kplay, "one"), tables(&kplay, "two"));
    let pid = kplay.executor("one");
    kill(pid);
    assert!(wait::ended(pid, wait::PATIENCE));
    wait::until("the killed one's table is gone", || {
        !leftovers::nft_tables().contains(&of_one[0])
    });
    let served = page(ip, "/hostname").expect("the other one is there");
    assert!(served.ends_with("\r\n\r\na\n"), "{served}");
    kplay.until_fetched("two", &format!("{web}/hostname"), "a\n");
    kplay.run(["delete", "pod", "a"]).succeeds();
    wait::until("it is refused", || {
        page(ip, "/").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    kplay.run(["delete", "service", &web, &echo]).succeeds();
    kplay.run(["delete", "pod", "two"]).succeeds();
    assert!(!leftovers::nft_tables().contains(&of_two[0]));
}

/// Runs a command in a network namespace of its own, with nothing but loopback.
const WITHOUT_ROUTES: [&str; 5] = [
    "unshare",
    "--net",
    "sh",
    "-c",
    "ip link set lo up && exec \"$0\" \"$@\"",
];

#[test]
fn a_machine_without_routes_is_told_of() {
    let Some(kplay) = Kplay::new() else { return };
    let web = unique("web");
    let manifest = service(
        &web,
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &server("a", "app: web", "", "")
        + &guest("one");
    let file = kplay.file("manifest.yaml", manifest);
    let apply = ["apply".as_ref(), "--wait=ready".as_ref(), file.as_os_str()];
    let apply = kplay.command(apply).through(WITHOUT_ROUTES);
    apply.run().succeeds();
    kplay.note_pods();
    let events = kplay.run(["events", "--for", "one"]).succeeds();
    let remedy = "ip route add 10.96.0.0/16 dev lo";
    assert!(events.contains(&format!("`{remedy}`")), "{events}");
    let url = format!("{web}/hostname");
    assert_ne!(kplay.fetch("one", &url).code, Some(0));
    let netns = format!("/proc/{}/ns/net", kplay.executor("one"));
    let status = std::process::Command::new("nsenter")
        .arg(format!("--net={netns}"))
        .args(remedy.split(' '))
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    kplay.until_fetched("one", &url, "a\n");
    assert!(Path::new(&netns).exists());
}
