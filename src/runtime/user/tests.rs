use std::path::PathBuf;

use super::lookup;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
broken line
daemon:x:1:1::/usr/sbin:
app:x:1000:1001:App,,,:/srv/app:/bin/sh
relative:x:1002:1002::home:/bin/sh
";
const GROUP: &str = "\
root:x:0:
wheel:x:10:root,app
staff:x:50:app
app:x:1001:app
logs:x:4:daemon, app
";

struct Rootfs(PathBuf);

impl Rootfs {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kplay-user-{name}-{}", std::process::id()));
        crate::sys::fs::create_dir_all(&path.join("etc"), 0o755).unwrap();
        Self(path)
    }

    fn with(name: &str, passwd: &str, group: &str) -> Self {
        let rootfs = Self::new(name);
        crate::sys::fs::replace(&rootfs.0.join("etc/passwd"), 0o644, passwd.as_bytes()).unwrap();
        crate::sys::fs::replace(&rootfs.0.join("etc/group"), 0o644, group.as_bytes()).unwrap();
        rootfs
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        crate::sys::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn users() {
    let rootfs = Rootfs::with("users", PASSWD, GROUP);
    let check = |user: &str, expected: (u32, u32, &[u32], &str)| {
        let found = lookup(&rootfs.0, user).unwrap();
        let found = (
            found.uid,
            found.gid,
            found.groups.as_slice(),
            found.home.as_str(),
        );
        assert_eq!(found, expected, "{user}");
    };
    check("", (0, 0, &[10], "/root"));
    check("root", (0, 0, &[10], "/root"));
    check("app", (1000, 1001, &[4, 10, 50], "/srv/app"));
    check("1000", (1000, 1001, &[4, 10, 50], "/srv/app"));
    check("app:staff", (1000, 50, &[4, 10, 1001], "/srv/app"));
    check("app:7", (1000, 7, &[4, 10, 50, 1001], "/srv/app"));
    check("app:", (1000, 1001, &[4, 10, 50], "/srv/app"));
    check(":50", (0, 50, &[10], "/root"));
    check("4242", (4242, 0, &[], "/"));
    check("4242:4242", (4242, 4242, &[], "/"));
    check("relative", (1002, 1002, &[], "/"));
}

#[test]
fn names_that_are_not_there() {
    let rootfs = Rootfs::with("missing", PASSWD, GROUP);
    let check = |user: &str, expected: &str| {
        assert_eq!(lookup(&rootfs.0, user).unwrap_err().to_string(), expected);
    };
    check("nobody", "there is no user `nobody` in the image");
    check("app:nogroup", "there is no group `nogroup` in the image");
    check("-1", "there is no user `-1` in the image");
    check("4294967296", "there is no user `4294967296` in the image");
}

#[test]
fn an_image_without_files() {
    let rootfs = Rootfs::new("none");
    assert_eq!(lookup(&rootfs.0, "12").unwrap().gid, 0);
    assert!(lookup(&rootfs.0, "root").is_err());
}

#[test]
fn links_stay_in_the_image() {
    let rootfs = Rootfs::new("links");
    std::os::unix::fs::symlink("/lib/passwd", rootfs.0.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("../../../../lib/group", rootfs.0.join("etc/group")).unwrap();
    crate::sys::fs::create_dir_all(&rootfs.0.join("lib"), 0o755).unwrap();
    crate::sys::fs::replace(&rootfs.0.join("lib/passwd"), 0o644, b"inside:x:7:8::/in:").unwrap();
    let found = lookup(&rootfs.0, "inside").unwrap();
    assert_eq!((found.uid, found.gid, found.home.as_str()), (7, 8, "/in"));
}

#[test]
fn files_that_are_no_files() {
    let rootfs = Rootfs::new("fifo");
    crate::sys::fs::create_dir_all(&rootfs.0.join("etc/passwd"), 0o755).unwrap();
    assert!(lookup(&rootfs.0, "root").is_err());
}
