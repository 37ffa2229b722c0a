//! Mount points inside of volumes: where a container mounts one volume below another, the outer one must have a folder
//! for the inner one, and the runtime cannot make it in a volume that is mounted read-only.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::model::names::VolumeName;
use crate::model::plan::VolumeMount;
use crate::sys::dir::Dir;

/// Makes the folders that the containers' `mounts` need in the volume `name`, which is at `root`.
pub(super) fn make_mount_points(
    root: &Path,
    name: &VolumeName,
    mounts: &[&[VolumeMount]],
) -> Result<(), Error> {
    let points = mount_points(name, mounts)?;
    if points.is_empty() {
        return Ok(());
    }
    let root = Dir::open(root)?;
    for point in points {
        root.create_all(&point, 0o755)?;
    }
    Ok(())
}

/// Relative to the volume; not those below another one, which are made in that one's volume.
fn mount_points(name: &VolumeName, mounts: &[&[VolumeMount]]) -> Result<BTreeSet<PathBuf>, Error> {
    let mut points = BTreeSet::new();
    for mounts in mounts {
        let paths: BTreeSet<PathBuf> = mounts.iter().map(clean).collect();
        for outer in mounts.iter().filter(|mount| mount.volume == *name) {
            let outer = clean(outer);
            let mut last: Option<&Path> = None;
            // Sorted by component: parents come right before what is below them.
            for path in &paths {
                let Ok(below) = path.strip_prefix(&outer) else {
                    continue;
                };
                let is_deeper = last.is_some_and(|last| path.starts_with(last));
                if below.as_os_str().is_empty() || is_deeper {
                    continue;
                }
                check(below)?;
                last = Some(path);
                points.insert(below.to_owned());
            }
        }
    }
    Ok(points)
}

/// Without doubled and trailing slashes.
fn clean(mount: &VolumeMount) -> PathBuf {
    mount.mount_path.components().collect()
}

/// Names that start with `..` are the volume's own.
fn check(below: &Path) -> Result<(), Error> {
    let is_reserved = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b"..");
    if below.components().any(is_reserved) {
        return Err(Error::MountPath {
            path: below.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{MountAccess, Propagation};

    #[test]
    fn a_volume_gets_a_folder_for_each_volume_right_below_it() {
        let mount = |(volume, path): &(&str, &str)| VolumeMount {
            volume: VolumeName::parse(volume).unwrap(),
            mount_path: path.into(),
            access: MountAccess::ReadWrite,
            propagation: Propagation::None,
            sub_path: None,
        };
        let check = |mounts: &[(&str, &str)], expected: &[&str]| {
            let list: Vec<VolumeMount> = mounts.iter().map(mount).collect();
            let points = mount_points(&VolumeName::parse("outer").unwrap(), &[&list]).unwrap();
            let expected: BTreeSet<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(points, expected, "{mounts:?}");
        };
        check(&[("outer", "/a")], &[]);
        check(&[("outer", "/a"), ("x", "/b")], &[]);
        check(&[("outer", "/a"), ("x", "/ab")], &[]);
        check(&[("outer", "/a/"), ("x", "//a//b/")], &["b"]);
        check(
            &[
                ("x", "/a/b/c"),
                ("outer", "/a"),
                ("y", "/a/b"),
                ("z", "/a/d/e"),
            ],
            &["b", "d/e"],
        );
        check(
            &[("outer", "/a"), ("outer", "/a/b/c"), ("x", "/a/b/c/d")],
            &["b/c", "d"],
        );
        check(&[("outer", "/"), ("x", "/a")], &["a"]);
    }

    #[test]
    fn reserved_names_are_refused() {
        let mount = |path: &str| VolumeMount {
            volume: VolumeName::parse("outer").unwrap(),
            mount_path: path.into(),
            access: MountAccess::ReadWrite,
            propagation: Propagation::None,
            sub_path: None,
        };
        let name = VolumeName::parse("outer").unwrap();
        for path in ["/a/../b", "/a/..data", "/a/b/..c"] {
            let mounts = [mount("/a"), mount(path)];
            assert!(mount_points(&name, &[&mounts]).is_err(), "{path}");
        }
        let elsewhere = [mount("/a"), mount("/b/..c")];
        assert!(mount_points(&name, &[&elsewhere]).is_ok());
    }
}
