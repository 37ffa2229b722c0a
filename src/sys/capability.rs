//! Capabilities of the calling thread, as bit sets.

use std::io;

/// A set of capabilities: bit n is capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

/// The kernel's names, by number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

impl Set {
    /// The set of one capability, `CAP_CHOWN`; nothing for a name that is not known.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| *known == name)?;
        Some(Self(1 << number))
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// All of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What it has and `other` has not.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of what is in it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..)
            .zip(NAMES)
            .filter(move |(number, _)| self.0 & 1 << number != 0)
            .map(|(_, name)| name)
    }
}

/// What this thread can ever gain.
///
/// # Errors
/// The kernel refuses.
pub fn bounding() -> io::Result<Set> {
    let mut set = Set::default();
    for number in 0..64 {
        // SAFETY: takes only numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } {
            0 => {}
            1 => set.0 |= 1 << number,
            _ => break,
        }
    }
    Ok(set)
}

/// Takes everything but `keep` out of what this thread can ever gain. Needs CAP_SETPCAP if there is anything to take.
///
/// # Errors
/// The kernel refuses.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        // SAFETY: takes only numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } {
            1 if keep.0 & 1 << number == 0 => {}
            0 | 1 => continue,
            // The kernel has no such capability, and none after it.
            _ => break,
        }
        // SAFETY: takes only numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two halves.
const VERSION: u32 = 0x2008_0522;

/// What this thread may use now.
///
/// # Errors
/// The kernel refuses.
pub fn effective() -> io::Result<Set> {
    let data = get()?;
    Ok(Set(
        u64::from(data[0].effective) | u64::from(data[1].effective) << 32
    ))
}

/// What this thread has, and may use when it wants.
///
/// # Errors
/// The kernel refuses.
pub fn permitted() -> io::Result<Set> {
    let data = get()?;
    Ok(Set(
        u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32
    ))
}

/// Whether this thread may make namespaces and mounts: root may, and who is root of a user namespace.
#[must_use]
pub fn may_administer() -> bool {
    let needed = Set::named("CAP_SYS_ADMIN");
    needed.is_some_and(|needed| effective().is_ok_and(|set| set.contains(needed)))
}

/// Makes `set` what this thread may use and has; nothing is inheritable.
///
/// # Errors
/// The thread does not have all of `set`.
pub fn set(set: Set) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the low and the high half")]
    let halves = [set.0 as u32, (set.0 >> 32) as u32];
    let data = halves.map(|half| Data {
        effective: half,
        permitted: half,
        inheritable: 0,
    });
    write(&data)
}

/// Makes `set` what this thread may use; what it has stays.
///
/// # Errors
/// The thread does not have all of `set`.
pub(super) fn set_effective(set: Set) -> io::Result<()> {
    let mut data = get()?;
    #[expect(clippy::cast_possible_truncation, reason = "the low and the high half")]
    let halves = [set.0 as u32, (set.0 >> 32) as u32];
    for (data, half) in data.iter_mut().zip(halves) {
        data.effective = half;
    }
    write(&data)
}

fn write(data: &[Data; 2]) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    // SAFETY: both have the layout of this version, which has two halves.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get() -> io::Result<[Data; 2]> {
    let mut data = [Data::default(); 2];
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    // SAFETY: both have the layout of this version, which has two halves.
    match unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } {
        0 => Ok(data),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives up the chance to gain privileges by executing a program, for good.
///
/// # Errors
/// The kernel refuses.
pub fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: takes only numbers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    #[test]
    fn names() {
        let check = |name: &str, number: Option<u32>| {
            assert_eq!(Set::named(name), number.map(|n| Set(1 << n)), "{name}");
        };
        check("CAP_CHOWN", Some(0));
        check("CAP_SYS_ADMIN", Some(21));
        check("CAP_SETFCAP", Some(31));
        check("CAP_CHECKPOINT_RESTORE", Some(40));
        check("CHOWN", None);
        let both = Set(1 | 1 << 40);
        assert_eq!(
            both.names().collect::<Vec<_>>(),
            ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]
        );
    }
}
