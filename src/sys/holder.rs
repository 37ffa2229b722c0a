//! A process that does nothing but hold namespaces: born in them, rid of everything else.
//!
//! The child of `clone3` sets itself up with system calls alone, because it is a copy of a process that may have had
//! other threads, and then executes the [`pause`](super::pause) program. Each step that fails is reported.

use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::capability;
use super::cgroup::CgroupEntry;
use super::ids::{self, IdRange};
use super::namespace::{self, Namespace};
use super::pidfd::PidFd;
use super::signal::{self, Signal};
use super::{clone, fd, pause};

/// What is held, and how it is set up. A mount namespace with an empty read-only root always comes with it.
#[derive(Debug)]
pub struct Holder<'a> {
    pub namespaces: &'a [Namespace],
    /// With a new user namespace that has these ids, and owns the others. The holder is its root.
    pub ids: Option<IdRange>,
    /// With a new UTS namespace.
    pub hostname: Option<&'a str>,
    /// Files of `/proc/sys` and what is written to them, from inside the new namespaces.
    pub sysctls: &'a [(std::path::PathBuf, String)],
    pub cgroup: &'a CgroupEntry,
    /// -1000 to 1000. Kept as it is where the caller may not lower it.
    pub oom_score_adj: i32,
}

/// What holds the namespaces, on its way to its rest.
#[derive(Debug)]
pub struct Holding {
    pub process: PidFd,
    pub rest: Rest,
}

/// The part of the set-up that others need not wait for: entering cgroups of version 1 may take ten milliseconds.
#[derive(Debug)]
pub struct Rest(std::fs::File);

impl Rest {
    /// Waits until all is set up.
    ///
    /// # Errors
    /// A step fails; the process has ended then.
    pub fn wait(mut self) -> Result<(), Error> {
        match Report::read(&mut self.0)? {
            Report::Failed { step, source } => Err(Error {
                step: name_of_step(step, &[]),
                source,
            }),
            Report::Ready | Report::End => Ok(()),
        }
    }
}

/// What the child says: five bytes at a time.
enum Report {
    /// The namespaces are set up.
    Ready,
    Failed {
        step: u8,
        source: io::Error,
    },
    /// It has executed its program, or was killed.
    End,
}

impl Report {
    /// In the place of a step's number.
    const READY: u8 = u8::MAX;

    fn read(pipe: &mut std::fs::File) -> Result<Self, Error> {
        let mut message = [0; 5];
        match pipe.read_exact(&mut message) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Self::End),
            other => other.map_err(|source| Error {
                step: "reading the report".to_owned(),
                source,
            })?,
        }
        Ok(match message {
            [Self::READY, ..] => Self::Ready,
            [step, errno @ ..] => Self::Failed {
                step,
                source: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
            },
        })
    }
}

/// A step of the set-up that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub struct Error {
    /// What was tried.
    pub step: String,
    pub source: io::Error,
}

/// The steps, as the child numbers them in its report.
const STEPS: [&str; 13] = [
    "leading a session",
    "tying it to its parent",
    "setting the OOM score",
    "setting the hostname",
    "bringing the loopback device up",
    "entering the cgroup",
    "making an empty root",
    "dropping capabilities",
    "closing the standard streams",
    "resetting signals",
    "executing the pause program",
    "waiting for the ids of its user namespace",
    "becoming the root of its user namespace",
];

/// The number of the last sysctls, if there are many.
const LAST: u8 = Report::READY - 1;

/// A step's number in [`STEPS`], and why it failed.
type StepResult<T> = std::result::Result<T, (u8, io::Error)>;

/// Makes the namespaces and their holder. Returns once the namespaces are set up.
///
/// # Errors
/// A step fails; then nothing is left.
pub fn start(holder: &Holder<'_>) -> Result<Holding, Error> {
    let prepare = |step: &'static str| {
        move |source| Error {
            step: step.to_owned(),
            source,
        }
    };
    let program = pause::program().map_err(prepare("writing the pause program"))?;
    let null = fd::dev_null().map_err(prepare("opening /dev/null"))?;
    let (failure, report) = fd::pipe().map_err(prepare("making a pipe"))?;
    let gate = holder.ids.map(|_| fd::pipe()).transpose();
    let gate = gate.map_err(prepare("making a pipe"))?;
    let plan = Plan::new(holder, program, null, gate.as_ref());
    let plan = plan.map_err(prepare("preparing the set-up"))?;
    let flags = holder
        .namespaces
        .iter()
        .fold(Namespace::Mount.flag(), |flags, namespace| {
            flags | namespace.flag()
        })
        | holder.ids.map_or(0, |_| Namespace::User.flag());
    let flags = u64::try_from(flags).unwrap_or(0);
    // SAFETY: the child only makes system calls on what `plan` holds, and never returns.
    let child = unsafe {
        clone::fork(flags, Some(holder.cgroup), || {
            let (step, error) = plan.run(failure.as_raw_fd(), report.as_fd());
            let errno = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
            let message = [step, errno[0], errno[1], errno[2], errno[3]];
            // Nobody can be told if this fails.
            rustix::io::write(&report, &message).ok();
        })
    }
    .map_err(prepare(match holder.ids {
        None => "making namespaces",
        Some(_) => NO_USERS,
    }))?;
    drop(report);
    if let (Some(range), Some((_, open))) = (holder.ids, gate)
        && let Err(error) = admit(holder, range, &child, &open)
    {
        drop(open);
        // It finds the gate closed for good.
        child
            .wait()
            .map_err(prepare("waiting for the failed process"))?;
        return Err(error);
    }
    let mut reports = std::fs::File::from(failure);
    let error = match Report::read(&mut reports)? {
        Report::Ready => {
            return Ok(Holding {
                process: child,
                rest: Rest(reports),
            });
        }
        Report::Failed { step, source } => Error {
            step: name_of_step(step, holder.sysctls),
            source,
        },
        Report::End => prepare("setting up the namespaces")(io::ErrorKind::BrokenPipe.into()),
    };
    child
        .wait()
        .map_err(prepare("waiting for the failed process"))?;
    Err(error)
}

/// What is needed is said with it: the kernel's own words do not tell.
const NO_USERS: &str = "making namespaces with a user namespace (which needs CONFIG_USER_NS in the kernel, and the sysctl user.max_user_namespaces above the number of those in use)";

/// Does to the child in its new user namespace what only a process outside may do, and lets it go on.
fn admit(holder: &Holder<'_>, range: IdRange, child: &PidFd, gate: &OwnedFd) -> Result<(), Error> {
    let failed = |step: String| move |source| Error { step, source };
    let mapping = format!("giving the ids {range} of this machine to the user namespace");
    ids::map(child, range).map_err(failed(mapping))?;
    let score = CString::new(format!("/proc/{}/oom_score_adj", child.pid())).unwrap_or_default();
    lower_oom_score(&score, &holder.oom_score_adj.to_string())
        .map_err(failed("setting the OOM score".to_owned()))?;
    fd::write(gate, &[1]).map_err(failed("letting the process go on".to_owned()))?;
    Ok(())
}

fn name_of_step(number: u8, sysctls: &[(std::path::PathBuf, String)]) -> String {
    let number = usize::from(number);
    if let Some(name) = STEPS.get(number) {
        return (*name).to_owned();
    }
    match sysctls.get(number - STEPS.len()) {
        Some((path, value)) => format!("writing {value:?} to {path:?}"),
        None => "an unknown step".to_owned(),
    }
}

/// Everything the child needs, made before the fork.
struct Plan<'a> {
    cgroup: &'a CgroupEntry,
    hostname: Option<&'a str>,
    sysctls: Vec<(CString, &'a [u8])>,
    loopback: bool,
    /// The end to wait at until there are ids, and the other one.
    gate: Option<[RawFd; 2]>,
    oom_score_adj: String,
    program: OwnedFd,
    null: OwnedFd,
}

impl<'a> Plan<'a> {
    fn new(
        holder: &Holder<'a>,
        program: OwnedFd,
        null: OwnedFd,
        gate: Option<&(OwnedFd, OwnedFd)>,
    ) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        Ok(Self {
            cgroup: holder.cgroup,
            hostname: holder
                .hostname
                .filter(|_| holder.namespaces.contains(&Namespace::Uts)),
            sysctls: holder
                .sysctls
                .iter()
                .map(|(path, value)| Ok((c_path(path)?, value.as_bytes())))
                .collect::<io::Result<_>>()?,
            loopback: holder.namespaces.contains(&Namespace::Network),
            gate: gate.map(|(wait, open)| [wait.as_raw_fd(), open.as_raw_fd()]),
            oom_score_adj: holder.oom_score_adj.to_string(),
            program,
            null,
        })
    }

    /// Runs in the child; returns only if a step fails.
    fn run(&self, reader: i32, report: BorrowedFd<'_>) -> (u8, io::Error) {
        match self.steps(reader, report) {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    fn steps(&self, reader: i32, report: BorrowedFd<'_>) -> StepResult<std::convert::Infallible> {
        if let Some(gate) = self.gate {
            step(11, wait_at(gate))?;
            // Before it is tied to its parent, which a change of the user undoes.
            step(12, ids::become_root())?;
        }
        step(0, rustix::process::setsid().map_err(io::Error::from))?;
        step(1, self.tie_to_parent(reader, report))?;
        if self.gate.is_none() {
            let own = c"/proc/self/oom_score_adj";
            step(2, lower_oom_score(own, &self.oom_score_adj))?;
        }
        if let Some(hostname) = self.hostname {
            step(3, set_hostname(hostname.as_bytes()))?;
        }
        if self.loopback {
            step(4, namespace::loopback_up())?;
        }
        let numbers = (STEPS.len() as u8..LAST).chain(std::iter::repeat(LAST));
        for (number, (path, value)) in numbers.zip(&self.sysctls) {
            // Those that fail come behind the steps, each with its own number.
            step(number, write_setting(path, value))?;
        }
        // Nobody is there any more to be told if this fails.
        rustix::io::write(report, &[Report::READY, 0, 0, 0, 0]).ok();
        step(5, self.cgroup.enter())?;
        // While there is a `/proc` that tells whether that can be.
        step(7, super::process::clear_groups())?;
        step(6, empty_root())?;
        step(7, drop_capabilities())?;
        step(8, self.close_streams())?;
        signal::reset_all();
        Err((10, self.execute()))
    }

    /// In a pid namespace of its own the child cannot ask who its parent is; but only the parent can read the report.
    fn tie_to_parent(&self, reader: i32, report: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the child's copy of the descriptor, which it does not use otherwise.
        unsafe { libc::close(reader) };
        signal::on_parent_death(Signal::KILL)?;
        if fd::is_peer_gone(report)? {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    }

    fn close_streams(&self) -> io::Result<()> {
        for stream in 0..3 {
            // SAFETY: takes only numbers; what was at `stream` is the child's own copy.
            if unsafe { libc::dup2(self.null.as_raw_fd(), stream) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: takes only numbers, and closes nothing yet.
        let result = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                i32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn execute(&self) -> io::Error {
        let arguments = [c"/pause".as_ptr(), std::ptr::null()];
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: both arrays end with a null pointer; the empty path with AT_EMPTY_PATH means the descriptor itself.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.program.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        io::Error::last_os_error()
    }
}

fn step<T>(number: u8, result: io::Result<T>) -> StepResult<T> {
    result.map_err(|error| (number, error))
}

/// Waits for the byte that the parent writes; its end is the end of this process, too.
pub(super) fn wait_at([wait, open]: [RawFd; 2]) -> io::Result<()> {
    // SAFETY: the child's copy of the descriptor, which it does not use otherwise.
    unsafe { libc::close(open) };
    let mut byte = 0_u8;
    // SAFETY: reads at most one byte into one.
    match unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } {
        1 => Ok(()),
        0 => Err(io::Error::from_raw_os_error(libc::ECHILD)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lower_oom_score(path: &CStr, value: &str) -> io::Result<()> {
    match write_file(path, value.as_bytes()) {
        // Lowering it takes CAP_SYS_RESOURCE; without, the holder is as likely a victim as its parent.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other,
    }
}

/// Sets the hostname of this process's namespace. In a container a filter may forbid the call, and not the file.
pub(super) fn set_hostname(name: &[u8]) -> io::Result<()> {
    match rustix::system::sethostname(name) {
        Err(rustix::io::Errno::PERM) => write_file(c"/proc/sys/kernel/hostname", name)
            .map_err(|_| io::Error::from(rustix::io::Errno::PERM)),
        other => Ok(other?),
    }
}

/// Writes a file of `/proc/sys`, of another `/proc` where it is read-only, as in containers.
fn write_setting(path: &CStr, value: &[u8]) -> io::Result<()> {
    match write_file(path, value) {
        Err(e) if e.raw_os_error() == Some(libc::EROFS) && mount_proc().is_ok() => {
            write_file(path, value)
        }
        other => other,
    }
}

/// Mounts a `/proc` that nobody but this process, which is in a mount namespace of its own, sees.
fn mount_proc() -> io::Result<()> {
    let all = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change(c"/", all)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount(
        c"proc", c"/proc", c"proc", flags, c"",
    )?)
}

fn write_file(path: &CStr, value: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value)?;
    Ok(())
}

/// Leaves the holder nothing to see, and no mount of its parent to keep busy.
fn empty_root() -> io::Result<()> {
    // Any folder that is surely there.
    let place = c"/proc";
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    rustix::mount::mount(
        c"none",
        place,
        c"tmpfs",
        flags,
        c"size=4k,nr_inodes=2,mode=555",
    )?;
    rustix::process::chdir(place)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

fn drop_capabilities() -> io::Result<()> {
    capability::limit_bounding(capability::Set::default())?;
    capability::set(capability::Set::default())?;
    capability::set_no_new_privileges()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::poll;
    use crate::sys::testing::alone;

    /// The C library's locks stay taken in the child, if another thread starts or ends while it is made.
    #[test]
    fn threads_of_the_parent_do_not_hold_the_child_up() {
        // They would have copies of what other tests have open.
        let name = "sys::holder::tests::threads_of_the_parent_do_not_hold_the_child_up";
        if !crate::sys::identity::is_root() || !alone(name) {
            return;
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::thread::spawn(|| ()).join().unwrap();
                    }
                });
            }
            let held_up = (0..20).find(|_| !holds());
            done.store(true, Ordering::Relaxed);
            assert_eq!(held_up, None);
        });
    }

    /// Whether a holder comes to its rest.
    fn holds() -> bool {
        let Holding { process, rest } = start(&Holder {
            namespaces: &[],
            ids: None,
            hostname: None,
            sysctls: &[],
            cgroup: &CgroupEntry::default(),
            oom_score_adj: 0,
        })
        .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let at_rest = poll::readable(&[rest.0.as_fd()], Some(deadline)).unwrap() == [0];
        process.signal(Signal::KILL).unwrap();
        process.wait().unwrap();
        at_rest && rest.wait().is_ok()
    }
}
