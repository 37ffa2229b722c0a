//! One mounted hierarchy: directories and files below its root.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Controller, huge};
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;

/// The directory of a hierarchy's root, and what it controls.
#[derive(Debug)]
pub(super) struct Hierarchy {
    root: OwnedFd,
    v2: bool,
    /// Whether the root is that of a part which has been given, with a place for its own processes.
    is_part: bool,
    controllers: Vec<Controller>,
    /// Of huge pages, if it controls them.
    page_sizes: Vec<u64>,
}

/// The controllers of version 2 that children get.
const ENABLED: [(&str, Controller); 5] = [
    ("cpu", Controller::Cpu),
    ("io", Controller::Io),
    ("memory", Controller::Memory),
    ("pids", Controller::Pids),
    ("hugetlb", Controller::HugePages),
];

/// The cgroup of the processes that were in the root of a container's; podman calls it so too.
const INIT: &str = "init";

/// The hierarchies that are mounted now and that are of use.
pub(super) fn find() -> io::Result<Vec<Hierarchy>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    let mut used = Vec::new();
    let mut is_any_there = false;
    let page_sizes = huge::sizes();
    for mount in mounts.lines().filter_map(parse_mount) {
        let mut controllers = v1_controllers(&mount.options);
        controllers.retain(|controller| is_of_use(*controller, &page_sizes));
        // A hierarchy may be mounted twice; a named one (systemd's) controls nothing.
        let seen = used.contains(&(mount.v2, mount.device.clone()));
        if seen || (!mount.v2 && controllers.is_empty()) {
            continue;
        }
        used.push((mount.v2, mount.device));
        is_any_there = true;
        if !mount.writable {
            tracing::info!(point = ?mount.point, "these cgroups are mounted read-only");
            continue;
        }
        let hierarchy = Hierarchy::open(&mount.point, mount.v2, controllers, &page_sizes)?;
        found.push(hierarchy);
    }
    if !is_any_there {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup hierarchy is mounted",
        ));
    }
    Ok(found)
}

fn is_of_use(controller: Controller, page_sizes: &[u64]) -> bool {
    controller != Controller::HugePages || !page_sizes.is_empty()
}

/// Where cgroups are mounted, also those that are of no use.
pub(super) fn mount_points() -> io::Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(parse_mount);
    Ok(points.map(|mount| mount.point).collect())
}

/// Whether any of them is of version 1.
pub(super) fn has_version_1() -> io::Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts
        .lines()
        .filter_map(parse_mount)
        .any(|mount| !mount.v2))
}

/// Gives the children of a cgroup of version 2 what controllers it has. What is refused is not to be had.
pub(super) fn hand_down(folder: &Path) {
    for (name, _) in ENABLED {
        let given = std::fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"));
        if let Err(error) = given {
            tracing::debug!(?folder, name, %error, "a cgroup controller cannot be enabled");
        }
    }
}

/// Where version 2 is mounted, if it is alone.
pub(super) fn only_version_2() -> io::Result<Option<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut mounts = mounts.lines().filter_map(parse_mount);
    let first = mounts.next();
    let alone = first.as_ref().is_some_and(|mount| mount.v2) && mounts.all(|mount| mount.v2);
    Ok(first.filter(|_| alone).map(|mount| mount.point))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountLine {
    pub(super) point: PathBuf,
    pub(super) device: String,
    pub(super) v2: bool,
    pub(super) options: String,
    pub(super) writable: bool,
}

/// The cgroup mount that a line of `mountinfo` describes.
pub(super) fn parse_mount(line: &str) -> Option<MountLine> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let v2 = match right.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let options = right.nth(1)?.to_owned();
    let mut left = left.split(' ');
    let device = left.nth(2)?.to_owned();
    let point = unescape(left.nth(1)?);
    let writable = left.next()?.split(',').all(|option| option != "ro");
    Some(MountLine {
        point,
        device,
        v2,
        options,
        writable,
    })
}

/// Undoes `\040` and the like.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

fn v1_controllers(options: &str) -> Vec<Controller> {
    options
        .split(',')
        .filter_map(|option| match option {
            "cpu" => Some(Controller::Cpu),
            "cpuacct" => Some(Controller::CpuAccounting),
            "memory" => Some(Controller::Memory),
            "pids" => Some(Controller::Pids),
            "devices" => Some(Controller::Devices),
            "hugetlb" => Some(Controller::HugePages),
            _ => None,
        })
        .collect()
}

impl Hierarchy {
    /// A part of the tree of version 2, as if it were all.
    pub(super) fn delegated(folder: &Path) -> io::Result<Self> {
        let all = Self::open(folder, true, Vec::new(), &huge::sizes())?;
        Ok(Self {
            is_part: true,
            ..all
        })
    }

    fn open(
        point: &Path,
        v2: bool,
        mut controllers: Vec<Controller>,
        page_sizes: &[u64],
    ) -> io::Result<Self> {
        let root = rustix::fs::open(
            point,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut hierarchy = Self {
            root,
            v2,
            is_part: false,
            controllers: Vec::new(),
            page_sizes: Vec::new(),
        };
        if v2 {
            let there = hierarchy.read("", "cgroup.controllers")?;
            let has = |name: &str| there.split_ascii_whitespace().any(|word| word == name);
            controllers.extend(
                ENABLED
                    .iter()
                    .filter(|(name, c)| has(name) && is_of_use(*c, page_sizes))
                    .map(|(_, c)| *c),
            );
        }
        hierarchy.controllers = controllers;
        if hierarchy.controls(Controller::HugePages) {
            hierarchy.page_sizes = page_sizes.to_owned();
        }
        Ok(hierarchy)
    }

    pub(super) fn page_sizes(&self) -> &[u64] {
        &self.page_sizes
    }

    pub(super) fn is_v2(&self) -> bool {
        self.v2
    }

    pub(super) fn controls(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes the directory and its parents. Of version 2, hands the controllers down to it.
    pub(super) fn create(&self, path: &str) -> io::Result<()> {
        // Somebody who removes the last other one may take the parent away in between: that often in a row, nobody can.
        const TRIES: usize = 100;
        for _ in 1..TRIES {
            match self.try_create(path) {
                Err(e) if is_gone(&e) => {}
                other => return other,
            }
        }
        self.try_create(path)
    }

    fn try_create(&self, path: &str) -> io::Result<()> {
        if !self.v2 {
            return self.make(path);
        }
        let mut done = String::new();
        for name in path.split('/') {
            let parent = done.clone();
            if !done.is_empty() {
                done.push('/');
            }
            done.push_str(name);
            // Also where the parent was there: whoever made it may not have come to this yet, and others manage the same
            // tree and take away what they do not use.
            self.enable(&parent)?;
            self.make_one(&done)?;
        }
        Ok(())
    }

    /// Makes the directory, and those above it that are not there, which they mostly are.
    fn make(&self, path: &str) -> io::Result<()> {
        match (self.make_one(path), path.rsplit_once('/')) {
            (Err(e), Some((parent, _))) if is_gone(&e) => {
                self.make(parent)?;
                self.make_one(path)
            }
            (other, _) => other,
        }
    }

    /// Makes the directory, or takes the one that is there.
    fn make_one(&self, path: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives the children of `path` the controllers that it has and that they lack.
    fn enable(&self, path: &str) -> io::Result<()> {
        if self.controllers.is_empty() {
            return Ok(());
        }
        let has = self.read(path, "cgroup.controllers")?;
        let given = self.read(path, "cgroup.subtree_control")?;
        let contains =
            |list: &str, name: &str| list.split_ascii_whitespace().any(|word| word == name);
        let missing: Vec<&str> = ENABLED
            .iter()
            .filter(|(_, controller)| self.controls(*controller))
            .map(|(name, _)| *name)
            .filter(|name| contains(&has, name) && !contains(&given, name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.has_internal_processes(path)? && !(path.is_empty() && self.make_room()?) {
            tracing::debug!(path, "a cgroup with processes hands no controllers down");
            return Ok(());
        }
        for name in missing {
            // One by one, so that one which is refused does not take the others with it. A limit that needs it fails
            // later, and names it.
            if let Err(error) = self.write(path, "cgroup.subtree_control", &format!("+{name}")) {
                tracing::debug!(path, name, %error, "a cgroup controller cannot be enabled");
            }
        }
        Ok(())
    }

    /// Whether it has processes and is not the machine's root. Such a one may enable some controllers (cpu, pids), but
    /// then it becomes threaded, and the kernel lets no process into those below it any more.
    fn has_internal_processes(&self, path: &str) -> io::Result<bool> {
        match self.read(path, "cgroup.type") {
            Ok(_) => Ok(!self.read(path, "cgroup.procs")?.is_empty()),
            // Only the machine's root has no type.
            Err(e) if is_gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Moves the processes of the root of a cgroup namespace, which is a container's, into a cgroup of their own, as podman
    /// and Docker's images for use within containers do; says whether none is left. Nobody moves them back: they are as
    /// limited as before.
    fn make_room(&self) -> io::Result<bool> {
        // Of those that are born meanwhile the next round knows.
        const ROUNDS: usize = 20;
        if self.is_part {
            return Ok(false);
        }
        self.make_one(INIT)?;
        for _ in 0..ROUNDS {
            let processes = self.read("", "cgroup.procs")?;
            if processes.is_empty() {
                return Ok(true);
            }
            for process in processes.lines() {
                // One that this pid namespace does not see has the number 0, which as a word is the writer.
                let moved = match process {
                    "0" => Err(io::ErrorKind::PermissionDenied.into()),
                    process => self.write(INIT, "cgroup.procs", process),
                };
                match moved {
                    Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                        tracing::debug!(process, %e, "a process stays in the root cgroup");
                        return Ok(false);
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(false)
    }

    /// Removes the directory and those below it. Fine if it is gone.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        for child in self.children(path)? {
            self.remove(&child)?;
        }
        match rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes the directories above `path`, as far as it was the last in them.
    pub(super) fn remove_parents(&self, path: &str) {
        let mut path = path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            // In use, or removed by somebody else: both are fine.
            if rustix::fs::unlinkat(&self.root, parent, AtFlags::REMOVEDIR).is_err() {
                return;
            }
            path = parent;
        }
    }

    /// Keeps others who call this away from a directory, for as long as what is returned is open.
    pub(super) fn lock(&self, path: &str) -> io::Result<OwnedFd> {
        let directory = self.directory(path)?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
        Ok(directory)
    }

    pub(super) fn children(&self, path: &str) -> io::Result<Vec<String>> {
        let directory = match self.directory(path) {
            Ok(directory) => directory,
            Err(e) if is_gone(&e) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut children = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) => break,
                Err(e) => return Err(e.into()),
            };
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
                children.push(format!("{path}/{name}"));
            }
        }
        Ok(children)
    }

    pub(super) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, path, flags, Mode::empty())?)
    }

    pub(super) fn open_procs(&self, path: &str) -> io::Result<OwnedFd> {
        self.open_file(path, "cgroup.procs", OFlags::WRONLY)
    }

    fn open_file(&self, path: &str, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() {
            file.to_owned()
        } else {
            format!("{path}/{file}")
        };
        Ok(rustix::fs::openat(
            &self.root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    pub(super) fn read(&self, path: &str, file: &str) -> io::Result<String> {
        let fd = self.open_file(path, file, OFlags::RDONLY)?;
        io::read_to_string(std::fs::File::from(fd))
    }

    pub(super) fn write(&self, path: &str, file: &str, value: &str) -> io::Result<()> {
        let fd = self.open_file(path, file, OFlags::WRONLY)?;
        // In one piece: the kernel takes each write as a value.
        rustix::io::write(&fd, value.as_bytes())?;
        Ok(())
    }

    /// The processes in the directory and those below it. One that is gone has none.
    pub(super) fn pids(&self, path: &str) -> io::Result<Vec<i32>> {
        let text = match self.read(path, "cgroup.procs") {
            Ok(text) => text,
            Err(e) if is_gone(&e) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        // 0 is a process that this pid namespace does not see.
        let mut pids: Vec<i32> = text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 0)
            .collect();
        for child in self.children(path)? {
            pids.extend(self.pids(&child)?);
        }
        Ok(pids)
    }

    /// Kills everything in the directory and below it.
    pub(super) fn kill(&self, path: &str) -> io::Result<()> {
        if self.v2 && self.kill_at_once(path)? {
            return Ok(());
        }
        // A process may fork between the reading and the signal; so until a round finds nobody new.
        let mut before = Vec::new();
        loop {
            let pids = self.pids(path)?;
            let all_known = pids.iter().all(|pid| before.contains(pid));
            for pid in &pids {
                kill_member(*pid, || self.pids(path))?;
            }
            if all_known {
                return Ok(());
            }
            before = pids;
        }
    }

    /// Has the kernel kill it all, also what is being born; says whether it can.
    pub(super) fn kill_at_once(&self, path: &str) -> io::Result<bool> {
        match self.write(path, "cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // Gone, or a kernel before 5.14.
            Err(e) if is_gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Waits until nothing is left in the directory and below it.
    pub(super) fn wait_empty(&self, path: &str, deadline: Instant) -> io::Result<bool> {
        if self.v2 {
            return self.wait_unpopulated(path, deadline);
        }
        loop {
            let pids = self.pids(path)?;
            let Some(pid) = pids.first() else {
                return Ok(true);
            };
            let Ok(process) = PidFd::open(*pid) else {
                // Ended since the list was read.
                continue;
            };
            if !poll(&process, PollFlags::IN, deadline)? {
                return Ok(false);
            }
        }
    }

    fn wait_unpopulated(&self, path: &str, deadline: Instant) -> io::Result<bool> {
        let events = match self.open_file(path, "cgroup.events", OFlags::RDONLY) {
            Ok(events) => events,
            Err(e) if is_gone(&e) => return Ok(true),
            Err(e) => return Err(e),
        };
        loop {
            let mut buffer = [0; 256];
            let length = match rustix::io::pread(&events, &mut buffer, 0) {
                Ok(length) => length,
                Err(Errno::NODEV) => return Ok(true),
                Err(e) => return Err(e.into()),
            };
            let text = String::from_utf8_lossy(&buffer[..length]);
            if super::keyed(&text, "populated") == Some(0) {
                return Ok(true);
            }
            if !poll(&events, PollFlags::PRI, deadline)? {
                return Ok(false);
            }
        }
    }
}

/// Kills a process if it still is a member: the descriptor is opened first, so that the number cannot have been given
/// to another process when the second look at the list finds it there.
fn kill_member(pid: i32, members: impl Fn() -> io::Result<Vec<i32>>) -> io::Result<()> {
    let Ok(process) = PidFd::open(pid) else {
        return Ok(());
    };
    if members()?.contains(&pid) {
        process.signal(Signal::KILL)?;
    }
    Ok(())
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Waits for an event until the deadline; says whether it came.
fn poll(fd: &impl std::os::fd::AsFd, event: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(&mut [PollFd::new(fd, event)], Some(&timeout)) {
            Ok(0) if left > Duration::ZERO => {}
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
