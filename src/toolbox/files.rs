//! Applets that work on files.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::Arguments;
use super::{Error, out, signals};

pub(super) fn cat(arguments: Arguments) -> Result<u8, Error> {
    let mut paths = arguments.rest();
    if paths.is_empty() {
        paths.push_back("-".into());
    }
    // Standard input may never end.
    signals::handle(signals::TERMINATED)?;
    let mut out = io::stdout().lock();
    for path in paths {
        if path == "-" {
            copy(io::stdin().lock(), &mut out, Path::new("standard input"))?;
        } else {
            let path = PathBuf::from(path);
            let file = File::open(&path).map_err(Error::file("open", &path))?;
            copy(file, &mut out, &path)?;
        }
    }
    Ok(0)
}

/// Copies, and shows each part at once: it may come from a terminal or a pipe.
fn copy(mut from: impl io::Read, out: &mut impl io::Write, path: &Path) -> Result<(), Error> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::file("read", path)(e)),
        };
        out.write_all(&buffer[..len])
            .and_then(|()| out.flush())
            .map_err(Error::Output)?;
    }
}

pub(super) fn ls(mut arguments: Arguments) -> Result<u8, Error> {
    let dir = arguments.next_if_any::<String>("DIR")?;
    let dir = PathBuf::from(dir.unwrap_or_else(|| ".".to_owned()));
    arguments.end()?;
    let entries = std::fs::read_dir(&dir).map_err(Error::file("list", &dir))?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(Error::file("list", &dir))?;
    names.sort();
    out(|out| {
        names
            .iter()
            .try_for_each(|name| writeln!(out, "{}", name.to_string_lossy()))
    })
}

pub(super) fn write(arguments: Arguments) -> Result<u8, Error> {
    let (path, text) = file_and_text(arguments)?;
    let mut replace = std::fs::OpenOptions::new();
    put(
        replace.write(true).create(true).truncate(true),
        &path,
        &text,
    )?;
    Ok(0)
}

pub(super) fn append(arguments: Arguments) -> Result<u8, Error> {
    let (path, text) = file_and_text(arguments)?;
    append_line(&path, &text)?;
    Ok(0)
}

fn file_and_text(mut arguments: Arguments) -> Result<(PathBuf, String), Error> {
    let path = arguments.next_path("FILE")?;
    let text = arguments.next("TEXT")?;
    arguments.end()?;
    Ok((path, text))
}

/// Appends a line to a file, which is made if it is not there.
pub(super) fn append_line(path: &Path, text: &str) -> Result<(), Error> {
    put(
        std::fs::OpenOptions::new().append(true).create(true),
        path,
        text,
    )
}

fn put(how: &std::fs::OpenOptions, path: &Path, text: &str) -> Result<(), Error> {
    let mut file = how.open(path).map_err(Error::file("open", path))?;
    // In one call: several containers may append to the same file.
    let line = format!("{text}\n");
    file.write_all(line.as_bytes())
        .map_err(Error::file("write", path))
}

/// Makes a file that runs as its owner, whoever starts it: a copy of this program, with its owner's uid.
pub(super) fn setuid_copy(mut arguments: Arguments) -> Result<u8, Error> {
    let path = arguments.next_path("FILE")?;
    arguments.end()?;
    std::fs::copy("/proc/self/exe", &path)
        .and_then(|_| std::fs::set_permissions(&path, Permissions::from_mode(0o4755)))
        .map_err(Error::file("make", &path))?;
    Ok(0)
}

pub(super) fn wait_file(mut arguments: Arguments) -> Result<u8, Error> {
    // Small next to what a person notices, and no folder has to be there to be watched.
    const INTERVAL: Duration = Duration::from_millis(20);
    let path = arguments.next_path("PATH")?;
    arguments.end()?;
    signals::handle(signals::TERMINATED)?;
    while !path.try_exists().map_err(Error::file("look at", &path))? {
        std::thread::sleep(INTERVAL);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_replaced() {
        let path = std::env::temp_dir().join(format!("kplay-toolbox-{}", std::process::id()));
        let text = || std::fs::read_to_string(&path).unwrap();
        let arguments = |text: &str| {
            let rest = [path.clone().into_os_string(), text.into()];
            Arguments::new("test", "", rest.into_iter().collect())
        };
        append(arguments("a")).unwrap();
        append(arguments("b")).unwrap();
        assert_eq!(text(), "a\nb\n");
        write(arguments("c")).unwrap();
        assert_eq!(text(), "c\n");
        std::fs::remove_file(&path).unwrap();
        assert!(cat(Arguments::new("cat", "", [path.into_os_string()].into())).is_err());
    }
}
