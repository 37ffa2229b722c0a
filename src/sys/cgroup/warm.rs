//! Being early with what takes the kernel long. Below version 2 the first process that enters a cgroup after a rest waits
//! for a grace period, about ten milliseconds, in which nobody else can make or enter one; those that follow within the
//! next ten do not.

use std::io;

use super::{Controller, Hierarchies, Version, is_plain};

/// Begins that grace period, in a thread of its own: whoever starts processes in cgroups soon says so as soon as that is
/// certain. Does nothing where all cgroups are of version 2, into which processes are born.
pub fn warm_up() {
    let warm = || {
        if let Err(error) = enter_own() {
            // Then the first entry takes as long as it does.
            tracing::debug!(%error, "cannot enter the own cgroup again");
        }
    };
    if let Err(error) = std::thread::Builder::new().spawn(warm) {
        tracing::debug!(%error, "no thread to enter the own cgroup again");
    }
}

/// Enters the cgroup that this process is in already, which changes nothing.
fn enter_own() -> io::Result<()> {
    let hierarchies = Hierarchies::open().map_err(io::Error::other)?;
    if hierarchies.version() != Some(Version::V1) {
        return Ok(());
    }
    let known = std::fs::read_to_string("/proc/self/cgroup")?;
    let pids = hierarchies.0.iter().find(|h| h.controls(Controller::Pids));
    if let (Some(hierarchy), Some(path)) = (pids, path_of("pids", &known)) {
        let procs = hierarchy.open_procs(path)?;
        rustix::io::write(procs, b"0")?;
    }
    Ok(())
}

/// The path of the cgroup in the hierarchy of a controller; nothing if it is outside of what this process can see.
fn path_of<'a>(controller: &str, known: &'a str) -> Option<&'a str> {
    known.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?.strip_prefix('/')?;
        let found = controllers.split(',').any(|known| known == controller);
        (found && (path.is_empty() || is_plain(path))).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn the_own_cgroup_is_found() {
        let known = "12:pids:/a/b:c\n8:cpu,cpuacct:/\n4:memory:/../other\n0::/user\n";
        assert_eq!(path_of("pids", known), Some("a/b:c"));
        assert_eq!(path_of("cpuacct", known), Some(""));
        assert_eq!(path_of("memory", known), None);
        assert_eq!(path_of("freezer", known), None);
    }
}
