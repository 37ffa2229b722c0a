//! The smallest program that keeps a pod's namespaces alive: a few instructions, assembled with this crate, in an ELF
//! file made here. A process of it has one page of code and one of stack.
//!
//! It waits for signals: on SIGCHLD it reaps its children, which makes it a fit process 1; on SIGTERM and SIGINT it
//! exits with code 0. Without a handler, process 1 of a pid namespace would ignore those.

use std::io;
use std::os::fd::OwnedFd;

use super::fd;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .rodata.kplay_pause, \"a\", @progbits",
    ".globl kplay_pause_start",
    ".globl kplay_pause_end",
    "kplay_pause_start:",
    // prctl(PR_SET_NAME, "pause")
    "  mov eax, 157",
    "  mov edi, 15",
    "  lea rsi, [rip + 4f]",
    "  syscall",
    // rt_sigprocmask(SIG_BLOCK, all, NULL, 8)
    "  push -1",
    "  mov eax, 14",
    "  xor edi, edi",
    "  mov rsi, rsp",
    "  xor edx, edx",
    "  mov r10d, 8",
    "  syscall",
    // rt_sigtimedwait(all, NULL, NULL, 8)
    "1:",
    "  mov eax, 128",
    "  mov rdi, rsp",
    "  xor esi, esi",
    "  xor edx, edx",
    "  mov r10d, 8",
    "  syscall",
    "  cmp eax, 15",
    "  je 3f",
    "  cmp eax, 2",
    "  je 3f",
    "  cmp eax, 17",
    "  jne 1b",
    // wait4(-1, NULL, WNOHANG, NULL) until there is nobody to reap
    "2:",
    "  mov eax, 61",
    "  mov rdi, -1",
    "  xor esi, esi",
    "  mov edx, 1",
    "  xor r10d, r10d",
    "  syscall",
    "  test eax, eax",
    "  jg 2b",
    "  jmp 1b",
    // exit_group(0)
    "3:",
    "  mov eax, 231",
    "  xor edi, edi",
    "  syscall",
    "4:",
    "  .asciz \"pause\"",
    "kplay_pause_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .rodata.kplay_pause, \"a\", @progbits",
    ".balign 4",
    ".globl kplay_pause_start",
    ".globl kplay_pause_end",
    "kplay_pause_start:",
    // prctl(PR_SET_NAME, "pause")
    "  mov x8, #167",
    "  mov x0, #15",
    "  adr x1, 4f",
    "  svc #0",
    // rt_sigprocmask(SIG_BLOCK, all, NULL, 8)
    "  mov x9, #-1",
    "  str x9, [sp, #-16]!",
    "  mov x8, #135",
    "  mov x0, #0",
    "  mov x1, sp",
    "  mov x2, #0",
    "  mov x3, #8",
    "  svc #0",
    // rt_sigtimedwait(all, NULL, NULL, 8)
    "1:",
    "  mov x8, #137",
    "  mov x0, sp",
    "  mov x1, #0",
    "  mov x2, #0",
    "  mov x3, #8",
    "  svc #0",
    "  cmp x0, #15",
    "  b.eq 3f",
    "  cmp x0, #2",
    "  b.eq 3f",
    "  cmp x0, #17",
    "  b.ne 1b",
    // wait4(-1, NULL, WNOHANG, NULL) until there is nobody to reap
    "2:",
    "  mov x8, #260",
    "  mov x0, #-1",
    "  mov x1, #0",
    "  mov x2, #1",
    "  mov x3, #0",
    "  svc #0",
    "  cmp x0, #0",
    "  b.gt 2b",
    "  b 1b",
    // exit_group(0)
    "3:",
    "  mov x8, #94",
    "  mov x0, #0",
    "  svc #0",
    "4:",
    "  .asciz \"pause\"",
    "kplay_pause_end:",
    ".popsection",
);

unsafe extern "C" {
    static kplay_pause_start: u8;
    static kplay_pause_end: u8;
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const kplay_pause_start, &raw const kplay_pause_end);
    let length = end.addr() - start.addr();
    // SAFETY: both labels are in one read-only section, the end after the start, with the code between them.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// Where the file is loaded; below that, nothing may be mapped.
const BASE: u64 = 0x40_0000;
const HEADER: u16 = 64;
const SEGMENT: u16 = 56;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The program as an ELF file: one segment with everything, and one that says that the stack is not executable.
fn elf() -> Vec<u8> {
    let code = code();
    let offset = u64::from(HEADER + 2 * SEGMENT);
    let size = offset + code.len() as u64;
    let mut file = Vec::new();
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    };
    // 64 bits, little-endian, version 1; an executable file.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut file, &[2, MACHINE]);
    word(&mut file, &[1]);
    long(&mut file, &[BASE + offset, u64::from(HEADER), 0]);
    word(&mut file, &[0]);
    half(&mut file, &[HEADER, SEGMENT, 2, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    word(&mut file, &[1, 5]);
    long(&mut file, &[0, BASE, BASE, size, size, 0x1_0000]);
    // PT_GNU_STACK, readable and writable.
    word(&mut file, &[0x6474_e551, 6]);
    long(&mut file, &[0, 0, 0, 0, 0, 16]);
    file.extend(code);
    file
}

/// The program in a sealed file in memory, which nobody can overwrite through `/proc/PID/exe`.
pub(super) fn program() -> io::Result<OwnedFd> {
    fd::sealed_memory(c"pause", &elf(), fd::MemoryUse::Program)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use crate::sys::fd;
    use crate::sys::pidfd::Exit;
    use crate::sys::process::{ParentDeath, Session, Spawn, spawn};
    use crate::sys::signal::Signal;

    #[test]
    fn ends_on_sigterm() {
        let program = super::program().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
        let (read, write) = fd::pipe().unwrap();
        let pause = spawn(&Spawn {
            program: path.as_ref(),
            args: &["pause".as_ref()],
            env: &[],
            fds: &[],
            stderr: Some(std::os::fd::AsFd::as_fd(&write)),
            session: Session::Own,
            parent_death: ParentDeath::Kill,
            cgroup: None,
        })
        .unwrap();
        drop((read, write));
        // It sleeps only where it waits for signals; before that SIGTERM would end it otherwise.
        let status = format!("/proc/{}/status", pause.pid());
        loop {
            let status = std::fs::read_to_string(&status).unwrap();
            if status.starts_with("Name:\tpause\n") && status.contains("State:\tS") {
                break;
            }
            std::thread::yield_now();
        }
        pause.signal(Signal::HUP).unwrap();
        pause.signal(Signal::TERM).unwrap();
        assert_eq!(pause.wait().unwrap(), Exit::Code(0));
    }
}
