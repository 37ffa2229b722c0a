//! A gRPC server that answers `grpc.health.v1.Health/Check`, in plain text or over TLS, and `GET /healthz` for who asks by
//! HTTP/2 alone.
//!
//! The service `""` and those named by `--service` are known. They are SERVING while there is no `--file`, or while
//! that file is there, so that whoever may run commands in the container can change what it answers.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::arguments::Arguments;
use super::{Error, http, out, signals};

pub(super) const USAGE: &str = "[--port P] [--tls] [--service NAME] [--file PATH]";

/// What a server knows.
struct Server {
    services: Vec<String>,
    file: Option<PathBuf>,
    /// Whether TLS is spoken.
    tls: Option<TlsAcceptor>,
}

pub(super) fn run(mut arguments: Arguments) -> Result<u8, Error> {
    let mut port = 50051;
    let mut server = Server {
        services: vec![String::new()],
        file: None,
        tls: None,
    };
    while let Some(option) = arguments.option() {
        match &*option {
            "--port" => port = arguments.value("--port")?,
            "--tls" => {
                let tls = acceptor().map_err(|e| Error::System("speak TLS", e))?;
                server.tls = Some(tls);
            }
            "--service" => server.services.push(arguments.value("--service")?),
            "--file" => server.file = Some(arguments.value::<PathBuf>("--file")?),
            other => return Err(arguments.unknown(other)),
        }
    }
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| Error::System("start", e))?;
    LocalSet::new().block_on(&runtime, async {
        let listener = listen(port).await.map_err(|e| Error::System("listen", e))?;
        out(|out| writeln!(out, "grpc-health on port {port}"))?;
        serve(listener, Rc::new(server)).await
    })
}

/// Nothing but HTTP/2 is spoken within.
fn acceptor() -> io::Result<TlsAcceptor> {
    let mut config = rustls::ServerConfig::clone(&*http::tls()?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        // A pod without IPv6 is not unusual.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    }
}

async fn serve(listener: TcpListener, server: Rc<Server>) -> Result<u8, Error> {
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .map_err(|e| Error::System("accept", e))?;
        let server = Rc::clone(&server);
        tokio::task::spawn_local(async move {
            // The client may go, or speak something else.
            match &server.tls {
                None => converse(stream, &server).await.ok(),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => converse(stream, &server).await.ok(),
                    Err(_) => None,
                },
            };
        });
    }
}

async fn converse<S>(stream: S, server: &Rc<Server>) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await?;
    // Asking for the next request is what moves the bytes of the others.
    while let Some(request) = connection.accept().await {
        let (request, response) = request?;
        let server = Rc::clone(server);
        tokio::task::spawn_local(async move {
            // As above.
            answer(request, response, &server).await.ok();
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut response: SendResponse<Bytes>,
    server: &Server,
) -> Result<(), h2::Error> {
    if request.method() == Method::GET {
        let mut head = Response::new(());
        *head.status_mut() = server.status(request.uri().path());
        response.send_response(head, true)?;
        return Ok(());
    }
    let reply = if request.uri().path() != "/grpc.health.v1.Health/Check" {
        Reply::Status(12, "unknown service or method")
    } else {
        match asked(request.into_body()).await? {
            Some(service) => server.check(&service),
            None => Reply::Status(13, "cannot read the request"),
        }
    };
    send(response, &reply)
}

/// The service that a request asks for.
async fn asked(mut body: RecvStream) -> Result<Option<String>, h2::Error> {
    /// No name of a service is longer.
    const LONGEST: usize = 4096;
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if bytes.len() + data.len() > LONGEST {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(service(&bytes))
}

/// A `HealthCheckRequest` has one field, the name; an empty name has none.
fn service(body: &[u8]) -> Option<String> {
    let (head, message) = body.split_at_checked(5)?;
    if head[0] != 0 {
        return None;
    }
    match message {
        [] => Some(String::new()),
        // A length of one byte: longer names are not needed here.
        [0x0a, length @ 0..=127, name @ ..] if usize::from(*length) == name.len() => {
            String::from_utf8(name.to_vec()).ok()
        }
        _ => None,
    }
}

/// How a call ends.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Serving,
    NotServing,
    /// A status of gRPC, and its message.
    Status(u8, &'static str),
}

impl Server {
    fn serves(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.exists())
    }

    /// The answer to a GET.
    fn status(&self, path: &str) -> StatusCode {
        match path {
            "/healthz" if self.serves() => StatusCode::OK,
            "/healthz" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::NOT_FOUND,
        }
    }

    fn check(&self, service: &str) -> Reply {
        if !self.services.iter().any(|known| known == service) {
            Reply::Status(5, "unknown service")
        } else if self.serves() {
            Reply::Serving
        } else {
            Reply::NotServing
        }
    }
}

fn send(mut response: SendResponse<Bytes>, reply: &Reply) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", kind);
    let serving_status = match reply {
        Reply::Serving => 1,
        Reply::NotServing => 2,
        Reply::Status(code, message) => {
            let headers = head.headers_mut();
            headers.insert("grpc-status", u16::from(*code).into());
            headers.insert("grpc-message", HeaderValue::from_static(message));
            response.send_response(head, true)?;
            return Ok(());
        }
    };
    let mut body = response.send_response(head, false)?;
    // A message of two bytes: field 1, a number.
    let message = [0, 0, 0, 0, 2, 1 << 3, serving_status];
    body.send_data(Bytes::copy_from_slice(&message), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    body.send_trailers(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        for (body, expected) in [
            (&b"\0\0\0\0\0"[..], Some("")),
            (b"\0\0\0\0\x06\x0a\x04live", Some("live")),
            (b"\x01\0\0\0\0", None),
            (b"\0\0\0\0\x06\x0a\x05live", None),
            (b"\0\0\0", None),
        ] {
            assert_eq!(service(body).as_deref(), expected, "{body:?}");
        }
    }

    #[test]
    fn what_is_served() {
        let here = std::env::current_exe().expect("a path");
        let server = |file: Option<PathBuf>| Server {
            services: vec![String::new(), "live".into()],
            file,
            tls: None,
        };
        assert_eq!(server(None).check("live"), Reply::Serving);
        assert_eq!(server(Some(here.clone())).check(""), Reply::Serving);
        assert_eq!(server(None).status("/healthz"), 200);
        assert_eq!(server(Some(here.join("no"))).status("/healthz"), 503);
        assert_eq!(server(None).status("/"), 404);
        acceptor().expect("a certificate");
        assert_eq!(server(Some(here.join("no"))).check(""), Reply::NotServing);
        assert_eq!(server(None).check("x"), Reply::Status(5, "unknown service"));
    }
}
