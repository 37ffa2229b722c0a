//! What one pod's network takes: link, addresses, routes and the table with its resolver's address, in a namespace that
//! is there already; and to give it back. podman's, netavark with aardvark-dns, is part of its `kube play`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kplay::model::plan::Protocol;
use kplay::network::{RESOLVER, ServiceTable, VirtualAddress, VirtualPort, attach};
use kplay::sys::netns::NetNs;

use super::Bench;

/// Milliseconds that the set-up is to take at most.
const AIM: f64 = 4.0;

impl Bench {
    /// With a bridge that is there, and with one that has to be made and goes again.
    pub(super) fn network(&self, quick: bool) {
        let rounds = if quick { 20 } else { 100 };
        let folder = self.dir.join("network");
        println!(
            "\n{:<38}{:>18}{:>18}{:>8}",
            "network of a pod, median (min), ms", "set-up", "tear-down", "aim"
        );
        self::rounds(
            "the first and last one, with the bridge",
            rounds / 4,
            &folder,
        );
        let resident = Namespace::new();
        let attachment = attach(&folder, "resident", &resident.netns).expect("root may");
        self::rounds("one more", rounds, &folder);
        attachment.release().expect("root may");
    }
}

fn rounds(what: &str, rounds: usize, folder: &std::path::Path) {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..rounds {
        let namespace = Namespace::new();
        let start = Instant::now();
        let attachment = attach(folder, "bench", &namespace.netns).expect("root may");
        let mut table = ServiceTable::of_pod();
        let set = table.set(&namespace.netns, vec![resolver()]);
        set.expect("a kernel with nftables");
        times[0].push(start.elapsed());
        let start = Instant::now();
        attachment.release().expect("root may");
        times[1].push(start.elapsed());
    }
    let [up, down] = times.map(|mut times| {
        times.sort();
        let milliseconds = |at: usize| times[at].as_secs_f64() * 1000.0;
        format!(
            "{:.2} ({:.2})",
            milliseconds(times.len() / 2),
            milliseconds(0)
        )
    });
    println!("{what:<38}{up:>18}{down:>18}{AIM:>8.1}");
}

/// As the executor has it.
fn resolver() -> VirtualAddress {
    let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| VirtualPort {
        protocol,
        port: 53,
        backends: vec![(Ipv4Addr::LOCALHOST, 53053).into()],
    });
    VirtualAddress::new(IpAddr::from(RESOLVER), ports.to_vec())
}

/// A network namespace, kept by a thread.
struct Namespace {
    netns: NetNs,
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Namespace {
    fn new() -> Self {
        let (made, path) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let keeper = std::thread::spawn(move || {
            let flags = rustix::thread::UnshareFlags::NEWNET;
            // SAFETY: descriptors stay shared; the thread does nothing but wait.
            unsafe { rustix::thread::unshare_unsafe(flags) }.expect("root may");
            let thread = rustix::thread::gettid();
            let path = format!("/proc/self/task/{}/ns/net", thread.as_raw_nonzero());
            made.send(PathBuf::from(path)).expect("it is waited for");
            // Until the sender is dropped.
            ended.recv().ok();
        });
        let path = path.recv().expect("the thread tells");
        Self {
            netns: NetNs::open(&path).expect("a namespace"),
            keeper: Some((end, keeper)),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some((end, keeper)) = self.keeper.take() {
            drop(end);
            keeper.join().expect("it only waits");
        }
    }
}
