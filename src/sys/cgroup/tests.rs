use super::hierarchy::parse_mount;
use super::limits::{throttle_once, weight_of};
use super::{Cgroup, CgroupEntry, Hierarchies, Limits, Version, is_plain, keyed};
use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::process::{ParentDeath, Session, Spawn, spawn};

#[test]
fn weights() {
    let check = |shares: u64, expected: u64| assert_eq!(weight_of(shares), expected, "{shares}");
    check(0, 1);
    check(2, 1);
    check(102, 17);
    check(1024, 100);
    check(262_144, 10_000);
    check(1_000_000, 10_000);
}

#[test]
fn mounts() {
    let check = |line: &str, expected: Option<(&str, bool, &str)>| {
        let mount = parse_mount(line);
        let found = mount
            .as_ref()
            .map(|m| (m.point.to_str().unwrap_or(""), m.v2, m.options.as_str()));
        assert_eq!(found, expected, "{line}");
    };
    check(
        "35 25 0:30 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct",
        Some(("/sys/fs/cgroup/cpu", false, "rw,cpu,cpuacct")),
    );
    check(
        "35 25 0:30 / /sys/fs/c\\040g rw - cgroup2 cgroup2 rw",
        Some(("/sys/fs/c g", true, "rw")),
    );
    check("22 1 8:1 / / rw - ext4 /dev/sda rw", None);
    check("nonsense", None);
}

#[test]
fn paths() {
    let check = |path: &str, expected: bool| assert_eq!(is_plain(path), expected, "{path}");
    check("kplay/uid/name", true);
    check("", false);
    check("/kplay", false);
    check("kplay/../x", false);
    check("kplay//x", false);
}

#[test]
fn keys() {
    let text = "low 0\noom 3\noom_kill 2\n";
    assert_eq!(keyed(text, "oom_kill"), Some(2));
    assert_eq!(keyed(text, "oom"), Some(3));
    assert_eq!(keyed(text, "max"), None);
}

/// The program that version 2 needs, on the version 2 hierarchy of hybrid mode, or of version 2 itself.
#[test]
fn a_device_program_holds() {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::{BlockDevice, DeviceAccess, device};
    use crate::sys::fd;

    let Ok(hierarchies) = Hierarchies::open() else {
        return;
    };
    let Some(hierarchy) = hierarchies.0.iter().find(|hierarchy| hierarchy.is_v2()) else {
        return;
    };
    let path = format!("kplay-test-devices-{}", std::process::id());
    if hierarchy.create(&path).is_err() {
        // Not root.
        return;
    }
    let block = |minor, access| BlockDevice {
        major: 7,
        minor,
        access,
    };
    let blocks = [
        block(1, DeviceAccess::Read),
        block(2, DeviceAccess::ReadWrite),
    ];
    device::attach(&hierarchy.directory(&path).unwrap(), &blocks).unwrap();
    let entry = CgroupEntry {
        directory: Some(hierarchy.directory(&path).unwrap()),
        procs: Vec::new(),
    };
    let (read, write) = fd::pipe().unwrap();
    let folder = std::env::temp_dir().join(&path);
    std::fs::create_dir(&folder).unwrap();
    let script = format!(
        "exec >&2; cd {} && head -c 1 /dev/zero | wc -c; mknod mem c 1 1; head -c 0 mem; mknod disk b 7 0; \
         head -c 0 disk; mknod one b 7 1; head -c 0 one; (: >> one); mknod two b 7 2; head -c 0 two; (: >> two); \
         grep -c {path} /proc/self/cgroup",
        folder.display()
    );
    let process = spawn(&Spawn {
        program: "/usr/bin/busybox".as_ref(),
        args: &["sh".as_ref(), "-c".as_ref(), script.as_ref()],
        env: &["PATH=/bin:/usr/bin".as_ref()],
        fds: &[],
        stderr: Some(write.as_fd()),
        session: Session::Own,
        parent_death: ParentDeath::Kill,
        cgroup: Some(&entry),
    })
    .unwrap();
    drop(write);
    process.wait().unwrap();
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    hierarchy.remove(&path).unwrap();
    let refused = text.matches("Operation not permitted").count();
    assert_eq!(
        (text.starts_with("1\n"), refused, text.ends_with("1\n")),
        (true, 3, true),
        "{text}"
    );
}

#[test]
fn the_last_to_go_takes_the_parent_along_and_is_in_nobodys_way() {
    let hierarchies = Hierarchies::open().unwrap();
    let parent = format!("kplay-test-{}", std::process::id());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (hierarchies, parent) = (&hierarchies, &parent);
            scope.spawn(move || {
                for _ in 0..200 {
                    let path = format!("{parent}/{thread}");
                    let cgroup = hierarchies.create(&path, &Limits::default()).unwrap();
                    cgroup.remove_with_parents().unwrap();
                }
            });
        }
    });
    assert!(hierarchies.find(&parent).is_none());
}

/// Starts a program of busybox's, in a cgroup or in the test's own.
fn start(args: &[&str], cgroup: Option<&CgroupEntry>) -> std::io::Result<PidFd> {
    let args: Vec<&std::ffi::OsStr> = args.iter().map(AsRef::as_ref).collect();
    spawn(&Spawn {
        program: "/usr/bin/busybox".as_ref(),
        args: &args,
        env: &[],
        fds: &[],
        stderr: None,
        session: Session::Own,
        parent_death: ParentDeath::Kill,
        cgroup,
    })
}

const SLEEP: &[&str] = &["sleep", "1000"];

/// A bound refuses those that are born in a cgroup, and not those that are moved there.
#[test]
fn on_version_2_processes_are_born_in_their_cgroup() {
    let hierarchies = Hierarchies::open().unwrap();
    if hierarchies.version() != Some(Version::V2) {
        // Not under user-mode Linux.
        return;
    }
    let path = format!("kplay-test-birth-{}", std::process::id());
    let bound = |pids| Limits {
        pids: Some(pids),
        ..Limits::default()
    };
    let cgroup = hierarchies.create(&path, &bound(1)).unwrap();
    let entry = cgroup.entry().unwrap();
    let born = start(SLEEP, Some(&entry)).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [born.pid()]);
    let refused = start(SLEEP, Some(&entry)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN), "{refused}");
    let moved = start(SLEEP, None).unwrap();
    let hierarchy = cgroup.all().next().unwrap();
    hierarchy
        .write(&path, "cgroup.procs", &moved.pid().to_string())
        .unwrap();
    assert_eq!(cgroup.pids_current().unwrap(), Some(2));
    cgroup.kill().unwrap();
    for process in [born, moved] {
        assert_eq!(process.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    }
    cgroup.remove().unwrap();
}

/// On the version 2 hierarchy of hybrid mode, or of version 2 itself.
#[test]
fn the_kernel_kills_a_whole_cgroup_at_once() {
    let hierarchies = Hierarchies::open().unwrap();
    let Some(hierarchy) = hierarchies.0.iter().find(|hierarchy| hierarchy.is_v2()) else {
        return;
    };
    let path = format!("kplay-test-kill-{}", std::process::id());
    let below = format!("{path}/below");
    hierarchy.create(&below).unwrap();
    let entry = |path: &str| CgroupEntry {
        directory: Some(hierarchy.directory(path).unwrap()),
        procs: Vec::new(),
    };
    let processes = [&below, &below].map(|path| start(SLEEP, Some(&entry(path))).unwrap());
    assert!(hierarchy.kill_at_once(&path).unwrap());
    for process in processes {
        assert_eq!(process.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    }
    assert!(!hierarchy.kill_at_once("kplay-test-nowhere").unwrap());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    assert!(hierarchy.wait_empty(&path, deadline).unwrap());
    hierarchy.remove(&path).unwrap();
}

/// What somebody else throttles stays throttled.
#[test]
fn a_lower_limit_of_memory_takes_back_what_nobody_needs() {
    const MI: u64 = 1 << 20;
    let hierarchies = Hierarchies::open().unwrap();
    if hierarchies.version() != Some(Version::V2) {
        // Not under user-mode Linux.
        return;
    }
    let limit = |mebibytes: u64| Limits {
        memory_bytes: Some(mebibytes * MI),
        ..Limits::default()
    };
    let path = format!("kplay-test-memory-{}", std::process::id());
    let cgroup = hierarchies.create(&path, &limit(64)).unwrap();
    let hierarchy = cgroup.all().next().unwrap();
    let throttle = (48 * MI).to_string();
    hierarchy.write(&path, "memory.high", &throttle).unwrap();
    let path_of_file = std::env::temp_dir().join(&path);
    std::fs::write(&path_of_file, vec![1; 24 << 20]).unwrap();
    let file = std::fs::File::open(&path_of_file).unwrap();
    file.sync_all().unwrap();
    // The cache of a file is its first reader's, and outlives who that is.
    let fill = |cgroup: &Cgroup| {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let read = ["cat", path_of_file.to_str().unwrap()];
        let process = start(&read, Some(&cgroup.entry().unwrap())).unwrap();
        assert_eq!(process.wait().unwrap(), Exit::Code(0));
        assert!(cgroup.memory_current().unwrap() > Some(20 * MI));
    };
    fill(&cgroup);
    cgroup.set(&limit(8)).unwrap();
    assert!(cgroup.memory_current().unwrap() <= Some(8 * MI));
    cgroup.set(&limit(64)).unwrap();
    // As on older kernels.
    fill(&cgroup);
    throttle_once(&cgroup, hierarchy, 8 * MI).unwrap();
    assert!(cgroup.memory_current().unwrap() <= Some(8 * MI));
    let now = hierarchy.read(&path, "memory.high").unwrap();
    assert_eq!(now.trim(), throttle);
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    std::fs::remove_file(&path_of_file).unwrap();
    cgroup.remove().unwrap();
}
