//! What a registry is asked, as often as it has to be sent: after what passes, with a new grant, to where an answer leads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, RequestBuilder, Url};

use crate::image::export::Blob;

/// Bytes that are read from a file at a time.
const PIECE: u64 = 128 << 10;

/// Told of bytes that are on their way.
pub(in crate::image) type Sent = Arc<dyn Fn(u64) + Send + Sync>;

/// A request to wherever it is sent.
pub(super) struct Request<'a> {
    method: Method,
    headers: HeaderMap,
    content: Content<'a>,
    /// Bytes of blobs that are on their way, all times together.
    moved: Arc<AtomicU64>,
}

/// What a request brings along.
enum Content<'a> {
    Nothing,
    Bytes(Bytes),
    Blob(&'a Blob, &'a Sent),
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method) -> Self {
        Self {
            method,
            headers: HeaderMap::new(),
            content: Content::Nothing,
            moved: Arc::default(),
        }
    }

    pub(super) fn get() -> Self {
        Self::new(Method::GET)
    }

    /// With a header, whose value is text without control characters.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn with_bytes(self, bytes: &[u8]) -> Self {
        let content = Content::Bytes(Bytes::copy_from_slice(bytes));
        Self { content, ..self }
    }

    pub(super) fn with_blob(self, blob: &'a Blob, sent: &'a Sent) -> Self {
        let content = Content::Blob(blob, sent);
        Self { content, ..self }
    }

    /// Whether an answer of this status sends it on, rather than asks for something else.
    pub(super) fn is_sent_on(&self, status: u16) -> bool {
        match status {
            307 | 308 => true,
            301..=303 => matches!(self.method, Method::GET | Method::HEAD),
            _ => false,
        }
    }

    /// Changes as long as something of its content goes out.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// The request as it is sent once.
    pub(super) fn to(&self, client: &Client, url: Url) -> RequestBuilder {
        let request = client.request(self.method.clone(), url);
        let request = request.headers(self.headers.clone());
        match &self.content {
            Content::Nothing => request,
            Content::Bytes(bytes) => request.body(bytes.clone()),
            Content::Blob(blob, sent) => request.body(Body::wrap(Pieces {
                file: Arc::clone(&blob.file),
                at: 0,
                size: blob.size,
                sent: Arc::clone(sent),
                moved: Arc::clone(&self.moved),
            })),
        }
    }
}

/// A blob's bytes. Reading is from the page cache, which the file was written to just now.
struct Pieces {
    file: Arc<File>,
    at: u64,
    size: u64,
    sent: Sent,
    moved: Arc<AtomicU64>,
}

impl Pieces {
    fn read(&mut self) -> io::Result<Bytes> {
        let mut piece = vec![0; PIECE.min(self.size - self.at) as usize];
        // Not from where the file is: what was sent before may still be read.
        self.file.read_exact_at(&mut piece, self.at)?;
        let length = piece.len() as u64;
        self.at += length;
        self.moved.fetch_add(length, Ordering::Relaxed);
        (self.sent)(length);
        Ok(piece.into())
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let pieces = self.get_mut();
        match pieces.is_end_stream() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(pieces.read().map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.size
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size - self.at)
    }
}
