//! Why there is no answer, in the words of Go's `net/http`: users know them from the events of a kubelet.

use std::error::Error as _;
use std::io;

use super::super::dial;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::executor) enum Error {
    #[error("Get {url:?}: {cause}")]
    Get { url: String, cause: Cause },
    /// The status and the headers came, the body did not.
    #[error("{}", during_body(.0))]
    Body(Cause),
}

impl Error {
    /// Whether TLS was asked for and plain HTTP was answered.
    pub(in crate::executor) fn is_plain_answer(&self) -> bool {
        matches!(
            self,
            Self::Get {
                cause: Cause::PlainAnswer,
                ..
            }
        )
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(in crate::executor) enum Cause {
    #[error(transparent)]
    Dial(dial::Error),
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout,
    #[error("stopped after 10 redirects")]
    TooManyRedirects,
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainAnswer,
    #[error("tls: {0}")]
    Tls(rustls::Error),
    #[error("net/http: invalid header field value for {0:?}")]
    Header(String),
    #[error("EOF")]
    Closed,
    #[error("read tcp: {}", dial::Words(.0))]
    Io(io::Error),
    #[error("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {0}")]
    Malformed(hyper::Error),
    #[error("{0}")]
    Other(String),
}

fn during_body(cause: &Cause) -> String {
    match cause {
        Cause::Timeout => {
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                .into()
        }
        Cause::Closed => "unexpected EOF".into(),
        other => other.to_string(),
    }
}

impl Cause {
    /// Of an exchange that failed before there was a response.
    pub(super) fn of_hyper(error: hyper::Error) -> Self {
        match io_error(&error) {
            Some(io) => Self::Io(io),
            None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
                Self::Closed
            }
            None => Self::Malformed(error),
        }
    }

    /// Of an exchange over HTTP/2, in the words of Go's `http2`.
    pub(super) fn of_h2(error: &h2::Error) -> Self {
        if let Some(io) = error.get_io() {
            return match io.raw_os_error() {
                Some(code) => Self::Io(io::Error::from_raw_os_error(code)),
                None => Self::Other("unexpected EOF".into()),
            };
        }
        let by = if error.is_remote() {
            "; received from peer"
        } else {
            ""
        };
        match error.reason() {
            Some(reason) if error.is_reset() => {
                // Each connection has one stream, the first.
                Self::Other(format!("stream error: stream ID 1; {reason:?}{by}"))
            }
            Some(reason) if error.is_go_away() && error.is_remote() => Self::Other(format!(
                "http2: server sent GOAWAY and closed the connection; ErrCode={reason:?}"
            )),
            Some(reason) => Self::Other(format!("connection error: {reason:?}")),
            None => Self::Other(format!("http2: {error}")),
        }
    }

    /// Of a body that ended early.
    pub(super) fn of_body(error: hyper::Error) -> Self {
        io_error(&error).map_or(Self::Closed, Self::Io)
    }
}

/// Whether a connection over TLS was closed without being told.
pub(super) fn is_unclean_end(error: &hyper::Error) -> bool {
    find_io(error).is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof)
}

/// The kernel's error in it, if there is one.
fn io_error(error: &hyper::Error) -> Option<io::Error> {
    let io = find_io(error)?;
    io.raw_os_error().map(io::Error::from_raw_os_error)
}

fn find_io(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}
