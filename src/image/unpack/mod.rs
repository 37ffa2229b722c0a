//! Writes a layer's archive into a folder, trusting nothing in it.
//!
//! - Every path is cleaned of `.` and `..` first; one that leaves the root is an error that names it. Then the
//!   kernel resolves its parents within the layer's folder ([`crate::sys::beneath`]), so that a symbolic link in the
//!   layer leads where it would lead in the container, and never out.
//! - A later entry replaces an earlier one, as in `tar`; a folder onto a folder only changes its attributes.
//! - `.wh.NAME` becomes overlayfs' whiteout, `.wh..wh..opq` its mark of an opaque folder. A whiteout hides what lower
//!   layers have, never what its own layer has.
//! - Owner, mode (with setuid), times and devices are kept; but devices not in a user namespace, where nobody can make
//!   them. Of extended attributes `security.capability`, POSIX ACLs
//!   and `user.*` are; the others mean something to the host (`trusted.overlay.*` would steer the mount) and are not.
//! - Parents that the archive does not have are made 0755 and root's, as the root itself is if it has no entry.
//!
//! What the archive was besides its files' content is recorded ([`recipe`]), so that it can be made again.
//!
//! What is unpacked is not yet to be trusted: `layer` checks the digests after it.

pub(super) mod archive;
pub(super) mod path;
mod pax;
pub(super) mod recipe;
pub(super) mod tar_split;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

pub use archive::MalformedArchive;
pub use recipe::Error as RecipeError;

use archive::{Archive, Kind, Source};
use recipe::Recorder;
use writer::{ROOT, Writer};

use crate::sys::userns;

/// How much a layer may be. Generous for real images, and finite for hostile ones.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of the archive, and folders that are made for them.
    pub entries: u64,
    /// Bytes that all paths of folders have together: they are held in memory until their times are set.
    pub folder_bytes: u64,
}

impl Limits {
    /// Three million entries, several times as many as the largest images have, and 64 MiB of folders' paths.
    pub const USUAL: Self = Self {
        entries: 3_000_000,
        folder_bytes: 64 << 20,
    };
}

/// How a layer marks what it hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// `trusted.overlay.*`: for mounts made by root.
    Trusted,
    /// `user.overlay.*`: for mounts made in a user namespace with `userxattr`.
    User,
}

impl Marks {
    /// The marks that this process's mounts read: rootless ones cannot set `trusted.*`.
    #[must_use]
    pub fn of_this_process() -> Self {
        if userns::is_initial() {
            Self::Trusted
        } else {
            Self::User
        }
    }

    fn opaque(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.opaque",
            Self::User => b"user.overlay.opaque",
        }
    }
}

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the entry `{path}` leaves the root filesystem")]
    Escape { path: String },
    #[error("the entry `{path}` is a hard link to `{target}`, which leaves the root filesystem")]
    LinkEscape { path: String, target: String },
    #[error("the entry `{path}` is a hard link to `{target}`, which the layer does not have")]
    LinkTarget { path: String, target: String },
    #[error("the entry `{path}` replaces the root filesystem itself")]
    Root { path: String },
    #[error("the entry `{path}` is not something a whiteout can hide")]
    Whiteout { path: String },
    #[error("the entry `{path}` is of a kind that layers cannot have (`{kind}`)")]
    Kind { path: String, kind: char },
    #[error("the layer has more than {most} {what}")]
    TooMany { what: &'static str, most: u64 },
    #[error(
        "the entry `{path}` belongs to the user or group {id}, and you have the ids below {ids}: /etc/subuid and /etc/subgid give more"
    )]
    NoSuchId { path: String, id: u32, ids: u32 },
    #[error("cannot {verb} `{path}`")]
    Write {
        verb: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("cannot prepare the layer's folder")]
    Prepare(#[source] io::Error),
    #[error("cannot record what the layer's archive is")]
    Recipe(#[source] io::Error),
    #[error(transparent)]
    Archive(#[from] MalformedArchive),
}

/// Where a layer is unpacked to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// An empty folder of the caller's own.
    pub folder: &'a Path,
    /// The folder for what is kept beside the layer, so that its archive can be made again.
    pub beside: Option<&'a Path>,
    pub marks: Marks,
}

/// Unpacks an archive, and reads it to its end.
///
/// Runs in a thread of its own, whose umask it changes.
///
/// # Errors
/// Why not. The folders are then to be removed.
pub(super) fn unpack(source: impl Source, place: &Place<'_>, limits: &Limits) -> Result<(), Error> {
    crate::sys::beneath::clear_thread_umask().map_err(Error::Prepare)?;
    let Some(beside) = place.beside else {
        return write_all(source, place, limits).map(drop);
    };
    let recipe = crate::sys::beneath::make_spool(&beside.join(recipe::FILE));
    let recipe = recipe.map_err(|e| Error::Recipe(io::Error::other(e)))?;
    let recorder = Recorder::new(source, recipe).map_err(Error::Recipe)?;
    let recorder = write_all(recorder, place, limits)?;
    recorder.finish().map_err(Error::Recipe)
}

/// Gives a layer's folder what the archive says of the root, of which the beginning is enough: an entry of it comes first.
///
/// Runs in a thread of its own, as [`unpack`] does.
///
/// # Errors
/// Why not.
pub(super) fn set_root(beginning: &[u8], place: &Place<'_>) -> Result<(), Error> {
    crate::sys::beneath::clear_thread_umask().map_err(Error::Prepare)?;
    let mut writer = Writer::new(place, &Limits::USUAL)?;
    writer.own_root()?;
    let mut archive = Archive::new(beginning);
    if let Some(entry) = archive.next()?
        && path::clean(&entry.path).is_some_and(|path| path.is_empty())
    {
        writer.write(&entry, &mut archive)?;
    }
    writer.finish()
}

fn write_all<S: Source>(source: S, place: &Place<'_>, limits: &Limits) -> Result<S, Error> {
    let mut writer = Writer::new(place, limits)?;
    let mut archive = Archive::new(source);
    let mut entries = 0;
    let may_make_devices = userns::is_initial();
    // Where there is nobody else than root, all is root's.
    let ids = userns::ids();
    while let Some(mut entry) = archive.next()? {
        entries += 1;
        if entries > limits.entries {
            let (what, most) = ("entries", limits.entries);
            return Err(Error::TooMany { what, most });
        }
        match entry.kind {
            // Root of a user namespace makes no devices; containers have their own.
            Kind::Character { major, .. } | Kind::Block { major, .. }
                if !may_make_devices && major != 0 =>
            {
                continue;
            }
            _ if ids == 1 => entry.owner = ROOT,
            _ => {}
        }
        if let Some(id) = [entry.owner.uid, entry.owner.gid]
            .into_iter()
            .find(|id| *id >= ids)
        {
            let path = shown(&entry.path);
            return Err(Error::NoSuchId { path, id, ids });
        }
        writer.write(&entry, &mut archive)?;
    }
    writer.finish()?;
    // The digest covers everything, also what follows the end of the archive.
    archive.drain()?;
    Ok(archive.into_source())
}

/// A path of an archive as text for a message: on one line, and not endless.
pub(super) fn shown(path: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(path);
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
