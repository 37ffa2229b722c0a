use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::model::names::VolumeName;
use crate::model::plan::{FieldRef, HostPathType, Medium, MountAccess, Propagation, VolumeFile};
use crate::sys::dir::{self, Dir, Kind};

/// A folder of its own for each test.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("kplay-volumes-{name}-{}", std::process::id()));
        sys::fs::remove_dir_all(&path).unwrap();
        dir::create_all(&path, 0o755).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        sys::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Permissions and group, links not followed.
pub(super) fn mode_and_group(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.gid())
}

/// A group that this process may give files to: its own if it is not root.
pub(super) fn some_group(scratch: &Scratch) -> u32 {
    match mode_and_group(&scratch.0).1 {
        0 => 4242,
        own => own,
    }
}

/// As a pod called `web`.
pub(super) fn resolve(content: &FileContent) -> Vec<u8> {
    match content {
        FileContent::Bytes(bytes) => bytes.clone(),
        FileContent::Field(FieldRef::Name) => b"web".to_vec(),
        FileContent::Field(_) | FileContent::Resource { .. } => Vec::new(),
    }
}

fn volume(source: VolumeSource) -> Volume {
    Volume {
        name: VolumeName::parse("data").unwrap(),
        source,
    }
}

fn empty_dir() -> Volume {
    volume(VolumeSource::EmptyDir {
        medium: Medium::Disk,
        size_limit: None,
        mode: None,
    })
}

struct Setup {
    disk: PathBuf,
    memory: PathBuf,
    claims: BTreeMap<VolumeName, PathBuf>,
    images: BTreeMap<VolumeName, &'static [PathBuf]>,
}

impl Setup {
    fn of(scratch: &Scratch) -> Self {
        Self {
            disk: scratch.path("pod/volumes"),
            memory: scratch.path("pod/memory"),
            claims: BTreeMap::new(),
            images: BTreeMap::new(),
        }
    }

    fn context<'a>(
        &'a self,
        fs_group: Option<u32>,
        mounts: &'a [&'a [VolumeMount]],
    ) -> Context<'a> {
        Context {
            disk: &self.disk,
            memory: &self.memory,
            memory_size: 1 << 20,
            fs_group,
            users: None,
            change_policy: FsGroupChangePolicy::Always,
            claims: &self.claims,
            images: &self.images,
            mounts,
            resolve: &resolve,
        }
    }
}

fn text(path: &Path) -> String {
    String::from_utf8(fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_empty_dir_is_open_to_the_pod_and_closed_to_the_machine() {
    let scratch = Scratch::new("empty-dir");
    let setup = Setup::of(&scratch);
    let root = prepare(&empty_dir(), &setup.context(None, &[])).unwrap();
    assert_eq!(root, scratch.path("pod/volumes/data"));
    assert_eq!(mode_and_group(&root).0, 0o777);
    assert_eq!(mode_and_group(&setup.disk).0, 0o700);
}

#[test]
fn an_empty_dir_of_a_group_is_inherited_by_it() {
    let scratch = Scratch::new("empty-dir-group");
    let setup = Setup::of(&scratch);
    let group = some_group(&scratch);
    let root = prepare(&empty_dir(), &setup.context(Some(group), &[])).unwrap();
    assert_eq!(mode_and_group(&root), (0o2777, group));
    dir::create_file(&root.join("new"), 0o600).unwrap();
    assert_eq!(mode_and_group(&root.join("new")).1, group);
}

#[test]
fn what_is_given_to_a_group_keeps_its_other_bits() {
    let scratch = Scratch::new("give");
    let group = some_group(&scratch);
    let make = |name: &str, mode: u32| {
        let path = scratch.path(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    // The kernel takes setuid away from a program that gets another group.
    let program = make("program", 0o4755);
    let closed = make("closed", 0o000);
    std::fs::create_dir(scratch.path("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scratch.path("link")).unwrap();
    ownership::give(&scratch.0, group, ownership::Access::ReadWrite).unwrap();
    assert_eq!(mode_and_group(&program), (0o4775, group));
    assert_eq!(mode_and_group(&closed), (0o660, group));
    assert_eq!(mode_and_group(&scratch.path("folder")), (0o2775, group));
    assert_eq!(mode_and_group(&scratch.path("link")).1, group);
    assert_ne!(mode_and_group(Path::new("/etc/passwd")).1, group);
}

#[test]
fn a_volume_of_files_has_mount_points_for_others_and_keeps_them() {
    let scratch = Scratch::new("nested");
    let setup = Setup::of(&scratch);
    let mount = |volume: &str, path: &str| VolumeMount {
        volume: VolumeName::parse(volume).unwrap(),
        mount_path: path.into(),
        access: MountAccess::ReadWrite,
        propagation: Propagation::None,
        sub_path: None,
    };
    let mounts = [
        mount("data", "/etc/app"),
        mount("other", "/etc/app/more/deep"),
    ];
    let list: [&[VolumeMount]; 1] = [&mounts];
    let files = |text: &str| {
        volume(VolumeSource::Files {
            files: vec![VolumeFile {
                path: "key".into(),
                mode: 0o644,
                content: FileContent::Bytes(text.into()),
            }],
            medium: Medium::Disk,
        })
    };
    let root = prepare(&files("1"), &setup.context(None, &list)).unwrap();
    assert_eq!(
        dir::kind(&root.join("more/deep")).unwrap(),
        Some(Kind::Folder)
    );
    prepare(&files("2"), &setup.context(None, &list)).unwrap();
    assert_eq!(
        dir::kind(&root.join("more/deep")).unwrap(),
        Some(Kind::Folder)
    );
    assert_eq!(sys::fs::read(&root.join("key")).unwrap(), b"2");
}

#[test]
fn the_pod_resolves_what_only_it_knows() {
    let scratch = Scratch::new("resolve");
    let setup = Setup::of(&scratch);
    let file = |content: FileContent| {
        volume(VolumeSource::Files {
            files: vec![VolumeFile {
                path: "file".into(),
                mode: 0o644,
                content,
            }],
            medium: Medium::Disk,
        })
    };
    let context = setup.context(None, &[]);
    let root = prepare(&file(FileContent::Field(FieldRef::Name)), &context).unwrap();
    assert_eq!(sys::fs::read(&root.join("file")).unwrap(), b"web");
}

#[test]
fn host_paths_are_what_their_type_says() {
    let scratch = Scratch::new("host-path");
    let setup = Setup::of(&scratch);
    dir::create_file(&scratch.path("file"), 0o600).unwrap();
    dir::create_all(&scratch.path("folder"), 0o700).unwrap();
    std::os::unix::fs::symlink("folder", scratch.path("link")).unwrap();
    let socket = scratch.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let check = |path: &Path, kind: HostPathType, expected: Option<&str>| {
        let source = VolumeSource::HostPath {
            path: path.to_owned(),
            kind,
        };
        let actual = prepare(&volume(source), &setup.context(Some(1), &[]));
        match expected {
            None => assert_eq!(actual.unwrap(), path),
            Some(expected) => {
                let expected = format!(
                    "hostPath type check failed: {} is not {expected}",
                    path.display()
                );
                assert_eq!(actual.unwrap_err().to_string(), expected);
            }
        }
    };
    let (file, folder, link) = (
        scratch.path("file"),
        scratch.path("folder"),
        scratch.path("link"),
    );
    let none = scratch.path("none");
    let null = Path::new("/dev/null");
    check(&folder, HostPathType::Directory, None);
    check(&link, HostPathType::Directory, None);
    check(&file, HostPathType::Directory, Some("a directory"));
    check(&none, HostPathType::Directory, Some("a directory"));
    check(&file, HostPathType::DirectoryOrCreate, Some("a directory"));
    check(&file, HostPathType::File, None);
    check(&folder, HostPathType::File, Some("a file"));
    check(&none, HostPathType::File, Some("a file"));
    check(null, HostPathType::File, Some("a file"));
    check(&folder, HostPathType::FileOrCreate, Some("a file"));
    check(&socket, HostPathType::Socket, None);
    check(&file, HostPathType::Socket, Some("a socket file"));
    check(null, HostPathType::CharDevice, None);
    check(&file, HostPathType::CharDevice, Some("a character device"));
    check(null, HostPathType::BlockDevice, Some("a block device"));
    check(&file, HostPathType::Unset, None);
    check(&socket, HostPathType::Unset, None);
    // Made where the type says so, with exact modes.
    check(&scratch.path("a/b"), HostPathType::Unset, None);
    assert_eq!(mode_and_group(&scratch.path("a/b")).0, 0o755);
    check(&scratch.path("c/d"), HostPathType::DirectoryOrCreate, None);
    assert_eq!(mode_and_group(&scratch.path("c")).0, 0o755);
    check(&scratch.path("e"), HostPathType::FileOrCreate, None);
    assert_eq!(mode_and_group(&scratch.path("e")).0, 0o644);
    // What is there keeps its mode: a group is not for the machine's own files.
    assert_eq!(mode_and_group(&folder).0, 0o700);
    // A file's folder is not made.
    let source = VolumeSource::HostPath {
        path: scratch.path("no/such/file"),
        kind: HostPathType::FileOrCreate,
    };
    assert!(prepare(&volume(source), &setup.context(None, &[])).is_err());
    let source = VolumeSource::HostPath {
        path: scratch.path("folder/../file"),
        kind: HostPathType::Unset,
    };
    assert!(matches!(
        prepare(&volume(source), &setup.context(None, &[])),
        Err(Error::HostPathParent { .. })
    ));
}

#[test]
fn secrets_are_in_memory() {
    let scratch = Scratch::new("memory");
    let setup = Setup::of(&scratch);
    let group = some_group(&scratch);
    mount::testing::in_private_mounts(|| {
        let secret = volume(VolumeSource::Files {
            files: vec![VolumeFile {
                path: "key".into(),
                mode: 0o400,
                content: FileContent::Bytes("1".into()),
            }],
            medium: Medium::Memory,
        });
        let root = prepare(&secret, &setup.context(Some(group), &[])).unwrap();
        let stat = rustix::fs::statfs(&root).unwrap();
        assert_eq!(
            stat.f_blocks * u64::try_from(stat.f_bsize).unwrap(),
            1 << 20
        );
        assert_eq!(mode_and_group(&root), (0o3777, group));
        assert_eq!(mode_and_group(&setup.memory).0, 0o700);
        assert_eq!(mode_and_group(&root.join("..data/key")), (0o440, group));
    });
    // Nothing of it is on the disk.
    assert_eq!(sys::fs::list(&setup.memory.join("data")).unwrap().len(), 0);
}

#[test]
fn names_are_bytes() {
    let scratch = Scratch::new("bytes");
    let root = Dir::open(&scratch.0).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    root.create_folder(name, 0o700).unwrap();
    assert_eq!(root.entries().unwrap(), [(name.to_owned(), Kind::Folder)]);
}

#[test]
fn a_sub_path_does_not_leave_its_volume() {
    let dir = Scratch::new("sub");
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
    assert_eq!(mode_and_group(&volume.join("a/new")).0, 0o2770);
    assert_eq!(mode_and_group(&volume.join("a/new/deep")).0, 0o2770);
    assert_eq!(fs::list(&dir.0.join("outside")).unwrap().len(), 0);
    assert!(!Path::new("/etc/kplay-test").exists());
}

/// A container exchanges a folder and a link to the outside while the folder is mounted: it never gets the outside.
#[test]
fn a_sub_path_is_mounted_from_inside_however_its_path_changes() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = Scratch::new("swap");
    let volume = dir.0.join("volume");
    for (folder, text) in [
        ("volume/part/inner", "inside"),
        ("outside/inner", "outside"),
    ] {
        std::fs::create_dir_all(dir.0.join(folder)).unwrap();
        std::fs::write(dir.0.join(folder).join("marker"), text).unwrap();
    }
    std::os::unix::fs::symlink("../outside", volume.join("link")).unwrap();
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        let stopped = Stop(&stop);
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
            // How many tries hit the folder is for the scheduler to say.
            for number in 0..20_000 {
                let target = mounts.join(number.to_string());
                let missing = Missing::Refuse;
                if mount_sub_path(&volume, Path::new("part/inner"), missing, &target).is_ok() {
                    assert_eq!(text(&target.join("marker")), "inside");
                    found += 1;
                }
                if found == 50 {
                    break;
                }
            }
            assert!(found > 0);
            unmount_sub_paths(&mounts).unwrap();
        });
        drop(stopped);
        assert!(!mounts.exists());
    });
    // Nothing went with the mounts.
    assert_eq!(text(&dir.0.join("outside/inner/marker")), "outside");
}

#[test]
fn mounted_parts_are_undone_and_stay_what_they_are() {
    let dir = Scratch::new("parts");
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
