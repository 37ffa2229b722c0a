//! The folder that is shown: everything is opened beneath it, links included.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// How many files the page shows at most.
const MAX_FILES: usize = 100;

/// How deep the page looks into folders.
const MAX_DEPTH: usize = 6;

/// How much of a file the page shows, in bytes.
const MAX_SHOWN: u64 = 4096;

/// The folder.
#[derive(Debug)]
pub(super) struct Root {
    dir: File,
    path: PathBuf,
}

/// What a path beneath the root is.
#[derive(Debug)]
pub(super) enum Found {
    File(File, u64),
    /// The names in a folder, sorted; those of folders end with `/`.
    Folder(Vec<String>),
}

/// A file as the page shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Relative to the root.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    /// The beginning.
    Cut(String),
    Binary,
    /// Why it cannot be read.
    Unreadable(String),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let dir = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(path)?;
        Ok(Self {
            dir,
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a path beneath the root; a leading `/` means the root.
    pub(super) fn find(&self, path: &str) -> io::Result<Found> {
        let file = self.open_beneath(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return names(&file).map(Found::Folder);
        }
        if metadata.is_file() {
            return Ok(Found::File(file, metadata.len()));
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "neither file nor folder",
        ))
    }

    fn open_beneath(&self, path: &str) -> io::Result<File> {
        let path = match path.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        // A fifo without a writer must not block.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.dir, path, how) {
                // A rename happened meanwhile, so that the kernel could not tell whether it left the root.
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                other => return Ok(File::from(other?)),
            }
        }
    }

    /// The files beneath the root in order, with their content; bounded in every direction.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let mut shown = Vec::new();
        self.walk("", 0, &mut shown);
        shown
    }

    fn walk(&self, path: &str, depth: usize, shown: &mut Vec<Shown>) {
        if shown.len() >= MAX_FILES {
            return;
        }
        let (size, content) = match self.find(path) {
            Ok(Found::Folder(names)) => {
                if depth < MAX_DEPTH {
                    // The versions behind a ConfigMap's links are shown once, by the links.
                    let visible = names.iter().filter(|name| !name.starts_with(".."));
                    for name in visible {
                        let name = name.trim_end_matches('/');
                        let below = if path.is_empty() {
                            name.to_owned()
                        } else {
                            format!("{path}/{name}")
                        };
                        self.walk(&below, depth + 1, shown);
                    }
                }
                return;
            }
            Ok(Found::File(file, size)) => (size, content(file, size)),
            Err(e) => (0, Content::Unreadable(e.to_string())),
        };
        shown.push(Shown {
            path: path.to_owned(),
            size,
            content,
        });
    }
}

fn content(file: File, size: u64) -> Content {
    let mut bytes = Vec::new();
    if let Err(e) = file.take(MAX_SHOWN).read_to_end(&mut bytes) {
        return Content::Unreadable(e.to_string());
    }
    let cut = size > MAX_SHOWN;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // The cut may have gone through a character.
        Err(e) if cut && e.utf8_error().error_len().is_none() => {
            let valid = e.utf8_error().valid_up_to();
            String::from_utf8_lossy(&e.as_bytes()[..valid]).into_owned()
        }
        Err(_) => return Content::Binary,
    };
    match text.contains('\0') {
        true => Content::Binary,
        false if cut => Content::Cut(text),
        false => Content::Text(text),
    }
}

/// Reads a folder that is open. Through `/proc`, as the standard library has no other way.
fn names(dir: &File) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}
