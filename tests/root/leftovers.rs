//! What pods can leave on a machine: processes, mounts, namespaces, cgroups, sockets.

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
    let name = format!("kplay/{uid}");
    let mut left: Vec<String> = processes()
        .iter()
        .filter(|process| process.cgroups.contains(&name))
        .map(ToString::to_string)
        .collect();
    left.extend(
        hierarchies()
            .iter()
            .map(|hierarchy| hierarchy.join(&name))
            .filter(|cgroup| cgroup.exists())
            .map(|cgroup| format!("cgroup {cgroup:?}")),
    );
    left
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

/// A pod's cgroup in the hierarchy of `controller`.
pub(crate) fn cgroup_of(controller: &str, uid: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() {
        root.to_owned()
    } else {
        root.join(controller)
    };
    root.join("kplay").join(uid)
}
