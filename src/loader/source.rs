//! Files, folders and standard input, read into memory: the loader's only I/O.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A text that may have manifests in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As the user named it; `-` is standard input.
    pub name: String,
    pub text: Vec<u8>,
    /// Absolute: where a relative hostPath starts. `None` for standard input.
    pub base_dir: Option<PathBuf>,
}

/// What happens to the folders in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurse {
    Yes,
    No,
}

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read `{name}`")]
    Read { name: String, source: io::Error },
    #[error("`{name}` is larger than {} MiB, which is no manifest", MAX_SIZE >> 20)]
    TooLarge { name: String },
    #[error("the folder `{name}` has no *.yaml, *.yml or *.json file")]
    NoManifest { name: String },
    #[error("`{name}` is on the network: download it first, then play the file")]
    Url { name: String },
    #[error("standard input can be read only once")]
    StdinTwice,
}

/// One source's limit.
const MAX_SIZE: u64 = 16 << 20;

/// Reads what the arguments name: files, folders (their manifests, sorted by name), `-` for standard input.
///
/// # Errors
/// The first argument that cannot be read.
pub fn read(arguments: &[String], recurse: Recurse) -> Result<Vec<Source>, Error> {
    read_from(arguments, recurse, &mut io::stdin().lock())
}

fn read_from(
    arguments: &[String],
    recurse: Recurse,
    stdin: &mut dyn Read,
) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut stdin = Some(stdin);
    for name in arguments {
        if name == "-" {
            let stdin = stdin.take().ok_or(Error::StdinTwice)?;
            sources.push(Source {
                name: name.clone(),
                text: bounded(stdin, name)?,
                base_dir: None,
            });
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(Error::Url { name: name.clone() });
        } else if Path::new(name).is_dir() {
            let before = sources.len();
            folder(Path::new(name), recurse, &mut sources)?;
            if sources.len() == before {
                return Err(Error::NoManifest { name: name.clone() });
            }
        } else {
            sources.push(file(Path::new(name))?);
        }
    }
    Ok(sources)
}

fn folder(path: &Path, recurse: Recurse, sources: &mut Vec<Source>) -> Result<(), Error> {
    let failed = |source| Error::Read {
        name: path.display().to_string(),
        source,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the loader may not name `sys`; the path is in the error"
    )]
    let entries = fs::read_dir(path).map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    paths.sort();
    for path in paths {
        // A link to a folder is not followed: it may lead back here.
        let is_folder = path.is_dir() && !path.is_symlink();
        if is_folder && recurse == Recurse::Yes {
            folder(&path, recurse, sources)?;
        } else if !path.is_dir() && is_manifest(&path) {
            sources.push(file(&path)?);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

fn file(path: &Path) -> Result<Source, Error> {
    let name = path.display().to_string();
    let failed = |source| Error::Read {
        name: name.clone(),
        source,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the loader may not name `sys`; the path is in the error"
    )]
    let mut opened = fs::File::open(path).map_err(failed)?;
    let text = bounded(&mut opened, &name)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let base_dir = std::path::absolute(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    Ok(Source {
        base_dir: Some(base_dir),
        text,
        name,
    })
}

fn bounded(reader: &mut dyn Read, name: &str) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    reader
        .take(MAX_SIZE + 1)
        .read_to_end(&mut text)
        .map_err(|source| Error::Read {
            name: name.to_owned(),
            source,
        })?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Error::TooLarge {
            name: name.to_owned(),
        });
    }
    Ok(text)
}

/// Bytes to text: UTF-8, or UTF-16 with a byte order mark. `Err` is the offset of what is no text.
pub(super) fn decode(bytes: &[u8]) -> Result<String, usize> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let text: Result<String, _> =
            char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
        text.ok().filter(|_| rest.is_empty()).ok_or(0)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => {
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = str::from_utf8(text).map_err(|error| error.valid_up_to())?;
            Ok(text.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_and_only_manifests() {
        let root = std::env::temp_dir().join(format!("kplay-source-{}", std::process::id()));
        #[expect(clippy::disallowed_methods, reason = "a test's own files")]
        let write = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in ["b.yml", "a.yaml", "c.json", "d.txt", "sub/e.yaml"] {
            write(path);
        }
        let names = |recurse| {
            let name = root.display().to_string();
            let sources =
                read_from(&[name.clone(), "-".into()], recurse, &mut io::empty()).unwrap();
            sources
                .iter()
                .map(|source| source.name.trim_start_matches(&name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Recurse::No), ["/a.yaml", "/b.yml", "/c.json", "-"]);
        assert_eq!(
            names(Recurse::Yes),
            ["/a.yaml", "/b.yml", "/c.json", "/sub/e.yaml", "-"]
        );
        #[expect(clippy::disallowed_methods, reason = "a test's own files")]
        fs::remove_dir_all(&root).unwrap();
        let failed = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            read_from(&names, Recurse::No, &mut io::empty())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(failed(&["-", "-"]), "standard input can be read only once");
        assert_eq!(
            failed(&["https://x/y"]),
            "`https://x/y` is on the network: download it first, then play the file"
        );
        assert_eq!(failed(&["/nowhere"]), "cannot read `/nowhere`");
        assert_eq!(
            failed(&["/dev/zero"]),
            "`/dev/zero` is larger than 16 MiB, which is no manifest"
        );
    }

    #[test]
    fn text_is_utf_8_or_marked_utf_16() {
        let check = |bytes: &[u8], expected: Result<&str, usize>| {
            assert_eq!(
                decode(bytes).as_deref(),
                expected.as_ref().map(|text| *text),
                "{bytes:?}"
            );
        };
        check(b"a\xc3\xa4", Ok("aä"));
        check(b"\xef\xbb\xbfa", Ok("a"));
        check(b"\xff\xfea\0\xe4\0", Ok("aä"));
        check(b"\xfe\xff\0a", Ok("a"));
        check(b"\xff\xfea", Err(0));
        check(b"ab\xff", Err(2));
    }
}
