//! `grpc` (`pkg/probe/grpc`): asks `grpc.health.v1.Health/Check`.
//!
//! One unary call, so HTTP/2 is all that is needed: a request is a message with a length before it, the response as
//! well, and the call's status is in the trailers.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, Reason, RecvStream};
use hyper::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::dial::{self, Network};
use super::super::http::{Agent, tls};
use super::super::status::go_duration;
use super::Outcome;
use crate::model::plan::Transport;

#[cfg(test)]
mod tests;
mod wire;

/// How long to wait after the first connection that failed, and how much longer each time (`grpc-go`).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: f64 = 1.6;

/// Where to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) transport: Transport,
}

/// How a call ended.
enum Ending {
    /// No connection, or none on which HTTP/2 was spoken.
    NotConnected,
    Status(wire::Status),
    /// `HealthCheckResponse.status`
    Answer(u64),
}

/// `SERVING` is a success. Who cannot connect tries again until the time is over, as `grpc-go` does.
pub(super) async fn check(
    network: &Network,
    server: Server,
    service: &str,
    timeout: Duration,
) -> Outcome {
    let is_connected = Cell::new(false);
    let asked = tokio::time::timeout(timeout, ask(network, server, service, &is_connected)).await;
    let within = go_duration(timeout.as_secs());
    let text = match asked {
        Ok(Ending::Answer(wire::SERVING)) => return Outcome::Success,
        Ok(Ending::Answer(status)) => {
            format!(
                "service unhealthy (responded with {:?})",
                wire::serving_status(status)
            )
        }
        Ok(Ending::Status(status)) => match status.code {
            wire::UNIMPLEMENTED => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message
            ),
            wire::DEADLINE_EXCEEDED => {
                format!("timeout: health rpc did not complete within {within}")
            }
            _ => format!("error: health rpc probe failed: {status}"),
        },
        Err(_) if is_connected.get() => {
            format!("timeout: health rpc did not complete within {within}")
        }
        Ok(Ending::NotConnected) | Err(_) => {
            let address = network.host_and_port(None, server.port);
            format!(
                "timeout: failed to connect service {address:?} within {within}: context deadline exceeded"
            )
        }
    };
    Outcome::Failure(text)
}

async fn ask(
    network: &Network,
    server: Server,
    service: &str,
    is_connected: &Cell<bool>,
) -> Ending {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(network, server, service, is_connected).await {
            Ending::NotConnected => {}
            ending @ (Ending::Status(_) | Ending::Answer(_)) => return ending,
        }
        is_connected.set(false);
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(PAUSE_FACTOR);
    }
}

async fn attempt(
    network: &Network,
    server: Server,
    service: &str,
    is_connected: &Cell<bool>,
) -> Ending {
    let Ok(stream) = network.connect(None, server.port).await else {
        return Ending::NotConnected;
    };
    let request = request(network, server);
    match server.transport {
        Transport::Plain => converse(stream, request, service, is_connected).await,
        Transport::Tls => {
            match tls::connect(&network.name(None), stream, tls::Offer::Http2).await {
                Ok(stream) => converse(stream, request, service, is_connected).await,
                Err(_) => Ending::NotConnected,
            }
        }
    }
}

async fn converse<S>(
    stream: S,
    request: Request<()>,
    service: &str,
    is_connected: &Cell<bool>,
) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok((sender, mut connection)) = h2::client::handshake(stream).await else {
        return Ending::NotConnected;
    };
    let ping = connection.ping_pong();
    let exchange = async {
        // Any server takes a connection; only one for HTTP/2 answers this.
        if let Some(mut ping) = ping
            && ping.ping(Ping::opaque()).await.is_err()
        {
            return Ending::NotConnected;
        }
        is_connected.set(true);
        call(sender, request, service)
            .await
            .unwrap_or_else(|error| broken(&error))
    };
    dial::drive(connection, exchange).await
}

/// A connection or a stream that failed during the call.
fn broken(error: &h2::Error) -> Ending {
    let message = if error.is_reset() {
        let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
        format!(
            "stream terminated by RST_STREAM with error code: {}",
            wire::reason(reason)
        )
    } else {
        format!("error reading from server: {error}")
    };
    Ending::Status(wire::Status {
        code: wire::UNAVAILABLE,
        message,
    })
}

async fn call(
    mut sender: SendRequest<Bytes>,
    request: Request<()>,
    service: &str,
) -> Result<Ending, h2::Error> {
    sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(wire::request(service), true)?;
    let response = response.await?;
    if let Some(status) = wire::http_status(response.status(), response.headers()) {
        return Ok(Ending::Status(status));
    }
    let headers = response.headers().clone();
    let mut body = response.into_body();
    let message = read(&mut body).await?;
    let trailers = body.trailers().await?;
    // A call without a message has its status in the headers.
    let status = wire::Status::of(trailers.as_ref().unwrap_or(&headers));
    Ok(match (status, message) {
        (status, _) if status.code != wire::OK => Ending::Status(status),
        (_, Some(message)) => match wire::status_of_response(&message) {
            Some(status) => Ending::Answer(status),
            None => Ending::Status(wire::Status {
                code: wire::INTERNAL,
                message: "grpc: failed to unmarshal the received message".into(),
            }),
        },
        (_, None) => Ending::Status(wire::Status {
            code: wire::INTERNAL,
            message:
                "cardinality violation: received no response message from non-server-streaming RPC"
                    .into(),
        }),
    })
}

fn request(network: &Network, server: Server) -> Request<()> {
    let scheme = match server.transport {
        Transport::Plain => "http",
        Transport::Tls => "https",
    };
    let address = network.host_and_port(None, server.port);
    let uri = format!("{scheme}://{address}/grpc.health.v1.Health/Check");
    let mut request = Request::new(());
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = uri.parse().expect("an address and a path");
    let headers = request.headers_mut();
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("user-agent", Agent::Probe.name()),
        ("te", "trailers"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    request
}

/// The first message of a body, if one is in it.
async fn read(body: &mut RecvStream) -> Result<Option<Vec<u8>>, h2::Error> {
    /// No answer of this service is near it.
    const LONGEST: usize = 16 * 1024;
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let left = LONGEST - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(left)]);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(wire::message(&bytes).map(<[u8]>::to_vec))
}
