//! A proxy in this process, on 127.0.0.1, which leads to one server whatever it is asked for.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;

/// What a proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Manner {
    Open,
    /// Only for `agent` with `007`.
    Password,
    /// Answers that it may not.
    Refuses,
}

/// A proxy that runs until the process ends.
pub(in super::super) struct TestProxy {
    pub(in super::super) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    pub(in super::super) fn start(manner: Manner, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let own = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&own);
                // The client may go whenever it likes.
                std::thread::spawn(move || serve(stream, manner, server, &log).ok());
            }
        });
        Self { address, log }
    }

    /// The first lines of the requests.
    pub(in super::super) fn log(&self) -> Vec<String> {
        self.log.lock().expect("a lock").clone()
    }
}

fn serve(
    stream: TcpStream,
    manner: Manner,
    server: SocketAddr,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut client = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let (mut head, mut allowed) = (String::new(), manner == Manner::Open);
    let known = base64::prelude::BASE64_STANDARD.encode("agent:007");
    loop {
        let start = head.len();
        client.by_ref().take(8192).read_line(&mut head)?;
        let line = head[start..].trim_end();
        allowed |= manner == Manner::Password
            && line.eq_ignore_ascii_case(&format!("proxy-authorization: basic {known}"));
        if line.is_empty() {
            break;
        }
    }
    let first = head.lines().next().unwrap_or_default().to_owned();
    log.lock().expect("a lock").push(first.clone());
    if !allowed {
        let status = match manner {
            Manner::Password => "407 Proxy Authentication Required",
            Manner::Open | Manner::Refuses => "403 Forbidden",
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return stream.write_all(answer.as_bytes());
    }
    let mut upstream = TcpStream::connect(server)?;
    if first.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    } else {
        upstream.write_all(head.as_bytes())?;
    }
    let mut down = upstream.try_clone()?;
    let back = std::thread::spawn(move || {
        let copied = io::copy(&mut down, &mut stream);
        stream.shutdown(std::net::Shutdown::Write).ok();
        copied
    });
    io::copy(&mut client, &mut upstream)?;
    upstream.shutdown(std::net::Shutdown::Write)?;
    back.join().expect("no panic").map(drop)
}
