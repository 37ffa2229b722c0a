//! Who is in a mount namespace: what a cgroup knows of a container's processes, where there are no cgroups.

use std::io;

use super::pidfd::PidFd;
use super::signal::Signal;

/// A mount namespace's number. It is another's when nobody is in it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountNamespace(u64);

impl MountNamespace {
    /// That of a process.
    ///
    /// # Errors
    /// It has ended, or the caller may not look at it.
    pub fn of(pid: i32) -> io::Result<Self> {
        let name = std::fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
        // As the kernel names them: `mnt:[4026531841]`.
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok());
        number
            .map(Self)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sends SIGKILL to all that are in it, also to those that are being born, until nobody is.
    ///
    /// # Errors
    /// The processes cannot be listed, or one may not be killed.
    pub fn kill_all(self) -> io::Result<()> {
        // A look finds those that were born during the one before; nobody is that often faster.
        const LOOKS: usize = 1000;
        for _ in 0..LOOKS {
            if self.kill_once()? == 0 {
                return Ok(());
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn kill_once(self) -> io::Result<usize> {
        let mut found = 0;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // What has ended is in no namespace, and others' processes are not to be looked at.
            let is_in = || Self::of(pid).is_ok_and(|namespace| namespace == self);
            if !is_in() {
                continue;
            }
            let Ok(process) = PidFd::open(pid) else {
                continue;
            };
            // The number may have become another's before it was held.
            if is_in() {
                process.signal(Signal::KILL)?;
                found += 1;
            }
        }
        Ok(found)
    }
}
