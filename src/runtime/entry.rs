//! The last steps of a container's process before its program: what libcontainer leaves to us as its `Executor`.
//!
//! It runs in the process itself, in the container's namespaces and root, with its user and its capabilities.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::Spec;

use super::wire::{Answer, SeccompLoad, StdioKind, cut};
use super::{create, environment};
use crate::sys::capability::{self, Set};
use crate::sys::process::Replacement;
use crate::sys::signal::{self, Signal};
use crate::sys::{fs, seccomp};

/// Ties the process to the executor, confines it, and executes its program.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) stdio: StdioKind,
    pub(super) seccomp: Option<Filter>,
}

/// A seccomp program, and how it is loaded.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) load: SeccompLoad,
    pub(super) program: Arc<Vec<u8>>,
    pub(super) flags: u32,
}

impl Executor for Entry {
    /// All checks are made where their result is used, in [`Entry::exec`].
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// Called after the user was set (which would undo what is done here) and before the wait for the start, in which
    /// the process must not outlive the executor, nor the helper. The environment needs no setting: it is given to `execve`.
    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        tie_to_executor()
            .and_then(|()| create::tell_waiting())
            .map_err(|e| ExecutorSetEnvsError::SetEnvs(Box::new(e)))
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure =
            |what: &str, error: io::Error| ExecutorError::Other(format!("{what}: {error}"));
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_deref().unwrap_or_default();
        let env = process.env().as_deref().unwrap_or_default();
        let name = args.first().ok_or(ExecutorError::InvalidArg)?;
        let program = match find(name, env) {
            Ok(program) => program,
            Err(error) => return Err(refuse(name, &error)),
        };
        let replacement = Replacement::prepare(&program, args, env)
            .map_err(|e| failure("preparing the program", e))?;
        if self.stdio == StdioKind::Terminal {
            create::hand_terminal_over().map_err(|e| failure("preparing the terminal", e))?;
        }
        signal::reset_all();
        if let Some(filter) = &self.seccomp {
            match filter.load {
                SeccompLoad::NoNewPrivileges => {}
                // CAP_SYS_ADMIN itself is still there to load the filter with. `execve` computes the new sets from the
                // bounding set or from none at all, depending on the user; it cannot come out of that.
                SeccompLoad::Privileged { keep } => {
                    capability::limit_bounding(Set(keep))
                        .map_err(|e| failure("dropping capabilities", e))?;
                }
            }
            seccomp::load(&filter.program, filter.flags)
                .map_err(|e| failure("loading the seccomp profile", e))?;
        }
        let error = replacement.execute();
        Err(refuse(name, &error))
    }
}

/// Has the kernel kill this process when the executor dies, and checks that it has not died before.
fn tie_to_executor() -> io::Result<()> {
    signal::on_parent_death(Signal::KILL)?;
    // The parent's number is 0 in a new pid namespace; but nobody else can hold the other end of the socket.
    if create::is_executor_gone()? {
        return Err(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the executor is gone",
        ));
    }
    Ok(())
}

/// Tells the executor why the program does not run.
fn refuse(program: &str, error: &io::Error) -> ExecutorError {
    create::answer(&match error.kind() {
        io::ErrorKind::NotFound => Answer::CommandNotFound {
            program: cut(program.to_owned()),
        },
        _ => Answer::NotExecutable {
            program: cut(program.to_owned()),
            // What the check of the file finds has no number.
            errno: error.raw_os_error().unwrap_or(EACCES),
        },
    });
    ExecutorError::Other(format!("executing {program}: {error}"))
}

/// "Permission denied".
const EACCES: i32 = 13;

/// Finds a program as a shell does: a name with a slash is a path, others are looked for in PATH. If there is nothing
/// but files that are not executable, that is the error.
fn find(name: &str, env: &[String]) -> io::Result<PathBuf> {
    if name.contains('/') {
        return fs::check_executable(Path::new(name)).map(|()| name.into());
    }
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    if name.is_empty() {
        return Err(refused);
    }
    for folder in environment::value(env, "PATH")
        .unwrap_or_default()
        .split(':')
    {
        let folder = if folder.is_empty() { "." } else { folder };
        let path = Path::new(folder).join(name);
        match fs::check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => refused = e,
            Err(_) => {}
        }
    }
    Err(refused)
}
