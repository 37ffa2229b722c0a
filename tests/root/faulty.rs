//! A proxy before a registry that does wrong as it is told to: the registry is a real one, what goes wrong is not up to
//! chance.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::wait::PATIENCE;

/// What is done to an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// So many bytes of the body, and then the connection ends.
    Cut(usize),
    /// So many bytes of the body, and then nothing until [`FaultyRegistry::go_on`].
    Stall(usize),
    /// This status, and when to come again.
    Busy(u16, &'static str),
    /// The connection ends without an answer.
    HangUp,
    /// Other bytes, as many.
    Garble,
    /// Fewer bytes, and a header that says so.
    Shorten(usize),
    /// Bytes without an end.
    Endless,
    /// All of it, but in so many pieces, each a while after the other.
    Slow(usize),
}

/// How long between the pieces of a slow answer.
const WHILE: Duration = Duration::from_millis(40);

/// One fault that waits for its request.
#[derive(Debug)]
struct Planned {
    path: String,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    planned: Vec<Planned>,
    /// `GET /v2/… bytes=5-`
    log: Vec<String>,
    /// How many answers are stalled now, and whether they may go on.
    stalled: usize,
    goes_on: bool,
    ignores_ranges: bool,
}

/// The proxy; runs until the test's process ends.
#[derive(Debug)]
pub(crate) struct FaultyRegistry {
    pub(crate) port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl FaultyRegistry {
    /// One before the registry at this port of the machine.
    pub(crate) fn before(registry: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                // The client may go whenever it likes.
                std::thread::spawn(move || serve(stream, registry, &shared).ok());
            }
        });
        Self { port, shared }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().expect("no panic")
    }

    /// Does this to the next so many requests whose path has `path` in it.
    pub(crate) fn plan(&self, path: &str, times: usize, fault: Fault) {
        let path = path.to_owned();
        self.state().planned.push(Planned { path, times, fault });
    }

    /// From now on everything is sent from its beginning.
    pub(crate) fn ignore_ranges(&self) {
        self.state().ignores_ranges = true;
    }

    /// The requests whose path has `path` in it, with their ranges.
    pub(crate) fn log(&self, path: &str) -> Vec<String> {
        let log = self.state().log.clone();
        log.into_iter().filter(|line| line.contains(path)).collect()
    }

    /// Waits until so many answers have stalled.
    #[track_caller]
    pub(crate) fn until_stalled(&self, count: usize) {
        let stalled = |state: &mut State| state.stalled < count;
        let waited = self
            .shared
            .1
            .wait_timeout_while(self.state(), PATIENCE, stalled);
        let (state, timeout) = waited.expect("no panic");
        assert!(!timeout.timed_out(), "{:?}", state.log);
    }
}

impl Drop for FaultyRegistry {
    /// Lets go of what is stalled, so that no thread stays.
    fn drop(&mut self) {
        self.state().goes_on = true;
        self.shared.1.notify_all();
    }
}

fn serve(client: TcpStream, registry: u16, shared: &(Mutex<State>, Condvar)) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let (mut first, mut headers, mut range) = (String::new(), String::new(), String::new());
    reader.by_ref().take(8192).read_line(&mut first)?;
    let Some(path) = first.split(' ').nth(1).map(str::to_owned) else {
        // TLS, which this is not.
        return Ok(());
    };
    let ignores_ranges = shared.0.lock().expect("no panic").ignores_ranges;
    loop {
        let mut line = String::new();
        reader.by_ref().take(8192).read_line(&mut line)?;
        let name = line
            .split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        match name.as_str() {
            "connection" => {}
            "range" if ignores_ranges => {}
            _ if line.trim().is_empty() => break,
            "range" => {
                range = line.trim().to_ascii_lowercase().replace("range: ", " ");
                headers.push_str(&line);
            }
            _ => headers.push_str(&line),
        }
    }
    let fault = {
        let mut state = shared.0.lock().expect("no panic");
        state.log.push(format!("GET {path}{range}"));
        let mut planned = state.planned.iter_mut();
        let planned = planned.find(|planned| planned.times > 0 && path.contains(&planned.path));
        planned.map(|planned| {
            planned.times -= 1;
            planned.fault.clone()
        })
    };
    match &fault {
        Some(Fault::HangUp) => return client.shutdown(Shutdown::Both),
        Some(Fault::Busy(status, when)) => {
            let answer = format!(
                "HTTP/1.1 {status} X\r\nRetry-After: {when}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return client.write_all(answer.as_bytes());
        }
        _ => {}
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", registry))?;
    upstream.write_all(format!("{first}{headers}Connection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.map_or(answer.len(), |end| end + 4);
    let mut body = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let with_length = |length: usize| {
        let is_length = |line: &&str| line.to_ascii_lowercase().starts_with("content-length");
        let lines = head
            .split_inclusive("\r\n")
            .filter(|line| !is_length(line) && *line != "\r\n");
        format!(
            "{}Content-Length: {length}\r\n\r\n",
            lines.collect::<String>()
        )
    };
    match fault {
        None | Some(Fault::HangUp | Fault::Busy(..)) => {
            client.write_all(&answer)?;
            client.write_all(&body)?;
        }
        Some(Fault::Cut(bytes)) => {
            client.write_all(&answer)?;
            client.write_all(&body[..bytes.min(body.len())])?;
        }
        Some(Fault::Stall(bytes)) => {
            client.write_all(&answer)?;
            client.write_all(&body[..bytes.min(body.len())])?;
            let mut state = shared.0.lock().expect("no panic");
            state.stalled += 1;
            shared.1.notify_all();
            let waits = |state: &mut State| !state.goes_on;
            let waited = shared.1.wait_timeout_while(state, PATIENCE * 2, waits);
            drop(waited.expect("no panic"));
        }
        Some(Fault::Garble) => {
            body.iter_mut().for_each(|byte| *byte ^= 0x55);
            client.write_all(&answer)?;
            client.write_all(&body)?;
        }
        Some(Fault::Shorten(bytes)) => {
            client.write_all(with_length(bytes).as_bytes())?;
            client.write_all(&body[..bytes.min(body.len())])?;
        }
        Some(Fault::Endless) => {
            client.write_all(with_length(usize::MAX >> 1).as_bytes())?;
            loop {
                client.write_all(&[b' '; 4096])?;
            }
        }
        Some(Fault::Slow(pieces)) => {
            client.write_all(&answer)?;
            for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
                client.write_all(piece)?;
                std::thread::park_timeout(WHILE);
            }
        }
    }
    client.flush()
}
