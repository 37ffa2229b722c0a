//! What files of the machine say that bears on pods.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::checks::{GITLAB, KUBERNETES};
use crate::manager::ids::subordinate;
use crate::model::cause::chain;
use crate::network::trial::firewall;
use crate::state::layout::Layout;
use crate::sys::mount::tree;
use crate::sys::{capability, fs, identity, trial};

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) kernel: String,
    pub(super) user: User,
    /// What kplay runs in, if that is a container: `podman`, `docker`, …
    pub(super) container: Option<String>,
    pub(super) root: PathBuf,
    /// Of the file system of ROOT.
    pub(super) file_system: String,
    pub(super) free_bytes: Option<u64>,
    pub(super) sysctls: Sysctls,
    pub(super) subordinate: Subordinate,
    pub(super) cgroups: Cgroups,
    /// Why packets are not forwarded and that cannot be changed.
    pub(super) forwarding: Result<(), String>,
    /// The chains that drop what is forwarded.
    pub(super) firewall: Vec<String>,
    pub(super) tun: Result<(), String>,
    /// The program that leads pods without root to the world.
    pub(super) way_out: Option<&'static str>,
    pub(super) newuidmap: bool,
    pub(super) app_armor: bool,
    pub(super) selinux: Option<&'static str>,
    /// Whether the user's processes outlive the last session; none where systemd is not.
    pub(super) linger: Option<bool>,
}

/// Who runs this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) name: String,
    /// Whether it may make namespaces and mounts right away.
    pub(super) administers: bool,
}

/// Settings of the kernel; none where it has no such setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls {
    pub(super) max_user_namespaces: Option<u64>,
    pub(super) unprivileged_userns_clone: Option<u64>,
    pub(super) apparmor_restrict_unprivileged_userns: Option<u64>,
    pub(super) unprivileged_port_start: Option<u64>,
}

/// The ids that /etc/subuid and /etc/subgid give to who runs this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subordinate {
    pub(super) users: Option<Range<u32>>,
    pub(super) groups: Option<Range<u32>>,
}

/// What limits pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroups {
    pub(super) version: Option<Version>,
    pub(super) controllers: Vec<String>,
    /// The controllers of the user's own part of the tree, if systemd gives it one; else why not.
    pub(super) delegated: Option<Result<Vec<String>, String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Also where version 2 is mounted beside it.
    V1,
    V2,
}

impl Facts {
    pub(super) fn read(layout: &Layout) -> Self {
        let root = layout.root().to_owned();
        let place = existing(&root).to_owned();
        let user = User::read();
        Self {
            kernel: identity::kernel_release(),
            container: container(),
            file_system: tree::kind_of(&place).unwrap_or_default(),
            free_bytes: trial::free_bytes(&place).ok(),
            root,
            sysctls: Sysctls::read(),
            subordinate: Subordinate::read(),
            cgroups: Cgroups::read(&user),
            forwarding: forwarding(),
            firewall: if user.administers {
                firewall()
            } else {
                Vec::new()
            },
            tun: trial::open_both_ways(Path::new("/dev/net/tun")).map_err(|e| chain(&e)),
            way_out: ["pasta", "slirp4netns"]
                .into_iter()
                .find(|program| is_installed(program)),
            newuidmap: is_installed("newuidmap") && is_installed("newgidmap"),
            app_armor: identity::has_app_armor(),
            selinux: selinux(),
            linger: linger(&user),
            user,
        }
    }
}

impl User {
    fn read() -> Self {
        let uid = identity::uid();
        let number = uid.to_string();
        let passwd = text("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then(|| name.to_owned())
        });
        Self {
            uid,
            name: name.unwrap_or(number),
            administers: capability::may_administer(),
        }
    }
}

impl Sysctls {
    fn read() -> Self {
        let number = |path: &str| text(path)?.trim().parse().ok();
        Self {
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict_unprivileged_userns: number(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ),
            unprivileged_port_start: number("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        }
    }
}

impl Subordinate {
    pub(super) fn read() -> Self {
        let user = User::read();
        let number = user.uid.to_string();
        let first = |path: &str| {
            let file = text(path)?;
            let mut lines = subordinate(&file);
            let found = lines
                .find(|(owner, ids)| (*owner == user.name || *owner == number) && !ids.is_empty());
            found.map(|(_, ids)| ids)
        };
        Self {
            users: first("/etc/subuid"),
            groups: first("/etc/subgid"),
        }
    }
}

/// Those that pods' limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl Cgroups {
    fn read(user: &User) -> Self {
        const UNIFIED: &str = "/sys/fs/cgroup";
        if let Some(all) = text(&format!("{UNIFIED}/cgroup.controllers")) {
            let folder = format!(
                "{UNIFIED}/user.slice/user-{0}.slice/user@{0}.service",
                user.uid
            );
            return Self {
                version: Some(Version::V2),
                controllers: words(&all),
                delegated: (!user.administers).then(|| delegated(Path::new(&folder))),
            };
        }
        let own = text("/proc/self/cgroup").unwrap_or_default();
        let mounted: Vec<String> = own
            .lines()
            .filter_map(|line| line.split(':').nth(1))
            .flat_map(|names| names.split(','))
            .filter(|name| CONTROLLERS.contains(name))
            .map(str::to_owned)
            .collect();
        Self {
            version: (!own.is_empty()).then_some(Version::V1),
            controllers: mounted,
            delegated: None,
        }
    }

    /// Those that pods' limits need and that are not there.
    pub(super) fn lacks(controllers: &[String]) -> Vec<&'static str> {
        let there = |name: &&str| controllers.iter().any(|there| there == name);
        CONTROLLERS
            .into_iter()
            .filter(|name| !there(name))
            .collect()
    }
}

fn delegated(folder: &Path) -> Result<Vec<String>, String> {
    trial::may_write(folder).map_err(|error| chain(&error))?;
    let all = fs::read(&folder.join("cgroup.controllers")).map_err(|error| chain(&error))?;
    Ok(words(&String::from_utf8_lossy(&all)))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The file system that a folder is on, or will be: the nearest that is there.
pub(super) fn existing(folder: &Path) -> &Path {
    let there = |path: &&Path| path.is_dir();
    folder.ancestors().find(there).unwrap_or(Path::new("/"))
}

fn forwarding() -> Result<(), String> {
    let path = Path::new("/proc/sys/net/ipv4/ip_forward");
    if fs::read(path).is_ok_and(|value| value.starts_with(b"1")) {
        return Ok(());
    }
    trial::open_both_ways(path).map_err(|error| chain(&error))
}

/// As systemd and podman say it, or as docker and clusters let it be seen.
fn container() -> Option<String> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some(KUBERNETES.to_owned());
    }
    let left_by = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    let engine = left_by
        .into_iter()
        .find(|(file, _)| Path::new(file).exists());
    if let Some((_, engine)) = engine {
        // Of its jobs, the runner starts the containers.
        let is_job = std::env::var_os("GITLAB_CI").is_some();
        return Some(if is_job { GITLAB } else { engine }.to_owned());
    }
    let first = text("/run/systemd/container").or_else(|| std::env::var("container").ok())?;
    let name = first.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn selinux() -> Option<&'static str> {
    let enforce = text("/sys/fs/selinux/enforce")?;
    Some(match enforce.trim() {
        "1" => "enforcing",
        _ => "permissive",
    })
}

fn linger(user: &User) -> Option<bool> {
    let systemd = Path::new("/run/systemd/system").is_dir();
    systemd.then(|| {
        Path::new("/var/lib/systemd/linger")
            .join(&user.name)
            .exists()
    })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| fs::check_executable(&folder.join(program)).is_ok())
}

fn text(path: &str) -> Option<String> {
    let bytes = fs::read_if_there(Path::new(path)).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
