//! `image push`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::{Args, ValueEnum};

use super::{credentials, interruptibly, named};
use crate::cli::error::{Done, Error};
use crate::cli::registry::{AuthfileArgs, Hidden, TlsArgs};
use crate::cli::session::{Network, Session};
use crate::image::{self, LayerCompression, ManifestFormat, PushHow, PushProgress};
use crate::model::reference::ImageName;
use crate::output::progress::Step;
use crate::sys::fs;

/// Flags of `image push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Push this image, by name or by the start of its id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Give it this name at the registry, instead of its own
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    files: AuthfileArgs,
    /// Log in as this user
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<Hidden>,
    /// Push a manifest of this kind, instead of the image's own
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
    /// Compress layers that the registry does not have with this
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Compression::Gzip)]
    compression_format: Compression,
    /// Write the digest of the manifest to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// OCI's
    Oci,
    /// Docker's, schema 2
    #[value(alias = "docker")]
    V2s2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
}

/// Pushes an image, and prints the digest that it has at the registry.
///
/// # Errors
/// It is not there, or the registry does not take it.
pub(crate) fn push(arguments: &PushArgs, session: &Session) -> Result<Done, Error> {
    if session.network == Network::Forbidden {
        return Err(Error::Refused(
            "nothing can be pushed with `--offline`".to_owned(),
        ));
    }
    let format = arguments.format.map(|format| match format {
        Format::Oci => ManifestFormat::Oci,
        Format::V2s2 => ManifestFormat::Docker,
    });
    let compression = match arguments.compression_format {
        Compression::Gzip => LayerCompression::Gzip,
        Compression::Zstd if format == Some(ManifestFormat::Docker) => {
            return Err(Error::usage(
                "manifests of the kind `v2s2` have no layers compressed with zstd",
            ));
        }
        Compression::Zstd => LayerCompression::Zstd,
    };
    let given = arguments.creds.as_ref().map(credentials).transpose()?;
    let store = session.store()?;
    let (image, own_name) = named(&store, &arguments.image)?;
    let to = match (&arguments.destination, own_name) {
        (Some(text), _) => {
            let text = text.strip_prefix("docker://").unwrap_or(text);
            let name = ImageName::parse(text);
            let name = name.map_err(|e| Error::usage(format!("`{text}`: {e}")))?;
            name.reference().clone()
        }
        (None, Some(name)) => name,
        (None, None) => {
            return Err(Error::usage(
                "an image that is named by its id needs a destination",
            ));
        }
    };
    if to.digest.is_some() {
        return Err(Error::usage(
            "a push gives a tag: the digest is what comes out of it",
        ));
    }
    let options = arguments.files.pull_options(
        given,
        arguments.tls.verify(),
        Arc::new(arguments.tls.registries()),
        None,
    );
    let how = PushHow {
        // What was asked for as zstd is OCI's.
        format: format.or((compression == LayerCompression::Zstd).then_some(ManifestFormat::Oci)),
        compression,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Machine {
            what: "start the push",
            source,
        })?;
    let digest = interruptibly(session, |store, _| {
        let bytes = Arc::new(Mutex::new((0, 0)));
        let counted = Arc::clone(&bytes);
        let count = move |step| {
            let mut bytes = counted
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            match step {
                PushProgress::Packed { bytes: more } => bytes.1 += more,
                PushProgress::Sent { bytes: more } => bytes.0 += more,
            }
        };
        runtime.block_on(shown(
            &to.to_string(),
            &bytes,
            session,
            image::push(store, &image.id, &to, &options, &how, count),
        ))
    })?;
    session.ui.talk(&format!("pushed {to}"));
    if let Some(file) = &arguments.digestfile {
        fs::replace(file, 0o644, digest.as_str().as_bytes())?;
    }
    session.ui.line(digest.as_str())?;
    Ok(Done::Well)
}

/// How often the line with bytes is looked at.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// Shows how far a push is, until it is done.
async fn shown<T>(
    name: &str,
    bytes: &Mutex<(u64, u64)>,
    session: &Session,
    push: impl Future<Output = T>,
) -> T {
    let mut progress = super::progress(session, "pushing");
    let mut told = (0, 0);
    let mut push = std::pin::pin!(push);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = &mut push => return done,
            _ = tick.tick() => {
                let (sent, all) = *bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let layer = "sent".to_owned();
                if all != told.1 {
                    progress.update(name, Step::Resolved { layers: 1, bytes: all });
                    progress.update(name, Step::Started { layer: layer.clone(), bytes: all });
                    told = (0, all);
                }
                progress.update(name, Step::Received { layer, bytes: sent - told.0 });
                told.0 = sent;
            }
        }
    }
}
