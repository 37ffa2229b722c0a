//! A registry in this process, on 127.0.0.1, which fails as it is told to. One request per connection.

mod access;

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::Sample;
use crate::image::digest::Digest;
use crate::model::reference::Reference;

pub(in super::super) use access::Access;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry does to requests instead of answering.
#[derive(Clone, Debug)]
pub(in super::super) enum Act {
    Status(u16, &'static str),
    /// Answers with this status, and when to come again.
    ComeAgain(u16, &'static str),
    /// Sends so many bytes of the content and then closes the connection.
    Cut(usize),
    /// Sends other bytes, as many.
    Garble,
    /// Says less than it has.
    Shorten(usize),
    /// Says more than it has.
    Stretch(usize),
    /// Sends so many bytes of the content and then nothing more.
    Stall(usize),
    /// Sends nothing at all.
    Silence,
    /// Sends a byte every now and then.
    Trickle,
    /// Sends bytes without an end.
    Endless,
    /// Sends another part than the one that was asked for.
    Misplace(usize),
    /// Sends the client to another server, with the same path.
    Redirect(SocketAddr),
    /// Sends the client to another address; a `*` at its end stands for the path. What is begun goes on there.
    Location(String),
    /// Sends so many bytes of headers before the content.
    Headers(usize),
}

/// How long a client may wait for what does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file of `testdata/image`.
pub(in super::super) fn file(name: &str) -> String {
    format!("{}/testdata/image/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tls(clients: Option<rustls::RootCertStore>) -> Arc<rustls::ServerConfig> {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authorities) => {
            let authorities = Arc::new(authorities);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(authorities, provider).build();
            config.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let config = config.with_single_cert(vec![certificate], key);
    Arc::new(config.expect("a usable key"))
}

/// A registry that runs until the process ends.
pub(in super::super) struct Registry {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    access: Access,
    ranges: bool,
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    /// Part of a path, how often, what.
    acts: Mutex<Vec<(String, usize, Act)>>,
    log: Mutex<Vec<String>>,
    /// What proved who asks, per request.
    authorizations: Mutex<Vec<String>>,
    /// How many tokens were given, and how often the last one was used.
    tokens: Mutex<(usize, usize)>,
}

impl Registry {
    pub(in super::super) fn start(access: Access) -> Self {
        Self::run(access, true, None)
    }

    pub(in super::super) fn without_ranges() -> Self {
        Self::run(Access::Anybody, false, None)
    }

    /// With the certificate of `testdata/image`.
    pub(in super::super) fn with_tls(access: Access) -> Self {
        Self::run(access, true, Some(tls(None)))
    }

    /// The same, for those that have a certificate of `testdata/image/client-ca.pem`.
    pub(in super::super) fn with_client_certificates() -> Self {
        let authority = CertificateDer::from_pem_file(file("client-ca.pem"));
        let mut authorities = rustls::RootCertStore::empty();
        let added = authorities.add(authority.expect("a certificate"));
        added.expect("an authority");
        Self::run(Access::Anybody, true, Some(tls(Some(authorities))))
    }

    fn run(access: Access, ranges: bool, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (content, acts, log) = (Mutex::default(), Mutex::default(), Mutex::default());
        let state = Arc::new(State {
            access,
            ranges,
            content,
            acts,
            log,
            authorizations: Mutex::default(),
            tokens: Mutex::default(),
        });
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (Arc::clone(&served), tls.clone());
                std::thread::spawn(move || state.serve_connection(stream, tls, address));
            }
        });
        Self { address, state }
    }

    pub(in super::super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A reference into this registry.
    pub(in super::super) fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).expect("a reference")
    }

    pub(in super::super) fn add(&self, repository: &str, tag: &str, sample: &Sample) {
        for blob in sample.layers.iter().chain([&sample.config]) {
            let path = format!("/v2/{repository}/blobs/{}", Digest::of(blob));
            self.put(path, "application/octet-stream", blob);
        }
        self.add_manifest(repository, tag, OCI_MANIFEST, &sample.manifest);
    }

    pub(in super::super) fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        self.put_manifest(repository, Digest::of(bytes).as_str(), media_type, bytes);
        self.put_manifest(repository, tag, media_type, bytes);
    }

    /// Gives a manifest a name, which may be another's digest.
    pub(in super::super) fn put_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        self.put(
            format!("/v2/{repository}/manifests/{name}"),
            media_type,
            bytes,
        );
    }

    /// Does something to the next requests whose path has this in it.
    pub(in super::super) fn act(&self, path: impl ToString, times: usize, act: Act) {
        self.state
            .acts
            .lock()
            .expect("a lock")
            .push((path.to_string(), times, act));
    }

    /// The paths that were asked for, with ranges.
    pub(in super::super) fn log(&self) -> Vec<String> {
        self.state.log.lock().expect("a lock").clone()
    }

    /// What was shown with the requests; an empty text with those that had nothing.
    pub(in super::super) fn authorizations(&self) -> Vec<String> {
        self.state.authorizations.lock().expect("a lock").clone()
    }

    /// What is at a path now, and its type.
    pub(in super::super) fn content(&self, path: &str) -> Option<(String, Vec<u8>)> {
        self.state
            .content
            .lock()
            .expect("a lock")
            .get(path)
            .cloned()
    }

    fn put(&self, path: String, media_type: &str, bytes: &[u8]) {
        let mut content = self.state.content.lock().expect("a lock");
        content.insert(path, (media_type.to_owned(), bytes.to_vec()));
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl State {
    fn serve_connection(
        &self,
        stream: TcpStream,
        tls: Option<Arc<rustls::ServerConfig>>,
        address: SocketAddr,
    ) {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        let served = match tls {
            None => self.serve(BufReader::new(Box::new(stream)), address),
            Some(config) => {
                let connection = rustls::ServerConnection::new(config).expect("a connection");
                let stream = rustls::StreamOwned::new(connection, stream);
                self.serve(BufReader::new(Box::new(stream)), address)
            }
        };
        // The client may go whenever it likes.
        served.ok();
    }

    fn serve(&self, mut stream: BufReader<Box<dyn Stream>>, address: SocketAddr) -> io::Result<()> {
        let mut first = Vec::new();
        // Who speaks TLS to a registry without it sends no line.
        stream.by_ref().take(4096).read_until(b'\n', &mut first)?;
        let first = String::from_utf8_lossy(&first).into_owned();
        let mut words = first.split(' ');
        let (Some(method @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE")), Some(path)) =
            (words.next(), words.next())
        else {
            return Ok(());
        };
        // As proxies are asked.
        let path = match path.strip_prefix("http://") {
            Some(rest) => &rest[rest.find('/').unwrap_or(rest.len())..],
            None => path,
        };
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map(String::as_str);
        let length = length.unwrap_or("0").parse().unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let range = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let from: usize = range.and_then(|from| from.parse().ok()).unwrap_or(0);
        self.log.lock().expect("a lock").push(match (method, from) {
            ("GET", 0) => path.to_owned(),
            ("GET", from) => format!("{path} from {from}"),
            ("POST", _) if path.starts_with("/token") => path.to_owned(),
            (method, _) => format!("{method} {path}"),
        });
        let authorization = headers
            .get("authorization")
            .map(String::as_str)
            .unwrap_or_default();
        let mut shown = self.authorizations.lock().expect("a lock");
        shown.push(authorization.to_owned());
        drop(shown);
        let (stream, scheme) = (stream.get_mut(), "http");
        let own = format!("{scheme}://{address}");
        let text = String::from_utf8_lossy(&body).into_owned();
        if let Some(answer) = self.refuse(path, authorization, &text, &own) {
            return stream.write_all(answer.as_bytes());
        }
        let media_type = headers.get("content-type").map(String::as_str);
        let media_type = media_type.unwrap_or_default();
        match method {
            "POST" | "PUT" | "DELETE" => {
                let answer = self.take(method, path, media_type, body);
                stream.write_all(answer.as_bytes())
            }
            "HEAD" => {
                let content = self.content.lock().expect("a lock").get(path).cloned();
                let Some((media_type, bytes)) = content else {
                    return stream.write_all(b"HTTP/1.1 404 X\r\nConnection: close\r\n\r\n");
                };
                let (digest, length) = (Digest::of(&bytes), bytes.len());
                let answer = format!(
                    "HTTP/1.1 200 X\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
                     Docker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes())
            }
            _ => self.answer(stream, path, from, range.is_some()),
        }
    }

    /// What is pushed.
    fn take(&self, method: &str, path: &str, media_type: &str, body: Vec<u8>) -> String {
        match self.next_act(path) {
            Some(Act::Status(status, body)) => return answer(status, "", body),
            Some(Act::ComeAgain(status, when)) => {
                return answer(status, &format!("Retry-After: {when}\r\n"), "");
            }
            Some(Act::Location(place)) => {
                let status = if method == "POST" { 202 } else { 307 };
                let place = place.replace('*', path);
                return answer(status, &format!("Location: {place}\r\n"), "");
            }
            _ => {}
        }
        let mut content = self.content.lock().expect("a lock");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: HashMap<String, String> = reqwest::Url::parse(&format!("http://x/?{query}"))
            .expect("a query")
            .query_pairs()
            .into_owned()
            .collect();
        let digest = Digest::of(&body);
        let (kept, there) = match (
            method,
            path.split_once("/blobs/uploads/"),
            path.rsplit_once("/manifests/"),
        ) {
            ("POST", Some((repository, _)), _) => {
                let mounted = query.get("mount").zip(query.get("from"));
                let found = mounted.and_then(|(digest, from)| {
                    let blob = content.get(&format!("/v2/{from}/blobs/{digest}"))?;
                    Some((format!("{repository}/blobs/{digest}"), blob.clone()))
                });
                let Some((path, blob)) = found else {
                    let location = format!("Location: {repository}/blobs/uploads/1\r\n");
                    return answer(202, &location, "");
                };
                (vec![(path.clone(), blob)], path)
            }
            ("PUT", Some((repository, _)), _) => {
                assert_eq!(
                    query.get("digest").map(String::as_str),
                    Some(digest.as_str())
                );
                let path = format!("{repository}/blobs/{digest}");
                (vec![(path.clone(), (String::new(), body))], path)
            }
            ("PUT", None, Some((repository, _))) => {
                let manifest = (media_type.to_owned(), body);
                let by_digest = format!("{repository}/manifests/{digest}");
                let by_tag = path.to_owned();
                (
                    vec![(by_tag.clone(), manifest.clone()), (by_digest, manifest)],
                    by_tag,
                )
            }
            ("DELETE", Some(_), _) => return answer(204, "", ""),
            _ => return answer(404, "", ""),
        };
        content.extend(kept);
        answer(201, &format!("Location: {there}\r\n"), "")
    }

    fn answer(
        &self,
        stream: &mut dyn Write,
        path: &str,
        from: usize,
        ranged: bool,
    ) -> io::Result<()> {
        let act = self.next_act(path);
        if let Some(Act::Status(status, body)) = act {
            return stream.write_all(answer(status, "", body).as_bytes());
        }
        if let Some(Act::ComeAgain(status, when)) = act {
            let header = format!("Retry-After: {when}\r\n");
            return stream.write_all(answer(status, &header, "").as_bytes());
        }
        if let Some(Act::Silence) = act {
            std::thread::park_timeout(PATIENCE);
            return Ok(());
        }
        if let Some(Act::Redirect(address)) = act {
            let location = format!("Location: http://{address}{path}\r\n");
            return stream.write_all(answer(307, &location, "").as_bytes());
        }
        if let Some(Act::Location(place)) = &act {
            let place = match place.strip_suffix('*') {
                Some(place) => format!("{place}{path}"),
                None => place.clone(),
            };
            let location = format!("Location: {place}\r\n");
            return stream.write_all(answer(307, &location, "").as_bytes());
        }
        if let Some(Act::Headers(bytes)) = act {
            stream.write_all(b"HTTP/1.1 200 X\r\n")?;
            for number in 0..bytes / 1000 {
                let value = "x".repeat(985);
                stream.write_all(format!("X-{number:08}: {value}\r\n").as_bytes())?;
            }
            return stream.write_all(b"Content-Length: 0\r\n\r\n");
        }
        if path == "/v2/" {
            return stream.write_all(answer(200, "", "{}").as_bytes());
        }
        let content = self.content.lock().expect("a lock").get(path).cloned();
        let Some((media_type, mut bytes)) = content else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return stream.write_all(answer(404, "", body).as_bytes());
        };
        let mut status = 200;
        let mut headers = String::new();
        if ranged && self.ranges {
            let missed = match act {
                Some(Act::Misplace(bytes)) => bytes,
                _ => 0,
            };
            let (start, all) = (from + missed, bytes.len());
            bytes.drain(..start);
            status = 206;
            headers = format!("Content-Range: bytes {start}-{}/{all}\r\n", all - 1);
        }
        let (mut send, mut claim) = (bytes.len(), bytes.len());
        match act {
            Some(Act::Garble) => bytes.iter_mut().for_each(|byte| *byte ^= 0x55),
            Some(Act::Shorten(length)) => {
                bytes.truncate(length);
                (send, claim) = (bytes.len(), bytes.len());
            }
            Some(Act::Cut(length) | Act::Stall(length)) => send = length.min(bytes.len()),
            Some(Act::Stretch(more)) => claim += more,
            Some(Act::Trickle) => send = 0,
            Some(Act::Endless) => claim = usize::MAX >> 1,
            Some(
                Act::Status(..)
                | Act::ComeAgain(..)
                | Act::Silence
                | Act::Misplace(_)
                | Act::Redirect(_)
                | Act::Location(_)
                | Act::Headers(_),
            )
            | None => {}
        }
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\n{headers}Content-Length: {claim}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&bytes[..send])?;
        stream.flush()?;
        match act {
            Some(Act::Stall(_)) => std::thread::park_timeout(PATIENCE),
            // Until the client goes.
            Some(Act::Trickle) => {
                for byte in bytes.chunks(1) {
                    stream.write_all(byte)?;
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
            Some(Act::Endless) => loop {
                stream.write_all(&[b' '; 4096])?;
            },
            _ => {}
        }
        Ok(())
    }

    fn next_act(&self, path: &str) -> Option<Act> {
        let mut acts = self.acts.lock().expect("a lock");
        let (_, times, act) = acts
            .iter_mut()
            .find(|(part, times, _)| *times > 0 && path.contains(part.as_str()))?;
        *times -= 1;
        Some(act.clone())
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
