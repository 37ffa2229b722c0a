//! Reaping what nobody waits for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{WaitId, WaitIdOptions};

/// Which children somebody waits for; all others are reaped when they end.
///
/// The executor is the subreaper, so it becomes the parent of orphans from inside its containers, and of what
/// libcontainer leaves behind. Their zombies must go; those of the processes whose exit status is wanted must not.
#[derive(Debug, Default)]
pub struct Reaper {
    /// How many guards there are for each.
    kept: RefCell<BTreeMap<i32, usize>>,
    paused: Cell<usize>,
}

impl Reaper {
    /// A reaper that keeps nothing.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Leaves this child alone until the guard, and every other for it, is dropped.
    #[must_use]
    pub fn keep(self: &Rc<Self>, pid: i32) -> Kept {
        *self.kept.borrow_mut().entry(pid).or_default() += 1;
        Kept {
            reaper: Rc::clone(self),
            pid,
        }
    }

    /// Reaps nothing until the guard is dropped: for the time in which children exist whose numbers are not known yet.
    #[must_use]
    pub fn pause(self: &Rc<Self>) -> Paused {
        self.paused.set(self.paused.get() + 1);
        Paused(Rc::clone(self))
    }

    /// Reaps all children that have ended and that nobody keeps. To be called on SIGCHLD.
    ///
    /// # Errors
    /// The kernel refuses; having no children is fine.
    pub fn reap(&self) -> io::Result<()> {
        if self.paused.get() > 0 {
            return Ok(());
        }
        loop {
            match ended_child()? {
                None => return Ok(()),
                Some(pid) if self.is_kept(pid) => break,
                Some(pid) => reap_one(pid)?,
            }
        }
        // The kernel names one ended child, always the same until it is waited for: a kept one hides the others.
        // Where the kernel does not list children (CONFIG_PROC_CHILDREN), they have to wait for that one.
        let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") else {
            return Ok(());
        };
        for pid in children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            if !self.is_kept(pid) {
                reap_one(pid)?;
            }
        }
        Ok(())
    }

    fn is_kept(&self, pid: i32) -> bool {
        self.kept.borrow().contains_key(&pid)
    }
}

/// A child that has ended and not been waited for.
fn ended_child() -> io::Result<Option<i32>> {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        // The C library's, because rustix does not tell the pid.
        // SAFETY: `info` is a valid place for the kernel to write to, and zero is a valid value of it.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::c_int::try_from(ended.bits()).unwrap_or(0);
            (libc::waitid(libc::P_ALL, 0, &raw mut info, options), info)
        };
        if result == 0 {
            // SAFETY: `waitid` filled in the fields of SIGCHLD, or left zero.
            let pid = unsafe { info.si_pid() };
            return Ok((pid > 0).then_some(pid));
        }
        match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            e if e.kind() == io::ErrorKind::Interrupted => {}
            e => return Err(e),
        }
    }
}

fn reap_one(pid: i32) -> io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return Ok(());
    };
    loop {
        match rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(_) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// SIGCHLD as something to wait for, beside other descriptors and without an event loop.
#[derive(Debug)]
pub struct ChildEnds(SignalFd);

impl ChildEnds {
    /// Holds the signal back in this thread from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watch() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// Forgets the ends so far; to be called before the children are looked at.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&self) -> io::Result<()> {
        self.0.read_signal()?;
        Ok(())
    }
}

impl AsFd for ChildEnds {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A child that the reaper leaves alone.
#[derive(Debug)]
pub struct Kept {
    reaper: Rc<Reaper>,
    pid: i32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut kept = self.reaper.kept.borrow_mut();
        match kept.get_mut(&self.pid) {
            Some(guards @ 2..) => *guards -= 1,
            _ => {
                kept.remove(&self.pid);
            }
        }
    }
}

/// While it lives, the reaper does nothing.
#[derive(Debug)]
pub struct Paused(Rc<Reaper>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.paused.set(self.0.paused.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::{Reaper, ended_child};
    use crate::sys::pidfd::{Exit, PidFd};
    use crate::sys::process::Puppet;
    use crate::sys::testing::alone;

    #[test]
    fn a_kept_child_does_not_hide_the_others() {
        // Other tests wait for children of their own.
        if !alone("sys::process::reaper::tests::a_kept_child_does_not_hide_the_others") {
            return;
        }
        let reaper = Reaper::new();
        let (mut first, kept) = Puppet::start().unwrap();
        let (mut second, other) = Puppet::start().unwrap();
        let guards = [reaper.keep(kept.pid()), reaper.keep(kept.pid())];
        first.end(Exit::Code(1)).unwrap();
        second.end(Exit::Code(2)).unwrap();
        for process in [&kept, &other] {
            rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap();
        }
        let status = |process: &PidFd| process.try_wait().map_err(|e| e.raw_os_error());
        let paused = reaper.pause();
        reaper.reap().unwrap();
        assert!(ended_child().unwrap().is_some());
        drop(paused);
        let [one, another] = guards;
        drop(one);
        reaper.reap().unwrap();
        assert_eq!(status(&other), Err(Some(libc::ECHILD)));
        assert_eq!(status(&kept), Ok(Some(Exit::Code(1))));
        drop(another);
        reaper.reap().unwrap();
    }
}
