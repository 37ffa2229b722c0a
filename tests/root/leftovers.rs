//! What pods can leave on a machine: processes, mounts, namespaces, cgroups, sockets, links, packet filter rules.

use std::fs;
use std::path::{Path, PathBuf};

/// How the names of the tests' folders begin; another clone, whose tests may run at the same time, has another one.
pub(crate) fn prefix() -> String {
    // FNV-1a.
    let hash = env!("CARGO_MANIFEST_DIR")
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    format!("kplay-test-{:04x}-", hash >> 16)
}

/// One process of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its arguments, with spaces between them.
    pub(crate) command: String,
    /// `/proc/PID/cgroup`.
    pub(crate) cgroups: String,
    /// `/proc/PID/mountinfo`.
    pub(crate) mounts: String,
    /// What `/proc/PID/exe` points to, if that can be told.
    pub(crate) program: Option<PathBuf>,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} `{}` {:?}",
            self.pid, self.command, self.program
        )
    }
}

/// All processes but this one. Those that end meanwhile are left out, and so are zombies: they hold nothing, and
/// who must reap them is another matter.
pub(crate) fn processes() -> Vec<Process> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter_map(process)
        .collect()
}

fn process(pid: u32) -> Option<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    if state == 'Z' || state == 'X' {
        return None;
    }
    let command = fs::read(dir.join("cmdline")).ok()?;
    Some(Process {
        pid,
        command: String::from_utf8_lossy(&command)
            .trim_end_matches('\0')
            .replace('\0', " "),
        cgroups: fs::read_to_string(dir.join("cgroup")).ok()?,
        mounts: fs::read_to_string(dir.join("mountinfo")).unwrap_or_default(),
        program: fs::read_link(dir.join("exe")).ok(),
    })
}

/// Processes that name a folder, mounts in any process's view that do, and sockets in it.
pub(crate) fn of_dir(dir: &Path) -> Vec<String> {
    let name = dir.to_str().expect("a readable path");
    let mut left = Vec::new();
    for process in processes() {
        if process.command.contains(name) {
            left.push(process.to_string());
        }
        for mount in process.mounts.lines().filter(|line| line.contains(name)) {
            left.push(format!("mount seen by {}: {mount}", process.pid));
        }
    }
    let sockets = fs::read_to_string("/proc/net/unix").expect("the kernel's list of sockets");
    left.extend(
        sockets
            .lines()
            .filter(|line| line.contains(name))
            .map(|line| format!("socket {line}")),
    );
    left
}

/// Processes in a pod's cgroup, and the cgroup.
pub(crate) fn of_uid(uid: &str) -> Vec<String> {
    let name = format!("/{uid}");
    let mut left: Vec<String> = processes()
        .iter()
        .filter(|process| process.cgroups.contains(&name))
        .map(ToString::to_string)
        .collect();
    let places = hierarchies();
    left.extend(
        places
            .iter()
            .flat_map(|hierarchy| places_of(uid).map(|place| hierarchy.join(place)))
            .filter(|cgroup| cgroup.exists())
            .map(|cgroup| format!("cgroup {cgroup:?}")),
    );
    let tables = tables_of_uid(uid).into_iter();
    left.extend(tables.map(|table| format!("nftables table {table}")));
    left
}

/// The tables that a pod has in the machine's packet filter.
pub(crate) fn tables_of_uid(uid: &str) -> Vec<String> {
    let mut tables = nft_tables();
    tables.retain(|table| table.contains(uid));
    tables
}

/// Where cgroups are mounted: one place per controller (v1), or one place (v2).
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if is_v2() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).expect("cgroups are mounted");
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Whether the machine has cgroup v2 only.
pub(crate) fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Where a pod's cgroup may be in a hierarchy, by the pod's quality of service.
pub(crate) fn places_of(uid: &str) -> [PathBuf; 3] {
    ["kplay", "kplay/burstable", "kplay/besteffort"].map(|class| Path::new(class).join(uid))
}

/// A pod's cgroup in the hierarchy of `controller`.
pub(crate) fn cgroup_of(controller: &str, uid: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() {
        root.to_owned()
    } else {
        root.join(controller)
    };
    let mut places = places_of(uid).into_iter().map(|place| root.join(place));
    places
        .find(|cgroup| cgroup.exists())
        .unwrap_or_else(|| root.join("kplay").join(uid))
}

/// The executors of the pod with this run folder.
pub(crate) fn executors_of(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().expect("a readable path");
    let of_pod = |process: &Process| {
        process.command.contains("internal execute") && process.command.ends_with(dir)
    };
    let found = processes().into_iter().filter(of_pod);
    found.map(|process| process.pid).collect()
}

/// What a state folder's network has left: its bridge, links of it, its rules. The record of the bridge outlives it.
pub(crate) fn of_network(runroot: &Path) -> Vec<String> {
    let record = fs::read(runroot.join("network/network.json")).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
    let Some(name) = record["bridge"]["name"].as_str() else {
        return Vec::new();
    };
    let octets = record["bridge"]["hardware_address"].as_array();
    let octets = octets
        .into_iter()
        .flatten()
        .filter_map(|octet| octet.as_u64());
    let octets: Vec<String> = octets.map(|octet| format!("{octet:02x}")).collect();
    let address = fs::read_to_string(Path::new("/sys/class/net").join(name).join("address"));
    // Another one may have its name by now, and then it has the links and the rules, too.
    if address.is_ok_and(|address| address.trim() != octets.join(":")) {
        return Vec::new();
    }
    let of_bridge = |found: &String| found == name || found.starts_with(&format!("{name}-"));
    let links = links().into_iter().filter(of_bridge);
    let tables = nft_tables().into_iter().filter(|table| table == name);
    links
        .map(|link| format!("link {link}"))
        .chain(tables.map(|table| format!("nftables table {table}")))
        .collect()
}

/// The names of this machine's network interfaces.
pub(crate) fn links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").expect("the kernel's list of interfaces");
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The names of the packet filter's tables, of whatever family.
pub(crate) fn nft_tables() -> Vec<String> {
    const GET_TABLE: u16 = 10 << 8 | 1;
    const NEW_TABLE: u16 = 10 << 8;
    const REQUEST_DUMP: u16 = 0x301;
    const NAME: u16 = 1;
    let (header, body) = (16, 4);
    let mut request = Vec::new();
    request.extend(u32::to_ne_bytes(20));
    request.extend([GET_TABLE, REQUEST_DUMP].map(u16::to_ne_bytes).concat());
    request.extend([0; 12]);
    let socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER);
    let mut socket = socket.expect("a netlink socket");
    socket.bind_auto().expect("an address");
    socket.send(&request, 0).expect("sent");
    let mut names = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full().expect("an answer");
        let mut rest = bytes.as_slice();
        while rest.len() >= header {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four")) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into().expect("two"));
            if kind != NEW_TABLE {
                // The end, or that there are no tables here.
                return names;
            }
            // The name is the first attribute.
            let attribute = &rest[header + body..length];
            let size = u16::from_ne_bytes(attribute[..2].try_into().expect("two"));
            assert_eq!(attribute[2..4], NAME.to_ne_bytes());
            let name = &attribute[4..usize::from(size)];
            names.push(
                String::from_utf8_lossy(name)
                    .trim_end_matches('\0')
                    .to_owned(),
            );
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
