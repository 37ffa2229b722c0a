use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::model::names::VolumeName;
use crate::model::plan::HostPathType;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kplay-volume-{}-{name}", std::process::id()));
        fs::create_dir_all(&path, 0o755).unwrap();
        Self(path)
    }

    fn prepare(&self, source: VolumeSource, fs_group: Option<u32>) -> Result<PathBuf, Error> {
        let volume = Volume {
            name: VolumeName::parse("v").unwrap(),
            source,
        };
        let dirs = VolumeDirs {
            disk: &self.0,
            memory: &self.0,
        };
        prepare(&volume, &dirs, fs_group, &|content| match content {
            FileContent::Bytes(bytes) => bytes.clone(),
            FileContent::Field(_) | FileContent::Resource { .. } => b"resolved".to_vec(),
        })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn files(content: &[(&str, u32, &str)]) -> VolumeSource {
    VolumeSource::Files {
        files: content
            .iter()
            .map(|(path, mode, text)| VolumeFile {
                path: path.into(),
                mode: *mode,
                content: FileContent::Bytes(text.as_bytes().to_vec()),
            })
            .collect(),
        medium: Medium::Disk,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn text(path: &Path) -> String {
    String::from_utf8(fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_empty_dir_is_for_everybody() {
    let dir = Dir::new("empty");
    let source = || VolumeSource::EmptyDir {
        medium: Medium::Disk,
        size_limit: None,
    };
    assert_eq!(mode(&dir.prepare(source(), None).unwrap()), 0o777);
    let path = dir.prepare(source(), Some(77)).unwrap();
    assert_eq!(mode(&path), 0o2777);
    assert_eq!(std::fs::metadata(&path).unwrap().gid(), 77);
}

#[test]
fn files_are_written_as_the_kubelet_does() {
    let dir = Dir::new("files");
    let path = dir
        .prepare(files(&[("a", 0o644, "1"), ("d/e/f", 0o400, "2")]), None)
        .unwrap();
    assert_eq!(
        std::fs::read_link(path.join("a")).unwrap(),
        Path::new("..data/a")
    );
    assert_eq!(
        std::fs::read_link(path.join("d")).unwrap(),
        Path::new("..data/d")
    );
    assert_eq!(text(&path.join("d/e/f")), "2");
    assert_eq!(mode(&path.join("d/e/f")), 0o400);
    let version = std::fs::read_link(path.join("..data")).unwrap();
    assert!(version.to_str().unwrap().starts_with("..20"));
    assert_eq!(mode(&path.join(&version)), 0o755);

    dir.prepare(files(&[("a", 0o644, "3"), ("b", 0o600, "4")]), Some(77))
        .unwrap();
    let names: Vec<_> = fs::list(&path).unwrap();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(text(&path.join("a")), "3");
    assert_eq!(mode(&path.join("b")), 0o640);
    assert_eq!(std::fs::metadata(path.join("b")).unwrap().gid(), 77);
}

#[test]
fn a_reader_never_sees_two_versions() {
    let dir = Dir::new("versions");
    let version = |n: u32| files(&[("a", 0o644, &n.to_string()), ("b", 0o644, &n.to_string())]);
    let path = dir.prepare(version(0), None).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // As a careful program does it: one version is opened, both files are read from it.
                let Ok(data) = std::fs::canonicalize(path.join("..data")) else {
                    continue;
                };
                if let (Ok(a), Ok(b)) =
                    (std::fs::read(data.join("a")), std::fs::read(data.join("b")))
                {
                    assert_eq!(a, b);
                }
            }
        });
        for n in 1..200 {
            dir.prepare(version(n), None).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn file_names_stay_in_the_volume() {
    let dir = Dir::new("escape");
    for name in ["../x", "/x", "a/../../x", "..x", ""] {
        let refused = dir.prepare(files(&[(name, 0o644, "")]), None);
        assert!(matches!(refused, Err(Error::Escape { .. })), "{name:?}");
    }
}

#[test]
fn host_paths_are_checked_in_the_kubelets_words() {
    let dir = Dir::new("host");
    let file = dir.0.join("file");
    let folder = dir.0.join("folder");
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir(&folder).unwrap();
    let check = |path: &Path, kind: HostPathType, expected: Option<&str>| {
        let source = VolumeSource::HostPath {
            path: path.to_owned(),
            kind,
        };
        let error = dir.prepare(source, None).err().map(|e| e.to_string());
        let expected =
            expected.map(|text| format!("hostPath type check failed: {} {text}", path.display()));
        assert_eq!(error, expected, "{kind:?}");
    };
    check(&file, HostPathType::Unset, None);
    check(&file, HostPathType::File, None);
    check(&file, HostPathType::FileOrCreate, None);
    check(&file, HostPathType::Directory, Some("is not a directory"));
    check(
        &file,
        HostPathType::DirectoryOrCreate,
        Some("is not a directory"),
    );
    check(&folder, HostPathType::Directory, None);
    check(&folder, HostPathType::File, Some("is not a file"));
    check(&folder, HostPathType::Socket, Some("is not a socket file"));
    check(
        &folder,
        HostPathType::BlockDevice,
        Some("is not a block device"),
    );
    check(Path::new("/dev/null"), HostPathType::CharDevice, None);
    check(
        &file,
        HostPathType::CharDevice,
        Some("is not a character device"),
    );
    check(
        &dir.0.join("none"),
        HostPathType::Directory,
        Some("is not a directory"),
    );
    check(&dir.0.join("new"), HostPathType::Unset, None);
    assert_eq!(mode(&dir.0.join("new")), 0o755);
    check(&dir.0.join("new-file"), HostPathType::FileOrCreate, None);
    assert_eq!(mode(&dir.0.join("new-file")), 0o644);
}

#[test]
fn a_sub_path_does_not_leave_its_volume() {
    let dir = Dir::new("sub");
    let volume = dir.0.join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o2770)).unwrap();
    std::fs::create_dir(dir.0.join("outside")).unwrap();
    std::fs::write(volume.join("file"), "x").unwrap();
    std::fs::create_dir_all(volume.join("a/b")).unwrap();
    let link = |name: &str, target: &str| {
        std::os::unix::fs::symlink(target, volume.join(name)).unwrap();
    };
    link("inside", "a");
    link("around", "a/../a/b");
    link("parent", "../outside");
    link("absolute", "/etc");
    link("own", volume.to_str().unwrap());
    link("broken", "nowhere");
    link("loop", "loop");
    let check = |path: &str, missing, expected: bool| {
        let found = find_sub_path(&volume, Path::new(path), missing);
        assert_eq!(found.is_ok(), expected, "{path:?} {missing:?}: {found:?}");
    };
    for missing in [Missing::Refuse, Missing::Create] {
        for path in ["file", "a", "a//b/.", "inside", "inside/b", "around"] {
            check(path, missing, true);
        }
        for path in [
            "parent",
            "parent/new",
            "absolute",
            "absolute/passwd",
            "absolute/kplay-test",
            "own/a",
            "broken",
            "loop",
            "file/x",
        ] {
            check(path, missing, false);
        }
    }
    check("..", Missing::Refuse, false);
    check("new", Missing::Refuse, false);
    check("inside/new/deep", Missing::Create, true);
    // With the mode of the volume's root, all of them.
    assert_eq!(mode(&volume.join("a/new")), 0o2770);
    assert_eq!(mode(&volume.join("a/new/deep")), 0o2770);
    assert_eq!(fs::list(&dir.0.join("outside")).unwrap().len(), 0);
    assert!(!Path::new("/etc/kplay-test").exists());
}

/// A container exchanges a folder and a link to the outside while the folder is mounted: it never gets the outside.
#[test]
fn a_sub_path_is_mounted_from_inside_however_its_path_changes() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = Dir::new("swap");
    let volume = dir.0.join("volume");
    for (folder, text) in [
        ("volume/part/inner", "inside"),
        ("outside/inner", "outside"),
    ] {
        std::fs::create_dir_all(dir.0.join(folder)).unwrap();
        std::fs::write(dir.0.join(folder).join("marker"), text).unwrap();
    }
    std::os::unix::fs::symlink("../outside", volume.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (part, link) = (volume.join("part"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                rustix::fs::renameat_with(here, &part, here, &link, flags).unwrap();
            }
        });
        let mounts = dir.0.join("mounts");
        mount::testing::in_private_mounts(|| {
            let mut found = 0;
            for number in 0..300 {
                let target = mounts.join(number.to_string());
                let missing = Missing::Refuse;
                if mount_sub_path(&volume, Path::new("part/inner"), missing, &target).is_ok() {
                    assert_eq!(text(&target.join("marker")), "inside");
                    found += 1;
                }
            }
            assert!(found > 0);
            unmount_sub_paths(&mounts).unwrap();
        });
        stop.store(true, Ordering::Relaxed);
        assert!(!mounts.exists());
    });
    // Nothing went with the mounts.
    assert_eq!(text(&dir.0.join("outside/inner/marker")), "outside");
}

#[test]
fn mounted_parts_are_undone_and_stay_what_they_are() {
    let dir = Dir::new("parts");
    let volume = dir.0.join("volume");
    let mounts = dir.0.join("mounts");
    std::fs::create_dir_all(volume.join("folder")).unwrap();
    std::fs::write(volume.join("folder/file"), "x").unwrap();
    mount::testing::in_private_mounts(|| {
        let part = |path: &str, number: &str| {
            let target = mounts.join(number);
            mount_sub_path(&volume, Path::new(path), Missing::Refuse, &target).unwrap();
            target
        };
        assert_eq!(text(&part("folder/file", "0")), "x");
        assert_eq!(text(&part("folder", "1").join("file")), "x");
        unmount_sub_paths(&mounts).unwrap();
        unmount_sub_paths(&mounts).unwrap();
        // What is still mounted on is not emptied.
        std::fs::create_dir_all(mounts.join("0/kept")).unwrap();
        unmount_sub_paths(&mounts).unwrap_err();
        assert!(mounts.join("0/kept").exists());
    });
    assert_eq!(text(&volume.join("folder/file")), "x");
}
