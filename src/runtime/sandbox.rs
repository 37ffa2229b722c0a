//! The pod's shared namespaces, held by a pause process of a few KB. Not through libcontainer: it has no files, no
//! program of the image, and nothing to configure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::Error;
use crate::sys::cgroup::CgroupEntry;
use crate::sys::holder::{self, Holder, Holding};
use crate::sys::ids::IdRange;
use crate::sys::namespace::{self, Namespace};
use crate::sys::pidfd::PidFd;
use crate::sys::userns;

/// A pod sandbox's OOM score, as a kubelet sets it.
const OOM_SCORE_ADJ: i32 = -998;

/// What containerd sets in the network namespace of every pod, so that programs without privileges may listen on any
/// port and send pings.
const DEFAULT_SYSCTLS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    // All groups.
    (PING_GROUPS, ""),
];

const PING_GROUPS: &str = "net.ipv4.ping_group_range";
/// All groups that a user namespace has.
const PING_GROUPS_OF_A_POD: &str = "0 65535";

/// Which namespaces a pod has of its own, and how they are set up. The others are the host's.
#[derive(Debug)]
pub struct SandboxOptions<'a> {
    /// Set if there is a new UTS namespace.
    pub hostname: Option<String>,
    /// With a user namespace of the pod's own, which has these ids on the machine and owns the pod's other namespaces.
    pub ids: Option<IdRange>,
    pub net: bool,
    pub ipc: bool,
    pub uts: bool,
    /// One pid namespace for all containers; the pause process is its process 1 and reaps.
    pub pid: bool,
    /// As in a manifest: `net.ipv4.tcp_syncookies` or `net/ipv4/tcp_syncookies`. They win over the defaults.
    pub sysctls: &'a BTreeMap<String, String>,
    pub cgroup: CgroupEntry,
}

/// A pod's namespaces, and the process that keeps them. They end with it, and it ends with its parent.
#[derive(Debug)]
pub struct Sandbox {
    process: PidFd,
    rest: RefCell<Option<holder::Rest>>,
}

/// Makes a pod's namespaces; [`Sandbox::settle`] waits for the rest. Blocks for about a millisecond. The caller must have one thread, and be the one that
/// lives as long as the pod.
///
/// # Errors
/// A step of the set-up fails; then nothing is left.
pub fn start(options: &SandboxOptions<'_>) -> Result<Sandbox, Error> {
    let wanted = [
        (options.net, Namespace::Network),
        (options.ipc, Namespace::Ipc),
        (options.uts, Namespace::Uts),
        (options.pid, Namespace::Pid),
    ];
    let namespaces: Vec<Namespace> = wanted
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, namespace)| namespace)
        .collect();
    let Holding { process, rest } = holder::start(&Holder {
        namespaces: &namespaces,
        ids: options.ids,
        hostname: options.hostname.as_deref(),
        sysctls: &sysctls(options),
        cgroup: &options.cgroup,
        oom_score_adj: OOM_SCORE_ADJ,
    })
    .map_err(failed)?;
    Ok(Sandbox {
        process,
        rest: RefCell::new(Some(rest)),
    })
}

fn failed(holder::Error { step, source }: holder::Error) -> Error {
    Error::Sandbox { step, source }
}

/// The files to write, the defaults first.
fn sysctls(options: &SandboxOptions<'_>) -> Vec<(PathBuf, String)> {
    let defaults = DEFAULT_SYSCTLS
        .iter()
        .filter(|_| options.net)
        .map(|(name, value)| match options.ids {
            Some(_) if *name == PING_GROUPS => (name, PING_GROUPS_OF_A_POD.to_owned()),
            None if *name == PING_GROUPS => {
                let last = userns::ids().saturating_sub(1).min(i32::MAX.unsigned_abs());
                (name, format!("0 {last}"))
            }
            _ => (name, (*value).to_owned()),
        })
        .map(|(name, value)| (sysctl_path(name), value))
        // A kernel without the file does not have the restriction either.
        .filter(|(path, _)| path.exists());
    let given = options
        .sysctls
        .iter()
        .map(|(name, value)| (sysctl_path(name), value.clone()));
    defaults.chain(given).collect()
}

/// The file of a sysctl: as sysctl(8), the first separator says which character separates.
fn sysctl_path(name: &str) -> PathBuf {
    let slashed: String = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    // A name cannot leave the folder: empty and dotted components are taken out.
    let parts = slashed
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."));
    std::iter::once("/proc/sys").chain(parts).collect()
}

impl Sandbox {
    /// Waits until the pause process has all but its namespaces too, which nothing but its end needs. To be called
    /// before a container joins.
    ///
    /// # Errors
    /// A step failed, the first time.
    pub fn settle(&self) -> Result<(), Error> {
        let rest = self.rest.borrow_mut().take();
        rest.map_or(Ok(()), holder::Rest::wait).map_err(failed)
    }

    /// The pause process; a child of the caller.
    #[must_use]
    pub fn pid_fd(&self) -> &PidFd {
        &self.process
    }

    /// Its number. Valid until it has been waited for.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Its user namespace.
    ///
    /// # Errors
    /// It has ended.
    pub fn users(&self) -> io::Result<OwnedFd> {
        namespace::users_of(self.pid())
    }

    /// The file that stands for one of its namespaces, to be joined.
    #[must_use]
    pub fn namespace_path(&self, namespace: Namespace) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{}", self.pid(), namespace.file_name()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::sysctl_path;

    #[test]
    fn sysctl_paths() {
        let check = |name: &str, expected: &str| {
            assert_eq!(sysctl_path(name), Path::new(expected), "{name}");
        };
        check(
            "net.ipv4.tcp_syncookies",
            "/proc/sys/net/ipv4/tcp_syncookies",
        );
        check(
            "net/ipv4/tcp_syncookies",
            "/proc/sys/net/ipv4/tcp_syncookies",
        );
        check(
            "net.ipv4.conf.eth0/1.rp_filter",
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
        );
        check(
            "net/ipv4/conf/eth0.1/rp_filter",
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
        );
        check("net/../../../etc/passwd", "/proc/sys/net/etc/passwd");
    }
}
