//! A process that does nothing but hold namespaces: born in them, rid of everything else.
//!
//! The child of `clone3` sets itself up with system calls alone, because it is a copy of a process that may have had
//! other threads, and then executes the [`pause`](super::pause) program. Each step that fails is reported.

use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::capability;
use super::cgroup::CgroupEntry;
use super::namespace::{self, Namespace};
use super::pidfd::PidFd;
use super::signal::{self, Signal};
use super::{clone, fd, pause};

/// What is held, and how it is set up. A mount namespace with an empty read-only root always comes with it.
#[derive(Debug)]
pub struct Holder<'a> {
    pub namespaces: &'a [Namespace],
    /// With a new UTS namespace.
    pub hostname: Option<&'a str>,
    /// Files of `/proc/sys` and what is written to them, from inside the new namespaces.
    pub sysctls: &'a [(std::path::PathBuf, String)],
    pub cgroup: &'a CgroupEntry,
    /// -1000 to 1000. Kept as it is where the caller may not lower it.
    pub oom_score_adj: i32,
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
const STEPS: [&str; 11] = [
    "entering the cgroup",
    "leading a session",
    "tying it to its parent",
    "setting the OOM score",
    "setting the hostname",
    "bringing the loopback device up",
    "making an empty root",
    "dropping capabilities",
    "closing the standard streams",
    "resetting signals",
    "executing the pause program",
];

/// A step's number in [`STEPS`], and why it failed.
type StepResult<T> = std::result::Result<T, (u8, io::Error)>;

/// Makes the namespaces and their holder. Returns once all is set up.
///
/// # Errors
/// A step fails; then nothing is left.
pub fn start(holder: &Holder<'_>) -> Result<PidFd, Error> {
    let prepare = |step: &'static str| {
        move |source| Error {
            step: step.to_owned(),
            source,
        }
    };
    let program = pause::program().map_err(prepare("writing the pause program"))?;
    let null = fd::dev_null().map_err(prepare("opening /dev/null"))?;
    let (failure, report) = fd::pipe().map_err(prepare("making a pipe"))?;
    let plan = Plan::new(holder, program, null).map_err(prepare("preparing the set-up"))?;
    let flags = holder
        .namespaces
        .iter()
        .fold(Namespace::Mount.flag(), |flags, namespace| {
            flags | namespace.flag()
        });
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
    .map_err(prepare("making namespaces"))?;
    drop(report);
    let mut message = [0; 5];
    match std::fs::File::from(failure).read_exact(&mut message) {
        // Closed by execve.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(child),
        Err(source) => Err(Error {
            step: "reading the report".to_owned(),
            source,
        }),
        Ok(()) => {
            child
                .wait()
                .map_err(prepare("waiting for the failed process"))?;
            let [step, errno @ ..] = message;
            Err(Error {
                step: name_of_step(step.into(), holder),
                source: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
            })
        }
    }
}

fn name_of_step(number: usize, holder: &Holder<'_>) -> String {
    if let Some(name) = STEPS.get(number) {
        return (*name).to_owned();
    }
    match holder.sysctls.get(number - STEPS.len()) {
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
    oom_score_adj: String,
    program: OwnedFd,
    null: OwnedFd,
}

impl<'a> Plan<'a> {
    fn new(holder: &Holder<'a>, program: OwnedFd, null: OwnedFd) -> io::Result<Self> {
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
        step(0, self.cgroup.enter())?;
        step(1, rustix::process::setsid().map_err(io::Error::from))?;
        step(2, self.tie_to_parent(reader, report))?;
        step(3, self.set_oom_score())?;
        if let Some(hostname) = self.hostname {
            step(
                4,
                rustix::system::sethostname(hostname.as_bytes()).map_err(io::Error::from),
            )?;
        }
        if self.loopback {
            step(5, namespace::loopback_up())?;
        }
        let numbers = (STEPS.len() as u8..u8::MAX).chain(std::iter::repeat(u8::MAX));
        for (number, (path, value)) in numbers.zip(&self.sysctls) {
            // Those that fail come behind the steps, each with its own number.
            step(number, write_file(path, value))?;
        }
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

    fn set_oom_score(&self) -> io::Result<()> {
        match write_file(c"/proc/self/oom_score_adj", self.oom_score_adj.as_bytes()) {
            // Lowering it takes CAP_SYS_RESOURCE; without, the holder is as likely a victim as its parent.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
            other => other,
        }
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
    super::process::clear_groups()?;
    capability::limit_bounding(capability::Set::default())?;
    capability::set(capability::Set::default())?;
    capability::set_no_new_privileges()
}
