//! Calls to scripted servers.

use std::net::TcpListener;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// What a server does with its connections.
#[derive(Clone, Copy)]
enum Script {
    /// Answers with a message, then with a status.
    Answer(&'static [u8], &'static str),
    /// Answers with a status alone.
    Status(&'static str, &'static str),
    /// Is no server for gRPC.
    NotFound,
    /// Takes requests and never answers.
    Hang,
    Reset,
    /// Takes connections and never says anything.
    Silence,
    Close,
}

fn serve(script: Script, transport: Transport) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                // The client may go whenever it likes.
                match transport {
                    Transport::Plain => converse_by(script, stream).await.ok(),
                    Transport::Tls => match acceptor().accept(stream).await {
                        Ok(stream) => converse_by(script, stream).await.ok(),
                        Err(_) => None,
                    },
                };
            }
        });
    });
    port
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/image");
    let chain = CertificateDer::from_pem_file(dir.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

async fn converse_by<S>(script: Script, stream: S) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match script {
        Script::Close => return Ok(()),
        Script::Silence => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return Ok(());
        }
        _ => {}
    }
    let mut connection = h2::server::handshake(stream).await?;
    let mut held = Vec::new();
    while let Some(request) = connection.accept().await {
        let (request, mut response) = request?;
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["user-agent"], "kube-probe/1.37");
        let kind = HeaderValue::from_static("application/grpc");
        let mut head = Response::new(());
        let mut status = HeaderMap::new();
        match script {
            Script::Answer(message, code) => {
                head.headers_mut().insert("content-type", kind);
                status.insert("grpc-status", HeaderValue::from_static(code));
                let mut body = response.send_response(head, false)?;
                body.send_data(Bytes::from_static(message), false)?;
                body.send_trailers(status)?;
            }
            Script::Status(code, message) => {
                let headers = head.headers_mut();
                headers.insert("content-type", kind);
                headers.insert("grpc-status", HeaderValue::from_static(code));
                headers.insert("grpc-message", HeaderValue::from_static(message));
                response.send_response(head, true)?;
            }
            Script::NotFound => {
                *head.status_mut() = hyper::StatusCode::NOT_FOUND;
                response.send_response(head, true)?;
            }
            Script::Reset => response.send_reset(Reason::REFUSED_STREAM),
            Script::Hang | Script::Silence | Script::Close => held.push((request, response)),
        }
    }
    Ok(())
}

/// The failure's text, with the port as `PORT`; nothing is a success.
#[track_caller]
fn check(port: u16, transport: Transport, expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let server = Server { port, transport };
    let network = Network::new(None);
    let call = super::check(&network, server, "live", Duration::from_secs(1));
    let text = match runtime.expect("a runtime").block_on(call) {
        Outcome::Success => String::new(),
        Outcome::Warning(text) | Outcome::Failure(text) => text,
    };
    assert_eq!(text.replace(&port.to_string(), "PORT"), expected);
}

#[test]
fn answers() {
    for (script, expected) in [
        (Script::Answer(b"\0\0\0\0\x02\x08\x01", "0"), ""),
        (
            Script::Answer(b"\0\0\0\0\x02\x08\x02", "0"),
            "service unhealthy (responded with \"NOT_SERVING\")",
        ),
        (
            Script::Answer(b"\0\0\0\0\0", "0"),
            "service unhealthy (responded with \"UNKNOWN\")",
        ),
        (
            Script::Answer(b"", "0"),
            "error: health rpc probe failed: rpc error: code = Internal desc = cardinality violation: received no response \
             message from non-server-streaming RPC",
        ),
        (
            Script::Answer(b"\0\0\0\0\x02\x08\x01", "13"),
            "error: health rpc probe failed: rpc error: code = Internal desc = ",
        ),
        (
            Script::Status("5", "unknown service"),
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        ),
        (
            Script::Status("12", "no health here"),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no health here",
        ),
        (
            Script::Status("4", ""),
            "timeout: health rpc did not complete within 1s",
        ),
        (
            Script::NotFound,
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP status \
             code received from server: 404 Not Found; malformed header: missing HTTP content-type",
        ),
        (
            Script::Reset,
            "error: health rpc probe failed: rpc error: code = Unavailable desc = stream terminated by RST_STREAM with error \
             code: REFUSED_STREAM",
        ),
        (
            Script::Hang,
            "timeout: health rpc did not complete within 1s",
        ),
        (
            Script::Silence,
            "timeout: failed to connect service \"127.0.0.1:PORT\" within 1s: context deadline exceeded",
        ),
        (
            Script::Close,
            "timeout: failed to connect service \"127.0.0.1:PORT\" within 1s: context deadline exceeded",
        ),
    ] {
        check(serve(script, Transport::Plain), Transport::Plain, expected);
    }
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    check(
        port,
        Transport::Plain,
        "timeout: failed to connect service \"127.0.0.1:PORT\" within 1s: context deadline exceeded",
    );
}

#[test]
fn over_tls() {
    let serving = Script::Answer(b"\0\0\0\0\x02\x08\x01", "0");
    check(serve(serving, Transport::Tls), Transport::Tls, "");
    let plain = serve(serving, Transport::Plain);
    let text = "timeout: failed to connect service \"127.0.0.1:PORT\" within 1s: context deadline exceeded";
    check(plain, Transport::Tls, text);
}
