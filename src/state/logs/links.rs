//! Links to the logs of containers by their names, as a kubelet's in `/var/log/containers`, where collectors of logs look
//! for what a line is from:
//!
//! ```text
//! POD_NS_CONTAINER-ID.log -> ../logs/NS_NAME_UID/CONTAINER/N.log
//! ```

use std::path::{Path, PathBuf};

use crate::model::names::PodKey;
use crate::sys::fs;

/// What a file's name has at most.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";

/// Makes the link to the log of a container's run, which is there. `id` is the run's.
///
/// # Errors
/// It cannot be made.
pub fn make(folder: &Path, pod: &PodKey, container: &str, id: &str, log: &Path) -> fs::Result<()> {
    let target = match folder.parent().map(|root| log.strip_prefix(root)) {
        // Also where all of it is seen at another place.
        Some(Ok(below)) => Path::new("..").join(below),
        Some(Err(_)) | None => log.to_owned(),
    };
    fs::symlink(&target, &folder.join(name(pod, container, id)))
}

/// As a kubelet cuts it (`legacy.go:logSymlink`).
fn name(pod: &PodKey, container: &str, id: &str) -> PathBuf {
    let mut name = format!("{}_{}_{container}-{id}", pod.name, pod.namespace);
    // All of it is ASCII.
    name.truncate(LONGEST - SUFFIX.len());
    PathBuf::from(name + SUFFIX)
}

/// Removes the links whose logs are gone. Fine if there is no folder.
///
/// # Errors
/// The folder cannot be read, or a link cannot be removed.
pub fn sweep(folder: &Path) -> fs::Result<()> {
    for name in fs::list(folder)? {
        let link = folder.join(name);
        if !link.exists() {
            fs::remove_file(&link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PodKey {
        PodKey {
            namespace: "ns".to_owned().try_into().unwrap(),
            name: name.to_owned().try_into().unwrap(),
        }
    }

    #[test]
    fn names_are_a_kubelets() {
        let id = "0123456789abcdef".repeat(4);
        let short = name(&key("web-0"), "main", &id);
        assert_eq!(short, PathBuf::from(format!("web-0_ns_main-{id}.log")));
        let long = name(&key(&"p".repeat(200)), "main", &id);
        let long = long.to_str().unwrap();
        assert_eq!(long.len(), 255);
        assert!(
            long.ends_with(&format!("_ns_main-{}.log", &id[..42])),
            "{long}"
        );
    }

    #[test]
    fn links_go_with_their_logs() {
        let random = crate::sys::identity::random_hex().unwrap();
        let root = std::env::temp_dir().join(format!("kplay-links-{random}"));
        let (folder, logs) = (root.join("container-logs"), root.join("logs/ns_web_u/main"));
        sweep(&folder).unwrap();
        for path in [&folder, &logs] {
            fs::create_dir_all(path, 0o700).unwrap();
        }
        for (run, id) in [("0.log", "a"), ("1.log", "b")] {
            fs::overwrite(&logs.join(run), 0o600, run.as_bytes()).unwrap();
            make(&folder, &key("web"), "main", id, &logs.join(run)).unwrap();
        }
        let first = folder.join("web_ns_main-a.log");
        let target = fs::read_link(&first).unwrap();
        assert_eq!(target, Path::new("../logs/ns_web_u/main/0.log"));
        assert_eq!(fs::read(&first).unwrap(), b"0.log");
        fs::remove_file(&logs.join("0.log")).unwrap();
        sweep(&folder).unwrap();
        assert_eq!(fs::list(&folder).unwrap(), ["web_ns_main-b.log"]);
        fs::remove_dir_all(&root).unwrap();
    }
}
