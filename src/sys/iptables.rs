//! The packet filter that was there before nftables, as far as it is still in use: whether it drops what the machine
//! forwards. Read only; the kernel's names and layouts are those of `linux/netfilter_ipv4/ip_tables.h` and its sibling
//! for IPv6.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType};

use super::fs;

/// Of which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Asks the kernel which table has which chains; the same for both families, and so is the next one.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const FORWARD: usize = 2;

/// `ipt_getinfo`
#[repr(C)]
#[derive(Debug)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    /// Where the entry is that says what becomes of packets for which no other does.
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// `ipt_get_entries`
#[repr(C)]
#[derive(Debug)]
struct Entries {
    name: [u8; 32],
    size: u32,
    /// The entries follow, as far apart as their counters have to be.
    entries: [u64; 0],
}

/// The table that decides what passes.
const FILTER: [u8; 32] = *b"filter\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Whether the chain `FORWARD` of the table `filter` drops all that its rules do not let pass. A table that is not in
/// use is not made by asking.
///
/// # Errors
/// The kernel does not tell.
pub fn forward_drops(family: Family) -> io::Result<bool> {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    let names = fs::read_if_there(Path::new(names)).map_err(io::Error::other)?;
    let names = names.unwrap_or_default();
    if !names
        .split(|byte| *byte == b'\n')
        .any(|name| name == b"filter")
    {
        return Ok(false);
    }
    let address_family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let socket = rustix::net::socket(address_family, SocketType::DGRAM, None)?;
    /// Somebody may change the table between the two questions.
    const TRIES: usize = 8;
    let mut answer = Err(io::ErrorKind::WouldBlock.into());
    for _ in 0..TRIES {
        answer = read(&socket, family);
        let changed = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        if !answer.as_ref().is_err_and(changed) {
            break;
        }
    }
    answer
}

fn read(socket: &impl std::os::fd::AsFd, family: Family) -> io::Result<bool> {
    let mut info = vec![0; size_of::<Info>()];
    put(&mut info, 0, &FILTER);
    get(socket.as_fd(), family, GET_INFO, &mut info)?;
    let valid_hooks = number(&info, offset_of!(Info, valid_hooks))?;
    if valid_hooks & 1 << FORWARD == 0 {
        return Ok(false);
    }
    let policy = number(
        &info,
        offset_of!(Info, underflow) + FORWARD * size_of::<u32>(),
    )?;
    let size = number(&info, offset_of!(Info, size))?;
    let mut entries = vec![0; size_of::<Entries>() + size as usize];
    put(&mut entries, 0, &FILTER);
    put(&mut entries, offset_of!(Entries, size), &size.to_ne_bytes());
    get(socket.as_fd(), family, GET_ENTRIES, &mut entries)?;
    drops(family, entries.get(size_of::<Entries>()..), policy as usize)
}

/// Whether the entry at this place drops.
fn drops(family: Family, entries: Option<&[u8]>, at: usize) -> io::Result<bool> {
    /// `-NF_DROP - 1`
    const DROP: i32 = -1;
    /// Bytes of `xt_entry_target`, which the verdict follows.
    const TARGET: usize = 32;
    // Bytes of `ipt_ip` and `ip6t_ip6`, and of `nfcache` behind it.
    let target_offset = match family {
        Family::V4 => 84 + 4,
        Family::V6 => 136 + 4,
    };
    let entry = entries.and_then(|entries| entries.get(at..));
    let entry = entry.ok_or(io::ErrorKind::InvalidData)?;
    let target = entry.get(target_offset..).and_then(<[u8]>::first_chunk);
    let target = u16::from_ne_bytes(*target.ok_or(io::ErrorKind::InvalidData)?);
    let verdict = number(entry, usize::from(target) + TARGET)?;
    Ok(verdict.cast_signed() == DROP)
}

fn put(buffer: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = buffer.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn number(buffer: &[u8], at: usize) -> io::Result<u32> {
    let bytes = buffer.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u32::from_ne_bytes(
        *bytes.ok_or(io::ErrorKind::InvalidData)?,
    ))
}

fn get(
    socket: BorrowedFd<'_>,
    family: Family,
    question: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes at most `length` bytes of the buffer, which is borrowed for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            question,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
