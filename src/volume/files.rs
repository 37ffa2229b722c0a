//! Files that change all at once, in a kubelet's layout, so that programs that watch for it (`..data`) find it:
//!
//! ```text
//! NAME/                         mode 0777, on tmpfs 1777
//!   ..2026_01_31_10_11_12.NNN/  mode 0755: the files, with folders as needed
//!   ..data -> ..2026_…          replaced by renaming ..data_tmp over it
//!   key    -> ..data/key        for each name at the top
//!   folder -> ..data/folder
//! ```
//!
//! A reader that holds the folder behind `..data`, or follows the links, sees either all old or all new files. A writer
//! that dies leaves `..data` as it was; what it left behind is swept by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::{Error, Resolve, ownership};
use crate::model::plan::VolumeFile;
use crate::sys::dir::{Dir, Kind};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// For the folders of files' paths, and for the folder that holds all files.
const FOLDER_MODE: u32 = 0o755;
const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;

/// All files of a volume, with checked paths and known content.
pub(super) struct Payload(BTreeMap<PathBuf, File>);

struct File {
    mode: u32,
    bytes: Vec<u8>,
}

impl Payload {
    /// Of two files with the same path the later one counts.
    pub(super) fn collect(files: &[VolumeFile], resolve: &Resolve<'_>) -> Result<Self, Error> {
        let mut payload = BTreeMap::new();
        for file in files {
            let bytes = resolve(&file.content);
            let mode = file.mode & 0o777;
            payload.insert(checked(&file.path)?, File { mode, bytes });
        }
        Ok(Self(payload))
    }

    /// The names that are seen in the volume.
    fn top(&self) -> BTreeSet<&OsStr> {
        self.0
            .keys()
            .filter_map(|path| path.iter().next())
            .collect()
    }

    fn is_as(&self, old: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
        let new = self.0.iter().map(|(path, file)| (path, &file.bytes));
        new.eq(old.iter())
    }
}

/// Checks a path again that the loader has checked: it is about to be written to as root.
fn checked(path: &Path) -> Result<PathBuf, Error> {
    let refused = |problem| {
        Err(Error::FilePath {
            path: path.to_owned(),
            problem,
        })
    };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if name.len() > LONGEST_NAME => {
                return refused("has a name that is too long");
            }
            Component::Normal(name)
                if clean.as_os_str().is_empty() && name.as_bytes().starts_with(b"..") =>
            {
                return refused("starts with `..`");
            }
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => return refused("has a `..`"),
            Component::RootDir | Component::Prefix(_) => return refused("is not relative"),
        }
    }
    match clean.as_os_str().len() {
        0 => refused("has no name"),
        length if length > LONGEST_PATH => refused("is too long"),
        _ => Ok(clean),
    }
}

/// Makes the volume at `root` hold exactly these files.
pub(super) fn write(root: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<(), Error> {
    let folder = Dir::open(root)?;
    let current = folder.link(OsStr::new(DATA))?.map(PathBuf::into_os_string);
    sweep(&folder, current.as_deref())?;
    let old = match &current {
        None => None,
        Some(name) => read_folder(&folder, name)?,
    };
    let is_unchanged = old.as_ref().is_some_and(|old| payload.is_as(old));
    if !is_unchanged && let Err(error) = replace(&folder, root, payload, fs_group) {
        // The next writer sweeps what cannot be swept now; the first error is the one to tell.
        sweep(&folder, current.as_deref()).ok();
        return Err(error);
    }
    link_names(&folder, payload)?;
    let old = old.unwrap_or_default();
    let top = payload.top();
    for name in old.keys().filter_map(|path| path.iter().next()) {
        if !top.contains(name) && folder.kind(name)? == Some(Kind::Link) {
            folder.remove(name)?;
        }
    }
    match current {
        Some(name) if !is_unchanged => Ok(folder.remove(&name)?),
        _ => Ok(()),
    }
}

/// Writes the files beside the old ones, and then changes `..data`.
fn replace(
    folder: &Dir,
    root: &Path,
    payload: &Payload,
    fs_group: Option<u32>,
) -> Result<(), Error> {
    let (name, new) = create_timestamped(folder)?;
    for (path, file) in &payload.0 {
        let parent = path.parent().unwrap_or(Path::new(""));
        let file_name = path.file_name().unwrap_or_default();
        new.create_all(parent, FOLDER_MODE)?
            .create_file(file_name, file.mode, &file.bytes)?;
    }
    if let Some(group) = fs_group {
        // The whole volume: new links get the group from its folder.
        ownership::give(root, group, ownership::Access::ReadOnly)?;
    }
    folder.create_link(OsStr::new(NEW_DATA), Path::new(&name))?;
    Ok(folder.rename(OsStr::new(NEW_DATA), OsStr::new(DATA))?)
}

fn link_names(folder: &Dir, payload: &Payload) -> Result<(), Error> {
    for name in payload.top() {
        // A mount point that another volume needs there stays.
        if folder.kind(name)?.is_none() {
            folder.create_link(name, &Path::new(DATA).join(name))?;
        }
    }
    Ok(())
}

/// Removes what a writer left behind that died.
fn sweep(folder: &Dir, current: Option<&OsStr>) -> Result<(), Error> {
    folder.remove(OsStr::new(NEW_DATA))?;
    for (name, kind) in folder.entries()? {
        let is_ours = kind == Kind::Folder && name.as_bytes().starts_with(b"..");
        if is_ours && current != Some(&name) {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

/// All files below a folder, by their path in it; nothing if it is not there.
fn read_folder(parent: &Dir, name: &OsStr) -> Result<Option<BTreeMap<PathBuf, Vec<u8>>>, Error> {
    let folder = match parent.folder(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        folder => folder?,
    };
    let mut files = BTreeMap::new();
    read_into(&folder, Path::new(""), &mut files)?;
    Ok(Some(files))
}

fn read_into(
    folder: &Dir,
    path: &Path,
    files: &mut BTreeMap<PathBuf, Vec<u8>>,
) -> Result<(), Error> {
    for (name, kind) in folder.entries()? {
        let path = path.join(&name);
        match kind {
            Kind::Folder => read_into(&folder.folder(&name)?, &path, files)?,
            Kind::File => {
                files.insert(path, folder.read(&name)?);
            }
            Kind::Link | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {}
        }
    }
    Ok(())
}

fn create_timestamped(folder: &Dir) -> Result<(OsString, Dir), Error> {
    let time = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        let random = RandomState::new().build_hasher().finish() as u32;
        let name = OsString::from(format!("{time}.{random}"));
        match folder.create_folder(&name, FOLDER_MODE) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return Ok((name, made?)),
        }
    }
}

#[cfg(test)]
mod tests;
