//! Docker's images, through its socket: `GET /images/NAME/get` streams what `docker save` writes.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::error::Class;
use crate::model::reference::Reference;
use crate::sys::stop::{Stop, Stopped};

/// How long Docker may say nothing: it reads all layers before the first byte.
const SILENCE: Duration = Duration::from_secs(600);

/// Why an image cannot be had of Docker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "Docker is reached here only through a socket of this machine, and DOCKER_HOST is `{0}`"
    )]
    Host(String),
    #[error("cannot ask Docker at {socket:?}")]
    Connect {
        socket: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("Docker does not have the image `{0}`")]
    NotFound(String),
    #[error("Docker answers with status {status}: {message}")]
    Answer { status: u16, message: String },
    #[error("the connection to Docker broke")]
    Broken(#[source] io::Error),
    #[error("cannot start to ask Docker")]
    Runtime(#[source] io::Error),
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Host(_) => Class::Configuration,
            Self::Connect { .. } | Self::Broken(_) => Class::Unreachable,
            Self::NotFound(_) => Class::NotFound,
            Self::Answer { .. } => Class::Registry,
            Self::Runtime(_) => Class::Machine,
        }
    }
}

/// Where Docker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// `DOCKER_HOST`, or what goes without it.
    host: String,
}

impl Daemon {
    /// As `DOCKER_HOST` says, if it is set.
    #[must_use]
    pub fn new(host: Option<String>) -> Self {
        let host = host.filter(|host| !host.is_empty());
        Self {
            host: host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
        }
    }

    /// The archive of an image, by name or id.
    ///
    /// # Errors
    /// Docker cannot be asked, or has no such image.
    pub(super) fn image(&self, image: &str, stop: &Stop) -> Result<Archive, Error> {
        let socket = self.host.strip_prefix("unix://");
        let socket = socket.ok_or_else(|| Error::Host(self.host.clone()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let response = runtime.block_on(async {
            tokio::select! {
                response = ask(Path::new(socket), image) => response,
                stopped = given_up(stop) => Err(Error::Broken(stopped)),
            }
        })?;
        Ok(Archive {
            runtime,
            response,
            stop: stop.clone(),
            piece: Bytes::new(),
            failure: None,
        })
    }
}

async fn given_up(stop: &Stop) -> io::Error {
    match stop.wanted().await {
        Ok(()) => Stopped.into(),
        Err(error) => error,
    }
}

async fn ask(socket: &Path, image: &str) -> Result<reqwest::Response, Error> {
    let failed = |source: reqwest::Error| Error::Connect {
        socket: socket.to_owned(),
        source: source.into(),
    };
    super::registry::provide_cryptography();
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .read_timeout(SILENCE)
        .build()
        .map_err(failed)?;
    let name = match Reference::parse(image) {
        // An id is not to become a name.
        Ok(name) if !is_id(image) => name.to_string(),
        Ok(_) | Err(_) => image.to_owned(),
    };
    let mut url = reqwest::Url::parse("http://docker/").map_err(|e| Error::Connect {
        socket: socket.to_owned(),
        source: e.into(),
    })?;
    url.set_path(&format!("/images/{name}/get"));
    let response = client.get(url).send().await.map_err(failed)?;
    let status = response.status().as_u16();
    match status {
        200 => Ok(response),
        404 => Err(Error::NotFound(image.to_owned())),
        _ => {
            let body = response.text().await.unwrap_or_default();
            let message = serde_json::from_str::<serde_json::Value>(&body)
                .ok()
                .and_then(|json| Some(json.get("message")?.as_str()?.to_owned()));
            let message = message.unwrap_or_else(|| body.clone());
            let message = message.chars().filter(|c| !c.is_control()).take(300);
            let message = message.collect();
            Err(Error::Answer { status, message })
        }
    }
}

fn is_id(image: &str) -> bool {
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An archive that Docker sends.
pub(super) struct Archive {
    runtime: tokio::runtime::Runtime,
    response: reqwest::Response,
    stop: Stop,
    piece: Bytes,
    failure: Option<io::Error>,
}

impl Archive {
    /// What broke the connection, if that happened.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let (response, stop) = (&mut self.response, &self.stop);
            let piece = self.runtime.block_on(async {
                tokio::select! {
                    piece = response.chunk() => piece.map_err(io::Error::other),
                    stopped = given_up(stop) => Err(stopped),
                }
            });
            match piece {
                Ok(piece) => self.piece = piece.unwrap_or_default(),
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        let length = self.piece.len().min(buffer.len());
        let read = self.piece.split_to(length);
        buffer[..length].copy_from_slice(&read);
        Ok(length)
    }
}
