//! File descriptors: pipes, socket pairs that carry descriptors, sealed memory files, and taking over inherited ones.

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// A pipe, close-on-exec: the end to read from and the end to write to.
///
/// # Errors
/// No descriptors are left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Two ends of a socket, close-on-exec, that keeps messages apart and reports the end of file.
///
/// # Errors
/// No descriptors are left.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// `/dev/null`, for reading and writing.
///
/// # Errors
/// It cannot be opened.
pub fn dev_null() -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(file.into())
}

/// What a file in memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// To be read.
    Data,
    /// To be executed.
    Program,
}

/// A file in memory with this content that nobody can change any more, at its start, close-on-exec.
///
/// # Errors
/// The kernel refuses.
pub fn sealed_memory(name: &CStr, content: &[u8], purpose: MemoryUse) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let kind = match purpose {
        MemoryUse::Data => MemfdFlags::NOEXEC_SEAL,
        MemoryUse::Program => MemfdFlags::EXEC,
    };
    let fd = match rustix::fs::memfd_create(name, flags | kind) {
        // Kernels before 6.3 do not ask.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, all)?;
    // A descriptor that may write makes `execve` of the file fail.
    reopen(&file)
}

/// Opens the file of a descriptor again, for reading, at its start, close-on-exec.
///
/// # Errors
/// No descriptors are left.
pub fn reopen(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(path_of(&fd))?.into())
}

/// Takes over a descriptor that the parent passed at a fixed number, and marks it close-on-exec.
///
/// # Errors
/// There is none at that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only asks; a number without a descriptor is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the caller, the entry point of a helper, owns what its parent passed.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Makes reads and writes return instead of waiting.
///
/// # Errors
/// The descriptor does not allow it.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(
        &fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

/// Reads once.
///
/// # Errors
/// Nothing is there (of a non-blocking descriptor), or it cannot be read.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

/// Writes once.
///
/// # Errors
/// There is no place (in a non-blocking descriptor), or it cannot be written to.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, bytes)?)
}

/// The most descriptors that [`send`] passes at once.
const MOST_PASSED: usize = 6;

/// Sends one message, and at most six descriptors with it.
///
/// # Errors
/// The other end is closed, or the message is too long.
pub fn send(socket: impl AsFd, message: &[u8], passed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PASSED))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !passed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(passed)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one message into `buffer`, and the descriptors that came with it, close-on-exec. Length 0 is the end of file.
///
/// # Errors
/// Nothing is there (of a non-blocking socket), or the message was longer than `buffer`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_PASSED))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut passed = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            passed.extend(fds);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        ));
    }
    Ok((received.bytes, passed))
}

/// Whether nobody holds the other end of a pipe or socket any more.
///
/// # Errors
/// The descriptor cannot be polled.
pub fn is_peer_gone(fd: impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(&fd, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0]
        .revents()
        .intersects(PollFlags::HUP | PollFlags::ERR))
}

/// A short path to what a descriptor stands for, valid in this process while it is open.
#[must_use]
pub fn path_of(fd: impl AsFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// What owns one open descriptor.
///
/// # Safety
/// The descriptor stays open until the value is dropped, and `as_raw_fd` always returns it.
pub unsafe trait OwnsFd: AsRawFd {}

// SAFETY: that is what it is for.
unsafe impl OwnsFd for OwnedFd {}
// SAFETY: it holds an `OwnedFd`, which cannot be replaced.
unsafe impl OwnsFd for super::pidfd::PidFd {}
// SAFETY: as above.
unsafe impl OwnsFd for super::socket::Listener {}
// SAFETY: as above.
unsafe impl OwnsFd for super::socket::Connection {}
// SAFETY: as above.
unsafe impl OwnsFd for super::timer::Timer {}

/// Has the event loop watch a descriptor. `AsyncFd` of tokio, whose own constructor trusts any number.
///
/// # Errors
/// The kernel cannot watch it.
pub fn watch<T: OwnsFd>(
    fd: T,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: the promise of `OwnsFd`.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) }
        .map_err(io::Error::from)
}
