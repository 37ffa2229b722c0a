//! The helper, `kplay internal create`: one request, carried out by libcontainer, in a process of its own that
//! libcontainer may change as it likes.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::entry::{Entry, Filter};
use super::wire::{Action, Answer, GO, Request, SOCKET, StdioKind, cut};
use super::{Tenancy, environment, landing, late, trace};
use crate::model::cause::chain;
use crate::sys::fd::MemoryUse;
use crate::sys::pidfd::PidFd;
use crate::sys::{self, fd, namespace, process};

/// The way to the executor, for this process and those that libcontainer forks from it.
static EXECUTOR: OnceLock<OwnedFd> = OnceLock::new();

/// What went wrong, told to the executor by its text.
type Failure = Box<dyn std::error::Error>;

/// Carries out the request that the parent passed, and answers on the socket. The process must be a fresh one.
#[must_use]
pub fn main() -> ExitCode {
    match fd::inherited(SOCKET) {
        Ok(socket) => EXECUTOR.get_or_init(|| socket),
        // Started by hand; there is nobody to tell.
        Err(_) => return ExitCode::FAILURE,
    };
    std::panic::set_hook(Box::new(|panic| {
        answer(&Answer::Failed {
            detail: cut(panic.to_string()),
        });
    }));
    // libcontainer's errors are told only here. Nobody else can have set one.
    tracing::subscriber::set_global_default(trace::ToExecutor(answer)).ok();
    match create() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            answer(&Answer::Failed {
                detail: cut(chain(&*error)),
            });
            ExitCode::FAILURE
        }
    }
}

/// Sends an answer to the executor.
pub(super) fn answer(answer: &Answer) {
    send(answer, &[]);
}

/// Has the executor end this process if the helper ends before it has started it.
pub(super) fn tell_waiting() -> io::Result<()> {
    send(&Answer::Waiting, &[PidFd::own()?.as_fd()]);
    Ok(())
}

/// Has the executor prepare this process's terminal, and waits until that is done.
pub(super) fn hand_terminal_over() -> io::Result<()> {
    let socket = EXECUTOR.get().ok_or(io::ErrorKind::NotConnected)?;
    send(&Answer::Terminal, &[io::stdin().as_fd()]);
    let mut buffer = [0; GO.len()];
    let (length, _) = fd::receive(socket, &mut buffer)?;
    if buffer[..length] == *GO {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the executor cannot prepare it",
        ))
    }
}

fn send(answer: &Answer, passed: &[BorrowedFd<'_>]) {
    let Some(socket) = EXECUTOR.get() else {
        return;
    };
    let Ok(text) = serde_json::to_vec(answer) else {
        return;
    };
    // If the executor is gone, this process is about to be.
    fd::send(socket, &text, passed).ok();
}

/// Whether nobody listens any more.
pub(super) fn is_executor_gone() -> io::Result<bool> {
    EXECUTOR.get().map_or(Ok(true), fd::is_peer_gone)
}

fn create() -> Result<(), Failure> {
    debug_assert_eq!(process::threads().ok(), Some(1), "libcontainer forks");
    let mut passed = receive_request()?.into_iter();
    let mut next = || passed.next().ok_or("the executor passed too little");
    let mut text = Vec::new();
    std::fs::File::from(next()?).read_to_end(&mut text)?;
    let request: Request = serde_json::from_slice(&text)?;
    // libcontainer leaves both as they are where the specification says nothing, or an empty list.
    process::set_umask(0o022);
    process::clear_groups()?;
    let seccomp = match request.seccomp {
        Some(load) => Some(Filter {
            load,
            program: read_program(next()?)?,
            flags: request.seccomp_flags,
        }),
        None => None,
    };
    let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_executor(Entry {
            stdio: request.stdio,
            seccomp,
        });
    let mut streams = None;
    if request.stdio == StdioKind::Pipes {
        let all = [next()?, next()?, next()?];
        for stream in &all {
            sys::fs::give_stream_to(stream, request.uid)?;
        }
        streams = Some(all);
    }
    // What only the machine's root may do has been done.
    let tenant = match &request.action {
        Action::Start { .. } => None,
        Action::Exec { process, tenancy } => Some(Tenant::enter(&request, process, tenancy)?),
    };
    let mut console = None;
    match streams {
        Some([stdin, stdout, stderr]) => {
            builder = builder
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr);
        }
        None => {
            let state = tenant.as_ref().map_or(&request.state, Tenant::folder);
            let listener = Console::listen(state)?;
            builder = builder.with_console_socket(Some(listener.path.clone()));
            console = Some(listener);
        }
    }
    let pid = match &request.action {
        Action::Start {
            bundle,
            late_mounts,
            masked,
            host_mounts,
        } => {
            let host = host_mounts.then(&mut next).transpose()?;
            let host = host.as_ref().map(AsFd::as_fd);
            start(builder, &request.state, bundle, &|init| {
                late::mount_all(init, late_mounts, host)?;
                landing::check(init, masked).inspect_err(|error| {
                    answer(&Answer::Misplaced {
                        detail: cut(error.to_string()),
                    });
                })?;
                Ok(())
            })?
        }
        Action::Exec { .. } => tenant.ok_or("there is no container")?.run(builder)?,
    };
    let master = console.map(|console| console.accept()).transpose()?;
    let master: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    send(&Answer::Started { pid }, &master);
    Ok(())
}

/// Waits for the request: a helper may be started before it is needed.
fn receive_request() -> io::Result<Vec<OwnedFd>> {
    let socket = EXECUTOR.get().ok_or(io::ErrorKind::NotConnected)?;
    let (length, passed) = fd::receive(socket, &mut [0; GO.len()])?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(passed)
}

fn read_program(fd: OwnedFd) -> io::Result<Arc<Vec<u8>>> {
    let mut program = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut program)?;
    Ok(Arc::new(program))
}

fn start(
    builder: ContainerBuilder,
    state: &Path,
    bundle: &Path,
    finish_mounts: &dyn Fn(i32) -> Result<(), Failure>,
) -> Result<i32, Failure> {
    let mut container = builder
        .with_root_path(state)?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    let pid = container
        .pid()
        .ok_or("libcontainer does not tell the container's process")?;
    finish_mounts(pid.as_raw())?;
    container.start()?;
    Ok(pid.as_raw())
}

/// A command in a running container.
struct Tenant {
    process: OwnedFd,
    state: OwnState,
}

impl Tenant {
    /// Takes what the machine's root may see, and then enters the container's user namespace, if it has one: libcontainer
    /// does that for a container, but not for a command in one.
    fn enter(
        request: &Request,
        process: &oci_spec::runtime::Process,
        tenancy: &Option<Tenancy>,
    ) -> Result<Self, Failure> {
        let original = request.state.join(&request.id);
        let container = Container::load(original.clone())?;
        let init = container.pid().ok_or("the container has no process")?;
        let mut process = process.clone();
        let root = PathBuf::from(format!("/proc/{init}/root"));
        environment::complete(&mut process, Some(&root))?;
        let score = process.oom_score_adj();
        if let (Some(_), Some(score)) = (tenancy, score) {
            // Nobody else may lower it.
            process::set_oom_score(score)?;
            process.set_oom_score_adj(None);
        }
        let text = serde_json::to_vec(&process)?;
        let process = fd::sealed_memory(c"process", &text, MemoryUse::Data)?;
        // libcontainer leaves a socket in the container's folder for each exec; so each gets a folder of its own.
        let state = match tenancy {
            None => OwnState::copy(&request.state, &request.id, &original)?,
            Some(tenancy) => {
                let bundle = container.bundle();
                let state = OwnState::hand_over(tenancy, &request.id, &original, bundle)?;
                sys::ids::enter(namespace::users_of(init.as_raw())?)?;
                state
            }
        };
        Ok(Self { process, state })
    }

    /// Where the command's helper may make files.
    fn folder(&self) -> &PathBuf {
        &self.state.0
    }

    fn run(self, builder: ContainerBuilder) -> Result<i32, Failure> {
        let pid = builder
            .with_root_path(&self.state.0)?
            .as_tenant()
            .with_process(Some(fd::path_of(&self.process)))
            .with_detach(true)
            .as_sibling(true)
            .build()?;
        Ok(pid.as_raw())
    }
}

/// A copy of a container's state, removed when dropped.
struct OwnState(PathBuf);

/// libcontainer's own names.
const STATE: &str = "state.json";
const CONFIG: &str = "config.json";

impl OwnState {
    fn copy(state: &Path, id: &str, original: &Path) -> Result<Self, Failure> {
        let own = Self(state.join(format!(".exec-{}", std::process::id())));
        sys::fs::create_dir_all(&own.0.join(id), 0o700)?;
        let text = sys::fs::read(&original.join(STATE))?;
        sys::fs::replace_in_memory(&own.0.join(id).join(STATE), 0o600, &text)?;
        Ok(own)
    }

    /// As [`OwnState::copy`], with the bundle, for the root of the container's user namespace.
    fn hand_over(
        tenancy: &Tenancy,
        id: &str,
        original: &Path,
        bundle: &Path,
    ) -> Result<Self, Failure> {
        let own = Self::copy(&tenancy.folder, id, original)?;
        let folder = own.0.join(id);
        let mut state: serde_json::Value =
            serde_json::from_slice(&sys::fs::read(&folder.join(STATE))?)?;
        *state.get_mut("bundle").ok_or("the state names no bundle")? =
            folder.to_str().ok_or("a folder's name is no text")?.into();
        let config = sys::fs::read(&bundle.join(CONFIG))?;
        let [state_file, config_file] = [STATE, CONFIG].map(|name| folder.join(name));
        sys::fs::replace_in_memory(&state_file, 0o600, &serde_json::to_vec(&state)?)?;
        sys::fs::replace_in_memory(&config_file, 0o600, &config)?;
        for path in [&own.0, &folder, &state_file, &config_file] {
            sys::fs::set_owner(path, tenancy.first_id, tenancy.first_id)?;
        }
        Ok(own)
    }
}

impl Drop for OwnState {
    fn drop(&mut self) {
        if let Err(error) = sys::fs::remove_dir_all(&self.0) {
            tracing::error!(%error, "a copy of the container's state stays");
        }
    }
}

/// The socket at which libcontainer delivers the master of a new terminal.
struct Console {
    path: PathBuf,
    listener: std::os::unix::net::UnixListener,
}

impl Console {
    fn listen(state: &Path) -> Result<Self, Failure> {
        sys::fs::create_dir_all(state, 0o700)?;
        let name = format!(".console-{}", std::process::id());
        // The path may be longer than a socket's address.
        let folder = sys::fs::open_dir(state)?;
        let short = fd::path_of(&folder).join(&name);
        Ok(Self {
            listener: std::os::unix::net::UnixListener::bind(short)?,
            path: state.join(name),
        })
    }

    /// Takes the terminal; it has been sent before libcontainer says that the process is ready.
    fn accept(&self) -> Result<OwnedFd, Failure> {
        let (stream, _) = self.listener.accept()?;
        let (_, master) = fd::receive(&stream, &mut [0; 64])?;
        let master = master.into_iter().next();
        Ok(master.ok_or("libcontainer sent no terminal")?)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = sys::fs::remove_file(&self.path) {
            tracing::error!(%error, "the socket of a terminal stays");
        }
    }
}
