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
                    cgroup.remove().unwrap();
                }
            });
        }
    });
    assert!(hierarchies.find(&parent).is_none());
}
