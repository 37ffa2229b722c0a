//! Processes: starting one with exactly the descriptors it is given, being the subreaper, and reaping what nobody
//! waits for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::process::{WaitId, WaitIdOptions};

use super::cgroup::CgroupEntry;
use super::pidfd::PidFd;
use super::signal::{self, Signal};
use super::{clone, fd};

/// The number of the first descriptor that [`Spawn::fds`] passes; 0, 1 and 2 are `/dev/null` or [`Spawn::stderr`].
pub const FIRST_FD: RawFd = 3;

/// Whether the new process leads a session of its own, so that no terminal's signals reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Own,
    Callers,
}

/// Whether the new process dies with its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentDeath {
    /// It gets SIGKILL.
    Kill,
    /// It lives on.
    Survive,
}

/// How a program is started: with an empty environment but for `env`, default signals, and no descriptors but these.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// An absolute path.
    pub program: &'a Path,
    /// Including the program's own name.
    pub args: &'a [&'a OsStr],
    /// `NAME=value`.
    pub env: &'a [&'a OsStr],
    /// Passed at [`FIRST_FD`] and the following numbers.
    pub fds: &'a [BorrowedFd<'a>],
    /// Standard error; `/dev/null` if none.
    pub stderr: Option<BorrowedFd<'a>>,
    pub session: Session,
    pub parent_death: ParentDeath,
    /// Where the process is born; the caller's cgroup if none.
    pub cgroup: Option<&'a CgroupEntry>,
}

/// Starts a program. Returns once it has been executed.
///
/// # Errors
/// It cannot be executed, or its cgroup cannot be entered.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<PidFd> {
    let program = c_string(spawn.program.as_os_str())?;
    let args = spawn
        .args
        .iter()
        .map(|arg| c_string(arg))
        .collect::<io::Result<Vec<_>>>()?;
    let env = spawn
        .env
        .iter()
        .map(|pair| c_string(pair))
        .collect::<io::Result<Vec<_>>>()?;
    let (argv, envp) = (pointers(&args), pointers(&env));
    let null = fd::dev_null()?;
    let stderr = spawn.stderr.map_or(null.as_raw_fd(), |fd| fd.as_raw_fd());
    let mut sources = vec![null.as_raw_fd(), null.as_raw_fd(), stderr];
    sources.extend(spawn.fds.iter().map(BorrowedFd::as_raw_fd));
    let mut moved = vec![-1; sources.len()];
    let (failure, report) = fd::pipe()?;
    let parent = std::process::id();
    // SAFETY: the child only makes system calls on what was prepared above, and never returns.
    let child = unsafe {
        clone::fork(0, spawn.cgroup, || {
            let (report, error) =
                match enter(spawn, parent, &sources, &mut moved, report.as_raw_fd()) {
                    Ok(moved) => {
                        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
                        (moved, io::Error::last_os_error())
                    }
                    Err(error) => (report.as_raw_fd(), error),
                };
            let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
            libc::write(report, number.as_ptr().cast(), number.len());
        })?
    };
    drop(report);
    let mut number = [0; 4];
    match std::fs::File::from(failure).read_exact(&mut number) {
        // Closed by execve.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(child),
        Err(e) => Err(e),
        Ok(()) => {
            child.wait()?;
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
        }
    }
}

/// Makes the forked child what `spawn` asks for. Returns where `report` is now. Only system calls: the child is a copy
/// of a process that may have had other threads.
fn enter(
    spawn: &Spawn<'_>,
    parent: u32,
    sources: &[RawFd],
    moved: &mut [RawFd],
    report: RawFd,
) -> io::Result<RawFd> {
    if let Some(cgroup) = spawn.cgroup {
        cgroup.enter()?;
    }
    if spawn.session == Session::Own {
        // SAFETY: no arguments; a new child leads no process group, so it cannot fail.
        unsafe { libc::setsid() };
    }
    if spawn.parent_death == ParentDeath::Kill {
        signal::on_parent_death(Signal::KILL)?;
        // SAFETY: no arguments.
        if u32::try_from(unsafe { libc::getppid() }) != Ok(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    signal::reset_all();
    // First above all targets, so that no target overwrites a source.
    let above = RawFd::try_from(sources.len()).unwrap_or(RawFd::MAX);
    let report = duplicate(report, above)?;
    for (to, from) in moved.iter_mut().zip(sources) {
        *to = duplicate(*from, above)?;
    }
    for (target, from) in (0..).zip(moved.iter()) {
        // SAFETY: both are numbers; whatever is at `target` is the child's own copy. Clears close-on-exec.
        if unsafe { libc::dup2(*from, target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_on_exec_from(above)?;
    Ok(report)
}

fn duplicate(fd: RawFd, above: RawFd) -> io::Result<RawFd> {
    // SAFETY: takes only numbers.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above) } {
        new if new >= 0 => Ok(new),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks all descriptors from `first` on close-on-exec.
fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: takes only numbers, and closes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            RawFd::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// A program to be executed in place of this one. Prepared early, because a filter of system calls may not leave
/// enough to do it late.
#[derive(Debug)]
pub struct Replacement {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Replacement {
    /// A program by its path, all its arguments, and its whole environment (`NAME=value`).
    ///
    /// # Errors
    /// There is a zero byte in one of them.
    pub fn prepare(program: &Path, args: &[String], env: &[String]) -> io::Result<Self> {
        let c_strings = |texts: &[String]| {
            let texts = texts.iter().map(|text| c_string(text.as_ref()));
            texts.collect::<io::Result<Vec<_>>>()
        };
        Ok(Self {
            program: c_string(program.as_os_str())?,
            args: c_strings(args)?,
            env: c_strings(env)?,
        })
    }

    /// Executes it. Returns only the error.
    #[must_use]
    pub fn execute(&self) -> io::Error {
        let (argv, envp) = (pointers(&self.args), pointers(&self.env));
        // SAFETY: both arrays end with a null pointer, and all strings outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Sets which permissions new files do not get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// This process's hard limit of open files; at most what the kernel has for any process.
#[must_use]
pub fn open_files_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// The OOM score below which this process cannot set another's: its own, unless it may go anywhere
/// (`CAP_SYS_RESOURCE`).
///
/// # Errors
/// The kernel does not tell.
pub fn oom_score_floor() -> io::Result<Option<i32>> {
    let free = super::capability::Set::named("CAP_SYS_RESOURCE");
    if free.is_some_and(|free| super::capability::effective().is_ok_and(|set| set.contains(free))) {
        return Ok(None);
    }
    let text = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    text.trim().parse().map(Some).map_err(io::Error::other)
}

/// Makes this process the parent of its descendants' orphans.
///
/// # Errors
/// The kernel refuses.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes only numbers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the name that `ps` shows for this process, cut to 15 bytes.
///
/// # Errors
/// The kernel refuses, or `name` has a zero byte.
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&c_string(name.as_ref())?)?)
}

/// Gives up all supplementary groups.
///
/// # Errors
/// The caller may not.
pub fn clear_groups() -> io::Result<()> {
    // SAFETY: a list of length 0 is not read.
    match unsafe { libc::setgroups(0, std::ptr::null()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many threads this process has.
///
/// # Errors
/// `/proc` cannot be read.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Which children somebody waits for; all others are reaped when they end.
///
/// The executor is the subreaper, so it becomes the parent of orphans from inside its containers, and of what
/// libcontainer leaves behind. Their zombies must go; those of the processes whose exit status is wanted must not.
#[derive(Debug, Default)]
pub struct Reaper {
    kept: RefCell<BTreeSet<i32>>,
    paused: Cell<usize>,
}

impl Reaper {
    /// A reaper that keeps nothing.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Leaves this child alone until the guard is dropped.
    #[must_use]
    pub fn keep(self: &Rc<Self>, pid: i32) -> Kept {
        self.kept.borrow_mut().insert(pid);
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
        self.kept.borrow().contains(&pid)
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

/// A child that the reaper leaves alone.
#[derive(Debug)]
pub struct Kept {
    reaper: Rc<Reaper>,
    pid: i32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.reaper.kept.borrow_mut().remove(&self.pid);
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

/// Takes ownership of a raw descriptor that a system call just made.
///
/// # Safety
/// `fd` is open and belongs to nobody else.
pub(super) unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A child for tests: it ends when it is told to, or by SIGKILL; all other signals wait.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Puppet {
    strings: std::fs::File,
    pid: i32,
}

#[cfg(test)]
impl Puppet {
    /// Starts one.
    pub(crate) fn start() -> io::Result<(Self, PidFd)> {
        let (read, write) = fd::pipe()?;
        let writer = write.as_raw_fd();
        // Blocked before the fork, so that no signal can come too early.
        // SAFETY: both masks are initialised by these calls before they are used.
        let before = unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
                (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        };
        // SAFETY: the child only makes system calls, and never returns.
        let child = unsafe {
            clone::fork(0, None, || {
                libc::close(writer);
                let mut order = [0_u8; 2];
                let length = libc::read(read.as_raw_fd(), order.as_mut_ptr().cast(), 2);
                match (length, order) {
                    (2, [0, code]) => libc::_exit(libc::c_int::from(code)),
                    (2, [_, signal]) => {
                        signal::reset_all();
                        libc::kill(libc::getpid(), libc::c_int::from(signal));
                    }
                    _ => {}
                }
            })
        };
        // SAFETY: the mask that was in force before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut())
        };
        let child = child?;
        let puppet = Self {
            strings: write.into(),
            pid: child.pid(),
        };
        Ok((puppet, child))
    }

    /// Makes it end.
    pub(crate) fn end(&mut self, exit: super::pidfd::Exit) -> io::Result<()> {
        use std::io::Write as _;
        self.strings.write_all(&match exit {
            super::pidfd::Exit::Code(code) => [0, code],
            super::pidfd::Exit::Signal(signal) => [1, u8::try_from(signal).unwrap_or(9)],
        })
    }

    /// Whether it was sent this signal, which waits.
    pub(crate) fn was_sent(&self, signal: Signal) -> io::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let pending = status.lines().filter_map(|line| {
            let mask = line
                .strip_prefix("SigPnd:\t")
                .or_else(|| line.strip_prefix("ShdPnd:\t"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        });
        Ok(pending.fold(0, |all, mask| all | mask) & 1 << (signal.number() - 1) != 0)
    }
}
