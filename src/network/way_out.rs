//! The way from a user's own network to the world: a program that speaks for the pods, pasta or slirp4netns, because only
//! root could connect the two networks. It comes with the network and goes with it.
//!
//! ```text
//! FOLDER/way-out   its number; nothing as long as it is being started
//! FOLDER/network   the network, where it finds it: mounted meanwhile, and seen by nobody else. That it was told of this
//!                  path is what it is known again by
//! ```

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use crate::sys::mount::{self, Access};
use crate::sys::netns::NetNs;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, ParentDeath, Session, Spawn};
use crate::sys::signal::Signal;
use crate::sys::watch::Watch;
use crate::sys::{fd, fs, inhabitants, poll};

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Executors have no PATH.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// A program that can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Pasta,
    Slirp,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }

    fn find(self) -> Option<PathBuf> {
        let mut paths = FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(self.name()));
        paths.find(|path| path.exists())
    }

    /// `ready` is where it writes something when it is ready.
    fn arguments(self, network: &Path, ready: &Path) -> Vec<String> {
        let network = &*network.to_string_lossy();
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            // No port of either side is the other's: kplay publishes ports itself.
            Self::Pasta => {
                let mut words: Vec<String> = text(&[
                    "pasta",
                    "--config-net",
                    "--foreground",
                    "--quiet",
                    "--no-map-gw",
                    "-t",
                    "none",
                    "-u",
                    "none",
                    "-T",
                    "none",
                    "-U",
                    "none",
                    "--netns-only",
                    "--no-netns-quit",
                    "--netns",
                    network,
                    "--pid",
                ]);
                words.push(ready.to_string_lossy().into_owned());
                words
            }
            Self::Slirp => text(&[
                "slirp4netns",
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                "--ready-fd=3",
                "--netns-type=path",
                network,
                "tap0",
            ]),
        }
    }
}

/// Starts the program. Says why there is no way out, if there is none.
pub(super) fn open(folder: &Path, network: &NetNs) -> Result<Option<String>, Error> {
    let mut said = None;
    for program in [Program::Pasta, Program::Slirp] {
        let Some(path) = program.find() else { continue };
        let started = Shown::show(folder, network).and_then(|_shown| start(program, &path, folder));
        let failed = match started {
            Ok(None) => return Ok(None),
            Ok(Some(failed)) => failed,
            Err(error) => error.to_string(),
        };
        close(folder)?;
        said.get_or_insert(format!("{} {failed}", program.name()));
    }
    let said = said.unwrap_or_else(|| {
        "the way out needs the program `pasta` (package passt) or `slirp4netns`".to_owned()
    });
    Ok(Some(format!(
        "pods reach each other and their published ports only: {said}"
    )))
}

/// A network that is mounted where the program looks for it: it has given up too much to look into this process.
struct Shown(PathBuf);

impl Shown {
    fn show(folder: &Path, network: &NetNs) -> io::Result<Self> {
        let shown = Self(shown_path(folder));
        fs::replace_in_memory(&shown.0, 0o600, b"").map_err(io::Error::other)?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", network.number()));
        mount::bind(&source, &shown.0, Access::ReadWrite).map_err(io::Error::other)?;
        Ok(shown)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Err(error) = mount::unbind_held(&self.0) {
            // It goes with this process's mounts.
            tracing::warn!(%error, "a network stays mounted");
        }
    }
}

fn shown_path(folder: &Path) -> PathBuf {
    folder.join("network")
}

/// Returns what it said if it ended instead of being ready.
fn start(program: Program, path: &Path, folder: &Path) -> io::Result<Option<String>> {
    let network = shown_path(folder);
    let ready = folder.join("way-out.ready");
    fs::remove_file(&ready).map_err(io::Error::other)?;
    let watch = Watch::new()?;
    watch.add(folder).map_err(io::Error::other)?;
    let (hears, tells) = fd::pipe()?;
    let (said, says) = fd::pipe()?;
    let arguments = program.arguments(&network, &ready);
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    // Said before it is there: whoever is killed meanwhile leaves nothing that is not looked for.
    let note = note_path(folder);
    fs::replace_in_memory(&note, 0o600, b"").map_err(io::Error::other)?;
    let child = process::spawn(&Spawn {
        program: path,
        args: &arguments,
        env: &[],
        fds: &[tells.as_fd()],
        stderr: Some(says.as_fd()),
        session: Session::Own,
        parent_death: ParentDeath::Survive,
        cgroup: None,
    })?;
    drop((tells, says));
    let number = format!("{}\n", child.pid());
    if let Err(error) = fs::replace_in_memory(&note, 0o600, number.as_bytes()) {
        child.signal(Signal::KILL)?;
        child.wait()?;
        return Err(io::Error::other(error));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = match program {
            Program::Pasta => watch.as_fd(),
            Program::Slirp => hears.as_fd(),
        };
        let event = poll::readable(&[child.as_fd(), seen], Some(deadline))?;
        if event.is_empty() {
            child.signal(Signal::KILL)?;
            child.wait()?;
            return Ok(Some("does not get ready".to_owned()));
        }
        if event.contains(&0) {
            child.wait()?;
            return Ok(Some(format!("says: {}", last_words(said))));
        }
        let is_ready = match program {
            Program::Pasta => {
                watch.drain()?;
                let written = fs::read_if_there(&ready).map_err(io::Error::other)?;
                written.is_some_and(|pid| !pid.is_empty())
            }
            Program::Slirp => fd::read(&hears, &mut [0; 8])? > 0,
        };
        if is_ready {
            fs::remove_file(&ready).map_err(io::Error::other)?;
            return Ok(None);
        }
    }
}

/// What it said about its end; pasta says much of what it would have told a system's log, too.
fn last_words(said: std::os::fd::OwnedFd) -> String {
    const LONGEST: u64 = 8192;
    let mut bytes = Vec::new();
    // The reason is lost then, and that there is none is told.
    std::fs::File::from(said)
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .ok();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.contains("to syslog"));
    lines.next_back().unwrap_or("nothing").to_owned()
}

fn note_path(folder: &Path) -> PathBuf {
    folder.join("way-out")
}

/// Ends the program, if there is one that lives.
pub(super) fn close(folder: &Path) -> Result<(), Error> {
    let path = note_path(folder);
    let Some(note) = fs::read_if_there(&path)? else {
        return Ok(());
    };
    let candidates = match String::from_utf8_lossy(&note).trim().parse() {
        Ok(number) => vec![number],
        // Who started it was killed.
        Err(_) => inhabitants::all().map_err(Error::Home)?,
    };
    let network = shown_path(folder);
    for pid in candidates {
        let Ok(process) = PidFd::open(pid) else {
            continue;
        };
        // Its number may be another's by now.
        if was_told_of(pid, &network) {
            process.signal(Signal::KILL).map_err(Error::Home)?;
            // Nobody else has its tap device then.
            let deadline = Some(Instant::now() + PATIENCE);
            poll::readable(&[process.as_fd()], deadline).map_err(Error::Home)?;
        }
    }
    Ok(fs::remove_file(&path)?)
}

/// Whether a process has this path among its arguments.
fn was_told_of(pid: i32, network: &Path) -> bool {
    let command = fs::read_if_there(Path::new(&format!("/proc/{pid}/cmdline")));
    let command = command.ok().flatten().unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0);
    words.any(|word| word == network.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;

    use super::*;

    /// As long as it is not known by its number, it is by what it was told.
    #[test]
    fn a_program_is_ended_however_far_its_start_has_come() {
        let folder = std::env::temp_dir().join(format!("kplay-way-out-{}", std::process::id()));
        fs::create_dir_all(&folder, 0o700).unwrap();
        let start = |network: &Path| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "echo; read line", "sh"]).arg(network);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Before, what it was told may not be seen yet.
            let mut output = child.stdout.take().unwrap();
            output.read_exact(&mut [0]).unwrap();
            child
        };
        let mut other = start(&folder.join("another"));
        for noted in [true, false] {
            let mut ours = start(&shown_path(&folder));
            let note = if noted {
                ours.id().to_string()
            } else {
                String::new()
            };
            fs::replace_in_memory(&note_path(&folder), 0o600, note.as_bytes()).unwrap();
            close(&folder).unwrap();
            let killed = ours.wait().unwrap().signal();
            assert_eq!(killed, Some(Signal::KILL.number()), "{noted}");
            assert!(!note_path(&folder).exists());
        }
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
