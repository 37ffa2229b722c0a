//! Which ids of the machine pods with user namespaces (`hostUsers: false`) get: those that /etc/subuid and /etc/subgid
//! give to `kubelet`, which is what a kubelet takes, or to `root`; else [`DEFAULT`], without what users, groups and
//! anybody's subordinate ids are in.

use std::ops::Range;
use std::path::Path;

use super::error::Error;
use crate::state::ids;
use crate::state::layout::Layout;
use crate::state::pod_dir::LockedPodDir;
use crate::sys::fs;
use crate::sys::ids::IdRange;

/// Where nobody else takes ids from: behind systemd's for its containers, before its foreign ones
/// (<https://systemd.io/UIDS-GIDS/>).
const DEFAULT: Range<u32> = 0x7000_0000..0x7ffe_0000;

/// Whose subordinate ids are the pods', the first that has some.
const OWNERS: [&str; 2] = ["kubelet", "root"];

/// Takes ids for a pod that is about to start.
///
/// # Errors
/// There are none left; a file cannot be read or written.
pub(super) fn take(layout: &Layout, dir: &LockedPodDir<'_>) -> Result<(), Error> {
    let machine = Machine::read()?;
    match ids::take(layout, dir, machine.ranges().into_iter())? {
        Some(_) => Ok(()),
        None => Err(Error::NoIds {
            pod: dir.key().clone(),
            all: machine.source(),
        }),
    }
}

/// What the machine's files say about ids.
#[derive(Debug, Default)]
struct Machine {
    passwd: String,
    group: String,
    subuid: String,
    subgid: String,
}

impl Machine {
    fn read() -> Result<Self, Error> {
        let read = |file: &str| -> Result<String, Error> {
            let content = fs::read_if_there(&Path::new("/etc").join(file))?;
            Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
        };
        Ok(Self {
            passwd: read("passwd")?,
            group: read("group")?,
            subuid: read("subuid")?,
            subgid: read("subgid")?,
        })
    }

    /// Whose ids they are, and which: users and groups with the same numbers.
    fn given(&self) -> Option<(&'static str, Vec<Range<u32>>)> {
        OWNERS.into_iter().find_map(|owner| {
            let of_owner = |file| subordinate(file).filter(|(name, _)| *name == owner);
            let groups: Vec<Range<u32>> = of_owner(&self.subgid).map(|(_, ids)| ids).collect();
            let both: Vec<Range<u32>> = of_owner(&self.subuid)
                .flat_map(|(_, users)| groups.iter().map(move |groups| common(&users, groups)))
                .filter(|ids| !ids.is_empty())
                .collect();
            (!both.is_empty()).then_some((owner, both))
        })
    }

    /// What pods may have, in the order in which they get it.
    fn ranges(&self) -> Vec<IdRange> {
        if let Some((_, given)) = self.given() {
            return given.into_iter().flat_map(slices).collect();
        }
        let taken: Vec<Range<u32>> = [&self.subuid, &self.subgid]
            .into_iter()
            .flat_map(|file| subordinate(file).map(|(_, ids)| ids))
            .chain(numbers(&self.passwd))
            .chain(numbers(&self.group))
            .collect();
        slices(DEFAULT)
            .filter(|range| {
                let ids = range.first()..range.first() + IdRange::LENGTH;
                taken.iter().all(|taken| common(taken, &ids).is_empty())
            })
            .collect()
    }

    /// Where the ids come from, in words.
    fn source(&self) -> String {
        match self.given() {
            Some((owner, _)) => {
                format!("the ids that /etc/subuid and /etc/subgid give to `{owner}`")
            }
            None => format!("the ids from {} to {}", DEFAULT.start, DEFAULT.end - 1),
        }
    }
}

/// As many whole ranges as there are, one after the other.
fn slices(ids: Range<u32>) -> impl Iterator<Item = IdRange> {
    let last = ids.end.saturating_sub(IdRange::LENGTH - 1);
    (ids.start..last)
        .step_by(IdRange::LENGTH as usize)
        .filter_map(IdRange::starting_at)
}

fn common(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// The lines `NAME:FIRST:COUNT` of /etc/subuid and /etc/subgid.
pub(super) fn subordinate(file: &str) -> impl Iterator<Item = (&str, Range<u32>)> {
    file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        Some((name, first..first.checked_add(count)?))
    })
}

/// The third field of each line: the number of a user or a group.
fn numbers(file: &str) -> impl Iterator<Item = Range<u32>> {
    file.lines().filter_map(|line| {
        let id: u32 = line.split(':').nth(2)?.parse().ok()?;
        Some(id..id.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(machine: &Machine, count: usize) -> Vec<u32> {
        let ranges = machine.ranges().into_iter().take(count);
        ranges.map(IdRange::first).collect()
    }

    #[test]
    fn ids_are_what_the_machine_gives_to_pods() {
        let check = |subuid: &str, subgid: &str, expected: &[u32]| {
            let machine = Machine {
                subuid: subuid.to_owned(),
                subgid: subgid.to_owned(),
                ..Machine::default()
            };
            assert_eq!(firsts(&machine, 2), expected, "{subuid} {subgid}");
        };
        let default = [0x7000_0000, 0x7001_0000];
        check("", "", &default);
        check("me:100000:65536", "me:100000:65536", &default);
        check("root:100000:65536", "root:100000:65536", &[100_000]);
        check("root:100000:65535", "root:100000:65535", &[]);
        check("root:100000:65536", "", &default);
        check(
            "root:100000:200000",
            "root:100000:200000",
            &[100_000, 165_536],
        );
        check(
            "root:100000:200000",
            "root:150000:200000",
            &[150_000, 215_536],
        );
        let both = "root:100000:65536\n# x\nkubelet:500000:131072\n";
        check(both, both, &[500_000, 565_536]);
        check("root:0:4294967295", "root:0:4294967295", &[65_536, 131_072]);
        check("root:x:1\nroot:4294967295:9", "root", &default);
    }

    #[test]
    fn the_default_leaves_out_what_others_have() {
        let machine = Machine {
            passwd: "root:x:0:0::/:\nx:x:1879048192:0::/:\n".to_owned(),
            group: "y:x:1879179264:\n".to_owned(),
            subuid: "me:1879310335:2\n".to_owned(),
            subgid: String::new(),
        };
        let nth = |n: u32| DEFAULT.start + n * IdRange::LENGTH;
        assert_eq!(firsts(&machine, 3), [nth(1), nth(5), nth(6)]);
        let machine = Machine::default();
        assert_eq!(machine.ranges().len(), 4094);
        assert_eq!(
            machine.ranges().last().unwrap().first(),
            DEFAULT.end - IdRange::LENGTH
        );
    }
}
