//! Sends a text to a server and prints what comes back: the other end of `tcp-echo` and `udp-echo`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use super::arguments::Arguments;
use super::{Error, out};

pub(super) const USAGE: &str = "[--udp] HOST:PORT TEXT";

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

pub(super) fn run(mut arguments: Arguments) -> Result<u8, Error> {
    let mut transport = Transport::Tcp;
    while let Some(option) = arguments.option() {
        match &*option {
            "--udp" => transport = Transport::Udp,
            other => return Err(arguments.unknown(other)),
        }
    }
    let server: String = arguments.next("HOST:PORT")?;
    let text: String = arguments.next("TEXT")?;
    arguments.end()?;
    let addresses = server
        .to_socket_addrs()
        .map_err(|e| Error::System("find the server", e))?;
    let mut answer = Err(io::ErrorKind::NotFound.into());
    for address in addresses {
        answer = match transport {
            Transport::Tcp => by_tcp(address, &text),
            Transport::Udp => by_udp(address, &text),
        };
        if answer.is_ok() {
            break;
        }
    }
    let answer = answer.map_err(|e| Error::System("get an answer", e))?;
    out(|out| {
        out.write_all(&answer)?;
        writeln!(out)
    })
}

fn by_tcp(server: SocketAddr, text: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn by_udp(server: SocketAddr, text: &str) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // So that a refusal is seen.
    socket.connect(server)?;
    socket.send(text.as_bytes())?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}
