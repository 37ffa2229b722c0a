//! A server that takes what it gets and answers only with how much it was: what a connection can carry.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::arguments::Arguments;
use super::echo::{pause, port};
use super::{Error, out, signals};

pub(super) fn run(arguments: Arguments) -> Result<u8, Error> {
    let port = port(arguments)?;
    signals::handle(signals::TERMINATED)?;
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.map_err(|e| Error::System("listen", e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::System("listen", e))?;
    out(|out| writeln!(out, "tcp-sink on port {}", address.port()))?;
    // One after the other, so that no connection disturbs another one.
    loop {
        let taken = listener
            .accept()
            .and_then(|(stream, _)| take_in(&mut { stream }));
        if let Err(e) = taken {
            pause(&e);
        }
    }
}

/// Reads to the end, then says how many bytes there were.
fn take_in(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut all = 0_u64;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => all += len as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    writeln!(stream, "{all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_to_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || take_in(&mut listener.accept()?.0));
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&vec![b'x'; 1_000_000]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "1000000\n");
        server.join().unwrap().unwrap();
    }
}
