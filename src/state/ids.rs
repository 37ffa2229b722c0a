//! The machine's ids that pods with user namespaces have: a file in the pod's run folder says which. So they are free
//! again when that folder is gone, whoever removed it and why, and at the latest when the machine starts anew. A pod that
//! has ended gives them back before.
//!
//! Ids are taken under one lock for all pods: two pods never get the same.

use std::collections::BTreeSet;

use super::Error;
use super::layout::{Layout, PodPaths};
use super::pod_dir::LockedPodDir;
use crate::sys::fs::{self, LockMode};
use crate::sys::ids::IdRange;

/// Takes the first of these ranges that no pod has, for a pod whose run folder is there. Those that it has already stay
/// its own. Nothing if all are taken.
///
/// # Errors
/// A folder or a file cannot be read or written.
pub fn take(
    layout: &Layout,
    dir: &LockedPodDir<'_>,
    ranges: impl Iterator<Item = IdRange>,
) -> Result<Option<IdRange>, Error> {
    let _lock = fs::lock(&layout.ids_lock(), LockMode::Exclusive)?;
    if let Some(own) = read(dir.paths())? {
        return Ok(Some(own));
    }
    let taken = taken(layout)?;
    let overlaps = |range: &IdRange| {
        let first = range.first();
        let near = first.saturating_sub(IdRange::LENGTH - 1)..=first + (IdRange::LENGTH - 1);
        taken.range(near).next().is_some()
    };
    let mut ranges = ranges;
    let Some(free) = ranges.find(|range| !overlaps(range)) else {
        return Ok(None);
    };
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

/// The first ids of all ranges that pods have.
fn taken(layout: &Layout) -> Result<BTreeSet<u32>, Error> {
    let mut taken = BTreeSet::new();
    let pods = layout.pods_run();
    for name in fs::list(&pods)? {
        let paths = PodPaths::at(layout.pods_data().join(&name), pods.join(&name));
        taken.extend(read(&paths)?.map(IdRange::first));
    }
    Ok(taken)
}

/// What is written is whole or not there; anything else was not written by kplay.
fn parse(content: &[u8]) -> Option<IdRange> {
    IdRange::starting_at(std::str::from_utf8(content).ok()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
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
        let orphan = layout.pod(&key("b"));
        fs::create_dir_all(orphan.run(), 0o700).unwrap();
        fs::replace_in_memory(&orphan.ids(), 0o600, b"1000000").unwrap();
        remove(&layout, "a");
        assert_eq!(take_for(&layout, "c", 2), Some(1));
        fs::replace_in_memory(&orphan.ids(), 0o600, b"").unwrap();
        assert_eq!(take_for(&layout, "d", 2), Some(0));
    }

    #[test]
    fn a_range_that_overlaps_is_taken_too() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        assert_eq!(take_for(&layout, "a", 1), Some(0));
        let a = layout.pod(&key("a"));
        // As after a change of the machine's ranges.
        fs::replace_in_memory(&a.ids(), 0o600, b"999999").unwrap();
        assert_eq!(take_for(&layout, "b", 2), Some(1));
        fs::replace_in_memory(&a.ids(), 0o600, b"1065535").unwrap();
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
