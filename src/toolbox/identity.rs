//! Applets that tell what the kernel thinks of this process.

use std::io::Write as _;
use std::path::Path;

use nix::unistd::{getegid, geteuid, getgid, getgroups, getuid};

use super::arguments::Arguments;
use super::{Error, out};

pub(super) fn env(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    out(|out| {
        environment()
            .iter()
            .try_for_each(|(name, value)| writeln!(out, "{name}={value}"))
    })
}

/// The environment, sorted by name.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut all: Vec<_> = std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    all.sort();
    all
}

pub(super) fn id(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    let mut groups: Vec<u32> = getgroups()
        .map_err(Error::system("read the groups"))?
        .iter()
        .map(|group| group.as_raw())
        .collect();
    groups.push(getegid().as_raw());
    groups.sort_unstable();
    groups.dedup();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    let mut line = format!(
        "uid={} gid={} groups={}",
        getuid(),
        getgid(),
        groups.join(",")
    );
    if geteuid() != getuid() {
        line.push_str(&format!(" euid={}", geteuid()));
    }
    if getegid() != getgid() {
        line.push_str(&format!(" egid={}", getegid()));
    }
    out(|out| writeln!(out, "{line}"))
}

pub(super) fn caps(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    let status = status()?;
    out(|out| {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let bits = field(&status, set).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            writeln!(
                out,
                "{set}: {}",
                capability_names(bits.unwrap_or_default()).join(" ")
            )?;
        }
        Ok(())
    })
}

pub(super) fn seccomp(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    let status = status()?;
    let mode = match field(&status, "Seccomp") {
        Some("0") => "disabled",
        Some("1") => "strict",
        Some("2") => "filter",
        Some(_) | None => "unknown",
    };
    let no_new_privileges = field(&status, "NoNewPrivs").unwrap_or("unknown");
    out(|out| writeln!(out, "seccomp={mode} no_new_privs={no_new_privileges}"))
}

pub(super) fn mounts(arguments: Arguments) -> Result<u8, Error> {
    arguments.end()?;
    let mounts = read("/proc/self/mounts")?;
    out(|out| out.write_all(mounts.as_bytes()))
}

fn status() -> Result<String, Error> {
    read("/proc/self/status")
}

fn read(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::file("read", Path::new(path)))
}

/// A field of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim)
}

/// The names of a set's capabilities, without `CAP_`, in the kernel's order.
fn capability_names(bits: u64) -> Vec<String> {
    let name = |bit: usize| match CAPABILITIES.get(bit) {
        Some(name) => (*name).to_owned(),
        None => bit.to_string(),
    };
    (0..64)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(name)
        .collect()
}

/// `linux/capability.h`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fields() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "NoNewPrivs"), Some("1"));
        assert_eq!(field(status, "Cap"), None);
    }

    #[test]
    fn capabilities() {
        assert_eq!(capability_names(0), [""; 0]);
        assert_eq!(capability_names(0x401), ["CHOWN", "NET_BIND_SERVICE"]);
        // The set of a container by default.
        assert_eq!(
            capability_names(0xa804_25fb).join(" "),
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD \
             AUDIT_WRITE SETFCAP"
        );
        assert_eq!(
            capability_names(1 << 40 | 1 << 41),
            ["CHECKPOINT_RESTORE", "41"]
        );
    }
}
