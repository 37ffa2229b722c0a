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
            Content::Blob(blob, sent) => request.body(Body::wrap(self.pieces(blob, sent))),
        }
    }

    fn pieces(&self, blob: &Blob, sent: &Sent) -> Pieces {
        Pieces {
            file: Arc::clone(&blob.file),
            at: 0,
            size: blob.size,
            sent: Arc::clone(sent),
            moved: Arc::clone(&self.moved),
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::task::Waker;

    use hyper::body::Body as _;

    use super::*;
    use crate::image::digest::Digest;
    use crate::image::testing::{Folder, noise};
    use crate::sys::beneath;

    #[test]
    fn a_blob_is_all_of_a_file_each_time() {
        let folder = Folder::new();
        let mut file = beneath::make_spool(&folder.path().join("blob")).expect("a file");
        let content = noise(300_000);
        file.write_all(&content).expect("written");
        let blob = Blob {
            file: Arc::new(file),
            digest: Digest::of(&content),
            size: content.len() as u64,
        };
        let told = Arc::new(AtomicU64::new(0));
        let telling = Arc::clone(&told);
        let sent: Sent = Arc::new(move |bytes| {
            telling.fetch_add(bytes, Ordering::Relaxed);
        });
        let request = Request::new(Method::PUT).with_blob(&blob, &sent);
        let mut context = Context::from_waker(Waker::noop());
        // Both at the same time, as when an answer comes before all is sent.
        let mut all = [0, 1].map(|_| (request.pieces(&blob, &sent), Vec::new()));
        while !all.iter().all(|(pieces, _)| pieces.is_end_stream()) {
            for (pieces, bytes) in &mut all {
                let left = blob.size - bytes.len() as u64;
                assert_eq!(pieces.size_hint().exact(), Some(left));
                match Pin::new(pieces).poll_frame(&mut context) {
                    Poll::Ready(Some(Ok(frame))) => {
                        bytes.extend_from_slice(&frame.into_data().expect("data"));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(all.iter().all(|(_, bytes)| *bytes == content));
        assert_eq!(request.moved(), 600_000);
        assert_eq!(told.load(Ordering::Relaxed), 600_000);
    }
}
