//! Files: `std::fs` with the path in every error, atomic replacement, and locks that are values.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

/// A file operation that failed, with its path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path:?}")]
pub struct Error {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// An error of an operation that this module does not have.
    pub fn new(verb: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self {
            verb,
            path: path.into(),
            source: source.into(),
        }
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The path that could not be worked on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The result of a file operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Reads a whole file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::new("read", path, e))
}

/// Reads a whole file, or nothing if there is none.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new("read", path, e)),
    }
}

/// Reads the end of a file, at most `longest` bytes.
///
/// # Errors
/// It cannot be read.
pub fn read_tail(path: &Path, longest: usize) -> Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let longest = longest as u64;
        let start = file.metadata()?.len().saturating_sub(longest);
        file.seek(io::SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(longest).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::new("read", path, e))
}

/// Makes a folder and its parents, with `mode` for those it makes. An existing folder is fine.
///
/// # Errors
/// It cannot be made.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| Error::new("create the folder", path, e))
}

/// Opens a folder, as an anchor for paths beneath it.
///
/// # Errors
/// It cannot be opened or is no folder.
pub fn open_dir(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
        .map_err(|e| Error::new("open the folder", path, e))
}

/// The names in a folder, sorted; none if the folder is not there.
///
/// # Errors
/// It is there and cannot be read.
pub fn list(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::new("list", path, e)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| Error::new("list", path, e))?;
    names.sort();
    Ok(names)
}

/// Whether a folder is the caller's, and nobody else may write to it.
///
/// # Errors
/// It is not there.
pub fn is_own(folder: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::symlink_metadata(folder).map_err(|e| Error::new("look at", folder, e))?;
    let is_callers = found.uid() == rustix::process::geteuid().as_raw();
    Ok(found.is_dir() && is_callers && found.mode() & 0o022 == 0)
}

/// Replaces a file so that a reader, and a machine that loses power, sees the old or the new content, never a part.
///
/// # Errors
/// It cannot be written; the old content stays and no temporary file is left.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    replace_with(path, mode, content, File::sync_data)
}

/// As [`replace`], without waiting for the disk: for files on tmpfs.
///
/// # Errors
/// As [`replace`].
pub fn replace_in_memory(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    replace_with(path, mode, content, |_| Ok(()))
}

/// The size in bytes of the file system that `path` is on.
///
/// # Errors
/// It is not there.
pub fn size(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path).map_err(|e| Error::new("see the size of", path, e))?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// The bytes that are left for whoever asks on the file system that `path` is on.
///
/// # Errors
/// It is not there.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path).map_err(|e| Error::new("see the size of", path, e))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Writes a file where it is: those who have it open, or mounted, see the new content.
///
/// # Errors
/// It cannot be written.
pub fn overwrite(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)?;
        // Whatever the umask.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(content)
    })();
    written.map_err(|e| Error::new("write", path, e))
}

/// Writes a setting of the kernel, below `/proc/sys`: a file that is there, and whose mode nobody may set.
///
/// # Errors
/// There is no such setting, or the kernel refuses the value.
pub fn write_setting(path: &Path, value: &[u8]) -> Result<()> {
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        file.write_all(value)
    })();
    written.map_err(|e| Error::new("write", path, e))
}

/// The name of the file that [`replace`] was about to make of one with this name; none if that is no unfinished one. It stays
/// where its writer was killed.
#[must_use]
pub fn target_of_unfinished(name: &std::ffi::OsStr) -> Option<&str> {
    let (rest, _count) = name.to_str()?.strip_prefix('.')?.rsplit_once('.')?;
    Some(rest.rsplit_once('.')?.0)
}

/// What is written first, of this call's own: other threads may be replacing the same file.
fn unfinished(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{count}", std::process::id()));
    path.with_file_name(name)
}

fn replace_with(
    path: &Path,
    mode: u32,
    content: &[u8],
    sync: impl Fn(&File) -> io::Result<()>,
) -> Result<()> {
    let temporary = unfinished(path);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        sync(&file)?;
        std::fs::rename(&temporary, path)
    })();
    written.map_err(|e| {
        // The file of a failed write is of no use to anybody; that it may not exist is fine.
        std::fs::remove_file(&temporary).ok();
        Error::new("write", path, e)
    })
}

/// Removes a file; fine if there is none.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    absent_is_fine(std::fs::remove_file(path)).map_err(|e| Error::new("remove", path, e))
}

/// Removes a folder and all in it; fine if there is none. Does not follow links.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_dir_all(path: &Path) -> Result<()> {
    absent_is_fine(std::fs::remove_dir_all(path)).map_err(|e| Error::new("remove", path, e))
}

/// Removes an empty folder; fine if there is none.
///
/// # Errors
/// Something is in it, or it cannot be removed.
pub fn remove_empty_dir(path: &Path) -> Result<()> {
    absent_is_fine(std::fs::remove_dir(path)).map_err(|e| Error::new("remove", path, e))
}

/// Sets a file's permission bits, whatever the umask.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(|e| Error::new("set the mode of", path, e))
}

/// Gives a file, or a symbolic link itself, to a group.
///
/// # Errors
/// It is not there, or the caller may not.
pub fn set_group(path: &Path, group: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, None, Some(group))
        .map_err(|e| Error::new("set the group of", path, e))
}

/// Makes a symbolic link.
///
/// # Errors
/// There is something of this name already, or it cannot be made.
pub fn symlink(target: &Path, path: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, path).map_err(|e| Error::new("make the link", path, e))
}

/// Where a symbolic link leads.
///
/// # Errors
/// It is not there, is something else, or cannot be read.
pub fn read_link(path: &Path) -> Result<PathBuf> {
    std::fs::read_link(path).map_err(|e| Error::new("read the link", path, e))
}

/// Where a symbolic link leads; nothing if there is none.
///
/// # Errors
/// It is something else, or cannot be read.
pub fn read_link_if_there(path: &Path) -> Result<Option<PathBuf>> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new("read the link", path, e)),
    }
}

/// Puts a file or folder in the place of another, at once.
///
/// # Errors
/// It cannot be done.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| Error::new("rename", from, e))
}

/// What is at a path, links followed; nothing if there is none.
///
/// # Errors
/// It cannot be looked at.
pub fn metadata_if_there(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new("look at", path, e)),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How a lock excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Shared,
    Exclusive,
}

/// A held `flock`; released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes a lock on a file, which is made if it is not there, and waits for it.
///
/// # Errors
/// The file cannot be opened.
pub fn lock(path: &Path, mode: LockMode) -> Result<Lock> {
    wait_for_lock(open_lock(path)?, path, mode)
}

/// Takes a lock on a file that is only read, or that stands for something of the kernel's, and waits for it.
///
/// # Errors
/// The file cannot be opened.
pub fn lock_existing(path: &Path, mode: LockMode) -> Result<Lock> {
    let file = File::open(path).map_err(|e| Error::new("open the lock file", path, e))?;
    wait_for_lock(file, path, mode)
}

fn wait_for_lock(file: File, path: &Path, mode: LockMode) -> Result<Lock> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::LockShared,
        LockMode::Exclusive => FlockOperation::LockExclusive,
    };
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::new("lock", path, e)),
        }
    }
}

/// Takes a lock on a file or folder that is there, if nobody holds one that excludes it. None as well if it is not
/// there any more when the lock is taken.
///
/// # Errors
/// It cannot be opened.
pub fn try_lock_existing(path: &Path, mode: LockMode) -> Result<Option<Lock>> {
    // Somebody's FIFO would be waited for else.
    let flags = libc::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::new("open the lock file", path, e))?,
    };
    let Some(lock) = try_to_lock(file, path, mode)? else {
        return Ok(None);
    };
    let locked = lock._file.metadata();
    let locked = locked.map_err(|e| Error::new("look at", path, e))?;
    let is_there = metadata_if_there(path)?
        .is_some_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino()));
    Ok(is_there.then_some(lock))
}

/// Takes a lock on a file if nobody holds one that excludes it.
///
/// # Errors
/// The file cannot be opened.
pub fn try_lock(path: &Path, mode: LockMode) -> Result<Option<Lock>> {
    try_to_lock(open_lock(path)?, path, mode)
}

fn try_to_lock(file: File, path: &Path, mode: LockMode) -> Result<Option<Lock>> {
    let operation = match mode {
        LockMode::Shared => FlockOperation::NonBlockingLockShared,
        LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(Error::new("lock", path, e)),
    }
}

/// A held record lock (`fcntl`) for reading a file that others lock so to write; released when dropped.
#[derive(Debug)]
pub struct RecordLock {
    _file: File,
}

/// Takes a lock on all of a file that excludes others' `fcntl` locks for writing, and waits for it; `None` if there is no
/// such file. It is one of the open file, so that other threads and other locks of this process do not release it.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn lock_record_to_read(path: &Path) -> Result<Option<RecordLock>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| Error::new("open the lock file", path, e))?,
    };
    let lock = libc::flock {
        l_type: libc::F_RDLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    loop {
        match nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLKW(&lock)) {
            Ok(_) => return Ok(Some(RecordLock { _file: file })),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::new("lock", path, e)),
        }
    }
}

fn open_lock(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::new("open the lock file", path, e))
}

/// Reads a regular file of at most `largest` bytes below the folder `root`, as a process would whose root it is: no
/// link leads out of it. Does not wait for a FIFO or device.
///
/// # Errors
/// It is not there, is no regular file, or is too large.
pub fn read_in_root(root: &Path, path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    use std::io::Read as _;

    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat2(
        open_in(root)?,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = File::from(file);
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if !file.metadata()?.is_file() {
        return Err(invalid("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(invalid("it is too large"));
    }
    Ok(bytes)
}

/// Makes the folder `path` and its parents below the folder `root`, as a process would whose root it is: no link
/// leads out of it. An existing folder is fine.
///
/// # Errors
/// It cannot be made.
pub fn create_dir_in_root(root: &Path, path: &Path, mode: u32) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};

    let mut folder = open_in(root)?;
    let anchor = open_in(root)?;
    let mut done = PathBuf::new();
    for component in path.components() {
        let std::path::Component::Normal(name) = component else {
            continue;
        };
        done.push(name);
        match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        folder = rustix::fs::openat2(&anchor, &done, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    }
    Ok(())
}

fn open_in(root: &Path) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

/// Checks that `path` is a regular file that this process may execute.
///
/// # Errors
/// It is not there, is no regular file, or may not be executed (`PermissionDenied`).
pub fn check_executable(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags};

    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        Access::EXEC_OK,
        AtFlags::EACCESS,
    )?)
}

/// Gives a file, a folder or a link to a user and a group.
///
/// # Errors
/// The caller may not.
pub fn set_owner(path: &Path, uid: u32, gid: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
        .map_err(|e| Error::new("set the owner of", path, e))
}

/// Gives a standard stream to a user, so that a process of that user can open it again by `/dev/stdout` and the like.
/// A device, such as `/dev/null`, is everybody's and stays as it is.
///
/// # Errors
/// The caller may not.
pub fn give_stream_to(stream: impl std::os::fd::AsFd, uid: u32) -> io::Result<()> {
    use rustix::fs::FileType;

    let stat = rustix::fs::fstat(&stream)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice || stat.st_uid == uid {
        return Ok(());
    }
    // The group stays: whoever made the stream may have wanted it.
    Ok(rustix::fs::fchown(
        stream,
        Some(rustix::process::Uid::from_raw(uid)),
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_has_the_name_of_what_it_becomes() {
        for name in ["web.json", "a", ".services"] {
            let unfinished = unfinished(Path::new(name));
            assert_eq!(target_of_unfinished(unfinished.as_os_str()), Some(name));
        }
        for name in ["web.json", ".services", ".a.1"] {
            assert_eq!(target_of_unfinished(name.as_ref()), None, "{name}");
        }
    }
}
