//! Requests against scripted servers.
#![expect(clippy::print_stderr, reason = "says why a test was skipped")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::sys::netns::NetNs;

mod http2;

/// What a server does with one connection.
#[derive(Clone, Copy)]
enum Step {
    /// Sends this and closes.
    Send(&'static str),
    /// Sends this and says no more.
    Stall(&'static str),
}
use Step::{Send, Stall};

/// A server that takes one connection per step; the requests' heads arrive in the receiver.
fn serve(transport: Transport, steps: &'static [Step]) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (port, serve_on(listener, transport, steps))
}

fn serve_on(
    listener: TcpListener,
    transport: Transport,
    steps: &'static [Step],
) -> mpsc::Receiver<String> {
    let (heads, received) = mpsc::channel();
    std::thread::spawn(move || {
        for step in steps {
            let (stream, _) = listener.accept().expect("a connection");
            match transport {
                Transport::Plain => converse(stream, *step, &heads),
                Transport::Tls => converse(tls_server(stream), *step, &heads),
            }
        }
    });
    received
}

fn converse(mut stream: impl Read + Write, step: Step, heads: &mpsc::Sender<String>) {
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    // A client that speaks another protocol, or goes away, has no head.
    while reader.read_line(&mut head).is_ok_and(|length| length > 2) {}
    heads.send(head).ok();
    match step {
        Send(text) => stream.write_all(text.as_bytes()).ok(),
        Stall(text) => {
            stream.write_all(text.as_bytes()).ok();
            stream.flush().ok();
            // Until the client has gone.
            stream.read(&mut [0]).ok().map(|_| ())
        }
    };
}

fn tls_server(
    stream: std::net::TcpStream,
) -> rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream> {
    let connection = rustls::ServerConnection::new(Arc::new(tls_config())).expect("a connection");
    rustls::StreamOwned::new(connection, stream)
}

fn tls_config() -> rustls::ServerConfig {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/image");
    let chain = CertificateDer::from_pem_file(dir.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
        })
        .expect("a configuration")
}

fn request(transport: Transport, port: u16, path: &str, headers: &[(&str, &str)]) -> HttpGet {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    HttpGet {
        transport,
        host: None,
        port,
        path: path.to_owned(),
        headers: headers.iter().map(owned).collect(),
    }
}

fn run(network: &Network, request: &HttpGet, timeout: Duration) -> Result<Answer, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(get(network, request, Agent::Probe, Some(timeout)))
}

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

/// The answer's status and body, or the error's text, with the server's port as `PORT`.
#[track_caller]
fn check(
    transport: Transport,
    steps: &'static [Step],
    timeout: Duration,
    expected: Result<(u16, &str), &str>,
) {
    let (port, _heads) = serve(transport, steps);
    let answer = run(
        &Network::new(None),
        &request(transport, port, "/x", &[]),
        timeout,
    );
    let answer = answer
        .map(|answer| (answer.status, String::from_utf8(answer.body).expect("text")))
        .map_err(|error| error.to_string().replace(&port.to_string(), "PORT"));
    let answer = answer
        .as_ref()
        .map(|(status, body)| (*status, body.as_str()));
    assert_eq!(answer.map_err(String::as_str), expected);
}

#[test]
fn answers() {
    for transport in [Transport::Plain, Transport::Tls] {
        for (text, expected) in [
            (
                &[Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")],
                (200, "ok"),
            ),
            (&[Send("HTTP/1.1 204 No\r\n\r\n")], (204, "")),
            (
                &[Send("HTTP/1.0 500 Oh\r\n\r\nuntil the end")],
                (500, "until the end"),
            ),
            (
                &[Send(
                    "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                )],
                (404, "abc"),
            ),
            (
                &[Send(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                )],
                (200, ""),
            ),
            // Not a redirect without a place to go to, nor one that is none.
            (
                &[Send("HTTP/1.1 302 Found\r\nContent-Length: 1\r\n\r\n.")],
                (302, "."),
            ),
            (
                &[Send("HTTP/1.1 304 Same\r\nLocation: /y\r\n\r\n")],
                (304, ""),
            ),
            (
                &[Send(
                    "HTTP/1.1 307 No\r\nLocation: http://elsewhere.example/\r\nContent-Length: 4\r\n\r\naway",
                )],
                (307, "away"),
            ),
        ] as [(&'static [Step], _); 8]
        {
            check(transport, text, PATIENCE, Ok(expected));
        }
    }
}

#[test]
fn no_answers() {
    for (steps, expected) in [
        (&[Send("")], "Get \"http://127.0.0.1:PORT/x\": EOF"),
        (
            &[Send("SSH-2.0-x\r\n")],
            "Get \"http://127.0.0.1:PORT/x\": net/http: HTTP/1.x transport connection broken: malformed HTTP response: \
             invalid HTTP version parsed",
        ),
        (
            &[Stall("")],
            "Get \"http://127.0.0.1:PORT/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        ),
        (
            &[Stall("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n.")],
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
        ),
        (
            &[Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n.")],
            "unexpected EOF",
        ),
    ] as [(&'static [Step], _); 5]
    {
        let stalls = matches!(steps, [Stall(_)]);
        check(
            Transport::Plain,
            steps,
            if stalls { SHORT } else { PATIENCE },
            Err(expected),
        );
    }
}

#[test]
fn a_body_is_read_up_to_its_limit() {
    // More than fits, and never an end.
    static ENDLESS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
            "x".repeat(20_000)
        )
    });
    let steps = Box::leak(Box::new([Stall(ENDLESS.as_str())]));
    let (port, _heads) = serve(Transport::Plain, steps);
    let request = request(Transport::Plain, port, "/", &[]);
    let answer = run(&Network::new(None), &request, PATIENCE).expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 10 * 1024));
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let error = run(
        &Network::new(None),
        &request(Transport::Plain, port, "/", &[]),
        PATIENCE,
    )
    .expect_err("nobody");
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
    assert!(!error.is_plain_answer());
}

#[test]
fn http_where_tls_was_expected() {
    let (port, _heads) = serve(
        Transport::Plain,
        &[Send("HTTP/1.1 400 Bad Request\r\n\r\n")],
    );
    let error = run(
        &Network::new(None),
        &request(Transport::Tls, port, "/", &[]),
        PATIENCE,
    )
    .expect_err("no TLS");
    assert!(error.is_plain_answer(), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"https://127.0.0.1:{port}/\": http: server gave HTTP response to HTTPS client"
        )
    );
}

#[test]
fn headers_are_the_kubelets() {
    let head = |headers: &[(&str, &str)]| {
        let (port, heads) = serve(Transport::Plain, &[Send("HTTP/1.1 200 OK\r\n\r\n")]);
        let request = request(Transport::Plain, port, "/a?b", headers);
        run(&Network::new(None), &request, PATIENCE).expect("an answer");
        let head = heads.recv().expect("a request");
        let mut lines: Vec<_> = head.lines().map(str::to_owned).collect();
        lines.pop();
        lines[1..].sort_unstable();
        lines.join("|").replace(&port.to_string(), "PORT")
    };
    assert_eq!(
        head(&[]),
        "GET /a?b HTTP/1.1|Accept: */*|Connection: close|Host: 127.0.0.1:PORT|User-Agent: kube-probe/1.37"
    );
    assert_eq!(
        head(&[
            ("x-twice", "1"),
            ("X-Twice", "2"),
            ("HOST", "example.com"),
            ("user-agent", ""),
            ("Accept", "")
        ]),
        "GET /a?b HTTP/1.1|Connection: close|Host: example.com|X-Twice: 1|X-Twice: 2"
    );
    assert_eq!(Agent::Lifecycle.name(), "kube-lifecycle/1.37");
    let (port, _heads) = serve(Transport::Plain, &[]);
    let request = request(Transport::Plain, port, "/", &[("X-Lines", "a\nb")]);
    let error = run(&Network::new(None), &request, PATIENCE).expect_err("an invalid header");
    assert!(
        error
            .to_string()
            .ends_with("net/http: invalid header field value for \"X-Lines\""),
        "{error}"
    );
}

#[test]
fn redirects_within_the_host_are_followed() {
    let (port, heads) = serve(
        Transport::Plain,
        &[
            Send("HTTP/1.1 302 Found\r\nLocation: /second?q\r\n\r\nbody"),
            Send("HTTP/1.1 308 Moved\r\nLocation: third\r\n\r\n"),
            Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere"),
        ],
    );
    let request = request(Transport::Plain, port, "/first", &[("Host", "example.com")]);
    let answer = run(&Network::new(None), &request, PATIENCE).expect("an answer");
    assert_eq!((answer.status, answer.body), (200, b"here".to_vec()));
    let heads: Vec<String> = heads.iter().collect();
    let lines: Vec<_> = heads
        .iter()
        .map(|head| head.lines().next().unwrap_or_default())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /first HTTP/1.1",
            "GET /second?q HTTP/1.1",
            "GET /third HTTP/1.1"
        ]
    );
    // The manifest's own `Host` stays, since the redirects were relative.
    assert!(
        heads
            .iter()
            .all(|head| head.contains("Host: example.com\r\n")),
        "{heads:?}"
    );
    let referer = format!("Referer: http://127.0.0.1:{port}/first\r\n");
    assert!(
        !heads[0].contains("Referer") && heads[1].contains(&referer),
        "{heads:?}"
    );
}

#[test]
fn redirects_end() {
    let loop_ = &[Send("HTTP/1.1 301 Moved\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"); 20];
    let (port, heads) = serve(Transport::Plain, loop_);
    let request = request(Transport::Plain, port, "/x", &[]);
    let error = run(&Network::new(None), &request, PATIENCE).expect_err("too many redirects");
    assert_eq!(
        error.to_string(),
        format!("Get \"http://127.0.0.1:{port}/again\": stopped after 10 redirects")
    );
    // As many requests as Go makes before it says so.
    assert_eq!(heads.try_iter().count(), 10);
}

#[test]
fn the_pod_is_reached_inside_its_namespace() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let netns = NetNs::fresh();
    let listener = netns
        .visit(|| TcpListener::bind("127.0.0.1:0"))
        .expect("a port in there");
    let port = listener.local_addr().expect("an address").port();
    let _heads = serve_on(
        listener,
        Transport::Plain,
        &[Send("HTTP/1.1 200 OK\r\n\r\nin there")],
    );
    let network = Network::new(Some(netns));
    let inside = request(Transport::Plain, port, "/", &[]);
    assert_eq!(
        run(&network, &inside, PATIENCE).expect("an answer").body,
        b"in there"
    );
    // A host that is named is the machine's.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let _heads = serve_on(
        listener,
        Transport::Plain,
        &[Send("HTTP/1.1 200 OK\r\n\r\nout here")],
    );
    let outside = HttpGet {
        host: Some("localhost".into()),
        ..request(Transport::Plain, port, "/", &[])
    };
    assert_eq!(
        run(&network, &outside, PATIENCE).expect("an answer").body,
        b"out here"
    );
}
