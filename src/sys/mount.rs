//! Mounts, as this thread's mount namespace sees them.

pub mod tree;

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::fs::{Error, Result};
use super::userns;

/// The longest option string that `mount(2)` takes: a page with its zero byte.
const LONGEST_OPTIONS: usize = 4095;

/// Whether what is mounted can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// Lets mounts of the parent namespace come in, and none go out.
///
/// # Errors
/// The caller may not.
pub fn make_slave() -> Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    rustix::mount::mount_change("/", flags)
        .map_err(|e| Error::new("change the mount propagation of", "/", e))
}

/// Mounts an empty tmpfs. `options` as for mount(8): `size=64m,mode=1777`.
///
/// # Errors
/// The caller may not, or an option is wrong.
pub fn tmpfs(target: &Path, options: &str) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", target, "tmpfs", flags, options)
        .map_err(|e| Error::new("mount a tmpfs on", target, e))
}

/// Mounts the cgroups of version 2 that this process's cgroup namespace has, to be read only.
///
/// # Errors
/// The caller may not, or the kernel has none.
pub fn read_only_cgroups(target: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("cgroup2", target, "cgroup2", flags, "")
        .map_err(|e| Error::new("mount cgroups on", target, e))
}

/// Mounts `/sys` as it is for this thread's network namespace, to be read only.
///
/// # Errors
/// The caller may not, or something hides a part of the one that is there.
pub fn read_only_sys(target: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("sysfs", target, "sysfs", flags, "")
        .map_err(|e| Error::new("mount a new /sys on", target, e))
}

/// Whether nothing of what is mounted at a place can be written to.
///
/// # Errors
/// It is not there.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let found = rustix::fs::statvfs(path).map_err(|e| Error::new("look at", path, e))?;
    Ok(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Mounts an empty tmpfs of at most `size` bytes, mode 1777, whose content is never swapped out where the kernel has that
/// (6.4 and later, outside of user namespaces).
///
/// # Errors
/// The caller may not, or `target` is no folder.
pub fn unswapped_tmpfs(target: &Path, size: u64) -> Result<()> {
    let options = format!("mode=1777,size={size}");
    let with = |options: &str| mount("tmpfs", target, "tmpfs", MountFlags::empty(), options);
    match with(&format!("{options},noswap")) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => with(&options),
        other => other,
    }
    .map_err(|e| Error::new("mount a tmpfs on", target, e))
}

/// Mounts `source`, with what is mounted below it, on `target` as well.
///
/// # Errors
/// The caller may not, or one of them is not there.
pub fn bind(source: &Path, target: &Path, access: Access) -> Result<()> {
    if access == Access::ReadOnly && !userns::is_initial() {
        // What the machine says of its mounts (`nosuid` and the like) has to stay, which a remount would take away.
        let tree = tree::copy(source)?;
        tree::set_read_only(&tree, tree::Depth::Top)?;
        return tree::place(tree, target);
    }
    rustix::mount::mount_bind_recursive(source, target)
        .map_err(|e| Error::new("mount over", target, e))?;
    match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => {
            rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")
                .map_err(|e| Error::new("make read-only", target, e))
        }
    }
}

/// Mounts the file or folder that a descriptor holds, with what is mounted below it, on `target`, which is made: nobody
/// can put something else in its place, as with a path. `target`'s parent must be there, and nobody else's.
///
/// # Errors
/// The caller may not, or there is something of the name of `target`.
pub fn bind_held(held: impl AsFd, target: &Path) -> Result<()> {
    make_mount_point(held.as_fd(), target)
        .map_err(|e| Error::new("make the mount point", target, e))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(held, "", flags)
        .and_then(|tree| {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(tree, "", CWD, target, flags)
        })
        .map_err(|e| Error::new("mount over", target, e))
}

/// A folder for a folder, an empty file for anything else.
fn make_mount_point(held: impl AsFd, target: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(held)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        rustix::fs::mkdir(target, Mode::RWXU)
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(target, flags, Mode::RUSR | Mode::WUSR).map(drop)
    }
}

/// Gives a copy of a mount ([`tree`]) a place of its own: `target`, which is made, as by [`bind_held`].
///
/// # Errors
/// The caller may not, or there is something of the name of `target`.
pub fn place_new(tree: impl AsFd, target: &Path) -> Result<()> {
    make_mount_point(tree.as_fd(), target)
        .map_err(|e| Error::new("make the mount point", target, e))?;
    tree::place(tree, target)
}

/// Makes a folder or a mount a mount of its own that is shared: what is mounted on copies of it appears on all of them.
///
/// # Errors
/// The caller may not, or it is not there.
pub fn share(path: &Path) -> Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_bind_recursive(path, path)
        .and_then(|()| rustix::mount::mount_change(path, flags))
        .map_err(|e| Error::new("share the mounts of", path, e))
}

/// Undoes [`bind_held`]: takes the mount away and removes the empty file or folder below it, but never anything that
/// is mounted. Fine if there is none.
///
/// # Errors
/// The caller may not, or the mount point is not empty: it is still mounted on.
pub fn unbind_held(target: &Path) -> Result<()> {
    detach(target)?;
    let removed = match rustix::fs::unlinkat(CWD, target, AtFlags::REMOVEDIR) {
        Err(rustix::io::Errno::NOTDIR) => rustix::fs::unlinkat(CWD, target, AtFlags::empty()),
        other => other,
    };
    match removed {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::new("remove the mount point", target, e)),
    }
}

/// The folders that make an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// The lowest first. At least one, at most about 200.
    pub layers: &'a [PathBuf],
    /// Takes what is written.
    pub upper: &'a Path,
    /// Empty, on the file system of `upper`.
    pub work: &'a Path,
    /// The user namespace whose ids the files of the layers get. Those of `upper` have them on the disk.
    pub users: Option<BorrowedFd<'a>>,
}

/// Mounts an overlay. What is written to it is not synced to the disk: it is not to outlive a crash of the machine.
///
/// # Errors
/// A folder is not there, there are too many layers, or the kernel refuses.
pub fn overlay(overlay: Overlay<'_>, target: &Path) -> Result<()> {
    // By descriptor, so that neither the length of the paths nor a comma or colon in them matters.
    let Lower {
        mut held,
        text: lower,
        _stage,
    } = Lower::hold(overlay.layers, overlay.users, target)?;
    let upper = hold(overlay.upper, &mut held)?;
    let work = hold(overlay.work, &mut held)?;
    let options = format!(
        "lowerdir={lower},upperdir={upper},workdir={work}{}",
        marks()
    );
    let volatile = format!("{options},volatile");
    if volatile.len() > LONGEST_OPTIONS {
        let source = io::Error::new(io::ErrorKind::ArgumentListTooLong, "too many layers");
        return Err(Error::new("mount an overlay on", target, source));
    }
    let none = MountFlags::empty();
    match mount("overlay", target, "overlay", none, &volatile) {
        // Kernels before 5.10.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            mount("overlay", target, "overlay", none, &options)
        }
        other => other,
    }
    .map_err(|e| Error::new("mount an overlay on", target, explain(e, overlay.users)))
}

/// In a user namespace the marks of what a layer hides are attributes that everybody may set.
fn marks() -> &'static str {
    if userns::is_initial() {
        ""
    } else {
        ",userxattr"
    }
}

/// Says what the kernel's error numbers do not.
fn explain(error: io::Error, users: Option<BorrowedFd<'_>>) -> io::Error {
    let number = error.raw_os_error();
    if matches!(number, Some(libc::EPERM | libc::EINVAL)) && !userns::is_initial() {
        let why = "overlays that root does not mount need Linux 5.11, and folders on a file system that may be below one";
        return io::Error::new(io::ErrorKind::Unsupported, why);
    }
    if users.is_some() && error.raw_os_error() == Some(libc::EINVAL) {
        let why = "layers with the ids of a user namespace need Linux 5.19";
        return io::Error::new(io::ErrorKind::Unsupported, why);
    }
    error
}

/// Mounts layers, the lowest first, on top of each other, to be read only, with the ids of a user namespace if there is
/// one.
///
/// # Errors
/// A folder is not there, there are too many layers, or the kernel refuses.
pub fn read_only_layers(
    layers: &[PathBuf],
    users: Option<BorrowedFd<'_>>,
    target: &Path,
) -> Result<()> {
    // An overlay that nothing is written to has at least two.
    match (layers, users) {
        ([only], None) => return bind(only, target, Access::ReadOnly),
        ([only], Some(users)) => {
            let tree = tree::mapped(only, users)?;
            tree::set_read_only(&tree, tree::Depth::All)?;
            return tree::place(tree, target);
        }
        _ => {}
    }
    let lower = Lower::hold(layers, users, target)?;
    let options = format!("lowerdir={}{}", lower.text, marks());
    mount("overlay", target, "overlay", MountFlags::RDONLY, &options)
        .map_err(|e| Error::new("mount an overlay on", target, explain(e, users)))
}

/// The lower folders of an overlay, held for as long as it takes to mount it.
struct Lower {
    held: Vec<OwnedFd>,
    /// As the overlay's option.
    text: String,
    _stage: Option<Stage>,
}

impl Lower {
    fn hold(layers: &[PathBuf], users: Option<BorrowedFd<'_>>, target: &Path) -> Result<Self> {
        let mut held = Vec::with_capacity(layers.len() + 2);
        let mut paths = Vec::with_capacity(layers.len());
        let stage = users.map(|_| Stage::make(target)).transpose()?;
        for layer in layers.iter().rev() {
            paths.push(match (users, &stage) {
                (Some(users), Some(stage)) => {
                    let tree = tree::mapped(layer, users)?;
                    // Kernels before 6.15 take no layer that is on no place.
                    tree::place(&tree, &stage.0)?;
                    keep(tree, &mut held)
                }
                _ => hold(layer, &mut held)?,
            });
        }
        Ok(Self {
            held,
            text: paths.join(":"),
            _stage: stage,
        })
    }
}

/// A place for the layers' mounts until the overlay has copies of its own: all on one folder, which goes when this is
/// dropped.
struct Stage(PathBuf);

impl Stage {
    fn make(target: &Path) -> Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".layers");
        let stage = Self(path.into());
        super::fs::create_dir_all(&stage.0, 0o700)?;
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // As many as there were, and none after them.
        while rustix::mount::unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
        {
        }
        // It goes with the mount namespace or the pod's folders, too.
        rustix::fs::unlinkat(CWD, &self.0, AtFlags::REMOVEDIR).ok();
    }
}

/// Mounts an empty file system of huge pages of `size` bytes, or of the kernel's default size.
///
/// # Errors
/// The caller may not, or the machine has no such pages.
pub fn huge_pages(target: &Path, size: Option<u64>) -> Result<()> {
    let size = size.map_or_else(String::new, |size| format!(",pagesize={size}"));
    let flags = MountFlags::empty();
    mount(
        "hugetlbfs",
        target,
        "hugetlbfs",
        flags,
        &format!("mode=777{size}"),
    )
    .map_err(|e| Error::new("mount huge pages on", target, e))
}

/// Opens a folder, keeps the descriptor in `held`, and returns a short path to it.
fn hold(path: &Path, held: &mut Vec<OwnedFd>) -> Result<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::new("open the folder", path, e))?;
    Ok(keep(fd, held))
}

fn keep(fd: OwnedFd, held: &mut Vec<OwnedFd>) -> String {
    let short = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    short
}

fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(
        source,
        target,
        kind,
        flags,
        Some(options.as_c_str()),
    )?)
}

/// Moves a mount to another place.
///
/// # Errors
/// It is no mount point, or it is shared.
pub fn move_to(source: &Path, target: &Path) -> Result<()> {
    rustix::mount::mount_move(source, target).map_err(|e| Error::new("move a mount to", target, e))
}

/// Takes a mount, with what is mounted below it, out of the namespace at once; it ends when nobody uses it any more.
/// Fine if there is none.
///
/// # Errors
/// The caller may not.
pub fn detach(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(()),
        Err(e) => Err(Error::new("unmount", target, e)),
    }
}

/// The options of the machine's cgroup file system of version 2, without `rw` and `ro`; none if it is not mounted.
///
/// # Errors
/// The mounts cannot be read.
pub fn cgroup2_options() -> Result<Vec<String>> {
    let table = super::fs::read(Path::new("/proc/self/mountinfo"))?;
    Ok(options_of("cgroup2", &String::from_utf8_lossy(&table)))
}

/// The options of the first file system of this kind in a mountinfo table.
fn options_of(kind: &str, table: &str) -> Vec<String> {
    let options = table.lines().find_map(|line| {
        let (_, rest) = line.split_once(" - ")?;
        let mut fields = rest.split(' ');
        (fields.next() == Some(kind)).then(|| fields.nth(1).unwrap_or_default())
    });
    options
        .unwrap_or_default()
        .split(',')
        .filter(|option| !matches!(*option, "" | "rw" | "ro"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::sys::cgroup::CgroupEntry;
    use crate::sys::holder::{self, Holder};
    use crate::sys::ids::IdRange;
    use crate::sys::namespace;
    use crate::sys::signal::Signal;

    #[test]
    fn layers_have_the_ids_of_a_user_namespace() {
        testing::in_private_mounts(|| {
            let ids = IdRange::starting_at(1_000_000).unwrap();
            let holding = holder::start(&Holder {
                namespaces: &[],
                ids: Some(ids),
                hostname: None,
                sysctls: &[],
                cgroup: &CgroupEntry::default(),
                oom_score_adj: 0,
            })
            .unwrap();
            let users = namespace::users_of(holding.process.pid()).unwrap();
            holding.process.signal(Signal::KILL).unwrap();
            holding.process.wait().unwrap();

            let dir = std::env::temp_dir().join(format!("kplay-layers-{}", std::process::id()));
            let make = |name: &str| {
                let path = dir.join(name);
                std::fs::create_dir_all(&path).unwrap();
                path
            };
            let layers = ["low", "middle", "high"].map(make);
            for (layer, name) in layers.iter().zip(["low", "middle", "high"]) {
                std::fs::write(layer.join("file"), name).unwrap();
                std::fs::write(layer.join(name), name).unwrap();
            }
            super::super::fs::set_owner(&layers[0].join("low"), 5, 6).unwrap();
            let [upper, work, target, view] = ["upper", "work", "target", "view"].map(make);
            let mapped = |path: &Path| tree::mapped(path, &users);
            let users = Some(users.as_fd());
            let plan = Overlay {
                layers: &layers,
                upper: &upper,
                work: &work,
                users,
            };
            overlay(plan, &target).unwrap();
            read_only_layers(&layers, users, &view).unwrap();
            for root in [&target, &view] {
                let owner = |name: &str| {
                    let found = std::fs::metadata(root.join(name)).unwrap();
                    (found.uid(), found.gid())
                };
                assert_eq!(std::fs::read(root.join("file")).unwrap(), b"high");
                assert_eq!(owner("low"), (1_000_005, 1_000_006));
                for name in ["middle", "high"] {
                    assert_eq!(owner(name), (1_000_000, 1_000_000));
                }
                assert!(!dir.join("target.layers").exists());
                detach(root).unwrap();
            }
            read_only_layers(&layers[..1], users, &view).unwrap();
            assert_eq!(
                std::fs::metadata(view.join("low")).unwrap().uid(),
                1_000_005
            );
            std::fs::write(view.join("new"), "").unwrap_err();
            detach(&view).unwrap();
            // A mount can have them once; and the kernel's own file systems cannot.
            let tree = mapped(&layers[0]).unwrap();
            tree::place(tree, &view).unwrap();
            let check = |path: &Path, expected: &str| {
                let error = mapped(path).unwrap_err();
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.contains(expected), "{source}");
            };
            check(&view, "has ids of its own already");
            check(Path::new("/proc"), "`proc` file system cannot have");
            detach(&view).unwrap();
            std::fs::remove_dir_all(&dir).unwrap();
        });
    }

    #[test]
    fn the_options_of_a_file_system_are_its_own() {
        let check = |kind: &str, expected: &[&str]| {
            let table = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n\
                         31 23 0:27 / /x rw - tmpfs tmpfs ro\n";
            assert_eq!(super::options_of(kind, table), expected);
        };
        check("cgroup2", &["nsdelegate", "memory_recursiveprot"]);
        check("tmpfs", &[]);
        check("proc", &[]);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Mounts that only one test sees.

    /// Runs `test` in a thread with a mount namespace of its own; says so and does nothing where that is not allowed.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn in_private_mounts(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| match crate::sys::namespace::unshare_mounts() {
                Ok(()) => {
                    super::make_slave().unwrap();
                    test();
                }
                Err(error) => eprintln!("skipped: {error}"),
            });
            thread.join().unwrap();
        });
    }
}
