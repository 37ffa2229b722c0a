//! What containers use of the machine, as their cgroups count it. Processor time is a rate between two looks.

use std::time::Instant;

use super::cgroups;
use super::error::Error;
use crate::state::pod_dir::PodDir;
use crate::sys::cgroup::{self, Cgroup};

/// A container's use at one moment. What its cgroup does not count is none.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Since the container's start, in microseconds.
    pub processor: Option<u64>,
    /// The working set, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// When this was.
    pub at: Instant,
}

impl Usage {
    /// Billionths of a processor since an earlier look at the same run.
    #[must_use]
    pub fn nanocores_since(&self, before: &Self) -> Option<u64> {
        let used = u128::from(self.processor?.checked_sub(before.processor?)?);
        let elapsed = self.at.duration_since(before.at).as_micros().max(1);
        u64::try_from(used * 1_000_000_000 / elapsed).ok()
    }
}

/// What the present run of a pod's container uses; none if it does not run, or if nothing counts it: who is not root may
/// have no cgroup.
///
/// # Errors
/// A counter cannot be read.
pub fn of_container(dir: &PodDir, uid: &str, container: &str) -> Result<Option<Usage>, Error> {
    let Some(pod) = cgroups::of_pod(dir, uid)? else {
        return Ok(None);
    };
    let runs = pod.children().map_err(failed)?;
    let last = runs
        .iter()
        .filter_map(|run| Some((run_of(run.name(), container)?, run)))
        .max_by_key(|(number, _)| *number);
    let Some((_, run)) = last else {
        return Ok(None);
    };
    match look(run) {
        Ok(usage) => Ok(Some(usage)),
        // It has ended meanwhile.
        Err(_) if run.is_gone() => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: cgroup::Error) -> Error {
    Error::Io {
        verb: "read what a container uses",
        source: std::io::Error::other(error),
    }
}

fn look(run: &Cgroup) -> cgroup::Result<Usage> {
    Ok(Usage {
        processor: run.cpu_usage()?,
        memory: run.working_set()?,
        pids: run.pids_current()?,
        at: Instant::now(),
    })
}

/// The number of the run of a container whose cgroup has this name.
fn run_of(name: &str, container: &str) -> Option<u32> {
    name.strip_prefix(container)?
        .strip_prefix('-')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_run_is_told_from_another_containers() {
        assert_eq!(run_of("web-0", "web"), Some(0));
        assert_eq!(run_of("web-12", "web"), Some(12));
        assert_eq!(run_of("web-0-3", "web"), None);
        assert_eq!(run_of("web-0-3", "web-0"), Some(3));
        assert_eq!(run_of("_sandbox", "web"), None);
    }

    #[test]
    fn processor_time_is_a_rate() {
        let at = Instant::now();
        let usage = |processor, at| Usage {
            processor,
            memory: None,
            pids: None,
            at,
        };
        let check = |before, now, expected| {
            let later = usage(now, at + Duration::from_secs(2));
            assert_eq!(later.nanocores_since(&usage(before, at)), expected);
        };
        check(Some(1_000_000), Some(2_000_000), Some(500_000_000));
        check(Some(0), Some(4_000_000), Some(2_000_000_000));
        // Another run has begun.
        check(Some(5), Some(4), None);
        check(None, Some(4), None);
    }
}
