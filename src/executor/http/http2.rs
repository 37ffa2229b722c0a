//! A request over HTTP/2, which a server over TLS may choose. Only the words differ from HTTP/1.1.

use bytes::Bytes;
use h2::RecvStream;
use hyper::header::HOST;
use hyper::{HeaderMap, Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Cause;
use super::place::Place;
use super::{LONGEST_BODY, dial};

/// What belongs to a connection, so that there is no place for it here; Go does not send it either.
const LEFT_OUT: [&str; 7] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Asks, and gives the response to `take`.
pub(super) async fn exchange<S, T>(
    stream: S,
    place: &Place,
    headers: &HeaderMap,
    take: impl AsyncFnOnce(Response<RecvStream>) -> Result<T, Cause>,
) -> Result<T, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(64 * 1024)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| Cause::of_h2(&error))?;
    let exchange = async {
        let request = request(place, headers)?;
        let failed = |error: h2::Error| Cause::of_h2(&error);
        let mut sender = sender.ready().await.map_err(failed)?;
        let (response, _body) = sender.send_request(request, true).map_err(failed)?;
        take(response.await.map_err(failed)?).await
    };
    dial::drive(connection, exchange).await
}

fn request(place: &Place, headers: &HeaderMap) -> Result<Request<()>, Cause> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let invalid = |e: hyper::http::Error| Cause::Other(format!("http2: invalid request: {e}"));
    let uri = Uri::builder()
        .scheme("https")
        .authority(host.unwrap_or(&place.authority))
        .path_and_query(&place.target)
        .build()
        .map_err(invalid)?;
    let mut request = Request::new(());
    *request.version_mut() = hyper::Version::HTTP_2;
    *request.uri_mut() = uri;
    let sent = headers
        .iter()
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    for (name, value) in sent {
        request.headers_mut().append(name, value.clone());
    }
    Ok(request)
}

/// The beginning of a body.
pub(super) async fn read(mut body: RecvStream) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    // The stream's first window is larger than what is read.
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| Cause::of_h2(&error))?;
        let left = LONGEST_BODY - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(left)]);
        if bytes.len() == LONGEST_BODY {
            break;
        }
    }
    Ok(bytes)
}
