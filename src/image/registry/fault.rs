//! What can go wrong with a registry, in words; sorted from what `reqwest` and the registry's answers say.

use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use super::Purpose;
use super::onward::Refusal;
use crate::image::auth;
use crate::image::error::Class;
use crate::image::proxy::{InvalidProxy, Proxy};
use crate::image::registries::{self, CertsError};
use crate::model::cause::chain;

/// What went wrong with a registry, for which image.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} `{image}`", purpose.verb())]
pub struct Error {
    pub purpose: Purpose,
    pub image: String,
    pub source: Fault,
}

/// What went wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the registry `{registry}` does not have {what}")]
    NotFound { registry: String, what: String },
    #[error("the registry `{registry}` refuses access {}{}", who(asked_as.as_deref()), reason(message))]
    Unauthorized {
        registry: String,
        message: String,
        /// Whose credentials it got, in words.
        asked_as: Option<String>,
    },
    /// Who listens on the way would have the credentials.
    #[error(
        "the registry `{registry}` gives tokens only at `{server}` without TLS, and credentials are not sent there"
    )]
    PlainTokens { registry: String, server: String },
    #[error(transparent)]
    ProxyVariable(InvalidProxy),
    #[error("the registry `{registry}` cannot be reached through the proxy {proxy}")]
    Proxy {
        registry: String,
        proxy: String,
        source: Box<Self>,
    },
    #[error("the registry `{registry}` wants fewer requests{}{}", again(*wait), reason(message))]
    TooManyRequests {
        registry: String,
        message: String,
        /// When it says to come again.
        wait: Option<Duration>,
    },
    #[error(
        "the registry `{registry}` answers with status {status}{}{}",
        again(*wait),
        reason(message)
    )]
    Status {
        registry: String,
        status: u16,
        message: String,
        wait: Option<Duration>,
    },
    #[error("the address of the registry `{registry}` cannot be found")]
    Name {
        registry: String,
        source: reqwest::Error,
    },
    #[error("cannot connect to the registry `{registry}`")]
    Connect {
        registry: String,
        source: reqwest::Error,
    },
    #[error("cannot make a secure connection to the registry `{registry}`")]
    Tls {
        registry: String,
        source: reqwest::Error,
    },
    #[error("the connection to the registry `{registry}` broke")]
    Broken {
        registry: String,
        source: reqwest::Error,
    },
    #[error("the registry `{registry}` has not answered for {} s", time.as_secs())]
    Silent { registry: String, time: Duration },
    #[error(
        "the registry `{registry}` sent only {bytes} bytes of its answer in {} s",
        time.as_secs()
    )]
    Stalled {
        registry: String,
        bytes: usize,
        time: Duration,
    },
    #[error("the registry `{registry}` sends on to `{to}`, {why}")]
    Sent {
        registry: String,
        to: String,
        why: Refusal,
    },
    #[error("it cannot be had from `{to}` either, where its manifest says that it is")]
    Elsewhere { to: String, source: Box<Self> },
    #[error("{what} ends after {actual} of {expected} bytes")]
    Short {
        what: String,
        expected: u64,
        actual: u64,
    },
    #[error("{what} has more than the {expected} bytes that the manifest says")]
    Long { what: String, expected: u64 },
    #[error("{what} has more than {most} bytes")]
    TooBig { what: String, most: u64 },
    #[error("what came for {what} is something else")]
    Digest { what: String },
    #[error("{what} has {actual} bytes, and the manifest says {expected}")]
    Size {
        what: String,
        expected: u64,
        actual: u64,
    },
    #[error("what the registry `{registry}` answers cannot be used: {why}")]
    Answer { registry: String, why: &'static str },
    #[error("cannot set up the connection")]
    Client(#[source] reqwest::Error),
    #[error("the certificates for the registry `{registry}` cannot be used")]
    Certificates {
        registry: String,
        source: CertsError,
    },
    #[error(transparent)]
    Configuration(Box<registries::Error>),
    #[error("cannot look for credentials")]
    Credentials(#[source] auth::Error),
    #[error("none of its registries gives it: {}", each(.0))]
    Everywhere(Vec<(String, Self)>),
}

/// One after the other: where, and what went wrong there.
fn each(faults: &[(String, Fault)]) -> String {
    let texts: Vec<String> = faults
        .iter()
        .map(|(place, fault)| format!("`{place}`: {}", chain(fault)))
        .collect();
    texts.join("; ")
}

fn who(asked_as: Option<&str>) -> &str {
    asked_as.unwrap_or("without credentials")
}

fn again(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| {
        format!(", to be asked again in {} s", wait.as_secs())
    })
}

fn reason(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return String::new();
    }
    let short: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    format!(": {short}")
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.source.class()
    }
}

impl Fault {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::Unauthorized { .. } => Class::Unauthorized,
            Self::PlainTokens { .. } => Class::Tls,
            Self::TooManyRequests { .. } | Self::Status { .. } | Self::Answer { .. } => {
                Class::Registry
            }
            Self::Name { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Silent { .. }
            | Self::Stalled { .. }
            | Self::Proxy { .. }
            | Self::ProxyVariable(_) => Class::Unreachable,
            Self::Tls { .. } => Class::Tls,
            Self::Digest { .. } | Self::Size { .. } | Self::Short { .. } | Self::Long { .. } => {
                Class::Corrupt
            }
            Self::TooBig { .. } | Self::Sent { .. } => Class::Hostile,
            Self::Elsewhere { source, .. } => source.class(),
            Self::Configuration(_) => Class::Configuration,
            Self::Client(_) | Self::Certificates { .. } | Self::Credentials(_) => Class::Machine,
            // The last is the image's own registry.
            Self::Everywhere(faults) => faults
                .last()
                .map_or(Class::Unreachable, |(_, fault)| fault.class()),
        }
    }

    /// Whether trying again may help.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::TooManyRequests { .. }
            | Self::Broken { .. }
            | Self::Silent { .. }
            | Self::Stalled { .. }
            | Self::Short { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Elsewhere { source, .. } => source.passes(),
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::PlainTokens { .. }
            | Self::Proxy { .. }
            | Self::ProxyVariable(_)
            | Self::Name { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Long { .. }
            | Self::TooBig { .. }
            | Self::Sent { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Answer { .. }
            | Self::Client(_)
            | Self::Certificates { .. }
            | Self::Configuration(_)
            | Self::Credentials(_)
            | Self::Everywhere(_) => false,
        }
    }

    /// Whether it is about the way to the registry, which may have been there before.
    pub(super) fn is_of_the_way(&self) -> bool {
        match self {
            Self::Name { .. } | Self::Connect { .. } => true,
            Self::Proxy { source, .. } => source.is_of_the_way(),
            _ => false,
        }
    }

    /// Whether nothing listens where the registry should be. A name without an address is more likely a wrong one.
    pub(super) fn is_of_connecting(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Proxy { source, .. } => source.is_of_connecting(),
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub(super) fn comes_again(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { wait, .. } | Self::Status { wait, .. } => *wait,
            _ => None,
        }
    }

    /// Names the proxy that was on the way, if that is where it went wrong.
    pub(in crate::image) fn through(self, proxy: Option<&Proxy>, registry: &str) -> Self {
        let is_proxys = match &self {
            Self::Name { .. } | Self::Connect { .. } => true,
            Self::Status { status, .. } => *status == 407,
            _ => false,
        };
        match proxy {
            Some(proxy) if is_proxys => Self::Proxy {
                registry: registry.to_owned(),
                proxy: proxy.to_string(),
                source: Box::new(self),
            },
            _ => self,
        }
    }
}

/// Whether https got no answer, or one that is no TLS at all. A certificate that is not trusted is an answer.
pub(super) fn does_not_speak_tls(fault: &Fault) -> bool {
    match fault {
        Fault::Connect { .. } | Fault::Broken { .. } => true,
        Fault::Tls { source, .. } => !matches!(
            tls_error(source),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
        ),
        _ => false,
    }
}

/// Sorts what goes wrong on the way to an answer, or within it.
pub(in crate::image) fn fault(mut source: reqwest::Error, registry: &str) -> Fault {
    let registry = registry.to_owned();
    if let Some(url) = source.url_mut() {
        // Addresses that blobs are sent on to have keys in them, those of token servers the user's name.
        url.set_query(None);
    }
    if tls_error(&source).is_some() {
        return Fault::Tls { registry, source };
    }
    if !source.is_connect() {
        return Fault::Broken { registry, source };
    }
    let texts: Vec<String> = causes(&source).map(ToString::to_string).collect();
    let says = |part: &str| texts.iter().any(|text| text.contains(part));
    if says("dns error") {
        return Fault::Name { registry, source };
    }
    // A handshake that the other side ends is one with something that does not speak TLS.
    match says("tls handshake eof") {
        true => Fault::Tls { registry, source },
        false => Fault::Connect { registry, source },
    }
}

/// Sorts an answer that says no; `what` was asked for.
pub(in crate::image) fn refusal(
    status: StatusCode,
    wait: Option<Duration>,
    body: &str,
    registry: &str,
    what: &str,
) -> Fault {
    let (code, message) = envelope(body);
    let registry = registry.to_owned();
    match (status.as_u16(), code.as_str()) {
        (429, _) | (400..500, "TOOMANYREQUESTS") => Fault::TooManyRequests {
            registry,
            message,
            wait,
        },
        (401 | 403, _) | (400..500, "UNAUTHORIZED" | "DENIED") => Fault::Unauthorized {
            registry,
            message,
            asked_as: None,
        },
        (404, _)
        | (
            400..500,
            "MANIFEST_UNKNOWN"
            | "NAME_UNKNOWN"
            | "NOT_FOUND"
            | "BLOB_UNKNOWN"
            | "MANIFEST_BLOB_UNKNOWN",
        ) => Fault::NotFound {
            registry,
            what: what.to_owned(),
        },
        (status, _) => Fault::Status {
            registry,
            status,
            message,
            wait,
        },
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| {
        let mut cause = cause;
        // An `io::Error` is no cause of the one that wraps it: `source` skips it.
        while let Some(within) = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            cause = within;
        }
        cause.downcast_ref()
    })
}

fn causes<'a>(
    error: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let first: &'a (dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |cause| (*cause).source())
}

/// The code and the message of a registry's answer in JSON, or the answer.
fn envelope(body: &str) -> (String, String) {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_str::<Envelope>(body)
        .ok()
        .and_then(|envelope| envelope.errors.into_iter().next());
    match first {
        Some(Entry { code, message }) => (code, message),
        None => (String::new(), body.to_owned()),
    }
}
