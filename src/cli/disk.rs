//! What takes room on the disks, and what of it can go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::error::{Done, Error};
use super::session::Session;
use super::{image, volume};
use crate::image::ImageUsage;
use crate::manager::storage;
use crate::model::cause::chain;
use crate::output::disk::{self, ImageRow, PodRow, Report, VolumeRow};
use crate::output::object::{self, Notation};
use crate::state::view;
use crate::sys::usage::Usage;

/// Flags of `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show each image, pod and volume
    // `-v` is for this, as in docker and podman.
    #[arg(short = 'v', long = "details")]
    details: bool,
    /// Print in this format
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// Flags of `system prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all images that no pod uses, also those with names
    #[arg(short, long)]
    all: bool,
    /// Remove the claims of all namespaces that no pod uses, too, and their folders
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Shows what takes how much.
///
/// # Errors
/// State cannot be read.
pub(crate) fn df(arguments: &DfArgs, session: &Session) -> Result<Done, Error> {
    let used = image::used_images(session)?;
    let images = session.store()?.usage(&|id| used.contains_key(id))?;
    let report = Report {
        images: image_rows(&images, &used),
        image_bytes: images.bytes,
        image_reclaimable: images.reclaimable,
        pods: pods(session)?,
        volumes: volumes(session)?,
    };
    let text = match (arguments.output, arguments.details) {
        (Some(Format::Json), _) => object::text(&disk::object(&report), Notation::Json)?,
        (Some(Format::Yaml), _) => object::text(&disk::object(&report), Notation::Yaml)?,
        (None, true) => disk::details(&report, Timestamp::now()),
        (None, false) => disk::table(&report),
    };
    session.ui.data(text.as_bytes())?;
    Ok(Done::Well)
}

fn image_rows(images: &ImageUsage, used: &BTreeMap<String, Vec<String>>) -> Vec<ImageRow> {
    let row = |image: &crate::image::UsedImage| ImageRow {
        reference: image.stored.references.first().cloned(),
        id: image.stored.id.clone(),
        created: image
            .stored
            .created
            .as_deref()
            .and_then(|time| time.parse().ok()),
        shared: image.shared,
        unique: image.unique,
        pods: used.get(&image.stored.id).cloned().unwrap_or_default(),
    };
    images.images.iter().map(row).collect()
}

fn pods(session: &Session) -> Result<Vec<PodRow>, Error> {
    let (views, unreadable) = view::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&chain(error));
    }
    let mut rows = Vec::new();
    for view in &views {
        let key = view.record.key();
        let folders = [
            session.layout.pod(&key).data().to_owned(),
            session.layout.pod_logs(&key, &view.record.uid),
        ];
        rows.push(PodRow {
            name: key.to_string(),
            phase: view.status.phase,
            containers: view.record.images.len(),
            bytes: bytes_of(&folders)?,
        });
    }
    Ok(rows)
}

fn volumes(session: &Session) -> Result<Vec<VolumeRow>, Error> {
    let (stored, unreadable) = storage::list(&session.layout)?;
    for error in &unreadable {
        session.ui.warning(&chain(error));
    }
    let mut rows = Vec::new();
    for one in stored {
        // What a PersistentVolume names is somebody else's folder.
        let own = one
            .path
            .filter(|path| path.starts_with(session.layout.volumes()));
        let Some(path) = own else { continue };
        rows.push(VolumeRow {
            name: format!("{}/{}", one.key.namespace, one.key.name),
            pods: one.users.iter().map(ToString::to_string).collect(),
            bytes: bytes_of(&[path])?,
        });
    }
    Ok(rows)
}

fn bytes_of(folders: &[PathBuf]) -> Result<u64, Error> {
    let mut usage = Usage::default();
    for folder in folders {
        usage.add(Path::new(folder))?;
    }
    while usage.step().is_some() {}
    Ok(usage.bytes())
}

/// Removes what nothing needs.
///
/// # Errors
/// Nobody can be asked, or something cannot be removed.
pub(crate) fn prune(arguments: &PruneArgs, session: &Session) -> Result<Done, Error> {
    let mut question = match arguments.all {
        true => "WARNING! This will remove all images that no pod uses",
        false => "WARNING! This will remove all images that have no name and that no pod uses",
    }
    .to_owned();
    if arguments.volumes {
        question.push_str(", and all volumes not used by at least one pod");
    }
    question.push('.');
    if !arguments.force && !session.agrees(&question, "anything")? {
        return Ok(Done::Well);
    }
    if arguments.volumes {
        volume::prune_all(session)?;
    }
    image::prune_unused(arguments.all, session)
}
