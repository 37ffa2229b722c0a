//! Users of an image: `/etc/passwd` and `/etc/group`, read by kplay itself (the C library would load code from the
//! image), opened beneath the root file system, and with a bound on their size.
//!
//! The rules are containerd's (pod-level settings are the caller's): a user without a group gets the one of
//! `/etc/passwd`, or 0; a numeric user need not be there; a name must.

use std::io;
use std::path::Path;

use super::Error;
use crate::sys;

/// Larger than any real file; containerd has no bound, which an image can use to make it run out of memory.
const LARGEST: u64 = 4 * 1024 * 1024;
const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups of the image, sorted, without `gid`.
    pub groups: Vec<u32>,
    /// Absolute; `/` for a user that the image does not have.
    pub home: String,
}

/// Finds who an image means by `user`: `NAME`, `UID`, `NAME:GROUP`, `UID:GID` and the like; empty is user 0.
///
/// # Errors
/// The image has no user or group of that name, or its files cannot be read.
pub fn lookup(rootfs: &Path, user: &str) -> Result<User, Error> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(rootfs, PASSWD)?;
    let groups = read(rootfs, GROUP)?;
    let entry = match user.parse() {
        Ok(uid) => find_uid(&passwd, uid).unwrap_or_else(|| unknown(uid)),
        Err(_) => find_name(&passwd, user).ok_or_else(|| Error::NoSuchUser {
            what: "user",
            name: user.to_owned(),
        })?,
    };
    let gid = match group {
        None => entry.gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find_group(&groups, group).ok_or_else(|| Error::NoSuchUser {
                what: "group",
                name: group.to_owned(),
            })?,
        },
    };
    let home = if entry.home.starts_with('/') {
        entry.home
    } else {
        "/"
    };
    Ok(User {
        uid: entry.uid,
        gid,
        groups: supplementary(&groups, entry.name, gid),
        home: home.to_owned(),
    })
}

/// As [`lookup`] for a user that is given by its number, as `runAsUser`.
///
/// # Errors
/// The image's files cannot be read.
pub fn lookup_uid(rootfs: &Path, uid: u32) -> Result<User, Error> {
    lookup(rootfs, &uid.to_string())
}

#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    /// Empty for a user that the image does not have.
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn unknown<'a>(uid: u32) -> Entry<'a> {
    Entry {
        name: "",
        uid,
        gid: 0,
        home: "/",
    }
}

/// The users of a passwd file. Lines that cannot be understood are passed over, as the C library does.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Entry {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn find_uid(passwd: &str, uid: u32) -> Option<Entry<'_>> {
    entries(passwd).find(|entry| entry.uid == uid)
}

fn find_name<'a>(passwd: &'a str, name: &str) -> Option<Entry<'a>> {
    entries(passwd).find(|entry| entry.name == name)
}

/// Name, number and members of each group.
fn group_entries(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    group_entries(groups)
        .find(|group| group.0 == name)
        .map(|group| group.1)
}

fn supplementary(groups: &str, user: &str, primary: u32) -> Vec<u32> {
    if user.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<u32> = group_entries(groups)
        .filter(|(_, gid, members)| {
            *gid != primary && members.split(',').any(|member| member.trim() == user)
        })
        .map(|(_, gid, _)| gid)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A file of the image; empty if there is none. Links are resolved inside the image.
fn read(rootfs: &Path, file: &'static str) -> Result<String, Error> {
    let text = sys::fs::read_in_root(rootfs, Path::new(file), LARGEST);
    match text {
        // Bytes that are no text can only be in comments and names, which then match nothing.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(String::new())
        }
        Err(source) => Err(Error::UserFile { file, source }),
    }
}

#[cfg(test)]
mod tests;
