//! `image save`.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{interruptibly, named};
use crate::cli::error::{Done, Error};
use crate::cli::session::Session;
use crate::image::{ArchiveFormat, Store, ToSave};
use crate::sys::stop::Stop;

/// Flags of `image save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Save these images, by name or by the start of their id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Write to this file or folder; `-` (the default) is standard output
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "-",
        hide_default_value = true
    )]
    output: PathBuf,
    /// Write in this format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::DockerArchive)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What `docker load` reads
    DockerArchive,
    /// An OCI layout in an archive
    OciArchive,
    /// An OCI layout in a folder
    OciDir,
}

/// Saves images.
///
/// # Errors
/// One is not there, or it cannot be written.
pub(crate) fn save(arguments: &SaveArgs, session: &Session) -> Result<Done, Error> {
    let store = session.store()?;
    let mut images = Vec::new();
    for name in &arguments.images {
        let (image, reference) = named(&store, name)?;
        images.push(ToSave {
            id: image.id,
            names: reference.into_iter().collect(),
        });
    }
    let to_stream = arguments.output == Path::new("-");
    let format = match arguments.format {
        Format::DockerArchive => ArchiveFormat::Docker,
        Format::OciArchive => ArchiveFormat::Oci,
        Format::OciDir if to_stream => {
            return Err(Error::usage(
                "the format `oci-dir` is a folder: name it with `--output`",
            ));
        }
        Format::OciDir => {
            let save = |store: &Store, _: &Stop| store.save_layout(&images, &arguments.output);
            interruptibly(session, save)?;
            return Ok(Done::Well);
        }
    };
    if !to_stream {
        let save = |store: &Store, _: &Stop| store.save_file(&images, format, &arguments.output);
        interruptibly(session, save)?;
        return Ok(Done::Well);
    }
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Error::usage(
            "an archive is nothing for a terminal: name a file with `--output`, or redirect",
        ));
    }
    let stdout = stdout.as_fd().try_clone_to_owned();
    let stdout = stdout.map_err(|source| Error::Machine {
        what: "write the archive",
        source,
    })?;
    interruptibly(session, |store, stop| {
        let out = stop.waiting_writer(stdout.into());
        let mut out = io::BufWriter::with_capacity(1 << 17, out);
        store.save(&images, format, &mut out)
    })?;
    Ok(Done::Well)
}
