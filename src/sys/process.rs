//! Processes: starting one with exactly the descriptors it is given, being the subreaper, and reaping what nobody
//! waits for.

#[cfg(test)]
mod puppet;
mod reaper;

use std::ffi::{CString, OsStr};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::cgroup::CgroupEntry;
use super::pidfd::PidFd;
use super::signal::{self, Signal};
use super::{clone, fd};

#[cfg(test)]
pub(crate) use puppet::Puppet;
pub use reaper::{ChildEnds, Kept, Paused, Reaper};

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

/// A process on its way to its program.
#[derive(Debug)]
pub struct Spawning {
    pub process: PidFd,
    pub failure: Failure,
}

/// What keeps a process from its program, if anything does.
#[derive(Debug)]
pub struct Failure(OwnedFd);

impl Failure {
    /// Waits until the program is executed, which is `None`, or the process has given up.
    ///
    /// # Errors
    /// The process's report cannot be read.
    pub fn wait(self) -> io::Result<Option<io::Error>> {
        let mut number = [0; 4];
        match std::fs::File::from(self.0).read_exact(&mut number) {
            // Closed by execve.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(Some(io::Error::from_raw_os_error(i32::from_ne_bytes(
                number,
            )))),
        }
    }
}

/// Starts a program. Returns once it has been executed.
///
/// # Errors
/// It cannot be executed, or its cgroup cannot be entered.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<PidFd> {
    let Spawning { process, failure } = begin(spawn)?;
    match failure.wait()? {
        None => Ok(process),
        Some(error) => {
            process.wait()?;
            Err(error)
        }
    }
}

/// Starts a program, and does not wait for it: entering cgroups of version 1 may take ten milliseconds.
///
/// # Errors
/// There can be no more processes.
pub fn begin(spawn: &Spawn<'_>) -> io::Result<Spawning> {
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
    let process = unsafe {
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
    Ok(Spawning {
        process,
        failure: Failure(failure),
    })
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

/// Starts a command's program with default signals, whatever the caller holds back.
///
/// # Errors
/// It cannot be started.
pub fn spawn_with_default_signals(
    command: &mut std::process::Command,
) -> io::Result<std::process::Child> {
    // SAFETY: between fork and exec it makes system calls only, and touches no memory but its own stack.
    unsafe {
        command.pre_exec(|| {
            super::signal::reset_all();
            Ok(())
        })
    }
    .spawn()
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
    // In a user namespace it counts for what is in it, not for this.
    let is_initial = super::userns::is_initial();
    if is_initial
        && free
            .is_some_and(|free| super::capability::effective().is_ok_and(|set| set.contains(free)))
    {
        return Ok(None);
    }
    let text = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    text.trim().parse().map(Some).map_err(io::Error::other)
}

/// Sets this process's `oom_score_adj`, -1000 to 1000.
///
/// # Errors
/// The caller may not.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
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

/// Gives up all supplementary groups of this thread. In a user namespace that has one id nobody may, and they stay. Allocates
/// nothing.
///
/// # Errors
/// The caller may not.
pub fn clear_groups() -> io::Result<()> {
    // By the system call: the C library's function involves the other threads that it knows of, and in a process that was cloned
    // these are its parent's, for whose locks it would wait for ever.
    // SAFETY: a list of length 0 is not read.
    match unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EPERM) && must_keep_groups() => Ok(()),
            error => Err(error),
        },
    }
}

/// Whether the kernel forbids this to everybody in the user namespace.
fn must_keep_groups() -> bool {
    let mut answer = [0; 4];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc/self/setgroups", flags, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut answer))
        .is_ok_and(|length| answer.get(..length) == Some(b"deny".as_slice()))
}

/// How many threads this process has.
///
/// # Errors
/// `/proc` cannot be read.
pub fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Takes ownership of a raw descriptor that a system call just made.
///
/// # Safety
/// `fd` is open and belongs to nobody else.
pub(super) unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
