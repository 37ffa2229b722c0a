//! What is saved and not whole yet. A file has no name where the file system can have such files; all else is in a folder
//! beside its place, which is locked. Of one that is not the process has died, and the next save to the same place
//! removes it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::sys::fs::{self, Lock, LockMode};
use crate::sys::{beneath, nameless};

/// Half of a file.
#[derive(Debug)]
pub(super) struct HalfFile {
    file: File,
    /// Where it has a name.
    folder: Option<HalfFolder>,
}

/// What the file is called in its folder.
const NAME: &str = "archive";

impl HalfFile {
    pub(super) fn new(place: &Path) -> fs::Result<Self> {
        if let Some(file) = nameless::make(parent(place))? {
            remove_left(place);
            return Ok(Self { file, folder: None });
        }
        let folder = HalfFolder::new(place)?;
        let file = beneath::make_spool(&folder.path().join(NAME))?;
        let folder = Some(folder);
        Ok(Self { file, folder })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in its place, where another file may be.
    pub(super) fn put(self, place: &Path) -> fs::Result<()> {
        let folder = match self.folder {
            Some(folder) => folder,
            None if nameless::give_name(&self.file, place)? => return Ok(()),
            // A name is not taken from another file but by one that has a name.
            None => {
                let folder = HalfFolder::new(place)?;
                nameless::give_name(&self.file, &folder.path().join(NAME))?;
                folder
            }
        };
        fs::rename(&folder.path().join(NAME), place)
    }
}

/// Half of a folder.
#[derive(Debug)]
pub(super) struct HalfFolder {
    /// Empty once it is in its place.
    path: PathBuf,
    _lock: Lock,
}

impl HalfFolder {
    pub(super) fn new(place: &Path) -> fs::Result<Self> {
        remove_left(place);
        let mut number = 0;
        loop {
            let mut name = prefix(place);
            name.push(format!("{}-{number}", std::process::id()));
            let path = place.with_file_name(name);
            number += 1;
            if !beneath::make_folder_at(&path, 0o755)? {
                continue;
            }
            // Else another process has just taken it for something that was left, and removes it.
            if let Some(lock) = fs::try_lock_existing(&path, LockMode::Exclusive)? {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, where an empty folder may be.
    pub(super) fn put(mut self, place: &Path) -> fs::Result<()> {
        fs::rename(&self.path, place)?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for HalfFolder {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = beneath::remove_all(&self.path) {
            // The next save to the same place removes it.
            tracing::warn!(%error, "cannot remove what was saved of images");
        }
    }
}

/// Removes what processes left beside a place that died in the middle.
fn remove_left(place: &Path) {
    let prefix = prefix(place);
    let is_left = |name: &OsStr| {
        let number = name.as_bytes().strip_prefix(prefix.as_bytes());
        let mut bytes = number.into_iter().flatten();
        number.is_some() && bytes.all(|byte| byte.is_ascii_digit() || *byte == b'-')
    };
    let remove = |name: &OsStr| {
        let path = place.with_file_name(name);
        match fs::try_lock_existing(&path, LockMode::Exclusive)? {
            Some(_lock) => beneath::remove_all(&path),
            None => Ok(()),
        }
    };
    let removed = fs::list(parent(place)).and_then(|names| {
        let mut left = names.iter().filter(|name| is_left(name));
        left.try_for_each(|name| remove(name))
    });
    if let Err(error) = removed {
        // It is in nobody's way.
        tracing::warn!(%error, "cannot remove what a process left that died");
    }
}

fn prefix(place: &Path) -> OsString {
    let mut name = place.file_name().map(OsStr::to_owned).unwrap_or_default();
    name.push(".kplay-save-");
    name
}

fn parent(place: &Path) -> &Path {
    let parent = place.parent().filter(|path| !path.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
