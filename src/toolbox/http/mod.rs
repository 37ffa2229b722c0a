//! A small HTTP/1.1 server that shows what the pod sees, and fails when asked to.
//!
//! One thread per connection, at most [`MAX_CONNECTIONS`] of them; every part of a request has a bound in size and
//! time. It is written for tests and first steps, not for the open internet: it shows the environment, and its `--tls` is
//! without secrets.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::fetch::Url;
use super::signals::{self, OnTerm};
use super::{Error, echo, out};

mod page;
mod request;
mod response;
mod root;
mod routes;
#[cfg(test)]
mod tests;
mod wire;

use request::{Bad, Connection};
use response::Response;
use root::Root;
use routes::Answer;
use wire::Wire;
pub(super) use wire::tls;

pub(super) const USAGE: &str =
    "[--port P] [--bind IP] [--tls] [--root DIR] [--upstream URL]… [--unready] [--ignore-term]";

/// Connections over this number are told that the server is busy.
const MAX_CONNECTIONS: usize = 256;

pub(super) fn run(mut arguments: Arguments) -> Result<u8, Error> {
    let (mut port, mut bind, mut root, mut on_term) = (8080, None, None, OnTerm::Exit(0));
    let (mut ready, mut tls, mut upstreams) = (true, None, Vec::new());
    while let Some(option) = arguments.option() {
        match &*option {
            "--port" => port = arguments.value("--port")?,
            "--bind" => bind = Some(arguments.value::<IpAddr>("--bind")?),
            "--root" => root = Some(arguments.value::<PathBuf>("--root")?),
            "--tls" => tls = Some(wire::tls().map_err(|e| Error::System("speak TLS", e))?),
            "--upstream" => upstreams.push(arguments.value("--upstream")?),
            "--unready" => ready = false,
            "--ignore-term" => on_term = OnTerm::Ignore,
            other => return Err(arguments.unknown(other)),
        }
    }
    arguments.end()?;
    signals::handle(on_term)?;
    let root = match root {
        Some(path) => Some(Root::open(&path).map_err(Error::file("open", &path))?),
        None => None,
    };
    let listener = listen(bind, port).map_err(|e| Error::System("listen", e))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::System("listen", e))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    out(|out| writeln!(out, "listening on {scheme}://{address}/"))?;
    let server = Server {
        tls,
        upstreams,
        ..Server::new(root, signals::exit_with, log)
    };
    server.ready.store(ready, Ordering::Relaxed);
    serve(&listener, &Arc::new(server))
}

fn listen(bind: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match bind {
        Some(ip) => TcpListener::bind((ip, port)),
        // A pod without IPv6 is not unusual.
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
    }
}

/// Tells who asked for what. That nobody reads it must not stop the server.
fn log(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

/// What all connections share.
struct Server {
    started: Instant,
    root: Option<Root>,
    /// Whether TLS is spoken.
    tls: Option<Arc<rustls::ServerConfig>>,
    /// The servers behind this one.
    upstreams: Vec<Url>,
    healthy: AtomicBool,
    ready: AtomicBool,
    connections: AtomicUsize,
    /// Ends the process; only in tests it returns.
    exit: fn(u8),
    log: fn(&str),
}

impl Server {
    fn new(root: Option<Root>, exit: fn(u8), log: fn(&str)) -> Self {
        Self {
            started: Instant::now(),
            root,
            tls: None,
            upstreams: Vec::new(),
            healthy: AtomicBool::new(true),
            ready: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            exit,
            log,
        }
    }
}

fn serve(listener: &TcpListener, server: &Arc<Server>) -> ! {
    loop {
        let (stream, client) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) => {
                echo::pause(&e);
                continue;
            }
        };
        let place = Place::take(server);
        let handle = move || {
            let Ok(wire) = Wire::new(stream, place.server.tls.as_ref()) else {
                return;
            };
            if place.is_free {
                converse(&wire, client, &place.server);
            } else {
                let busy = Response::text(503, "busy\n");
                // Whether or not it gets there, the connection ends.
                send(&wire, busy, Next::Close).ok();
            }
            // The client may have gone.
            wire.end().ok();
        };
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        if let Err(e) = thread.spawn(handle) {
            echo::pause(&e);
        }
    }
}

/// A connection's place among [`MAX_CONNECTIONS`], given back when dropped.
struct Place {
    server: Arc<Server>,
    is_free: bool,
}

impl Place {
    fn take(server: &Arc<Server>) -> Self {
        let others = server.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            server: Arc::clone(server),
            is_free: others < MAX_CONNECTIONS,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    KeepAlive,
    Close,
}

/// Answers requests until one of the two ends wants no more.
fn converse(stream: &Wire, client: SocketAddr, server: &Server) {
    let client = canonical(client);
    let mut connection = Connection::new(stream);
    loop {
        let request = match connection.next() {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(Bad { status, why }) => {
                (server.log)(&format!("- {status} {client} ({why})"));
                let response = Response::text(status, &format!("{why}\n"));
                if send(stream, response, Next::Close).is_ok() {
                    drain(stream);
                }
                return;
            }
        };
        let next = request.next();
        let call = format!("{} {}", request.method, request.target);
        let (response, exit) = match routes::answer(&request, client, server) {
            Answer::Response(response) => (response, None),
            Answer::Exit(code) => (
                Response::text(200, &format!("exiting with {code}\n")),
                Some(code),
            ),
            Answer::Hang => {
                (server.log)(&format!("{call} hangs {client}"));
                connection.wait_for_close();
                return;
            }
        };
        (server.log)(&format!("{call} {} {client}", response.status));
        let response = if request.method == "HEAD" {
            response.without_body()
        } else {
            response
        };
        let sent = send(stream, response, next);
        if let Some(code) = exit {
            drain(stream);
            (server.exit)(code);
        }
        if sent.is_err() || next == Next::Close {
            return;
        }
    }
}

fn send(stream: &Wire, response: Response, next: Next) -> io::Result<()> {
    response.write_to(stream, next)
}

/// Takes what the client is still sending, for a moment: closing at once would reset the connection, and the
/// client might never see the answer.
fn drain(mut stream: &Wire) {
    const PATIENCE: Duration = Duration::from_millis(500);
    if stream.end().is_err() || stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while let Ok(1..) = io::Read::read(&mut stream, &mut buffer) {
        if Instant::now() > until {
            return;
        }
    }
}

/// An IPv4 client of an IPv6 socket, as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
