//! Servers that send back what they get.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};

use super::arguments::Arguments;
use super::{Error, out, signals};

pub(super) fn tcp(arguments: Arguments) -> Result<u8, Error> {
    let port = port(arguments)?;
    signals::handle(signals::TERMINATED)?;
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.map_err(|e| Error::System("listen", e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::System("listen", e))?;
    out(|out| writeln!(out, "tcp-echo on port {}", address.port()))?;
    loop {
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) => {
                pause(&e);
                continue;
            }
        };
        let thread = std::thread::Builder::new().stack_size(64 * 1024);
        if let Err(e) = thread.spawn(move || send_back(&stream)) {
            // The connection went with the closure.
            pause(&e);
        }
    }
}

fn send_back(stream: &TcpStream) {
    let (mut from, mut to) = (stream, stream);
    let copied = io::copy(&mut from, &mut to);
    if copied.is_ok() {
        // The other end's business, should it be gone.
        stream.shutdown(std::net::Shutdown::Write).ok();
    }
}

pub(super) fn udp(arguments: Arguments) -> Result<u8, Error> {
    let port = port(arguments)?;
    signals::handle(signals::TERMINATED)?;
    let socket = UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
    let socket = socket.map_err(|e| Error::System("listen", e))?;
    let address = socket
        .local_addr()
        .map_err(|e| Error::System("listen", e))?;
    out(|out| writeln!(out, "udp-echo on port {}", address.port()))?;
    let mut datagram = vec![0; 65536];
    loop {
        let sent = socket
            .recv_from(&mut datagram)
            .and_then(|(len, from)| socket.send_to(&datagram[..len], from));
        if let Err(e) = sent {
            pause(&e);
        }
    }
}

pub(super) fn port(mut arguments: Arguments) -> Result<u16, Error> {
    let mut port = None;
    while let Some(option) = arguments.option() {
        match &*option {
            "--port" => port = Some(arguments.value("--port")?),
            other => return Err(arguments.unknown(other)),
        }
    }
    match port {
        Some(port) => arguments.end().map(|()| port),
        // Also without the option's name.
        None => arguments
            .next("PORT")
            .and_then(|port| arguments.end().map(|()| port)),
    }
}

/// Reports an error that may pass, such as too many open files, and leaves the machine alone for a moment.
pub(super) fn pause(error: &io::Error) {
    // A server without standard error serves nevertheless.
    writeln!(io::stderr(), "toolbox: {error}").ok();
    std::thread::sleep(std::time::Duration::from_millis(50));
}
