//! What goes over the wire: the client that all requests to a registry go through, and bodies that have to keep coming.

use std::sync::{Arc, Once};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Response};

use super::fault::{Fault, fault};
use crate::image::auth::Transport;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// What a body has to bring in the time in which it may not be silent, so that a trickle ends too.
pub(super) const ENOUGH: usize = 32 << 10;

/// A client that is set up for a registry. Where it may be sent on to is the caller's to say.
pub(in crate::image) fn builder(transport: &Transport) -> Result<ClientBuilder, reqwest::Error> {
    provide_cryptography();
    let proxies = Arc::new(transport.proxies.clone());
    let proxy = reqwest::Proxy::custom(move |url| proxies.of(url).map(|proxy| proxy.url.clone()));
    let authorities = transport.certificates.authorities.iter();
    let authorities: Result<Vec<Certificate>, _> =
        authorities.map(|pem| Certificate::from_pem(pem)).collect();
    Ok(Client::builder()
        .tls_certs_merge(authorities?)
        .danger_accept_invalid_certs(!transport.verify)
        .connect_timeout(CONNECT)
        .user_agent(concat!("kplay/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy))
}

/// Makes the cryptography known that TLS is done with.
pub(in crate::image) fn provide_cryptography() {
    static PROVIDER: Once = Once::new();
    // Fails only if there is a provider already, and then all is well.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Waits for something as long as `moved` changes at least so often; nothing if it does not.
pub(super) async fn while_moving<T>(
    time: Duration,
    moved: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let before = moved();
        match tokio::time::timeout(time, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if moved() == before => return None,
            Err(_) => {}
        }
    }
}

/// The content of an answer.
pub(super) struct Body<'a> {
    response: Response,
    registry: &'a str,
    /// How long it may take for [`ENOUGH`].
    silence: Duration,
    /// For how long it has been waited since then, and what came.
    waited: Duration,
    came: usize,
}

impl<'a> Body<'a> {
    pub(super) fn new(response: Response, registry: &'a str, silence: Duration) -> Self {
        Self {
            response,
            registry,
            silence,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next bytes, or nothing at the end. The time that the caller takes in between is not the registry's.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let begun = Instant::now();
        let left = self.silence.saturating_sub(self.waited);
        let chunk = tokio::time::timeout(left, self.response.chunk()).await;
        self.waited += begun.elapsed();
        let chunk = match chunk {
            Ok(chunk) => chunk.map_err(|error| fault(error, self.registry))?,
            Err(_) => {
                return Err(Fault::Stalled {
                    registry: self.registry.to_owned(),
                    bytes: self.came,
                    time: self.silence,
                });
            }
        };
        self.came += chunk.as_ref().map_or(0, Bytes::len);
        if self.came >= ENOUGH {
            (self.came, self.waited) = (0, Duration::ZERO);
        }
        Ok(chunk)
    }

    /// All of it, but not much more than `most` bytes.
    pub(super) async fn read(mut self, most: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
            // One byte more is enough to know.
            if bytes.len() as u64 > most {
                break;
            }
        }
        Ok(bytes)
    }
}

/// When an answer says to come again: in seconds, or at a time.
pub(in crate::image) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::parse(value).ok()?;
    let time = SystemTime::from(time.timestamp());
    // What has passed is now.
    Some(time.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Where a partial answer starts, if it says so.
pub(super) fn start_of_range(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.trim().strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_moves_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (time, step) = (Duration::from_millis(50), Duration::from_millis(20));
        let moved = Cell::new(0);
        // What it does is looked at before the time is, however late that is.
        let work = async {
            for _ in 0..5 {
                tokio::time::sleep(step).await;
                moved.set(moved.get() + 1);
            }
        };
        let done = runtime.block_on(while_moving(time, || moved.get(), work));
        assert_eq!((done, moved.get()), (Some(()), 5));
        let work = std::future::pending::<()>();
        let done = runtime.block_on(while_moving(time, || moved.get(), work));
        assert_eq!(done, None);
    }

    #[test]
    fn when_to_come_again() {
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().expect("a value"));
            let seconds = retry_after(&headers).map(|time| time.as_secs());
            assert_eq!(seconds, expected, "{value}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("-1", None);
        check("soon", None);
        check("", None);
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(0));
        let soon = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
        let soon = soon.saturating_add(jiff::SignedDuration::from_secs(3600));
        let text = soon.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().expect("a value"));
        let wait = retry_after(&headers).expect("a time").as_secs();
        assert!((3590..=3600).contains(&wait), "{text}: {wait}");
    }

    #[test]
    fn where_a_part_starts() {
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, value.parse().expect("a value"));
            assert_eq!(start_of_range(&headers), expected, "{value}");
        };
        check("bytes 5-9/10", Some(5));
        check("bytes 0-9/*", Some(0));
        check("bytes */10", None);
        check("5-9/10", None);
    }
}
