//! What gRPC and `grpc.health.v1` look like on HTTP/2. Pure.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::Reason;
use hyper::{HeaderMap, StatusCode};

/// `HealthCheckResponse.SERVING`
pub(super) const SERVING: u64 = 1;

pub(super) const OK: u32 = 0;
pub(super) const DEADLINE_EXCEEDED: u32 = 4;
pub(super) const UNIMPLEMENTED: u32 = 12;
pub(super) const INTERNAL: u32 = 13;
pub(super) const UNAVAILABLE: u32 = 14;

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How a call ended, according to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rpc error: code = ")?;
        match CODES.get(self.code as usize) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "Code({})", self.code)?,
        }
        write!(f, " desc = {}", self.message)
    }
}

impl Status {
    /// From trailers. Without a status, a call is a failure.
    pub(super) fn of(trailers: &HeaderMap) -> Self {
        let text = |name| {
            trailers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
        };
        let code = text("grpc-status").and_then(|code| code.parse().ok());
        match code {
            Some(code) => Self {
                code,
                message: text("grpc-message").map_or_else(String::new, |text| decoded(&text)),
            },
            None => Self {
                code: 2,
                message: "the server sent no status".into(),
            },
        }
    }
}

/// `%XX` is a byte.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What an answer that is not gRPC's means (`http-grpc-status-mapping.md`).
pub(super) fn http_status(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    let kind = headers
        .get("content-type")
        .map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    let is_grpc = kind
        .as_ref()
        .is_some_and(|kind| kind.starts_with("application/grpc"));
    if status == StatusCode::OK && is_grpc {
        return None;
    }
    let code = match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => 2,
    };
    let about_kind = match kind {
        None => "malformed header: missing HTTP content-type".to_owned(),
        Some(kind) => format!("transport: received unexpected content-type {kind:?}"),
    };
    Some(Status {
        code,
        message: format!(
            "unexpected HTTP status code received from server: {status}; {about_kind}"
        ),
    })
}

/// A `HealthCheckRequest` for a service, as a message on the wire.
pub(super) fn request(service: &str) -> Bytes {
    let mut request = BytesMut::new();
    if !service.is_empty() {
        // Field 1, a string.
        request.put_u8((1 << 3) | 2);
        put_varint(&mut request, service.len() as u64);
        request.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + request.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(request.len()).unwrap_or(u32::MAX));
    message.put_slice(&request);
    message.freeze()
}

fn put_varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// The first message of a body. A compressed one was not asked for, and is none.
pub(super) fn message(body: &[u8]) -> Option<&[u8]> {
    let (head, rest) = body.split_at_checked(5)?;
    let [0, length @ ..] = head else {
        return None;
    };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    rest.get(..length as usize)
}

/// `HealthCheckResponse.status`: field 1; what is not there is 0. `None` if this is no message.
pub(super) fn status_of_response(message: &[u8]) -> Option<u64> {
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The name of a `ServingStatus`.
pub(super) fn serving_status(status: u64) -> String {
    let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let name = usize::try_from(status)
        .ok()
        .and_then(|status| names.get(status));
    name.map_or_else(|| status.to_string(), |name| (*name).to_owned())
}

/// An error code of HTTP/2 as it is called there: `REFUSED_STREAM`.
pub(super) fn reason(reason: Reason) -> String {
    // Its `Debug` is that name.
    format!("{reason:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(&*request(""), b"\0\0\0\0\0");
        assert_eq!(&*request("live"), b"\0\0\0\0\x06\x0a\x04live");
        let long = request(&"x".repeat(300));
        assert_eq!((long.len(), &long[5..8]), (5 + 303, &b"\x0a\xac\x02"[..]));
    }

    #[test]
    fn responses() {
        for (body, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x02\x08\x02and more", Some(2)),
            // Nothing is the first of the names, UNKNOWN.
            (b"\0\0\0\0\0", Some(0)),
            // Fields that nobody knows are skipped.
            (b"\0\0\0\0\x07\x12\x01x\x1d....", None),
            (b"\0\0\0\0\x0a\x12\x01x\x1d....\x08\x01", Some(1)),
            (b"\0\0\0\0\x04\x08\x81\x80\x00", Some(1)),
            (b"", None),
            (b"\0\0\0\0\x05\x08\x01", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x02\x08\x81", None),
            (b"\0\0\0\0\x01\x0b", None),
        ] {
            let status = message(body).and_then(status_of_response);
            assert_eq!(status, expected, "{body:?}");
        }
    }

    #[test]
    fn statuses() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| {
                    (
                        name.parse().expect("a name"),
                        value.parse().expect("a value"),
                    )
                })
                .collect::<HeaderMap>()
        };
        let status = |pairs: &[(&'static str, &str)]| Status::of(&headers(pairs)).to_string();
        assert_eq!(
            status(&[("grpc-status", "5"), ("grpc-message", "no%20such%zz%C3%A4")]),
            "rpc error: code = NotFound desc = no such%zzä"
        );
        assert_eq!(
            status(&[("grpc-status", "99")]),
            "rpc error: code = Code(99) desc = "
        );
        assert_eq!(
            status(&[]),
            "rpc error: code = Unknown desc = the server sent no status"
        );
        let http = |status: u16, pairs| {
            let status = StatusCode::from_u16(status).expect("a status");
            http_status(status, &headers(pairs)).map(|status| status.to_string())
        };
        assert_eq!(
            http(200, &[("content-type", "application/grpc+proto")]),
            None
        );
        assert_eq!(
            http(404, &[]).as_deref(),
            Some(
                "rpc error: code = Unimplemented desc = unexpected HTTP status code received from server: 404 Not Found; \
                 malformed header: missing HTTP content-type"
            )
        );
        assert_eq!(
            http(200, &[("content-type", "text/html")]).as_deref(),
            Some(
                "rpc error: code = Unknown desc = unexpected HTTP status code received from server: 200 OK; \
                 transport: received unexpected content-type \"text/html\""
            )
        );
        assert_eq!(
            (serving_status(2), serving_status(9)),
            ("NOT_SERVING".into(), "9".into())
        );
    }
}
