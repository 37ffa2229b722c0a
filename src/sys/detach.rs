//! Starting a process that outlives the one that starts it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The descriptor at which a detached process finds its pipe.
pub const PIPE: i32 = 3;

/// What to start.
#[derive(Debug)]
pub struct Detached<'a> {
    pub program: &'a Path,
    pub arguments: &'a [&'a std::ffi::OsStr],
    /// All of its environment.
    pub environment: &'a [(&'a str, std::ffi::OsString)],
    /// Its standard error; standard input and output are `/dev/null`.
    pub stderr: File,
    /// Becomes descriptor [`PIPE`].
    pub pipe: OwnedFd,
}

/// Starts a process in a session of its own, in `/`, with no signal blocked and no other descriptor than the four
/// that it is given.
///
/// # Errors
/// It cannot be started.
pub fn spawn(detached: Detached<'_>) -> io::Result<Child> {
    // Whatever has descriptor 3 from now on, it is not the pipe on which std reports that exec failed: the child
    // may put its own there.
    let _occupied = rustix::io::fcntl_dupfd_cloexec(&detached.pipe, PIPE)?;
    let pipe = detached.pipe.as_raw_fd();
    let mut command = Command::new(detached.program);
    command
        .args(detached.arguments)
        .env_clear()
        .envs(
            detached
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(detached.stderr);
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe {
        command.pre_exec(move || in_the_child(pipe));
    }
    command.spawn()
}

fn in_the_child(pipe: i32) -> io::Result<()> {
    // SAFETY: a call without pointers.
    check(unsafe { libc::setsid() })?;
    // The command may be holding signals back, and std hands its mask on.
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    if pipe == PIPE {
        // SAFETY: a call without pointers.
        check(unsafe { libc::fcntl(PIPE, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: a call without pointers; in the child nobody uses what was descriptor 3.
        check(unsafe { libc::dup2(pipe, PIPE) })?;
    }
    // What the command has from its own parent (a shell's descriptor 10) ends here.
    // SAFETY: a call without pointers; nothing is closed before exec.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            PIPE + 1,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        // Before Linux 5.11.
        for fd in PIPE + 1..1024 {
            // SAFETY: a call without pointers. It fails where there is no descriptor, which is fine.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn it_has_its_own_session_and_only_its_descriptors() {
        let (mut reader, writer) = io::pipe().unwrap();
        let leak = writer.as_fd().try_clone_to_owned().unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let script = "echo $(ls /proc/self/fd) $X $HOME $(cut -d' ' -f6 /proc/self/stat | grep -c $$) $PWD >&3";
        let child = spawn(Detached {
            program: Path::new("/bin/sh"),
            arguments: &["-c".as_ref(), script.as_ref()],
            environment: &[("X", "x".into())],
            stderr: File::open("/dev/null").unwrap(),
            pipe: writer.into(),
        });
        drop(leak);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        // `ls` has one more: the folder that it reads.
        assert_eq!(text, "0 1 2 3 4 x 1 /\n");
        assert!(child.unwrap().wait().unwrap().success());
    }
}
