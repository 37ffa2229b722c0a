//! What can go wrong with a registry, in words; sorted from what `oci-client` reports.

use std::io;

use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};

use super::Purpose;
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
    #[error("the registry `{registry}` wants fewer requests{}", reason(message))]
    TooManyRequests { registry: String, message: String },
    #[error(
        "the registry `{registry}` answers with status {status}{}",
        reason(message)
    )]
    Status {
        registry: String,
        status: u16,
        message: String,
    },
    #[error("the address of the registry `{registry}` cannot be found")]
    Name {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot connect to the registry `{registry}`")]
    Connect {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot make a secure connection to the registry `{registry}`")]
    Tls {
        registry: String,
        source: OciDistributionError,
    },
    #[error("the connection to the registry `{registry}` broke")]
    Broken {
        registry: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("what came for {what} is something else")]
    Digest { what: String },
    #[error("{what} has {actual} bytes, and the manifest says {expected}")]
    Size {
        what: String,
        expected: u64,
        actual: u64,
    },
    #[error("what the registry `{registry}` answers cannot be used")]
    Answer {
        registry: String,
        source: OciDistributionError,
    },
    #[error("cannot set up the connection")]
    Client(#[source] OciDistributionError),
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
            | Self::Proxy { .. }
            | Self::ProxyVariable(_) => Class::Unreachable,
            Self::Tls { .. } => Class::Tls,
            Self::Digest { .. } | Self::Size { .. } => Class::Corrupt,
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
            Self::TooManyRequests { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::PlainTokens { .. }
            | Self::Proxy { .. }
            | Self::ProxyVariable(_)
            | Self::Name { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
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

/// Sorts an error; `what` was asked for.
pub(in crate::image) fn fault(error: OciDistributionError, registry: &str, what: &str) -> Fault {
    use OciDistributionError as E;
    let (registry, what) = (registry.to_owned(), what.to_owned());
    match error {
        E::UnauthorizedError { .. } => Fault::Unauthorized {
            registry,
            message: String::new(),
            asked_as: None,
        },
        E::ImageManifestNotFoundError(_) => Fault::NotFound { registry, what },
        E::ServerError { code: 404, .. } => Fault::NotFound { registry, what },
        E::ServerError {
            code: 401 | 403,
            message,
            ..
        } => Fault::Unauthorized {
            registry,
            message: envelope_message(&message),
            asked_as: None,
        },
        E::ServerError {
            code: 429, message, ..
        } => Fault::TooManyRequests { registry, message },
        E::ServerError { code, message, .. } => Fault::Status {
            registry,
            status: code,
            message: envelope_message(&message),
        },
        E::RegistryError { envelope, .. } => {
            let first = envelope.errors.into_iter().next();
            let message = first
                .as_ref()
                .map(|e| e.message.clone())
                .unwrap_or_default();
            match first.map(|e| e.code) {
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestBlobUnknown,
                ) => Fault::NotFound { registry, what },
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => Fault::Unauthorized {
                    registry,
                    message,
                    asked_as: None,
                },
                Some(OciErrorCode::Toomanyrequests) => Fault::TooManyRequests { registry, message },
                _ => Fault::Status {
                    registry,
                    status: 400,
                    message,
                },
            }
        }
        E::DigestError(DigestError::VerificationError { .. }) => Fault::Digest { what },
        E::RequestError(_) => request_fault(error, registry),
        E::IoError(e) => Fault::Broken {
            registry,
            source: e.into(),
        },
        source => Fault::Answer { registry, source },
    }
}

/// Sorts what `reqwest` reports; its own types are not named here, so the causes are looked at.
fn request_fault(source: OciDistributionError, registry: String) -> Fault {
    if tls_error(&source).is_some() {
        return Fault::Tls { registry, source };
    }
    let texts: Vec<String> = causes(&source).map(ToString::to_string).collect();
    let connecting = texts
        .iter()
        .any(|text| text.contains("client error (Connect)"));
    if connecting && texts.iter().any(|text| text.contains("dns error")) {
        return Fault::Name { registry, source };
    }
    // A handshake that the other side ends is one with something that does not speak TLS.
    if connecting && texts.iter().any(|text| text.contains("tls handshake eof")) {
        return Fault::Tls { registry, source };
    }
    if connecting {
        return Fault::Connect { registry, source };
    }
    Fault::Broken {
        registry,
        source: source.into(),
    }
}

fn tls_error(error: &OciDistributionError) -> Option<&rustls::Error> {
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
    error: &'a OciDistributionError,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    // The error itself is transparent: its source is the cause of its cause.
    let first: &'a (dyn std::error::Error + 'static) = match error {
        OciDistributionError::RequestError(e) => e,
        other => other,
    };
    std::iter::successors(Some(first), |cause| (*cause).source())
}

/// The message of a registry's answer in JSON, or the answer.
pub(in crate::image) fn envelope_message(body: &str) -> String {
    let message = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|json| Some(json.pointer("/errors/0/message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| body.to_owned())
}
