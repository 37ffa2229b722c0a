use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::root::{Content, Root};
use super::{MAX_CONNECTIONS, Server, serve};

/// Serves until the test ends.
fn start(root: Option<Root>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server::new(root, |_| (), |_| ()));
    std::thread::spawn(move || serve(&listener, &server));
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Sends bytes, closes that direction, and reads all that comes back.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may have answered and closed already.
    stream.write_all(bytes).ok();
    stream.shutdown(Shutdown::Write).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    );
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

#[test]
fn what_the_servers_behind_say() {
    let behind = |urls: &[String]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstreams = urls.iter().map(|url| url.parse().unwrap()).collect();
        let server = Server {
            upstreams,
            ..Server::new(None, |_| (), |_| ())
        };
        std::thread::spawn(move || serve(&listener, &Arc::new(server)));
        address
    };
    let last = start(None);
    let (good, bad) = (
        format!("http://{last}/healthz"),
        format!("http://{last}/status/418"),
    );
    let middle = format!("http://{}/upstream", behind(std::slice::from_ref(&good)));
    let first = behind(&[middle.clone(), good.clone()]);
    let own = get(last, "/hostname").1;
    let own = own.trim_end();
    let expected = format!("{own}\n  {middle} 200: {own}\n    {good} 200: ok\n  {good} 200: ok\n");
    assert_eq!(get(first, "/upstream"), (200, expected));
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", unused.local_addr().unwrap());
    drop(unused);
    let (status, text) = get(behind(&[bad.clone(), nobody.clone()]), "/upstream");
    assert_eq!(status, 502);
    assert!(text.contains(&format!("  {bad} 418: 418\n")), "{text}");
    assert!(
        text.contains(&format!("  {nobody} Connection refused")),
        "{text}"
    );
}

#[test]
fn simple_paths() {
    let address = start(None);
    let check = |path: &str, status, body: &str| {
        assert_eq!(get(address, path), (status, body.to_owned()), "{path}");
    };
    check("/healthz", 200, "ok\n");
    check("/healthz?x=y", 200, "ok\n");
    check("/fail", 200, "/healthz fails\n");
    check("/healthz", 500, "failing, until /ok\n");
    check("/ok", 200, "/healthz is ok\n");
    check("/healthz", 200, "ok\n");
    check("/ready", 200, "ready\n");
    check("/ready/no", 200, "/ready answers 503\n");
    check("/ready", 503, "not ready, until /ready/yes\n");
    check("/ready/yes", 200, "/ready answers 200\n");
    check("/ready", 200, "ready\n");
    check("/ready/maybe", 404, &get(address, "/nothing").1);
    for (path, location) in [
        ("/redirect/healthz", "/healthz"),
        ("/redirect/http://x.example/y", "http://x.example/y"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = exchange(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 302 Found\r\n"), "{answer}");
        assert!(
            answer.contains(&format!("\r\nLocation: {location}\r\n")),
            "{answer}"
        );
    }
    check("/redirect/%0d%0aSet-Cookie:x", 400, "/redirect/URL\n");
    check("/status/418", 418, "418\n");
    check("/status/100", 400, "/status/CODE, 200 to 599\n");
    check("/status/204", 204, "");
    check("/slow/5", 200, "5 ms\n");
    check("/slow/-5", 400, "/slow/MS\n");
    check("/exit/300", 400, "/exit/CODE, 0 to 255\n");
    check("/exit/7", 200, "exiting with 7\n");
    check("/files/x", 404, "no files are shown: there was no --root\n");
    assert_eq!(get(address, "/nothing").0, 404);
    assert_eq!(get(address, "/healthz/x").0, 404);
    assert!(get(address, "/client").1.starts_with("127.0.0.1:"));
    assert!(get(address, "/env").1.contains("PATH="));
    assert_eq!(get(address, "/%zz").0, 400);
}

#[test]
fn the_page_in_three_formats() {
    let address = start(None);
    let page = |accept: &str| {
        let request = format!("GET / HTTP/1.1\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        exchange(address, request.as_bytes())
    };
    assert!(page("*/*").contains("\r\nContent-Type: text/plain"));
    assert!(page("text/html,application/xhtml+xml,*/*;q=0.8").contains("<!doctype html>"));
    assert!(page("application/json").contains("\"hostname\": "));
}

#[test]
fn connections_are_kept_and_pipelined() {
    let address = start(None);
    let answers = exchange(
        address,
        b"GET /healthz HTTP/1.1\r\n\r\nHEAD /healthz HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
          GET /ok HTTP/1.1\r\nConnection: close\r\n\r\nGET /fail HTTP/1.1\r\n\r\n",
    );
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    assert_eq!(
        answers.matches("\r\n\r\nok\n").count(),
        1,
        "HEAD has no body: {answers}"
    );
    assert!(
        answers.contains("POST /echo\ncontent-length: 3\n\nabcHTTP"),
        "{answers}"
    );
    assert_eq!(
        get(address, "/healthz").0,
        200,
        "nothing after `close` was done"
    );
}

#[test]
fn a_body_is_invited() {
    let address = start(None);
    let mut stream = connect(address);
    stream
        .write_all(b"PUT /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    let mut invitation = [0; 25];
    stream.read_exact(&mut invitation).unwrap();
    assert_eq!(&invitation, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\n\nhi"), "{answer}");
}

#[test]
fn garbage_is_refused_and_the_server_lives() {
    let address = start(None);
    let status = |bytes: &[u8]| {
        exchange(address, bytes)
            .split(' ')
            .nth(1)
            .map(str::to_owned)
    };
    let huge = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 100_000]].concat();
    let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
    for (bytes, expected) in [
        (
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"[..],
            Some("400"),
        ),
        (b"GET /\r\n\r\n", Some("400")),
        (b"GET / HTTP/3\r\n\r\n", Some("505")),
        (b"GET / HTTP/1.1\r\nHos", Some("400")),
        (
            b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
            Some("400"),
        ),
        (
            b"POST /echo HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
            Some("413"),
        ),
        (
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Some("411"),
        ),
        (b"DELETE / HTTP/1.1\r\n\r\n", Some("405")),
        (&huge, Some("431")),
        (&many, Some("431")),
        (b"\r\n\r\n\r\n", None),
        (b"", None),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(status(bytes).as_deref(), expected, "{shown:?}");
    }
    assert_eq!(get(address, "/healthz").0, 200);
}

#[test]
fn hanging_ends_with_the_client() {
    let address = start(None);
    let mut stream = connect(address);
    stream.write_all(b"GET /hang HTTP/1.1\r\n\r\n").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = stream.read(&mut [0; 1]).expect_err("there is no answer");
    assert!(matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    ));
    stream.shutdown(Shutdown::Write).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn idle_and_slow_clients_leave_room_for_others() {
    let address = start(None);
    let idle: Vec<_> = (0..MAX_CONNECTIONS - 1).map(|_| connect(address)).collect();
    let start = Instant::now();
    assert_eq!(get(address, "/healthz").0, 200);
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut more: Vec<_> = (0..20).map(|_| connect(address)).collect();
    let mut answer = String::new();
    more.pop().unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop((idle, more));
    // The places come back as soon as the threads have seen it.
    while get(address, "/healthz").0 != 200 {
        std::thread::yield_now();
    }
}

/// A folder as a ConfigMap's volume has it, with ways out.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kplay-http-{}-{count}", std::process::id()));
        std::fs::create_dir_all(path.join("root/..2026")).unwrap();
        std::fs::create_dir_all(path.join("root/sub")).unwrap();
        std::fs::write(path.join("secret"), "secret").unwrap();
        let root = path.join("root");
        std::fs::write(root.join("..2026/greeting"), "hello\n").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("..data/greeting", root.join("greeting")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        std::fs::write(root.join("sub/binary.png"), [0, 1, 0xff]).unwrap();
        std::fs::write(root.join("sub/long"), "é".repeat(5000)).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        Self(path)
    }

    fn root(&self) -> Root {
        Root::open(&self.0.join("root")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn files_beneath_the_root_only() {
    let folder = Folder::new();
    let address = start(Some(folder.root()));
    let check = |path: &str, status, body: &str| {
        let (found, text) = get(address, path);
        assert_eq!(found, status, "{path}: {text}");
        assert!(
            text.contains(body) && !text.contains("secret"),
            "{path}: {text}"
        );
    };
    check("/files/greeting", 200, "hello\n");
    check("/files//greeting", 200, "hello\n");
    check("/files/sub/../greeting", 200, "hello\n");
    check("/files/", 200, "greeting\n");
    check("/files", 200, "sub/\n");
    check("/files/sub", 200, "binary.png\nlong\n");
    check("/files/sub/long", 200, "ééé");
    check("/files/nothing", 404, "");
    check("/files/greeting/x", 404, "");
    for path in [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "out",
        "passwd",
        "/etc/../../secret",
        "loop",
        "fifo",
    ] {
        let (status, text) = get(address, &format!("/files/{path}"));
        assert!(matches!(status, 403 | 404), "{path}: {status} {text}");
    }
}

#[test]
fn what_the_page_shows() {
    let folder = Folder::new();
    let shown = folder.root().shown();
    let paths: Vec<_> = shown.iter().map(|file| &*file.path).collect();
    assert_eq!(
        paths,
        [
            "fifo",
            "greeting",
            "loop",
            "out",
            "passwd",
            "sub/binary.png",
            "sub/long"
        ]
    );
    assert_eq!(shown[1].content, Content::Text("hello\n".to_owned()));
    assert!(matches!(shown[3].content, Content::Unreadable(_)));
    assert_eq!(shown[5].content, Content::Binary);
    assert_eq!(shown[6].content, Content::Cut("é".repeat(2048)));
}
