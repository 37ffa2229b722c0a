//! Many pods at once: no two have the same address, nothing is left of them, and nothing of kplay listens on the machine
//! that was not published.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Kplay;
use crate::leftovers;
use crate::traffic::{PROBED, client, server, service};
use crate::wait;

/// The addresses of all pods, by name, as they tell each other.
fn told(runroot: &Path) -> BTreeMap<String, Vec<String>> {
    let files = fs::read_dir(runroot.join("endpoints"))
        .into_iter()
        .flatten()
        .flatten();
    let peers = files.filter_map(|file| {
        let peer: Value = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        let ips = peer["ips"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        Some((peer["name"].as_str()?.to_owned(), ips.collect()))
    });
    peers.collect()
}

#[test]
fn a_hundred_pods_on_one_bridge() {
    const PODS: usize = 100;
    let Some(kplay) = Kplay::new() else { return };
    let pods: String = (1..PODS)
        .map(|number| client(&format!("pod-{number}")).replace("role: client", "app: many"))
        .collect();
    let last = server(
        "pod-last",
        "app: many",
        "hostname: last, subdomain: many,",
        "",
    );
    let manifest = service(
        "many",
        "clusterIP: None, selector: {app: many}, ports: [{port: 8080}]",
    ) + &pods
        + &last;
    let start = Instant::now();
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["pod-1", "pod-last"]);
    kplay.until_fetched("pod-1", "last.many:8080/hostname", "last\n");
    let mut found = Vec::new();
    wait::until("all pods have told their addresses", || {
        found = kplay.found("pod-1", &["many"]);
        found.len() == PODS
    });
    eprintln!("{PODS} pods in {:?}", start.elapsed());
    let told = told(&kplay.runroot());
    assert_eq!(told.len(), PODS);
    let all: BTreeSet<&String> = told.values().flatten().collect();
    assert_eq!(
        all.len(),
        told.values().map(Vec::len).sum::<usize>(),
        "each has its own"
    );
    let firsts: BTreeSet<&String> = told.values().filter_map(|ips| ips.first()).collect();
    assert_eq!(firsts, found.iter().collect());
    kplay
        .run(["delete", "--all", "--force", "--grace-period=0"])
        .succeeds();
    kplay.assert_nothing_left();
}

/// A number that is another one each time.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

pub(crate) fn kill(pid: u32) {
    send(pid, rustix::process::Signal::KILL);
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // It may have ended by itself.
    rustix::process::kill_process(pid.expect("a pid"), signal).ok();
}

#[test]
fn addresses_neither_leak_nor_collide_when_commands_are_killed() {
    const WORKERS: usize = 20;
    const ROUNDS: usize = 2;
    let Some(kplay) = Kplay::new() else { return };
    let files: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let pods: String = (0..ROUNDS)
                .map(|round| client(&format!("pod-{worker}-{round}")))
                .collect();
            kplay.file(&format!("{worker}.yaml"), pods)
        })
        .collect();
    // The bridge is there before, and after.
    kplay.apply(&client("witness")).succeeds();
    let commands: Vec<_> = files
        .iter()
        .map(|file| {
            [
                kplay.command(["apply".as_ref(), file.as_os_str()]).std(),
                kplay
                    .command([
                        "delete".as_ref(),
                        "--grace-period=1".as_ref(),
                        "--ignore-not-found".as_ref(),
                        "-f".as_ref(),
                        file.as_os_str(),
                    ])
                    .std(),
            ]
        })
        .collect();
    let owners = Mutex::new(BTreeMap::<String, String>::new());
    let done = AtomicBool::new(false);
    let runroot = kplay.runroot();
    std::thread::scope(|scope| {
        let workers: Vec<_> = commands
            .into_iter()
            .enumerate()
            .map(|(worker, commands)| {
                let runroot = &runroot;
                scope.spawn(move || {
                    let mut commands = commands;
                    for round in 0..ROUNDS {
                        for command in &mut commands {
                            command
                                .stdout(std::process::Stdio::null())
                                .stderr(std::process::Stdio::null());
                            let mut child = command.spawn().expect("kplay starts");
                            // Every third is cut off somewhere.
                            if (worker + round) % 3 == 0 {
                                wait::ended(child.id(), Duration::from_millis(random() % 400));
                                child.kill().expect("our own child");
                            }
                            child.wait().expect("our own child");
                            if (worker + round) % 4 == 1 {
                                let dir = runroot.join(format!("pods/default_pod-{worker}-0"));
                                leftovers::executors_of(&dir).into_iter().for_each(kill);
                            }
                        }
                    }
                })
            })
            .collect();
        let watch = scope.spawn(|| {
            // Within this test no address is given out twice: those that were given back come last.
            while !done.load(Ordering::Relaxed) {
                let mut owners = owners.lock().expect("no panic");
                for (name, ips) in told(&runroot) {
                    for ip in ips {
                        let owner = owners.entry(ip.clone()).or_insert_with(|| name.clone());
                        assert_eq!(*owner, name, "{ip}");
                    }
                }
                drop(owners);
                wait::holds_within(Duration::ZERO, || false);
            }
        });
        for worker in workers {
            worker.join().expect("no panic");
        }
        done.store(true, Ordering::Relaxed);
        watch.join().expect("no collision");
    });
    kplay.note_pods();
    assert!(owners.lock().expect("no panic").len() > WORKERS);
    // The network still works, for those who are left and for new ones.
    kplay
        .apply(&server("new", "app: new", "", PROBED))
        .succeeds();
    kplay.until_ready(&["new", "witness"]);
    let ip = kplay.ips("new")[0].clone();
    kplay.until_fetched("witness", &format!("{ip}:8080/hostname"), "new\n");
    kplay
        .run(["delete", "--all", "--grace-period=1"])
        .succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn the_last_executor_leaves_no_network_if_it_has_to_be_killed() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.apply(&client("stuck")).succeeds();
    send(kplay.executor("stuck"), rustix::process::Signal::STOP);
    kplay.run(["delete", "pod", "stuck", "--force"]).succeeds();
    kplay.assert_nothing_left();
}

#[test]
fn killed_executors_are_no_endpoints_any_more() {
    let Some(kplay) = Kplay::new() else { return };
    let servers: String = ["a", "b", "c", "d"]
        .map(|name| server(name, "app: web", "", ""))
        .concat();
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &servers
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "c", "d", "client"]);
    kplay.until_fetched("client", "web/healthz", "ok\n");
    // Of those that are left, "a" and "client" are told of the end of one that has told of another one's no more.
    let pids = ["b", "c", "d"].map(|pod| kplay.executor(pod));
    pids.into_iter().for_each(kill);
    for pid in pids {
        assert!(wait::ended(pid, wait::PATIENCE));
    }
    // No command cleans up: the others see it.
    wait::until("they are forgotten", || {
        told(&kplay.runroot())
            .into_keys()
            .eq(["a", "client"].map(str::to_owned))
    });
    wait::until("only the other one is asked", || {
        (0..12).all(|_| kplay.fetch("client", "web/hostname").stdout == "a\n")
    });
    // One that is started anew at once stays.
    kill(kplay.executor("a"));
    kplay.apply(&server("a", "app: web", "", "")).succeeds();
    kplay.until_fetched("client", "web/hostname", "a\n");
    assert!(told(&kplay.runroot()).contains_key("a"));
}

/// Sockets that wait for somebody, of the machine's network: their addresses by inode.
fn listening() -> BTreeMap<String, SocketAddr> {
    // Listening, or for datagrams: unconnected.
    let tables = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];
    let mut sockets = BTreeMap::new();
    for (table, state) in tables {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(table));
        for row in text.unwrap_or_default().lines().skip(1) {
            let words: Vec<&str> = row.split_whitespace().collect();
            if words[3] == state {
                sockets.insert(words[9].to_owned(), address(words[1]));
            }
        }
    }
    sockets
}

/// `0100007F:0035`: each word of the address in the machine's order of bytes.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).expect("digits");
        u32::from_str_radix(word, 16).expect("digits").to_ne_bytes()
    });
    let bytes: Vec<u8> = words.flatten().collect();
    let ip = match <[u8; 4]>::try_from(&*bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&*bytes).expect("16 bytes")),
    };
    (ip, u16::from_str_radix(port, 16).expect("digits")).into()
}

/// Where the processes of a test's pods that are kplay's own listen.
pub(crate) fn listening_of(kplay: &Kplay) -> Vec<SocketAddr> {
    let dir = kplay.dir().to_str().expect("a readable path").to_owned();
    let built = Path::new(env!("CARGO_BIN_EXE_kplay"));
    let sockets = listening();
    let mut found = BTreeSet::new();
    for process in leftovers::processes() {
        let ours = process.command.contains(&dir) && process.program.as_deref() == Some(built);
        let Ok(fds) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            continue;
        };
        for fd in fds.flatten().filter(|_| ours) {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            let socket = inode.and_then(|inode| Some((inode.to_owned(), *sockets.get(inode)?)));
            found.extend(socket);
        }
    }
    found.into_iter().map(|(_, address)| address).collect()
}

#[test]
fn nothing_listens_on_the_machine_but_what_was_published() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: http}]",
    ) + &service(
        "udp",
        "selector: {app: web}, ports: [{port: 53, protocol: UDP}]",
    ) + &service("bare", "clusterIP: None, selector: {app: web}")
        + &server("a", "app: web", "", PROBED)
        + &server("b", "app: web", "", "")
        + &client("client");
    kplay.apply(&manifest).succeeds();
    kplay.until_ready(&["a", "b", "client"]);
    kplay.until_fetched("client", "web/healthz", "ok\n");
    assert_eq!(listening_of(&kplay), []);
    // The test sees what there is to see.
    let port = crate::harness::free_port();
    let published = server("c", "app: c", "", "").replace(
        "containerPort: 8080",
        &format!("containerPort: 8080, hostPort: {port}, hostIP: 127.0.0.1"),
    );
    kplay.apply(&published).succeeds();
    kplay.until_ready(&["c"]);
    assert_eq!(
        listening_of(&kplay),
        [SocketAddr::from(([127, 0, 0, 1], port))]
    );
}
