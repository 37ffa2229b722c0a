//! Addresses, each held by a locked file: an address whose holder has died is free, however it died.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::bridge::Bridge;
use crate::sys::fs::{self, Lock, LockMode};

/// The first offset that a pod may have: the subnet's own address and the gateway's come before it.
const FIRST: u16 = 2;

/// The network of a run folder, in `network.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) bridge: Bridge,
    pub(super) standing: Standing,
    /// The offset that was given out last: the ones after it come first, so that an address rests before it is another
    /// pod's.
    last: u16,
}

/// What has become of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// Somebody is about to make it, or was killed meanwhile: parts of it may be there.
    Chosen,
    Made,
}

const VERSION: u32 = 2;

impl Record {
    pub(super) fn new(bridge: Bridge, standing: Standing, before: Option<&Self>) -> Self {
        Self {
            version: VERSION,
            bridge,
            standing,
            last: before.map_or(FIRST - 1, |before| before.last),
        }
    }

    /// The record; none if there has been no network, or one in the words of another version.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join("network.json");
        let Some(bytes) = fs::read_if_there(&path)? else {
            return Ok(None);
        };
        let invalid = |source| Error::Record {
            path: path.clone(),
            source,
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(invalid)?;
        if value.get("version") != Some(&VERSION.into()) {
            return Ok(None);
        }
        Ok(Some(serde_json::from_value(value).map_err(invalid)?))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).expect("plain data");
        // Of no use after a restart of the machine.
        Ok(fs::replace_in_memory(
            &folder.join("network.json"),
            0o600,
            &text,
        )?)
    }

    /// Takes the next free address for `holder`, which says in its file how to find the network if that has to be found.
    pub(super) fn lease(
        &mut self,
        folder: &Path,
        holder: &str,
        network: Option<i32>,
    ) -> Result<Lease, Error> {
        let text = match network {
            Some(number) => format!("{holder}\n{} {number}\n", std::process::id()),
            None => holder.to_owned(),
        };
        let count = self.bridge.capacity();
        let folder = self::folder(folder);
        for step in 1..=count {
            let offset = FIRST + (self.last - (FIRST - 1) + step - 1) % count;
            let path = folder.join(offset.to_string());
            if let Some(lock) = fs::try_lock(&path, LockMode::Exclusive)? {
                fs::overwrite(&path, 0o600, text.as_bytes())?;
                self.last = offset;
                return Ok(Lease {
                    path,
                    offset,
                    _lock: lock,
                });
            }
        }
        Err(Error::NoAddress(count.into()))
    }
}

/// An address that nobody else gets as long as this lives.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    pub(super) offset: u16,
    _lock: Lock,
}

/// What keeps a network although no pod may be in it, as long as this lives. No two of one process have the same name.
#[derive(Debug)]
pub(super) struct Stay {
    path: PathBuf,
    _lock: Lock,
}

impl Stay {
    /// With the network's lock.
    pub(super) fn begin(folder: &Path) -> Result<Option<Self>, Error> {
        let path = self::folder(folder).join(format!("process-{}", std::process::id()));
        let lock = fs::try_lock(&path, LockMode::Exclusive)?;
        Ok(lock.map(|lock| Self { path, _lock: lock }))
    }

    /// With the network's lock.
    pub(super) fn end(self) -> Result<(), Error> {
        Ok(fs::remove_file(&self.path)?)
    }
}

impl Lease {
    /// Gives it back. With the network's lock.
    pub(super) fn release(self) -> Result<(), Error> {
        Ok(fs::remove_file(&self.path)?)
    }
}

/// Whether somebody has an address or stays. Removes what the dead have left. With the network's lock.
pub(super) fn any_held(folder: &Path) -> Result<bool, Error> {
    let folder = self::folder(folder);
    for name in fs::list(&folder)? {
        let path = folder.join(name);
        if fs::try_lock(&path, LockMode::Exclusive)?.is_none() {
            return Ok(true);
        }
        fs::remove_file(&path)?;
    }
    Ok(false)
}

/// Which processes have an address and hold the network open, each with the number of its descriptor. With the network's
/// lock.
pub(super) fn holders(folder: &Path) -> Result<Vec<(i32, i32)>, Error> {
    let folder = self::folder(folder);
    let mut holders = Vec::new();
    for name in fs::list(&folder)? {
        let path = folder.join(name);
        if fs::try_lock(&path, LockMode::Exclusive)?.is_some() {
            continue;
        }
        let content = fs::read(&path)?;
        let text = String::from_utf8_lossy(&content);
        let numbers = text.lines().nth(1).and_then(|line| line.split_once(' '));
        if let Some((Ok(pid), Ok(number))) = numbers.map(|(pid, n)| (pid.parse(), n.parse())) {
            holders.push((pid, number));
        }
    }
    Ok(holders)
}

/// Where the addresses of a network are held.
pub(super) fn folder(network: &Path) -> PathBuf {
    network.join("leases")
}
