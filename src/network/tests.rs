//! Real bridges and links, each in a network namespace that stands for a machine.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::sys::netns::NetNs;
use crate::sys::stop::Stop;
use crate::sys::testing::{alone, eventually};

mod services;

/// Runs a test on a machine of its own, with nothing but a loopback interface.
fn on_a_machine(test: impl FnOnce(&Machine) + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may unshare");
            ip("link set lo up");
            // As a machine has it that is no router.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            let folder = format!(
                "kplay-network-{}",
                crate::sys::identity::random_hex().unwrap()
            );
            let folder = std::env::temp_dir().join(folder);
            test(&Machine {
                folder: folder.clone(),
            });
            std::fs::remove_dir_all(folder).unwrap();
            assert_eq!(bridges(), [""; 0], "a bridge is left");
        });
        run.join().expect("the test passes");
    });
}

struct Machine {
    folder: PathBuf,
}

struct Pod {
    netns: NetNs,
    attachment: Attachment,
}

impl Machine {
    fn pod(&self, name: &str) -> Pod {
        let netns = NetNs::fresh();
        Pod {
            attachment: attach(&self.folder, name, &netns).unwrap(),
            netns,
        }
    }
}

impl Pod {
    fn ip(&self, index: usize) -> IpAddr {
        self.attachment.ips()[index]
    }

    fn listen(&self, address: &str) -> TcpListener {
        self.netns.visit(|| TcpListener::bind(address)).unwrap()
    }

    fn connect(&self, address: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let address = address.into();
        self.netns.visit(|| TcpStream::connect(address))
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn bridges() -> Vec<String> {
    let list = ip("-o link show type bridge");
    let names = list.lines().filter_map(|line| line.split(": ").nth(1));
    names.map(str::to_owned).collect()
}

/// What the accepted client's address is, after a word was exchanged.
fn talk(listener: &TcpListener, client: TcpStream) -> IpAddr {
    let (mut server, address) = listener.accept().unwrap();
    let mut client = client;
    client.write_all(b"ping").unwrap();
    let mut word = [0; 4];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
    address.ip()
}

#[test]
fn pods_reach_each_other_and_the_machine() {
    on_a_machine(|machine| {
        let (a, b) = (machine.pod("a"), machine.pod("b"));
        assert_eq!(a.ip(0).to_string(), "10.244.0.2");
        assert_eq!(b.ip(0).to_string(), "10.244.0.3");
        assert!(a.ip(1).is_ipv6());
        let server = b.listen("[::]:8080");
        for (index, wildcard) in ["0.0.0.0:9090", "[::]:9090"].iter().enumerate() {
            let client = a.connect((b.ip(index), 8080)).unwrap();
            let seen = talk(&server, client).to_canonical();
            assert_eq!(seen, a.ip(index), "pods see each other's addresses");
            let client = TcpStream::connect((b.ip(index), 8080)).unwrap();
            talk(&server, client);
            let host = TcpListener::bind(wildcard).unwrap();
            let gateway = match a.ip(index) {
                IpAddr::V4(_) => "10.244.0.1".parse().unwrap(),
                IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64 | 1).into()),
            };
            let client = a.connect((gateway, 9090)).unwrap();
            assert_eq!(talk(&host, client).to_canonical(), a.ip(index));
        }
        let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(forwarding.trim(), "1");
        assert_eq!(a.attachment.limits(), [""; 0]);
        a.attachment.release().unwrap();
        assert_eq!(bridges(), ["kplay0"], "somebody has an address yet");
        b.attachment.release().unwrap();
    });
}

#[test]
fn addresses_rest_before_they_are_given_out_again() {
    on_a_machine(|machine| {
        let first = machine.pod("first");
        let second = machine.pod("second");
        first.attachment.release().unwrap();
        let third = machine.pod("third");
        assert_eq!(third.ip(0).to_string(), "10.244.0.4");
        second.attachment.release().unwrap();
        third.attachment.release().unwrap();
        let fourth = machine.pod("fourth");
        assert_eq!(
            fourth.ip(0).to_string(),
            "10.244.0.5",
            "also with a new bridge"
        );
        fourth.attachment.release().unwrap();
    });
}

#[test]
fn what_the_killed_leave_is_swept() {
    on_a_machine(|machine| {
        let killed = machine.pod("killed");
        let alive = machine.pod("alive");
        // The kernel closes files and ends namespaces; nobody releases anything.
        drop(killed);
        sweep(&machine.folder, &Stop::default()).unwrap();
        assert_eq!(bridges(), ["kplay0"]);
        drop(alive);
        eventually("the bridge is gone", || {
            sweep(&machine.folder, &Stop::default()).unwrap();
            bridges().is_empty()
        });
        sweep(&machine.folder, &Stop::default()).unwrap();
        // Its links go with the pods' namespaces, a little later.
        while ip("-o link show type veth").contains("kplay") {
            std::thread::yield_now();
        }
    });
}

#[test]
fn who_sweeps_does_not_wait_for_ever() {
    on_a_machine(|machine| {
        drop(machine.pod("killed"));
        let lock = fs::lock(&machine.folder.join("lock"), fs::LockMode::Exclusive).unwrap();
        sweep_unless_busy(&machine.folder).unwrap();
        let (asked, ask) = std::io::pipe().unwrap();
        let folder = machine.folder.clone();
        let waiting = std::thread::spawn(move || sweep(&folder, &Stop::when(asked.into())));
        drop(ask);
        let given_up = waiting.join().unwrap();
        assert!(matches!(given_up, Err(Error::Lock(_))), "{given_up:?}");
        assert_eq!(bridges(), ["kplay0"]);
        drop(lock);
        eventually("the bridge is gone", || {
            sweep_unless_busy(&machine.folder).unwrap();
            bridges().is_empty()
        });
    });
}

#[test]
fn what_is_expected_stays_until_it_has_come_or_not() {
    on_a_machine(|machine| {
        let replaced = machine.pod("replaced");
        let before = ip("-o link show kplay0");
        let expected = expect(machine.folder.clone()).unwrap();
        // Made beside this thread.
        while !machine.folder.join("leases").join(process()).exists() {
            std::thread::yield_now();
        }
        replaced.attachment.release().unwrap();
        let number = |link: &str| link.split(':').next().map(str::to_owned);
        assert_eq!(number(&before), number(&ip("-o link show kplay0")));
        let new = machine.pod("new");
        drop(expected);
        assert_eq!(bridges(), ["kplay0"]);
        new.attachment.release().unwrap();
        assert_eq!(bridges(), [""; 0]);
        let in_vain = expect(machine.folder.clone()).unwrap();
        drop(in_vain);
        assert_eq!(bridges(), [""; 0]);
    });
}

/// The lease of a command that expects pods.
fn process() -> String {
    format!("process-{}", std::process::id())
}

#[test]
fn a_bridge_that_was_taken_away_is_made_again() {
    // The programs that other tests start have copies of a lock that is given up on the way, for a moment.
    if !alone("network::tests::a_bridge_that_was_taken_away_is_made_again") {
        return;
    }
    on_a_machine(|machine| {
        let lost = machine.pod("lost");
        ip("link delete kplay0");
        ip("link add kplay0 type bridge");
        let pod = machine.pod("pod");
        assert_eq!(
            bridges(),
            ["kplay0", "kplay1"],
            "somebody else's is left alone"
        );
        lost.attachment.release().unwrap();
        pod.attachment.release().unwrap();
        ip("link delete kplay0");
    });
}

#[test]
fn subnets_of_the_machine_are_avoided() {
    on_a_machine(|machine| {
        ip("link add other type bridge");
        ip("link set other up mtu 1400");
        ip("route add 10.244.0.0/21 dev other");
        ip("route add default dev other");
        let pod = machine.pod("pod");
        assert_eq!(pod.ip(0).to_string(), "10.244.8.2");
        let other = Machine {
            folder: machine.folder.join("other"),
        };
        let second = other.pod("pod of another run folder");
        assert_eq!(second.ip(0).to_string(), "10.244.12.2");
        let link = ip("-o link show kplay0-2");
        assert!(link.contains("mtu 1400"), "that of the way out: {link}");
        pod.attachment.release().unwrap();
        second.attachment.release().unwrap();
        ip("link delete other");
    });
}

#[test]
fn many_at_once_have_addresses_of_their_own() {
    on_a_machine(|machine| {
        let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let addresses = std::sync::Mutex::new(std::collections::BTreeSet::new());
        std::thread::scope(|scope| {
            for number in 0..20 {
                let (here, addresses) = (&here, &addresses);
                scope.spawn(move || {
                    nix::sched::setns(here, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    let pod = machine.pod("pod");
                    assert!(addresses.lock().unwrap().insert(pod.ip(0)));
                    // Half of them are killed.
                    if number % 2 == 0 {
                        pod.attachment.release().unwrap();
                    }
                });
            }
        });
        assert_eq!(addresses.lock().unwrap().len(), 20);
        sweep(&machine.folder, &Stop::default()).unwrap();
    });
}

#[test]
fn a_firewall_of_the_older_kind_is_told_of_too() {
    on_a_machine(|machine| {
        for (program, policy) in [("iptables-legacy", "DROP"), ("ip6tables-legacy", "DROP")] {
            let set = |policy: &str| {
                let output = Command::new(program)
                    .args(["-P", "FORWARD", policy])
                    .output()
                    .unwrap();
                let problem = String::from_utf8_lossy(&output.stderr).into_owned();
                // A kernel without it has no such firewall.
                output.status.success() || {
                    assert!(problem.contains("does not exist"), "{problem}");
                    false
                }
            };
            if !set("ACCEPT") {
                continue;
            }
            let pod = machine.pod("before");
            assert_eq!(pod.attachment.limits(), [""; 0]);
            pod.attachment.release().unwrap();
            set(policy);
            let pod = machine.pod("after");
            let [limit] = pod.attachment.limits() else {
                panic!("{:?}", pod.attachment.limits());
            };
            assert!(limit.contains(program), "{limit}");
            let remedy = format!("`{program} -I FORWARD -i kplay0 -j ACCEPT`");
            assert!(limit.contains(&remedy), "{limit}");
            pod.attachment.release().unwrap();
            set("ACCEPT");
        }
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_told_of() {
    on_a_machine(|machine| {
        let firewall = |arguments: &[&str]| {
            let output = Command::new("iptables").args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let pod = machine.pod("before");
        assert_eq!(pod.attachment.limits(), [""; 0]);
        pod.attachment.release().unwrap();
        firewall(&["-P", "FORWARD", "DROP"]);
        let pod = machine.pod("after");
        let [limit] = pod.attachment.limits() else {
            panic!("{:?}", pod.attachment.limits());
        };
        assert!(limit.contains("`filter FORWARD`"), "{limit}");
        assert!(
            limit.contains("iptables -I FORWARD -i kplay0 -j ACCEPT"),
            "{limit}"
        );
        pod.attachment.release().unwrap();
    });
}

#[test]
fn a_network_whose_folder_was_removed_goes_with_its_last_pod() {
    on_a_machine(|machine| {
        let old = ["a", "b"].map(|name| machine.pod(name));
        std::fs::remove_dir_all(&machine.folder).unwrap();
        let new = machine.pod("c");
        assert_eq!(bridges().len(), 2);
        let [a, b] = old;
        a.attachment.release().unwrap();
        // Those who are left still reach each other.
        let listener = new.listen("0.0.0.0:0");
        let port = listener.local_addr().unwrap().port();
        b.connect((new.ip(0), port)).unwrap();
        b.attachment.release().unwrap();
        assert_eq!(bridges().len(), 1);
        new.connect((new.ip(0), port)).unwrap();
        new.attachment.release().unwrap();
    });
}

#[test]
fn a_bridge_that_is_half_made_is_swept_or_made_anew() {
    use super::bridge::Bridge;
    use super::lease::{self, Record, Standing};
    on_a_machine(|machine| {
        // As somebody leaves it who is killed after the link was made.
        let half = || {
            let leases = lease::folder(&machine.folder);
            crate::sys::fs::create_dir_all(&leases, 0o700).unwrap();
            let chosen = Bridge::choose(None, &[]).unwrap();
            ip(&format!("link add {} type bridge", chosen.name));
            ip(&format!(
                "link set {} address {}",
                chosen.name,
                chosen.hardware_address()
            ));
            let record = Record::new(chosen, Standing::Chosen, None);
            record.write(&machine.folder).unwrap();
            assert_eq!(bridges(), ["kplay0"]);
        };
        half();
        sweep(&machine.folder, &Stop::default()).unwrap();
        assert_eq!(bridges(), [""; 0]);
        half();
        let pod = machine.pod("pod");
        assert_eq!(bridges(), ["kplay0"]);
        assert!(ip("-o address show kplay0").contains("10.244.0.1/22"));
        pod.attachment.release().unwrap();
    });
}
