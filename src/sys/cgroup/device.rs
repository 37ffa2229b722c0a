//! Which devices a cgroup may use: rules of version 1, or a BPF program of version 2.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use super::limits::{BlockDevice, DeviceAccess, write_text};
use super::{Cgroup, Controller, Error, Result};
use crate::sys::process;

/// A character device that every container may read, write and make. No minor number means all of them.
struct Device {
    major: u32,
    minor: Option<u32>,
}

const fn device(major: u32, minor: u32) -> Device {
    Device {
        major,
        minor: Some(minor),
    }
}

/// null, zero, full, random, urandom, tty, console, ptmx, and pts/*: containerd's list.
const DEVICES: [Device; 9] = [
    device(1, 3),
    device(1, 5),
    device(1, 7),
    device(1, 8),
    device(1, 9),
    device(5, 0),
    device(5, 1),
    device(5, 2),
    Device {
        major: 136,
        minor: None,
    },
];

/// Lets the cgroup use only the default devices and these.
pub(super) fn restrict(cgroup: &Cgroup, blocks: &[BlockDevice]) -> Result<()> {
    if cgroup.with(Controller::Devices).is_some() {
        return restrict_v1(cgroup, blocks);
    }
    let Some(hierarchy) = cgroup.all().find(|hierarchy| hierarchy.is_v2()) else {
        return Err(Error::NoController {
            controller: "devices",
            limit: "devices",
        });
    };
    let directory = hierarchy
        .directory(&cgroup.path)
        .map_err(|source| cgroup.error("open", source))?;
    attach(&directory, blocks).map_err(|source| cgroup.error("restrict the devices of", source))
}

fn restrict_v1(cgroup: &Cgroup, blocks: &[BlockDevice]) -> Result<()> {
    let write = |file, rule: &str| write_text(cgroup, Controller::Devices, "devices", file, rule);
    write("devices.deny", "a")?;
    write("devices.allow", "c *:* m")?;
    write("devices.allow", "b *:* m")?;
    for Device { major, minor } in &DEVICES {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        write("devices.allow", &format!("c {major}:{minor} rwm"))?;
    }
    for block in blocks {
        let BlockDevice { major, minor, .. } = block;
        let access = match block.access {
            DeviceAccess::Read => "rm",
            DeviceAccess::ReadWrite => "rwm",
        };
        write("devices.allow", &format!("b {major}:{minor} {access}"))?;
    }
    Ok(())
}

/// Attaches the program to a version 2 cgroup, beside those that are there.
pub(super) fn attach(directory: &OwnedFd, blocks: &[BlockDevice]) -> io::Result<()> {
    let program = load(&assemble(blocks))?;
    let mut attributes = AttachAttributes {
        target: directory.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

/// An instruction of the kernel's virtual machine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
/// `BPF_DEVCG_ACC_MKNOD` and `BPF_DEVCG_ACC_WRITE`.
const MAKE: i32 = 1;
const WRITE: i32 = 4;

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

/// The program: its argument points to `{ u32 access << 16 | type, u32 major, u32 minor }`, its result is 1 to allow.
fn assemble(blocks: &[BlockDevice]) -> Vec<Instruction> {
    let answer = |value| {
        [
            instruction(MOVE, R0, 0, 0, value),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    };
    let mut program = vec![
        instruction(LOAD_WORD, R2, R1, 0, 0),
        instruction(MOVE_REGISTER, R3, R2, 0, 0),
        instruction(AND, R2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, R3, 0, 0, 16),
        instruction(LOAD_WORD, R4, R1, 4, 0),
        instruction(LOAD_WORD, R5, R1, 8, 0),
        // Making a device file is allowed, if nothing else is asked for.
        instruction(JUMP_UNLESS_EQUAL, R3, 0, 2, MAKE),
    ];
    program.extend(answer(1));
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    for block in blocks {
        let test = match block.access {
            DeviceAccess::Read => Some(instruction(JUMP_IF_ANY_BIT, R3, 0, 2, WRITE)),
            DeviceAccess::ReadWrite => None,
        };
        let skip = if test.is_some() { 3 } else { 2 };
        let (major, minor) = (number(block.major), number(block.minor));
        program.extend([
            instruction(JUMP_UNLESS_EQUAL, R2, 0, skip + 2, BLOCK),
            instruction(JUMP_UNLESS_EQUAL, R4, 0, skip + 1, major),
            instruction(JUMP_UNLESS_EQUAL, R5, 0, skip, minor),
        ]);
        program.extend(test);
        program.extend(answer(1));
    }
    program.push(instruction(JUMP_IF_EQUAL, R2, 0, 2, CHARACTER));
    program.extend(answer(0));
    for Device { major, minor } in &DEVICES {
        let minor = minor.map(|minor| instruction(JUMP_UNLESS_EQUAL, R5, 0, 2, number(minor)));
        let skip = if minor.is_some() { 3 } else { 2 };
        program.push(instruction(JUMP_UNLESS_EQUAL, R4, 0, skip, number(*major)));
        program.extend(minor);
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

/// The part of the kernel's `union bpf_attr` that loading a program uses.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part that attaching one uses.
#[repr(C)]
struct AttachAttributes {
    target: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel made it for this call.
    Ok(unsafe { process::own(fd) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is the kernel's union for this command, as long as said; what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(RawFd::try_from(fd).unwrap_or(-1)),
    }
}
