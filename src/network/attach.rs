//! A pod's link to the bridge, which comes with the first pod and goes with the last.
//!
//! ```text
//! FOLDER/lock            flock: somebody changes what is below
//! FOLDER/network.json    the bridge, its subnets, and the address that was given out last
//! FOLDER/leases/OFFSET   flock: a pod has this address; the folder `leases` is there as long as the bridge may be
//! FOLDER/leases/process-PID  flock: a command is about to start pods
//! ```
//!
//! The link itself belongs to the pod's network namespace and ends with it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::Error;
use super::bridge::Bridge;
use super::home::Home;
use super::lease::{self, Lease, Record, Standing, Stay};
use super::subnet::Subnet;
use super::way_out;
use crate::sys::fs::{self, Lock, LockMode};
use crate::sys::netns::NetNs;
use crate::sys::stop::Stop;
use crate::sys::userns;

/// A pod's place in the network.
#[derive(Debug)]
pub struct Attachment {
    folder: PathBuf,
    lease: Lease,
    ips: Vec<IpAddr>,
    bridge: Bridge,
    /// Others find the network through this, if it is not the machine's.
    home: Home,
}

/// Gives a pod's network namespace an interface, addresses and routes. `folder` is the network's, and `holder` is said
/// to whoever looks whose an address is.
///
/// # Errors
/// The kernel refuses, no address is free, or the folder cannot be written. Nothing is left then.
pub fn attach(folder: &Path, holder: &str, netns: &NetNs) -> Result<Attachment, Error> {
    fs::create_dir_all(folder, 0o700)?;
    let _lock = lock(folder)?;
    fs::create_dir_all(&lease::folder(folder), 0o700)?;
    let (home, limit) = match Home::find(folder)? {
        Some(home) => (home, None),
        None => Home::make(folder)?,
    };
    let taken = home.taken_outside()?;
    let attached = home.visit(|| attach_in(&home, folder, holder, netns, &taken, limit));
    if attached.is_err()
        && !lease::any_held(folder)?
        && let Err(error) = way_out::close(folder)
    {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the way out of a network that is not used stays"
        );
    }
    attached
}

/// With this thread in the network that the bridge is in.
fn attach_in(
    home: &Home,
    folder: &Path,
    holder: &str,
    netns: &NetNs,
    taken: &[Subnet],
    limit: Option<String>,
) -> Result<Attachment, Error> {
    let mut record = current(folder, taken, limit)?;
    let lease = record.lease(folder, holder, home.number())?;
    let connected = record
        .write(folder)
        .and_then(|()| Ok(record.bridge.connect(netns, lease.offset)?));
    match connected {
        Ok(ips) => Ok(Attachment {
            folder: folder.to_owned(),
            lease,
            ips,
            bridge: record.bridge,
            home: home.clone(),
        }),
        Err(error) => {
            let undone = lease
                .release()
                .and_then(|()| remove_unused(folder, Some(home)));
            if let Err(error) = undone {
                tracing::error!(%error, "cannot give an address back");
            }
            Err(error)
        }
    }
}

impl Attachment {
    /// The pod's addresses: IPv4, and IPv6 where the machine has it.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// What pods on this machine cannot do, and why.
    #[must_use]
    pub fn limits(&self) -> &[String] {
        &self.bridge.limits
    }

    /// Gives the addresses back, and removes the bridge if nobody else has any. The link goes with the namespace.
    ///
    /// # Errors
    /// The kernel refuses, or a file cannot be removed. [`sweep`] tries again.
    pub fn release(self) -> Result<(), Error> {
        let Self {
            folder,
            lease,
            bridge,
            home,
            ips: _,
        } = self;
        let record = Record::read(&folder)?;
        if record.is_some_and(|record| record.bridge == bridge) {
            let _lock = lock(&folder)?;
            lease.release()?;
            return remove_unused(&folder, Some(&home));
        }
        // Somebody has removed the folder, and another network may be in its place: only the pods know of this one.
        home.visit(|| {
            let _others = namespace_lock()?;
            Ok(bridge.leave(lease.offset)?)
        })
    }
}

/// The network of pods that are about to start: made beside whatever else is to be done before, and not removed meanwhile
/// when they replace the last pods that were in it. Dropped when they are there; without any, the network goes.
#[derive(Debug)]
pub struct Expected {
    folder: PathBuf,
    making: Option<Making>,
}

type Making = JoinHandle<Result<Option<Stay>, Error>>;

/// Makes the machine's network in a thread of its own. What goes wrong is told when the pods come.
///
/// # Errors
/// There can be no thread.
pub fn expect(folder: PathBuf) -> std::io::Result<Expected> {
    let place = folder.clone();
    let make = move || {
        if !userns::is_initial() {
            // A user's own network lives by its pods.
            return Ok(None);
        }
        fs::create_dir_all(&place, 0o700)?;
        let _lock = lock(&place)?;
        fs::create_dir_all(&lease::folder(&place), 0o700)?;
        let stay = Stay::begin(&place)?;
        current(&place, &[], None)?;
        Ok(stay)
    };
    let making = std::thread::Builder::new().spawn(make)?;
    Ok(Expected {
        folder,
        making: Some(making),
    })
}

impl Expected {
    /// The pods are there; without any, the network goes.
    fn end(making: Making, folder: &Path) -> Result<(), Error> {
        let Some(stay) = making.join().expect("it does not panic")? else {
            return Ok(());
        };
        let _lock = lock(folder)?;
        stay.end()?;
        remove_unused(folder, Some(&Home::Machine))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let ended = self
            .making
            .take()
            .map(|making| Self::end(making, &self.folder));
        if let Some(Err(error)) = ended {
            // Pods that need it have said so themselves; the next command sweeps the rest.
            tracing::debug!(%error, "the network was not made ahead, or not removed");
        }
    }
}

/// Removes the bridge if no pod lives that has an address of it: what killed executors could not do. Waits for whoever
/// changes the network, until `stop` says so.
///
/// # Errors
/// The kernel refuses, or a file cannot be removed; [`Error::Lock`].
pub fn sweep(folder: &Path, stop: &Stop) -> Result<(), Error> {
    let path = lock_path(folder);
    if !lease::folder(folder).exists() {
        return Ok(());
    }
    let _lock = match fs::try_lock(&path, LockMode::Exclusive)? {
        Some(lock) => lock,
        None => stop
            .unless(move || fs::lock(&path, LockMode::Exclusive))
            .map_err(Error::Lock)??,
    };
    remove_unused(folder, Home::find(folder)?.as_ref())
}

/// The same, unless somebody changes the network just now: whoever comes next does it.
///
/// # Errors
/// The kernel refuses, or a file cannot be removed.
pub fn sweep_unless_busy(folder: &Path) -> Result<(), Error> {
    if !lease::folder(folder).exists() {
        return Ok(());
    }
    match fs::try_lock(&lock_path(folder), LockMode::Exclusive)? {
        Some(_lock) => remove_unused(folder, Home::find(folder)?.as_ref()),
        None => Ok(()),
    }
}

fn lock(folder: &Path) -> Result<Lock, Error> {
    Ok(fs::lock(&lock_path(folder), LockMode::Exclusive)?)
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// The network as it is, made if it is not there.
fn current(folder: &Path, taken: &[Subnet], limit: Option<String>) -> Result<Record, Error> {
    let before = Record::read(folder)?;
    if let Some(record) = &before
        && record.standing == Standing::Made
        && record.bridge.exists()?
    {
        return Ok(record.clone());
    }
    let _others = namespace_lock()?;
    if let Some(record) = &before {
        record.bridge.remove()?;
    }
    let mut chosen = Bridge::choose(before.as_ref().map(|record| &record.bridge), taken)?;
    chosen.limits.extend(limit);
    // Said before it is made: whoever is killed meanwhile leaves nothing that nobody knows of.
    Record::new(chosen.clone(), Standing::Chosen, before.as_ref()).write(folder)?;
    let record = Record::new(chosen.make()?, Standing::Made, before.as_ref());
    if let Err(error) = record.write(folder) {
        if let Err(error) = record.bridge.remove() {
            tracing::error!(%error, "cannot remove a bridge that was made in vain");
        }
        return Err(error);
    }
    Ok(record)
}

/// Excludes all who choose names and subnets in this network namespace, whatever their folders.
fn namespace_lock() -> Result<Lock, Error> {
    let namespace = Path::new("/proc/thread-self/ns/net");
    Ok(fs::lock_existing(namespace, LockMode::Exclusive)?)
}

/// `home` is none if it has gone with all who held it.
fn remove_unused(folder: &Path, home: Option<&Home>) -> Result<(), Error> {
    if lease::any_held(folder)? {
        return Ok(());
    }
    if let (Some(record), Some(home)) = (Record::read(folder)?, home) {
        home.visit(|| {
            let _others = namespace_lock()?;
            Ok(record.bridge.remove()?)
        })?;
    }
    way_out::close(folder)?;
    // Last: as long as it is there, the next one tries again.
    Ok(fs::remove_dir_all(&lease::folder(folder))?)
}
