//! The kubelet's atomic writer (`volume/util/atomic_writer.go`): readers see all files of one version or of the next.
//!
//! ```text
//! VOLUME/..2026_11_23_21_44_00.123456789/dir/file    the files
//! VOLUME/..data -> ..2026_11_23_21_44_00.123456789   replaced by rename
//! VOLUME/dir -> ..data/dir                           one link for each top-level name
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::Error;
use crate::model::plan::VolumeFile;
use crate::sys::fs;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Writes a version of the files.
pub(super) fn write(
    volume: &Path,
    files: &[(&VolumeFile, Vec<u8>)],
    fs_group: Option<u32>,
) -> Result<(), Error> {
    for (file, _) in files {
        check(&file.path)?;
    }
    let name = version_name();
    let version = volume.join(&name);
    fill(&version, files, fs_group)?;
    fs::remove_file(&volume.join(NEW_DATA))?;
    fs::symlink(&name, &volume.join(NEW_DATA))?;
    fs::rename(&volume.join(NEW_DATA), &volume.join(DATA))?;
    link_names(volume, files)?;
    sweep(volume, &name)
}

fn check(path: &Path) -> Result<(), Error> {
    let plain = path
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    let hidden = path.as_os_str().as_bytes().starts_with(b"..");
    if plain && !hidden && path != Path::new("") {
        Ok(())
    } else {
        Err(Error::Escape {
            path: path.to_owned(),
        })
    }
}

/// `..2006_01_02_15_04_05.` and nanoseconds, where the kubelet has random digits: two versions of one volume are never
/// written in the same nanosecond.
fn version_name() -> PathBuf {
    let now = Timestamp::now();
    let calendar = now.to_zoned(jiff::tz::TimeZone::UTC);
    PathBuf::from(format!(
        "..{:04}_{:02}_{:02}_{:02}_{:02}_{:02}.{:09}",
        calendar.year(),
        calendar.month(),
        calendar.day(),
        calendar.hour(),
        calendar.minute(),
        calendar.second(),
        now.subsec_nanosecond()
    ))
}

fn fill(
    version: &Path,
    files: &[(&VolumeFile, Vec<u8>)],
    fs_group: Option<u32>,
) -> Result<(), Error> {
    make_dir(version, fs_group)?;
    let mut made = BTreeSet::new();
    for (file, bytes) in files {
        let folders = file.path.ancestors().skip(1).collect::<Vec<_>>();
        for folder in folders.into_iter().rev() {
            if folder != Path::new("") && made.insert(folder.to_owned()) {
                make_dir(&version.join(folder), fs_group)?;
            }
        }
        let path = version.join(&file.path);
        fs::replace_in_memory(&path, 0o600, bytes)?;
        match fs_group {
            Some(group) => {
                fs::set_group(&path, group)?;
                fs::set_mode(&path, file.mode | 0o440)?;
            }
            None => fs::set_mode(&path, file.mode)?,
        }
    }
    Ok(())
}

fn make_dir(path: &Path, fs_group: Option<u32>) -> Result<(), Error> {
    fs::create_dir_all(path, 0o755)?;
    match fs_group {
        Some(group) => {
            fs::set_group(path, group)?;
            fs::set_mode(path, 0o2755)?;
        }
        None => fs::set_mode(path, 0o755)?,
    }
    Ok(())
}

fn top_level(files: &[(&VolumeFile, Vec<u8>)]) -> BTreeSet<OsString> {
    files
        .iter()
        .filter_map(|(file, _)| file.path.components().next())
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

/// A link for each name of this version, none for names that it does not have.
fn link_names(volume: &Path, files: &[(&VolumeFile, Vec<u8>)]) -> Result<(), Error> {
    let wanted = top_level(files);
    for name in fs::list(volume)? {
        if !name.as_bytes().starts_with(b"..") && !wanted.contains(&name) {
            fs::remove_file(&volume.join(name))?;
        }
    }
    for name in wanted {
        let link = volume.join(&name);
        if fs::read_link_if_there(&link)?.is_none() {
            fs::symlink(&Path::new(DATA).join(&name), &link)?;
        }
    }
    Ok(())
}

/// Removes all versions but this one, also those that were never finished.
fn sweep(volume: &Path, current: &Path) -> Result<(), Error> {
    for name in fs::list(volume)? {
        let is_version = name.as_bytes().starts_with(b"..") && name != DATA;
        if is_version && name != current.as_os_str() {
            fs::remove_dir_all(&volume.join(name))?;
        }
    }
    Ok(())
}
