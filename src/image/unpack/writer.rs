//! Writes one entry after another beneath the layer's folder. The usual file costs four system calls.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::rc::Rc;

use super::archive::{Archive, Entry, Kind, Source};
use super::path::{clean, link_target, split};
use super::{Error, Limits, Marks, Place, recipe, shown};
use crate::sys::beneath::{self, Folder, Name, Node, Owner, Root, Time};

/// The owner that new files have without being told: layers are unpacked by root, or by root of a user namespace.
pub(super) const ROOT: Owner = Owner { uid: 0, gid: 0 };
/// Folders kept open: archives go depth first, so few are enough, and three layers at once stay far below the usual
/// limit of 1024 open files.
const OPEN_FOLDERS: usize = 128;
/// Symbolic links followed while parents are made, as the kernel's own limit.
const MOST_LINKS: u32 = 40;

pub(super) struct Writer<'a> {
    root: Root,
    marks: Marks,
    limits: &'a Limits,
    /// By cleaned path.
    open: HashMap<Vec<u8>, Rc<Folder>>,
    /// Times of folders are set last, because every file made in one changes them.
    times: Vec<(Vec<u8>, Time)>,
    times_bytes: u64,
    /// Folders that the archive does not have.
    made: u64,
    /// A setgid folder gives its group to what is made in it: from then on owners are always set.
    inherits_group: bool,
    /// Where the folder of replaced files is made when it is needed.
    beside: Option<&'a Path>,
    kept: Option<Folder>,
    kept_entries: u64,
    /// What the current entry replaced, and where that is kept.
    replaced: Vec<(Vec<u8>, u64)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(place: &Place<'a>, limits: &'a Limits) -> Result<Self, Error> {
        let root = Root::open(place.folder).map_err(Error::Prepare)?;
        let itself = root
            .folder(b"")
            .and_then(|folder| folder.reopen())
            .map_err(Error::Prepare)?;
        beneath::set_file_mode(&itself, 0o755).map_err(Error::Prepare)?;
        Ok(Self {
            root,
            marks: place.marks,
            limits,
            open: HashMap::new(),
            times: Vec::new(),
            times_bytes: 0,
            made: 0,
            inherits_group: false,
            beside: place.beside,
            kept: None,
            kept_entries: 0,
            replaced: Vec::new(),
        })
    }

    /// Makes the layer's folder root's, as new ones are.
    pub(super) fn own_root(&self) -> Result<(), Error> {
        let root = self.root.folder(b"").and_then(|folder| folder.reopen());
        let set = root.and_then(|root| {
            beneath::set_file_owner(&root, ROOT)?;
            beneath::set_file_mode(&root, 0o755)
        });
        set.map_err(failed("set the attributes of", b"/"))
    }

    /// Writes an entry, and its content if it has any.
    pub(super) fn write<S: Source>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<S>,
    ) -> Result<(), Error> {
        let before = archive.source().contents();
        self.write_entry(entry, archive)?;
        for (path, number) in self.replaced.drain(..) {
            archive.source().replaced(&path, number, before);
        }
        Ok(())
    }

    fn write_entry<S: Source>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<S>,
    ) -> Result<(), Error> {
        let path = clean(&entry.path).ok_or_else(|| Error::Escape {
            path: shown(&entry.path),
        })?;
        if path.is_empty() {
            return self.write_root(entry);
        }
        let (parent, base) = split(&path);
        if let Some(hidden) = base.strip_prefix(b".wh.") {
            return self.write_mark(&path, parent, hidden);
        }
        let name = Name::parse(base).ok_or_else(|| Error::Escape {
            path: shown(&entry.path),
        })?;
        let folder = self
            .folder(parent)
            .map_err(failed("make the folder of", &path))?;
        match &entry.kind {
            Kind::Folder => self.write_folder(entry, &path, &folder, name),
            Kind::File => {
                let fill = |file: &mut File| copy(archive, file, &path);
                self.write_file(entry, &path, &folder, name, fill)
            }
            Kind::Sparse { pieces, size } => {
                let fill = |file: &mut File| copy_pieces(archive, file, &path, pieces, *size);
                self.write_file(entry, &path, &folder, name, fill)
            }
            Kind::Symlink => self.write_symlink(entry, &path, &folder, name),
            Kind::HardLink => self.write_hard_link(entry, &path, &folder, name),
            Kind::Character { major, minor } => {
                let (major, minor) = (*major, *minor);
                self.write_node(
                    entry,
                    &path,
                    &folder,
                    name,
                    Node::Character { major, minor },
                )
            }
            Kind::Block { major, minor } => {
                let (major, minor) = (*major, *minor);
                self.write_node(entry, &path, &folder, name, Node::Block { major, minor })
            }
            Kind::Fifo => self.write_node(entry, &path, &folder, name, Node::Fifo),
            Kind::Unknown(kind) => Err(Error::Kind {
                path: shown(&path),
                kind: *kind,
            }),
        }
    }

    /// Sets the folders' times.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        for (path, time) in std::mem::take(&mut self.times) {
            if path.is_empty() {
                let root = self.root.folder(b"").and_then(|folder| folder.reopen());
                let set = root.and_then(|root| beneath::set_file_time(&root, time));
                set.map_err(failed("set the time of", b"/"))?;
                continue;
            }
            let (parent, base) = split(&path);
            let Some(name) = Name::parse(base) else {
                continue;
            };
            let set = self
                .existing(parent)
                .and_then(|folder| folder.set_time(name, time));
            match set {
                // A later entry took its place, or that of a folder above it.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                other => other.map_err(failed("set the time of", &path))?,
            }
        }
        Ok(())
    }

    fn write_root(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Folder {
            return Err(Error::Root {
                path: shown(&entry.path),
            });
        }
        let set = || {
            let root = self.root.folder(b"")?.reopen()?;
            beneath::set_file_owner(&root, entry.owner)?;
            beneath::set_file_mode(&root, entry.mode)?;
            set_attributes(&root, entry)
        };
        set().map_err(failed("set the attributes of", b"/"))?;
        self.inherits_group |= entry.mode & 0o2000 != 0;
        self.remember_time(b"", entry.time)
    }

    fn write_folder(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
    ) -> Result<(), Error> {
        let made = folder.make_folder(name, entry.mode & 0o777);
        let fresh = match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.replace_by_folder(path, folder, name, entry.mode)?
            }
            other => other
                .map(|()| true)
                .map_err(failed("make the folder", path))?,
        };
        let set = || {
            if !fresh || self.inherits_group || entry.owner != ROOT || entry.mode & 0o7000 != 0 {
                folder.set_owner(name, entry.owner)?;
                folder.set_mode(name, entry.mode)?;
            }
            if entry.attributes.is_empty() {
                return Ok(());
            }
            set_attributes(&folder.open_itself(name)?, entry)
        };
        set().map_err(failed("set the attributes of", path))?;
        self.inherits_group |= entry.mode & 0o2000 != 0;
        self.remember_time(path, entry.time)
    }

    /// Makes way for a folder; an existing one stays, with what is in it. Returns whether it is a new one.
    fn replace_by_folder(
        &mut self,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
        mode: u32,
    ) -> Result<bool, Error> {
        let there = folder.kind(name).map_err(failed("look at", path))?;
        if there == Some(beneath::Kind::Folder) {
            return Ok(false);
        }
        self.remove(path, folder, name)?;
        folder
            .make_folder(name, mode & 0o777)
            .map_err(failed("make the folder", path))?;
        if there == Some(beneath::Kind::Whiteout) {
            // What lower layers have of this name stays hidden.
            self.mark_opaque(path, folder, name)?;
        }
        Ok(true)
    }

    fn write_file(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
        fill: impl FnOnce(&mut File) -> Result<(), FillError>,
    ) -> Result<(), Error> {
        let mode = entry.mode & 0o777;
        let mut file = self.replacing(path, folder, name, "make the file", || {
            folder.make_file(name, mode)
        })?;
        fill(&mut file).map_err(|e| match e {
            FillError::Archive(e) => Error::Archive(e),
            FillError::Write(e) => failed("write", path)(e),
        })?;
        let set = || {
            if self.inherits_group || entry.owner != ROOT {
                beneath::set_file_owner(&file, entry.owner)?;
            }
            if entry.mode & 0o7000 != 0 {
                beneath::set_file_mode(&file, entry.mode)?;
            }
            // After the owner, whose change drops capabilities.
            set_attributes(&file, entry)?;
            beneath::set_file_time(&file, entry.time)
        };
        set().map_err(failed("set the attributes of", path))
    }

    fn write_symlink(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
    ) -> Result<(), Error> {
        let make = || folder.make_symlink(name, &entry.target);
        self.replacing(path, folder, name, "make the symbolic link", make)?;
        let set = || {
            if self.inherits_group || entry.owner != ROOT {
                folder.set_owner(name, entry.owner)?;
            }
            folder.set_time(name, entry.time)
        };
        set().map_err(failed("set the attributes of", path))
    }

    fn write_hard_link(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
    ) -> Result<(), Error> {
        let target = clean(&entry.target).filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| Error::LinkEscape {
            path: shown(path),
            target: shown(&entry.target),
        })?;
        let missing = || Error::LinkTarget {
            path: shown(path),
            target: shown(&target),
        };
        let (parent, base) = split(&target);
        let target_name = Name::parse(base).ok_or_else(missing)?;
        let target_folder = self.existing(parent).map_err(|_| missing())?;
        let there = target_folder
            .kind(target_name)
            .map_err(failed("look at", &target))?;
        match there {
            None | Some(beneath::Kind::Folder) => return Err(missing()),
            // Replacing a file by a link to itself would lose it.
            Some(_) if target == path => return Ok(()),
            Some(_) => {}
        }
        let make = || folder.make_link(name, &target_folder, target_name);
        self.replacing(path, folder, name, "make the hard link", make)
    }

    fn write_node(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
        node: Node,
    ) -> Result<(), Error> {
        let make = || folder.make_node(name, node, entry.mode & 0o777);
        self.replacing(path, folder, name, "make the device", make)?;
        let set = || {
            folder.set_owner(name, entry.owner)?;
            folder.set_mode(name, entry.mode)?;
            folder.set_time(name, entry.time)
        };
        set().map_err(failed("set the attributes of", path))
    }

    /// `.wh.HIDDEN`: a whiteout, the opaque mark, or what only AUFS needed.
    fn write_mark(&mut self, path: &[u8], parent: &[u8], hidden: &[u8]) -> Result<(), Error> {
        let folder = self
            .folder(parent)
            .map_err(failed("make the folder of", path))?;
        if hidden == b".wh..opq" {
            let mark = |folder: &Folder| {
                beneath::set_attribute(&folder.reopen()?, self.marks.opaque(), b"y")
            };
            return mark(&folder).map_err(failed("make opaque the folder of", path));
        }
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        let name = Name::parse(hidden).ok_or_else(|| Error::Whiteout { path: shown(path) })?;
        match folder.make_node(name, Node::Character { major: 0, minor: 0 }, 0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed("make the whiteout", path)),
        }
        // The layer's own content stays; a file hides what is below by itself, a folder has to be told to.
        match folder.kind(name).map_err(failed("look at", path))? {
            Some(beneath::Kind::Folder) => self.mark_opaque(path, &folder, name),
            _ => Ok(()),
        }
    }

    fn mark_opaque(&self, path: &[u8], folder: &Folder, name: Name<'_>) -> Result<(), Error> {
        let opened = folder.open_itself(name);
        let marked =
            opened.and_then(|file| beneath::set_attribute(&file, self.marks.opaque(), b"y"));
        marked.map_err(failed("make opaque", path))
    }

    /// Makes something new at a name, in the place of what is there.
    fn replacing<T>(
        &mut self,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
        verb: &'static str,
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T, Error> {
        match make() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed(verb, path)),
        }
        self.remove(path, folder, name)?;
        make().map_err(failed(verb, path))
    }

    fn remove(&mut self, path: &[u8], folder: &Folder, name: Name<'_>) -> Result<(), Error> {
        // Open folders may be in what goes, or be reached through it.
        self.open.clear();
        let there = folder.kind(name).map_err(failed("look at", path))?;
        match (there, self.beside) {
            (Some(beneath::Kind::Folder | beneath::Kind::Other), Some(beside)) => self
                .keep(beside, path, folder, name)
                .map_err(failed("put aside", path)),
            // A link's target and a whiteout's name are in their headers.
            _ => folder.remove(name).map_err(failed("replace", path)),
        }
    }

    /// Puts aside what is replaced: its content is a part of the archive.
    fn keep(
        &mut self,
        beside: &Path,
        path: &[u8],
        folder: &Folder,
        name: Name<'_>,
    ) -> io::Result<()> {
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => {
                let kept = beside.join(recipe::KEPT);
                beneath::make_folder_at(&kept, 0o700).map_err(io::Error::other)?;
                Folder::open(&kept)?
            }
        };
        let number = self.kept_entries;
        self.kept_entries += 1;
        if let Some(new_name) = Name::parse(number.to_string().as_bytes()) {
            folder.rename(name, &kept, new_name)?;
        }
        self.kept = Some(kept);
        self.replaced.push((path.to_vec(), number));
        Ok(())
    }

    /// The folder at a cleaned path; it and its parents are made if they are not there.
    fn folder(&mut self, path: &[u8]) -> io::Result<Rc<Folder>> {
        match self.existing(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        self.make_folders(path, MOST_LINKS)?;
        self.existing(path)
    }

    fn existing(&mut self, path: &[u8]) -> io::Result<Rc<Folder>> {
        if let Some(folder) = self.open.get(path) {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(self.root.folder(path)?);
        if self.open.len() >= OPEN_FOLDERS {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&folder));
        Ok(folder)
    }

    /// Makes each missing folder of a path, and for a link that leads nowhere yet, the folder it leads to.
    fn make_folders(&mut self, path: &[u8], links: u32) -> io::Result<()> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(i, _)| i);
        for end in ends.chain([path.len()]) {
            let (parent, base) = split(&path[..end]);
            let Some(name) = Name::parse(base) else {
                continue;
            };
            let folder = self.existing(parent)?;
            match folder.make_folder(name, 0o755) {
                Ok(()) => {
                    self.made += 1;
                    if self.made > self.limits.entries {
                        return Err(io::Error::other("too many folders"));
                    }
                    if self.inherits_group {
                        folder.set_owner(name, ROOT)?;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if folder.kind(name)? == Some(beneath::Kind::Symlink)
                        && self.existing(&path[..end]).is_err()
                    {
                        let links = links
                            .checked_sub(1)
                            .ok_or_else(|| io::Error::other("too many symbolic links"))?;
                        self.make_folders(&link_target(parent, &folder.link_target(name)?), links)?;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn remember_time(&mut self, path: &[u8], time: Time) -> Result<(), Error> {
        self.times_bytes += path.len() as u64 + 64;
        if self.times_bytes > self.limits.folder_bytes {
            let (what, most) = ("bytes of folders' names", self.limits.folder_bytes);
            return Err(Error::TooMany { what, most });
        }
        self.times.push((path.to_vec(), time));
        Ok(())
    }
}

enum FillError {
    Archive(super::MalformedArchive),
    Write(io::Error),
}

fn copy<S: Source>(
    archive: &mut Archive<S>,
    file: &mut File,
    path: &[u8],
) -> Result<(), FillError> {
    archive.source().content_starts(path, 0);
    loop {
        let bytes = archive.content(u64::MAX).map_err(FillError::Archive)?;
        let length = bytes.len();
        if length == 0 {
            archive.source().content_ends();
            return Ok(());
        }
        file.write_all(bytes).map_err(FillError::Write)?;
        archive.consume(length);
    }
}

fn copy_pieces<S: Source>(
    archive: &mut Archive<S>,
    file: &mut File,
    path: &[u8],
    pieces: &[(u64, u64)],
    size: u64,
) -> Result<(), FillError> {
    for (offset, bytes) in pieces {
        file.seek(SeekFrom::Start(*offset))
            .map_err(FillError::Write)?;
        let mut left = *bytes;
        archive.source().content_starts(path, *offset);
        while left > 0 {
            let piece = archive.content(left).map_err(FillError::Archive)?;
            let length = piece.len();
            if length == 0 {
                return Err(FillError::Archive(super::MalformedArchive::Truncated));
            }
            file.write_all(piece).map_err(FillError::Write)?;
            archive.consume(length);
            left -= length as u64;
        }
        archive.source().content_ends();
    }
    file.set_len(size).map_err(FillError::Write)
}

/// Sets the attributes that mean the same in a container. A file system without them is no reason to refuse an image,
/// unless a program would lose its privileges.
fn set_attributes(file: &File, entry: &Entry) -> io::Result<()> {
    for (name, value) in &entry.attributes {
        let capability = name == b"security.capability";
        let acl = matches!(
            name.as_slice(),
            b"system.posix_acl_access" | b"system.posix_acl_default"
        );
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !(capability || acl || user) {
            tracing::debug!(
                path = shown(&entry.path),
                name = shown(name),
                "attribute not kept"
            );
            continue;
        }
        match beneath::set_attribute(file, name, value) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported && !capability => {
                tracing::debug!(
                    path = shown(&entry.path),
                    name = shown(name),
                    "attribute not supported"
                );
            }
            other => other?,
        }
    }
    Ok(())
}

fn failed(verb: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let path = shown(path);
        Error::Write { verb, path, source }
    }
}
