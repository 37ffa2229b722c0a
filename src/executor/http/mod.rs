//! GET requests as the kubelet makes them, for probes and lifecycle hooks.
//!
//! One connection each, no proxy, no compression; certificates are not verified. Redirects are followed within the host.
//! It is HTTP/1.1, or HTTP/2 where a server over TLS chooses it; only probes offer that (`SetTransportDefaults`), hooks
//! do not (a transport with a TLS configuration of its own). Nothing is kept between requests: an idle executor pays
//! nothing for them.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, REFERER, USER_AGENT};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::dial::{self, Network};
use crate::model::plan::{HttpGet, Transport};

mod error;
mod http2;
mod place;
#[cfg(test)]
mod tests;
pub(super) mod tls;

pub(super) use self::error::{Cause, Error};
use self::place::Place;

/// How much of a body is read, in bytes.
const LONGEST_BODY: usize = 10 * 1024;
/// After how many requests another redirect is too much (Go's `net/http`, whose message speaks of redirects).
const MOST_REQUESTS: usize = 10;

/// Who asks, for the header `User-Agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    Probe,
    Lifecycle,
}

impl Agent {
    /// The header's value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Probe => "kube-probe/1.37",
            Self::Lifecycle => "kube-lifecycle/1.37",
        }
    }

    fn offer(self) -> tls::Offer {
        match self {
            Self::Probe => tls::Offer::Http2OrHttp1,
            Self::Lifecycle => tls::Offer::Nothing,
        }
    }
}

/// The last answer, when there was nothing more to follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// At most [`LONGEST_BODY`] of it.
    pub(super) body: Vec<u8>,
}

/// Makes a GET request, to the pod unless `request` names a host.
///
/// # Errors
/// No answer came, or not all of its body, or not in time. Any status is an answer.
pub(super) async fn get(
    network: &Network,
    request: &HttpGet,
    agent: Agent,
    timeout: Option<Duration>,
) -> Result<Answer, Error> {
    let first = Place::of(network, request);
    let progress = Progress {
        first: &first,
        redirect: Cell::default(),
        reads_body: Cell::new(false),
    };
    let exchange = follow(network, request, agent, &progress);
    let outcome = match timeout {
        None => exchange.await,
        Some(timeout) => tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(Cause::Timeout)),
    };
    outcome.map_err(|cause| progress.error(cause))
}

/// How far a request is.
struct Progress<'a> {
    first: &'a Place,
    /// The URL of the last redirect.
    redirect: Cell<Option<String>>,
    reads_body: Cell<bool>,
}

impl Progress<'_> {
    fn error(&self, cause: Cause) -> Error {
        if self.reads_body.get() {
            Error::Body(cause)
        } else {
            let url = self.redirect.take().unwrap_or_else(|| self.first.url());
            Error::Get { url, cause }
        }
    }
}

async fn follow(
    network: &Network,
    request: &HttpGet,
    agent: Agent,
    progress: &Progress<'_>,
) -> Result<Answer, Cause> {
    let mut place = Cow::Borrowed(progress.first);
    let mut headers = headers(request, agent, &place)?;
    for _ in 0..MOST_REQUESTS {
        let exchange = Exchange {
            place: &place,
            headers: &headers,
            progress,
        };
        let stream = network
            .connect(request.host.as_deref(), place.port)
            .await
            .map_err(Cause::Dial)?;
        let next = match place.transport {
            Transport::Plain => exchange.run(stream).await?,
            Transport::Tls => {
                let name = network.name(request.host.as_deref());
                let stream = tls::connect(&name, stream, agent.offer()).await?;
                if tls::chose_http2(&stream) {
                    exchange.run_http2(stream).await?
                } else {
                    exchange.run(stream).await?
                }
            }
        };
        let next = match next {
            Next::Answer(answer) => return Ok(answer),
            Next::Redirect(next) => next,
        };
        progress.redirect.set(Some(next.url()));
        redirect_headers(&mut headers, &place, &next);
        place = Cow::Owned(next);
    }
    Err(Cause::TooManyRedirects)
}

/// The headers of the first request.
fn headers(request: &HttpGet, agent: Agent, place: &Place) -> Result<HeaderMap, Cause> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let invalid = || Cause::Header(name.clone());
        let parsed = hyper::header::HeaderName::try_from(name).map_err(|_| invalid())?;
        let value = value.try_into().map_err(|_| invalid())?;
        // Only the first `Host` counts.
        if parsed != HOST || !headers.contains_key(HOST) {
            headers.append(parsed, value);
        }
    }
    // One that is set to nothing is not sent.
    for (name, default) in [(USER_AGENT, agent.name()), (ACCEPT, "*/*")] {
        match headers.get(&name) {
            None => {
                headers.insert(name, hyper::header::HeaderValue::from_static(default));
            }
            Some(value) if value.is_empty() => {
                headers.remove(name);
            }
            Some(_) => {}
        }
    }
    if headers.get(HOST).is_none_or(|host| host.is_empty()) {
        headers.insert(HOST, value(&place.authority)?);
    }
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    Ok(headers)
}

/// What changes from one request to the next.
fn redirect_headers(headers: &mut HeaderMap, from: &Place, to: &Place) {
    // A `Host` of the manifest's is for relative redirects, too.
    let custom = headers.get(HOST).map(|host| host.as_bytes()) != Some(from.authority.as_bytes());
    if (!custom || to.is_absolute)
        && let Ok(host) = value(&to.authority)
    {
        headers.insert(HOST, host);
    }
    let leaves_tls = from.transport == Transport::Tls && to.transport == Transport::Plain;
    if !headers.contains_key(REFERER)
        && !leaves_tls
        && let Ok(referer) = value(&from.url())
    {
        headers.insert(REFERER, referer);
    }
}

fn value(text: &str) -> Result<hyper::header::HeaderValue, Cause> {
    text.try_into()
        .map_err(|_| Cause::Other(format!("invalid host {text:?}")))
}

/// What follows a response.
enum Next {
    Answer(Answer),
    Redirect(Place),
}

/// One request and its response.
struct Exchange<'a> {
    place: &'a Place,
    headers: &'a HeaderMap,
    progress: &'a Progress<'a>,
}

impl Exchange<'_> {
    async fn run<S>(self, stream: S) -> Result<Next, Cause>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::Builder::new()
            // As Go writes them: servers that care for case have been tested with a kubelet.
            .title_case_headers(true)
            .max_buf_size(64 * 1024)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(Cause::of_hyper)?;
        let exchange = async {
            let response = sender
                .send_request(self.request()?)
                .await
                .map_err(Cause::of_hyper)?;
            self.next(response, read).await
        };
        dial::drive(connection, exchange).await
    }

    async fn run_http2<S>(self, stream: S) -> Result<Next, Cause>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let take = async |response| self.next(response, http2::read).await;
        http2::exchange(stream, self.place, self.headers, take).await
    }

    fn request(&self) -> Result<hyper::Request<Empty<Bytes>>, Cause> {
        let uri = Uri::try_from(&self.place.target)
            .map_err(|e| Cause::Other(format!("invalid path: {e}")))?;
        let mut request = hyper::Request::new(Empty::new());
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(self.headers);
        Ok(request)
    }

    async fn next<B>(
        &self,
        response: Response<B>,
        read: impl AsyncFnOnce(B) -> Result<Vec<u8>, Cause>,
    ) -> Result<Next, Cause> {
        if let Some(location) = location(&response) {
            let next = self.place.join(&location)?;
            if next.host == self.place.host {
                return Ok(Next::Redirect(next));
            }
        }
        let status = response.status().as_u16();
        self.progress.reads_body.set(true);
        let body = read(response.into_body()).await?;
        Ok(Next::Answer(Answer { status, body }))
    }
}

/// Where a response sends its client, if it does.
fn location<B>(response: &Response<B>) -> Option<String> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    let text = String::from_utf8_lossy(location.as_bytes());
    (!text.is_empty()).then(|| text.into_owned())
}

/// The beginning of a body.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            // Many servers end TLS without saying so, and Go lets them.
            Err(error) if body.size_hint().exact().is_none() && error::is_unclean_end(&error) => {
                break;
            }
            Err(error) => return Err(Cause::of_body(error)),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let left = LONGEST_BODY - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(left)]);
        if bytes.len() == LONGEST_BODY {
            break;
        }
    }
    Ok(bytes)
}
