//! A `kplay` without an environment, on state of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is gone when this is dropped.
pub(crate) struct Kplay {
    dir: PathBuf,
}

/// What a run said.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Kplay {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kplay-cli-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a temporary folder");
        Self { dir }
    }

    /// Writes a file that runs see under its bare name.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        let folder = path.parent().expect("it is in our folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Where a run finds this.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a run has made this.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kplay"));
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("KPLAY_ROOT", self.dir.join("root"))
            .env("KPLAY_RUNROOT", self.dir.join("run"))
            // A folder is no configuration: a test that looks for other engines' images fails.
            .env("CONTAINERS_STORAGE_CONF", &self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.run_with(&words, "")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Run {
        let mut child = self.command(arguments).spawn().expect("kplay starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // A command that does not read its input closes the pipe: no fault.
        pipe.write_all(stdin.as_bytes()).ok();
        drop(pipe);
        child.wait_with_output().expect("our own child").into()
    }

    /// Runs it as systemd's generator, for the `.kube` files that are here, with this folder for units.
    pub(crate) fn generator(&self, units: &Path) -> Run {
        let mut command = self.command(&[]);
        let command = command.arg0("kplay-generator").args([units; 3]);
        let command = command.env("QUADLET_UNIT_DIRS", &self.dir);
        command.output().expect("kplay starts").into()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Drop for Kplay {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self
            .code
            .map_or("killed".to_owned(), |code| code.to_string());
        write!(
            f,
            "exit code {code}\n--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        )
    }
}

/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
