//! The way from a user's pods to the world: pasta, slirp4netns, and neither.
//!
//! Each test has a machine's network of its own, in which everybody may have a tap device, as on most machines, and a server
//! at an address that is not on a wire: pods that get there have left by the program.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::Kplay;
use crate::harness::text;
use crate::lookups::Upstream;
use crate::traffic::server;

const ONE: &str = "kplay-test-one";

/// Where the name `known.test` leads.
const WORLD: &str = "192.0.2.99:8080";

/// Makes the machine; `$1` is a folder, and the others are the programs that are not there.
const MACHINE: &str = "
    mount --make-rprivate /
    mount -t tmpfs none /dev/net
    mknod -m 666 /dev/net/tun c 10 200
    printf 'nameserver 127.53.7.9\\n' >\"$1/resolv.conf\"
    mount --bind \"$1/resolv.conf\" /etc/resolv.conf
    ip link set lo up
    ip link add wire type veth peer name end
    ip address add 198.51.100.1/24 dev wire
    ip link set wire up
    ip link set end up
    ip route add default via 198.51.100.254
    ip address add 192.0.2.99/32 dev lo
    folder=$1
    shift
    [ $# = 0 ] && exit
    mkdir \"$folder/over\"
    mount -t tmpfs none \"$folder/over\"
    mkdir \"$folder/over/upper\" \"$folder/over/work\"
    mount -t overlay none -o \"lowerdir=/usr/bin,upperdir=$folder/over/upper,workdir=$folder/over/work\" /usr/bin
    for program; do rm \"/usr/bin/$program\"; done
";

/// Does something as who is on such a machine, without these programs.
fn on_a_machine(without: &[&str], test: impl FnOnce(&Kplay) + Send) {
    let Some(kplay) = Kplay::of(ONE) else { return };
    for program in ["pasta", "slirp4netns"] {
        let is_there = ["/usr/local/bin", "/usr/sbin"]
            .iter()
            .all(|folder| !std::path::Path::new(folder).join(program).exists());
        assert!(is_there, "the tests take {program} away from /usr/bin only");
    }
    // The namespaces are a thread's, and those of what it starts. The folder outlives what is mounted in it there.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may");
            let status = Command::new("sh")
                .args(["-euc", MACHINE, "sh"])
                .arg(kplay.dir())
                .args(without)
                .status();
            assert!(status.is_ok_and(|status| status.success()), "no machine");
            serve();
            let _upstream = Upstream::start(9);
            test(&kplay);
            kplay.run(["delete", "--all"]).succeeds();
            kplay.assert_nothing_left();
            assert_eq!(programs(&kplay), [""; 0]);
            kplay
        });
        match thread.join() {
            Ok(kplay) => drop(kplay),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}

/// Says the client's address.
fn serve() {
    let listener = TcpListener::bind(WORLD).expect("an address of this machine's");
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let from = client.peer_addr().map(|peer| peer.ip().to_string());
            let from = from.unwrap_or_default();
            // Who has gone needs no answer.
            let request = client.read(&mut [0; 4096]).unwrap_or_default();
            if request == 0 {
                continue;
            }
            write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{from}",
                from.len()
            )
            .ok();
        }
    });
}

/// The programs that speak for these pods.
fn programs(kplay: &Kplay) -> Vec<String> {
    let network = kplay.runroot();
    let network = network.to_str().expect("a readable path");
    let all = crate::leftovers::processes().into_iter();
    let all = all.map(|process| process.command);
    all.filter(|command| {
        command.contains(network)
            && (command.starts_with("pasta") || command.starts_with("slirp4netns"))
    })
    .collect()
}

fn pods() -> String {
    server("a", "app: a", "", "") + &server("b", "app: b", "", "")
}

/// Two pods reach the world by its name, through this program.
fn reaches_the_world(kplay: &Kplay, program: &str) {
    kplay.apply(&pods()).succeeds();
    kplay.until_ready(&["a", "b"]);
    let running = programs(kplay);
    assert_eq!(running.len(), 1, "{running:?}");
    assert!(running[0].starts_with(program), "{running:?}");
    for pod in ["a", "b"] {
        let run = kplay.fetch(pod, "http://known.test:8080/");
        // It is the machine itself that comes there.
        let said = run.succeeds();
        let pods_own = text(&kplay.pod(pod)["status"]["podIP"]);
        assert_ne!(said.trim(), pods_own);
    }
    let events = kplay.run(["events"]).succeeds();
    assert!(!events.contains("NetworkLimited"), "{events}");
    // What is the machine's own stays so: it has no loopback for pods.
    assert_ne!(kplay.fetch("a", "http://127.0.0.1:1/").code, Some(0));
    // The last pod takes the program along.
    kplay.run(["delete", "pod", "a"]).succeeds();
    assert_eq!(programs(kplay).len(), 1);
    kplay.fetch("b", "http://known.test:8080/").succeeds();
}

#[test]
fn pods_leave_through_pasta() {
    on_a_machine(&[], |kplay| reaches_the_world(kplay, "pasta"));
}

#[test]
fn pods_leave_through_slirp_where_pasta_is_not_there() {
    on_a_machine(&["pasta"], |kplay| reaches_the_world(kplay, "slirp4netns"));
}

#[test]
fn pods_without_a_way_out_reach_each_other_and_are_told() {
    on_a_machine(&["pasta", "slirp4netns"], |kplay| {
        kplay.apply(&pods()).succeeds();
        kplay.until_ready(&["a", "b"]);
        let events = kplay.run(["events"]).succeeds();
        let words = "the way out needs the program `pasta` (package passt) or `slirp4netns`";
        assert!(events.contains(words), "{events}");
        let b = text(&kplay.pod("b")["status"]["podIP"]);
        kplay.until_fetched("a", &format!("http://{b}:8080/hostname"), "b\n");
        // Names are the resolver's, which is the machine's; the way there is not.
        assert_eq!(kplay.found("a", &["known.test.", "A"]), ["192.0.2.99"]);
        assert_ne!(kplay.fetch("a", "http://known.test:8080/").code, Some(0));
        let doctor = kplay.run(["system", "doctor"]);
        assert!(
            doctor.stdout.contains("neither `pasta` nor `slirp4netns`"),
            "{doctor}"
        );
    });
}
