use super::hierarchy::parse_mount;
use super::limits::weight_of;
use super::{Hierarchies, Limits, is_plain, keyed};

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

    use super::{BlockDevice, CgroupEntry, DeviceAccess, Hierarchies, device};
    use crate::sys::fd;
    use crate::sys::process::{ParentDeath, Session, Spawn, spawn};

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
