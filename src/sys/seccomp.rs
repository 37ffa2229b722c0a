//! Loading a seccomp program, and the numbers of system calls.

use std::collections::HashMap;
use std::io;

/// Bytes of one instruction of a seccomp program.
pub const INSTRUCTION: usize = 8;

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const u8,
}

const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;

/// Filters the system calls of this thread, and of what it executes, through a BPF program, for good. Needs
/// CAP_SYS_ADMIN or no_new_privs.
///
/// # Errors
/// The kernel refuses the program.
pub fn load(program: &[u8]) -> io::Result<()> {
    let length =
        u16::try_from(program.len() / INSTRUCTION).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program {
        length,
        instructions: program.as_ptr(),
    };
    // SAFETY: `instructions` points to `length` instructions, which the kernel copies and checks; it reads them as
    // bytes, so their alignment does not matter.
    match unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The numbers of this architecture's system calls, by name.
#[must_use]
pub fn system_calls() -> HashMap<&'static str, i64> {
    TABLE
        .lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse().ok()?))
        })
        .collect()
}

#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("syscalls/x86_64.txt");
#[cfg(target_arch = "aarch64")]
const TABLE: &str = include_str!("syscalls/aarch64.txt");

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_those_of_the_c_library() {
        let table = super::system_calls();
        let check =
            |name: &str, number: libc::c_long| assert_eq!(table.get(name), Some(&number), "{name}");
        check("read", libc::SYS_read);
        check("execve", libc::SYS_execve);
        check("clone3", libc::SYS_clone3);
        check("seccomp", libc::SYS_seccomp);
        check("openat2", libc::SYS_openat2);
        check("newfstatat", libc::SYS_newfstatat);
        check("mseal", 462);
    }
}
