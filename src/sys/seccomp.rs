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

/// Log what is not allowed (`SECCOMP_FILTER_FLAG_LOG`).
pub const LOG: u32 = 1 << 1;
/// Do without the mitigation of speculative store bypass (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
pub const SPEC_ALLOW: u32 = 1 << 2;

/// Filters the system calls of this thread, and of what it executes, through a BPF program, for good. Needs
/// CAP_SYS_ADMIN or no_new_privs. `flags` are [`LOG`] and [`SPEC_ALLOW`].
///
/// # Errors
/// The kernel refuses the program.
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
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
            libc::c_long::from(flags),
            &raw const program,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One of the instruction sets whose programs a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    /// 32 bits.
    X86,
    Aarch64,
}

impl Architecture {
    /// That of this program.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// All whose programs this machine runs, as far as their system calls are known: not those of 32-bit ARM.
    pub const ALL: &[Self] = match Self::NATIVE {
        Self::X86_64 | Self::X86 => &[Self::X86_64, Self::X86],
        Self::Aarch64 => &[Self::Aarch64],
    };

    /// The kernel's number for it (`AUDIT_ARCH_…`).
    #[must_use]
    pub fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The numbers of its system calls, by name.
    #[must_use]
    pub fn system_calls(self) -> HashMap<&'static str, u32> {
        let table = match self {
            Self::X86_64 => include_str!("syscalls/x86_64.txt"),
            Self::X86 => include_str!("syscalls/x86.txt"),
            Self::Aarch64 => include_str!("syscalls/aarch64.txt"),
        };
        table
            .lines()
            .filter_map(|line| {
                let (name, number) = line.split_once(' ')?;
                Some((name, number.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Architecture;

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let table = Architecture::NATIVE.system_calls();
        let check = |name: &str, number: libc::c_long| {
            assert_eq!(table.get(name).map(|n| (*n).into()), Some(number), "{name}");
        };
        check("read", libc::SYS_read);
        check("execve", libc::SYS_execve);
        check("clone3", libc::SYS_clone3);
        check("seccomp", libc::SYS_seccomp);
        check("openat2", libc::SYS_openat2);
        check("newfstatat", libc::SYS_newfstatat);
        check("mseal", 462);
    }

    #[test]
    fn numbers_of_programs_of_32_bits() {
        let table = Architecture::X86.system_calls();
        let check = |name: &str, number| assert_eq!(table.get(name), Some(&number), "{name}");
        check("exit", 1);
        check("execve", 11);
        check("socketcall", 102);
        check("clone3", 435);
        check("mseal", 462);
    }
}
