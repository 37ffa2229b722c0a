//! Who runs kplay: root, or the user that `KPLAY_TEST_AS` names, who has ids in /etc/subuid and /etc/subgid.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Somebody who is not root.
#[derive(Clone, Debug)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

/// The user that the tests are run as, if that is not root.
pub(crate) fn chosen() -> Option<User> {
    let name = std::env::var("KPLAY_TEST_AS").ok()?;
    Some(User::named(&name).unwrap_or_else(|| panic!("there is no user {name:?}")))
}

impl User {
    /// A user of /etc/passwd.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").expect("a file");
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let number = |text: Option<&str>| text?.parse().ok();
            (fields.next() == Some(name)).then(|| {
                Some(Self {
                    uid: number(fields.nth(1))?,
                    gid: number(fields.next())?,
                })
            })?
        })
    }

    /// Gives a file or folder to the user.
    pub(crate) fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).expect("root may");
    }

    /// Gives what root has made in a folder to the user.
    pub(crate) fn give_all(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a test's folder").flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if found.uid() == 0 {
                std::os::unix::fs::lchown(entry.path(), Some(self.uid), Some(self.gid))
                    .expect("root may");
            }
            // What is kplay's own has been the user's from the beginning.
            let is_kplays = ["root", "run"]
                .iter()
                .any(|name| entry.file_name() == *name);
            if found.is_dir() && !is_kplays {
                self.give_all(&entry.path());
            }
        }
    }

    /// A command line's beginning that runs kplay as this user.
    pub(crate) fn program(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["setpriv".into()];
        words.push(format!("--reuid={}", self.uid).into());
        words.push(format!("--regid={}", self.gid).into());
        words.push("--clear-groups".into());
        words.push(readable_binary().as_os_str().to_owned());
        words
    }
}

/// A command line's beginning that runs kplay.
pub(crate) fn program(user: Option<&User>) -> Vec<OsString> {
    match user {
        Some(user) => user.program(),
        None => vec![env!("CARGO_BIN_EXE_kplay").into()],
    }
}

/// The binary where everybody can reach it, as root's home may be closed.
fn readable_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_kplay"));
        let is_open = |folder: &Path| {
            fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005)
        };
        if built.ancestors().all(is_open) {
            return built.to_owned();
        }
        let copy = std::env::temp_dir().join(format!("kplay-of-all-{}", std::process::id()));
        fs::copy(built, &copy).expect("a copy of the binary");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our own file");
        copy
    })
}

/// Makes a folder that only root may look into, with a file in it.
pub(crate) fn make_closed(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("secret"), "secret").expect("a file");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("our own folder");
}

/// Removes such a folder.
pub(crate) fn remove(folder: &Path) {
    fs::remove_dir_all(folder).expect("our own folder");
}
