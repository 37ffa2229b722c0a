//! The machine's ids that pods with user namespaces have: a file in the pod's run folder says which. So they are free
//! again when that folder is gone, whoever removed it and why, and at the latest when the machine starts anew. A pod that
//! has ended gives them back before.
//!
//! Two pods never get the same, wherever their state is: one file for the whole machine names the run folders of all
//! pods that were given ids, and is read and written under one lock. What it says counts as long as the pod's own file
//! says so, too; in the state of somebody else, whose dead executors this one does not clean up after, also as long as
//! somebody takes care of the pod.
//!
//! ```text
//! FIRST RUN-FOLDER \0 FIRST RUN-FOLDER \0 …
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::{self, Layout, PodPaths};
use super::pod_dir::LockedPodDir;
use crate::sys::fs::{self, LockMode};
use crate::sys::ids::IdRange;
use crate::sys::lockfile;

/// Takes the first of these ranges that no pod has, for a pod whose run folder is there. Those that it has already stay
/// its own. Nothing if all are taken.
///
/// # Errors
/// A folder or a file cannot be read or written.
pub fn take(
    layout: &Layout,
    dir: &LockedPodDir<'_>,
    mut ranges: impl Iterator<Item = IdRange>,
) -> Result<Option<IdRange>, Error> {
    fs::create_dir_all(layout.machine(), 0o700)?;
    let _lock = fs::lock(&layout.ids_lock(), LockMode::Exclusive)?;
    let mut taken = taken(layout)?;
    let mine = |(first, run): (&u32, &PathBuf)| (run == dir.paths().run()).then_some(*first);
    if let Some(own) = taken.iter().find_map(mine) {
        return Ok(IdRange::starting_at(own));
    }
    let overlaps = |range: &IdRange| {
        let first = range.first();
        let near = first.saturating_sub(IdRange::LENGTH - 1)..=first + (IdRange::LENGTH - 1);
        taken.range(near).next().is_some()
    };
    let Some(free) = ranges.find(|range| !overlaps(range)) else {
        return Ok(None);
    };
    taken.insert(free.first(), dir.paths().run().to_owned());
    // The pod's own file is the last: until then nothing is taken.
    fs::replace_in_memory(&layout.ids(), 0o600, &written(&taken))?;
    fs::replace_in_memory(
        &dir.paths().ids(),
        0o600,
        free.first().to_string().as_bytes(),
    )?;
    Ok(Some(free))
}

/// The ids that a pod has.
///
/// # Errors
/// The file cannot be read.
pub fn read(paths: &PodPaths) -> Result<Option<IdRange>, Error> {
    let content = fs::read_if_there(&paths.ids())?;
    Ok(content.as_deref().and_then(parse))
}

/// Gives a pod's ids back. Fine if it has none.
///
/// # Errors
/// The file cannot be removed.
pub fn give_back(paths: &PodPaths) -> Result<(), Error> {
    Ok(fs::remove_file(&paths.ids())?)
}

/// The first ids of all ranges that pods have, and the pods' run folders.
fn taken(layout: &Layout) -> Result<BTreeMap<u32, PathBuf>, Error> {
    let content = fs::read_if_there(&layout.ids())?.unwrap_or_default();
    let mut taken = BTreeMap::new();
    for entry in content.split(|byte| *byte == 0) {
        let Some(space) = entry.iter().position(|byte| *byte == b' ') else {
            continue;
        };
        let (first, run) = entry.split_at(space);
        let run = PathBuf::from(OsStr::from_bytes(&run[1..]));
        if let Some(range) = parse(first)
            && is_taken(layout, range, &run)?
        {
            taken.insert(range.first(), run);
        }
    }
    Ok(taken)
}

/// Whether the pod with this run folder still has this range.
fn is_taken(layout: &Layout, range: IdRange, run: &Path) -> Result<bool, Error> {
    let paths = PodPaths::at(PathBuf::new(), run.to_owned());
    if run.parent() == Some(&layout.pods_run()) {
        return Ok(read(&paths)? == Some(range));
    }
    let has = || -> Result<bool, Error> {
        let is_alive = lockfile::is_held(&paths.executor_lock())?
            || match layout::lock_of_run(run) {
                Some(lock) => lockfile::is_held(&lock)?,
                None => false,
            };
        Ok(is_alive && read(&paths)? == Some(range))
    };
    Ok(has().unwrap_or_else(|error| {
        // Nobody can say, so nobody else gets it; what is wrong there is not this pod's business.
        tracing::warn!(?run, %error, "cannot see whether a pod has ids");
        true
    }))
}

fn written(taken: &BTreeMap<u32, PathBuf>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (first, run) in taken {
        bytes.extend_from_slice(format!("{first} ").as_bytes());
        bytes.extend_from_slice(run.as_os_str().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// What is written is whole or not there; anything else was not written by kplay.
fn parse(content: &[u8]) -> Option<IdRange> {
    IdRange::starting_at(std::str::from_utf8(content).ok()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::state::lock::Locks;
    use crate::state::testing::{Scratch, key, record};

    const FIRST: u32 = 1_000_000;

    fn ranges(count: u32) -> impl Iterator<Item = IdRange> {
        (0..count).filter_map(|n| IdRange::starting_at(FIRST + n * IdRange::LENGTH))
    }

    /// What the pod `name` gets when there are `count` ranges.
    fn take_for(layout: &Layout, name: &str, count: u32) -> Option<u32> {
        let locks = Locks::try_pod(layout, &key(name)).unwrap().unwrap();
        let dir = locks.pod(&key(name)).unwrap();
        dir.create(&record(name)).unwrap();
        let range = take(layout, &dir, ranges(count)).unwrap();
        range.map(|range| (range.first() - FIRST) / IdRange::LENGTH)
    }

    fn remove(layout: &Layout, name: &str) {
        let locks = Locks::try_pod(layout, &key(name)).unwrap().unwrap();
        locks.pod(&key(name)).unwrap().remove().unwrap();
    }

    #[test]
    fn ranges_are_taken_once_and_come_back() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        assert_eq!(take_for(&layout, "a", 2), Some(0));
        assert_eq!(take_for(&layout, "a", 2), Some(0));
        assert_eq!(take_for(&layout, "b", 2), Some(1));
        assert_eq!(take_for(&layout, "c", 2), None);
        remove(&layout, "a");
        assert_eq!(take_for(&layout, "c", 2), Some(0));
        let b = layout.pod(&key("b"));
        for _ in 0..2 {
            give_back(&b).unwrap();
        }
        assert_eq!(take_for(&layout, "d", 2), Some(1));
    }

    #[test]
    fn what_a_dead_command_left_behind_is_no_range_or_still_its_pods() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        assert_eq!(take_for(&layout, "a", 2), Some(0));
        // A pod without a record: whoever made it died right then.
        fs::remove_file(&layout.pod(&key("a")).record()).unwrap();
        assert_eq!(take_for(&layout, "b", 2), Some(1));
        // Whoever took it died before it was the pod's.
        fs::replace_in_memory(&layout.pod(&key("a")).ids(), 0o600, b"").unwrap();
        assert_eq!(take_for(&layout, "c", 2), Some(0));
        // Nor does what nobody has written stand in the way.
        fs::replace_in_memory(&layout.ids(), 0o600, b"x\0\0 \x001000000\x001000000 /no\0").unwrap();
        assert_eq!(take_for(&layout, "d", 1), Some(0));
    }

    #[test]
    fn states_on_one_machine_share_its_ids() {
        let scratch = Scratch::new();
        let (one, other) = (scratch.layout(), scratch.other_layout());
        let locks = Locks::try_pod(&one, &key("a")).unwrap().unwrap();
        let dir = locks.pod(&key("a")).unwrap();
        dir.create(&record("a")).unwrap();
        take(&one, &dir, ranges(1)).unwrap().unwrap();
        // While a command is at work on the pod, and then while its executor lives.
        assert_eq!(take_for(&other, "a", 2), Some(1));
        remove(&other, "a");
        let executor = dir.lock_for_executor().unwrap();
        drop(locks);
        assert_eq!(take_for(&other, "b", 2), Some(1));
        remove(&other, "b");
        // A dead one's are cleaned up after by the next command of its own state, or have been given to another by then.
        drop(executor);
        assert_eq!(take_for(&one, "c", 1), None);
        assert_eq!(take_for(&other, "d", 1), Some(0));
    }

    #[test]
    fn a_range_that_overlaps_is_taken_too() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let near = |name: &str, first: u32| {
            let locks = Locks::try_pod(&layout, &key(name)).unwrap().unwrap();
            let dir = locks.pod(&key(name)).unwrap();
            dir.create(&record(name)).unwrap();
            let range = IdRange::starting_at(first);
            take(&layout, &dir, range.into_iter()).unwrap().unwrap();
        };
        // As after a change of the machine's ranges.
        near("a", FIRST - 1);
        assert_eq!(take_for(&layout, "b", 2), Some(1));
        remove(&layout, "a");
        remove(&layout, "b");
        near("a", FIRST + IdRange::LENGTH - 1);
        assert_eq!(take_for(&layout, "c", 3), Some(2));
    }

    #[test]
    fn commands_at_the_same_time_get_different_ranges() {
        const PODS: usize = 16;
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let got: BTreeSet<u32> = std::thread::scope(|scope| {
            let layout = &layout;
            let threads: Vec<_> = (0..PODS)
                .map(|n| scope.spawn(move || take_for(layout, &format!("p{n}"), 16)))
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(got.len(), PODS);
    }
}
