//! Local sockets that carry packets and file descriptors: `AF_UNIX`, `SOCK_SEQPACKET`.
//!
//! A packet arrives whole or not at all, and is at most about 200 KiB long (the kernel's send buffer). Both ends can
//! be non-blocking: every call returns `WouldBlock` then, as `tokio::io::unix::AsyncFd` wants it.
//!
//! A socket's address has room for 107 bytes, a path for 4095: sockets are bound and connected through
//! `/proc/self/fd/N/NAME` of their folder.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

use super::fs;

/// The most descriptors that one packet carries.
pub const MAX_FDS: usize = 4;

/// The longest packet that is received; the kernel's default send buffer is smaller.
const MAX_PACKET: usize = 1 << 20;

/// Whether calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    Yes,
    No,
}

impl Blocking {
    fn flags(self) -> SocketFlags {
        match self {
            Self::Yes => SocketFlags::CLOEXEC,
            Self::No => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        }
    }
}

/// A socket that waits for connections. Its file is only for its owner (0600) and outlives it.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket at `path`, in the place of one that an earlier process left there.
    ///
    /// # Errors
    /// Its folder is not there or may not be written to.
    pub fn bind(path: &Path, blocking: Blocking) -> fs::Result<Self> {
        fs::remove_file(path)?;
        let failed = |e| fs::Error::new("bind a socket at", path, e);
        let folder = open_parent(path)?;
        let address = short_address(&folder, path).map_err(failed)?;
        (|| {
            let socket = packet_socket(blocking)?;
            // The file gets the socket's own mode: there is no moment at which others could connect.
            rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, 64)?;
            Ok(Self(socket))
        })()
        .map_err(failed)
    }

    /// Takes the next connection, which blocks as told, whatever the listener does.
    ///
    /// # Errors
    /// `WouldBlock` if there is none and the listener does not block; what the kernel says.
    pub fn accept(&self, blocking: Blocking) -> io::Result<Connection> {
        let socket = retry(|| rustix::net::accept_with(&self.0, blocking.flags()))?;
        Ok(Connection(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// What one packet brought.
#[derive(Debug)]
pub struct Packet {
    /// Never empty.
    pub bytes: Vec<u8>,
    /// Closed on exec. At most [`MAX_FDS`].
    pub fds: Vec<OwnedFd>,
}

impl Connection {
    /// Connects to a [`Listener`]'s file. The connection blocks.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `ConnectionRefused` if nobody listens any more.
    pub fn connect(path: &Path) -> fs::Result<Self> {
        let folder = open_parent(path)?;
        let address =
            short_address(&folder, path).map_err(|e| fs::Error::new("connect to", path, e))?;
        let connected = |address: &SocketAddrUnix| -> io::Result<Self> {
            let socket = packet_socket(Blocking::Yes)?;
            retry(|| rustix::net::connect(&socket, address))?;
            Ok(Self(socket))
        };
        connected(&address).map_err(|e| fs::Error::new("connect to", path, e))
    }

    /// Two ends that are connected to each other.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pair(blocking: Blocking) -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            blocking.flags(),
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one packet, with descriptors that the other end gets its own copies of.
    ///
    /// # Errors
    /// `WouldBlock`; `BrokenPipe` or `ConnectionReset` if the other end is closed; `InvalidInput` for an empty packet
    /// or too many descriptors; the packet is longer than the kernel takes.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = retry(|| {
            let content = [IoSlice::new(bytes)];
            rustix::net::sendmsg(&self.0, &content, &mut control, SendFlags::NOSIGNAL)
        })?;
        debug_assert_eq!(sent, bytes.len(), "a packet is sent whole");
        Ok(())
    }

    /// Receives one packet; `None` if the other end is closed.
    ///
    /// # Errors
    /// `WouldBlock`; `InvalidData` for a packet that is too long or has too many descriptors.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let Some(length) = self.next_length()? else {
            return Ok(None);
        };
        if length > MAX_PACKET {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = retry(|| {
            let mut content = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut content, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if message
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.truncate(message.bytes);
        Ok(Some(Packet { bytes, fds }))
    }

    /// The next packet's length, so that no buffer has to be kept for the longest; `None` at the end.
    fn next_length(&self) -> io::Result<Option<usize>> {
        let (_, length) = retry(|| {
            rustix::net::recv(
                &self.0,
                &mut [0_u8; 1][..],
                RecvFlags::PEEK | RecvFlags::TRUNC,
            )
        })?;
        Ok((length > 0).then_some(length))
    }

    /// Makes all calls from now on wait, or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_blocking(&self, blocking: Blocking) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(
            &self.0,
            blocking == Blocking::No,
        )?)
    }

    /// The process that listens at (or connected from) the other end, in this process's pid namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn peer_pid(&self) -> io::Result<u32> {
        let credentials = sockopt::socket_peercred(&self.0)?;
        Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Connection {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

fn packet_socket(blocking: Blocking) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        blocking.flags(),
        None,
    )
}

fn open_parent(path: &Path) -> fs::Result<OwnedFd> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::open(
        parent,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|e| fs::Error::new("open the folder", parent, e))
}

fn short_address(folder: &OwnedFd, path: &Path) -> rustix::io::Result<SocketAddrUnix> {
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    short.push(path.file_name().unwrap_or_default());
    SocketAddrUnix::new(short)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    fn folder() -> PathBuf {
        let id = format!(
            "kplay-socket-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        // Far longer than an address has room for.
        let path = std::env::temp_dir().join(id).join("x".repeat(200));
        fs::create_dir_all(&path, 0o700).unwrap();
        path
    }

    #[test]
    fn packets_and_descriptors_arrive_over_a_long_path() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder().join("control.sock");
        let listener = Listener::bind(&path, Blocking::No).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let nobody = listener.accept(Blocking::Yes).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        let client = Connection::connect(&path).unwrap();
        let server = listener.accept(Blocking::Yes).unwrap();
        assert_eq!(server.peer_pid().unwrap(), std::process::id());
        assert_eq!(client.peer_pid().unwrap(), std::process::id());

        let (mut reader, writer) = std::io::pipe().unwrap();
        client.send(b"one", &[]).unwrap();
        client
            .send(&vec![b'x'; 100_000], &[writer.as_fd()])
            .unwrap();
        drop((writer, client));
        let packet = server.receive().unwrap().unwrap();
        assert_eq!(
            (packet.bytes.as_slice(), packet.fds.len()),
            (&b"one"[..], 0)
        );
        let packet = server.receive().unwrap().unwrap();
        assert_eq!((packet.bytes.len(), packet.fds.len()), (100_000, 1));
        for fd in packet.fds {
            std::fs::File::from(fd).write_all(b"through").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(server.receive().unwrap().is_none());
        assert!(server.send(b"late", &[]).is_err());
        // A second process takes the place of a dead one's socket.
        drop(listener);
        assert_eq!(
            Connection::connect(&path).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        Listener::bind(&path, Blocking::Yes).unwrap();
        fs::remove_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
        assert_eq!(
            Connection::connect(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn more_descriptors_than_agreed_are_an_error() {
        let (a, b) = Connection::pair(Blocking::Yes).unwrap();
        let mut file = tempfile();
        file.write_all(b"x").unwrap();
        file.rewind().unwrap();
        assert!(a.send(b"x", &[file.as_fd(); MAX_FDS + 1]).is_err());
        assert!(a.send(b"", &[]).is_err());
        a.send(b"x", &[file.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(b.receive().unwrap().unwrap().fds.len(), MAX_FDS);
    }

    fn tempfile() -> std::fs::File {
        let fd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        fd.into()
    }
}
