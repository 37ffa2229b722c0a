//! The real [`Runtime`]: libcontainer, in a helper process per request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec};

use super::helper::{Helper, Order, Terminal};
use super::seccomp::SeccompProfile;
use super::wire::{Action, Request, SeccompLoad, StdioKind};
use super::{
    Error, ExecRequest, Prepared, Program, Runtime, StartRequest, Started, Stdio, environment,
    helper, landing, seccomp,
};
use crate::sys::capability::Set;
use crate::sys::cgroup::CgroupEntry;
use crate::sys::ids::{IdRange, Person};
use crate::sys::process::Reaper;
use crate::sys::{self, fd};

/// Starts containers through libcontainer. For one executor: it keeps compiled seccomp programs.
#[derive(Debug)]
pub struct Libcontainer {
    program: Program,
    reaper: Rc<Reaper>,
    /// The default profile's program, by what it depends on.
    programs: RefCell<BTreeMap<u64, OwnedFd>>,
}

impl Libcontainer {
    /// A runtime whose helpers are `program`, and that tells `reaper` which children are not to be reaped. The caller
    /// must be the subreaper, and call [`Reaper::reap`] on SIGCHLD.
    #[must_use]
    pub fn new(program: Program, reaper: Rc<Reaper>) -> Self {
        Self {
            program,
            reaper,
            programs: RefCell::default(),
        }
    }

    /// The program of a profile, for a process with these capabilities; none for an unconfined one.
    fn compile(
        &self,
        profile: &SeccompProfile,
        capabilities: Set,
    ) -> Result<Option<OwnedFd>, Error> {
        let store = |program: &[u8]| {
            fd::sealed_memory(c"seccomp", program, fd::MemoryUse::Data)
                .map_err(Error::system("store a seccomp program"))
        };
        match profile {
            SeccompProfile::Unconfined => Ok(None),
            SeccompProfile::Custom(profile) => {
                let program = seccomp::compile_custom(profile, capabilities)?;
                Ok(Some(store(&program)?))
            }
            SeccompProfile::RuntimeDefault => {
                let key = seccomp::relevant(capabilities).0;
                let mut programs = self.programs.borrow_mut();
                let program = match programs.entry(key) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        new.insert(store(&seccomp::compile_default(capabilities)?)?)
                    }
                };
                // Opened again: each reader needs an offset of its own.
                let again =
                    fd::reopen(program).map_err(Error::system("pass a seccomp program on"))?;
                Ok(Some(again))
            }
        }
    }

    /// Prepares the process, and the descriptors that the helper gets for it after the request.
    fn prepare(
        &self,
        process: &mut Process,
        profile: &SeccompProfile,
        stdio: Stdio,
    ) -> Result<(Option<SeccompLoad>, StdioKind, Vec<OwnedFd>), Error> {
        let bounding = bounding(process);
        let mut fds = Vec::new();
        let mut load = None;
        if let Some(program) = self.compile(profile, bounding)? {
            fds.push(program);
            load = Some(grant_loading(process, bounding));
        }
        // Set to false, libcontainer takes it as a wish that it cannot fulfil.
        if process.no_new_privileges() == Some(false) {
            process.set_no_new_privileges(None);
        }
        let kind = match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                fds.extend([stdin, stdout, stderr]);
                process.set_terminal(Some(false));
                StdioKind::Pipes
            }
            Stdio::Terminal { .. } => {
                process.set_terminal(Some(true));
                StdioKind::Terminal
            }
        };
        Ok((load, kind, fds))
    }

    /// Has the helper carry out the request.
    async fn run(
        &self,
        helper: Helper,
        request: &Request,
        mut order: Order<'_>,
    ) -> Result<Started, Error> {
        let text = serde_json::to_vec(request).map_err(unwritable)?;
        let request = fd::sealed_memory(c"request", &text, fd::MemoryUse::Data)
            .map_err(Error::system("write the request"))?;
        order.fds.insert(0, request);
        helper::run(helper, &self.reaper, order).await
    }
}

impl Runtime for Libcontainer {
    fn prepare(&self, cgroup: &CgroupEntry) -> Result<Prepared, Error> {
        Helper::start(&self.program, &self.reaper, cgroup).map(|helper| Prepared(Some(helper)))
    }

    async fn start(&self, request: StartRequest) -> Result<Started, Error> {
        let StartRequest {
            id,
            bundle,
            state,
            mut spec,
            late_mounts,
            host_mounts,
            ids,
            seccomp,
            prepared: Prepared(helper),
            stdio,
        } = request;
        let helper = helper.ok_or_else(|| Error::Create {
            detail: "it was prepared by another runtime".to_owned(),
        })?;
        detach_from_host(&mut spec);
        let rootfs = spec.root().as_ref().map(|root| bundle.join(root.path()));
        let mut process = spec.process().clone().ok_or_else(|| Error::Create {
            detail: "the specification has no process".to_owned(),
        })?;
        environment::complete(&mut process, rootfs.as_deref())?;
        let uid = on_host(process.user().uid(), ids)?;
        let terminal = stdio.terminal(uid);
        let seccomp_flags = seccomp::flags(&seccomp);
        let (seccomp, kind, mut fds) = self.prepare(&mut process, &seccomp, stdio)?;
        let action = Action::Start {
            bundle: bundle.clone(),
            late_mounts,
            masked: masked(&spec),
            host_mounts: host_mounts.is_some(),
        };
        fds.extend(host_mounts);
        let directory = process.cwd().clone();
        if let Some(rootfs) = &rootfs {
            landing::prepare(&spec, rootfs).map_err(|error| Error::Misplaced {
                detail: error.to_string(),
            })?;
            make_working_directory(&spec, rootfs, &directory, ids);
        }
        spec.set_process(Some(process));
        let config = serde_json::to_vec(&spec).map_err(unwritable)?;
        sys::fs::create_dir_all(&bundle, 0o700)?;
        sys::fs::replace_in_memory(&bundle.join("config.json"), 0o600, &config)?;
        let request = Request {
            id,
            state,
            action,
            stdio: kind,
            seccomp,
            seccomp_flags,
            uid,
        };
        let order = Order {
            fds,
            directory: &directory,
            terminal,
        };
        let started = self.run(helper, &request, order).await;
        let started = started.map_err(|error| match ids {
            None => error,
            Some(_) => explain(error),
        });
        if started.is_err()
            && let Err(error) = self.forget(&request.state, &request.id)
        {
            // The reason why it did not start is worth more to the caller.
            tracing::warn!(id = request.id, %error, "the state of a failed container stays");
        }
        started
    }

    async fn exec(&self, request: ExecRequest) -> Result<Started, Error> {
        let ExecRequest {
            id,
            state,
            mut process,
            seccomp,
            cgroup,
            stdio,
            tenancy,
        } = request;
        let helper = Helper::start(&self.program, &self.reaper, &cgroup)?;
        let first_id = tenancy.as_ref().map(|tenancy| tenancy.first_id);
        let ids = first_id.and_then(IdRange::starting_at);
        let uid = on_host(process.user().uid(), ids)?;
        let terminal = stdio.terminal(uid);
        let seccomp_flags = seccomp::flags(&seccomp);
        let (seccomp, kind, fds) = self.prepare(&mut process, &seccomp, stdio)?;
        let directory = process.cwd().clone();
        let request = Request {
            id,
            state,
            uid,
            action: Action::Exec {
                process: Box::new(process),
                tenancy,
            },
            stdio: kind,
            seccomp,
            seccomp_flags,
        };
        let order = Order {
            fds,
            directory: &directory,
            terminal,
        };
        self.run(helper, &request, order).await
    }

    fn forget(&self, state: &Path, id: &str) -> Result<(), Error> {
        sys::fs::remove_dir_all(&state.join(id))?;
        Ok(())
    }
}

impl Stdio {
    /// The terminal to be made, for a process of this user.
    fn terminal(&self, uid: u32) -> Option<Terminal> {
        match *self {
            Self::Pipes { .. } => None,
            Self::Terminal { rows, columns } => Some(Terminal { uid, rows, columns }),
        }
    }
}

/// Says what libcontainer does not about a container in a user namespace.
fn explain(error: Error) -> Error {
    match error {
        Error::Create { detail } => {
            let mut kernels = ["/proc", "/sys"].into_iter();
            let path = kernels
                .find(|path| detail.contains(&format!("mount Mount {{ destination: \"{path}\"")));
            match path {
                Some(path) => Error::Covered { path, detail },
                None => Error::Create { detail },
            }
        }
        other => other,
    }
}

/// The machine's number for a container's user.
fn on_host(uid: u32, ids: Option<IdRange>) -> Result<u32, Error> {
    match ids {
        None => Ok(uid),
        Some(ids) => ids.on_host(uid).ok_or(Error::NoSuchId { id: uid }),
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::System {
        what: "write the container's specification",
        source: error.into(),
    }
}

fn masked(spec: &Spec) -> Vec<PathBuf> {
    let linux = spec.linux().as_ref();
    let paths = linux.and_then(|linux| linux.masked_paths().as_ref());
    paths.into_iter().flatten().map(PathBuf::from).collect()
}

/// Takes out what is done outside libcontainer.
fn detach_from_host(spec: &mut Spec) {
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(None);
        linux.set_seccomp(None);
        // Absolute, because an empty one would mean the helper's own cgroup. Nothing is there to be found.
        linux.set_cgroups_path(Some("/kplay".into()));
    }
}

/// The capabilities that the process can ever have. Without a list it keeps all.
fn bounding(process: &Process) -> Set {
    match process.capabilities() {
        None => Set(u64::MAX),
        Some(capabilities) => Set(bits(capabilities.bounding().as_ref())),
    }
}

/// Who a process is, with the capabilities that it can use without more ado: of those, who is not root has the ambient ones.
#[must_use]
pub fn person(process: &Process) -> Person {
    let user = process.user();
    let sets = process.capabilities().as_ref();
    let capabilities = match sets {
        None => u64::MAX,
        Some(sets) if user.uid() == 0 => bits(sets.bounding().as_ref()),
        Some(sets) => bits(sets.ambient().as_ref()),
    };
    Person {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        capabilities,
    }
}

fn bits(capabilities: Option<&Capabilities>) -> u64 {
    let named = capabilities.into_iter().flatten();
    let sets = named.filter_map(|capability| Set::named(&format!("CAP_{capability}")));
    sets.fold(Set::default(), Set::with).0
}

/// Without no_new_privs, loading a seccomp program takes CAP_SYS_ADMIN, and dropping that again CAP_SETPCAP: the
/// process gets both from libcontainer, and loses them on its last steps before the program.
fn grant_loading(process: &mut Process, bounding: Set) -> SeccompLoad {
    if process.no_new_privileges() == Some(true) {
        return SeccompLoad::NoNewPrivileges;
    }
    if let Some(capabilities) = process.capabilities().clone() {
        process.set_capabilities(Some(with_loading(capabilities)));
    }
    SeccompLoad::Privileged { keep: bounding.0 }
}

fn with_loading(mut capabilities: LinuxCapabilities) -> LinuxCapabilities {
    let added = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend([Capability::SysAdmin, Capability::Setpcap]);
        Some(set)
    };
    let bounding = added(capabilities.bounding());
    let effective = added(capabilities.effective());
    let permitted = added(capabilities.permitted());
    capabilities.set_bounding(bounding);
    capabilities.set_effective(effective);
    capabilities.set_permitted(permitted);
    capabilities
}

/// Makes the working directory where it is missing, as runc does, in the root file system or in the volume that holds
/// it. That it cannot be made is not told here: entering it fails next, with the same reason.
fn make_working_directory(spec: &Spec, rootfs: &Path, directory: &Path, ids: Option<IdRange>) {
    let make = |root: &Path, path: &Path| match ids {
        None => sys::fs::create_dir_in_root(root, path, 0o755),
        Some(ids) => sys::ids::as_root_of(ids, || sys::fs::create_dir_in_root(root, path, 0o755)),
    };
    let mounts = spec.mounts().iter().flatten();
    let holder = mounts
        .filter(|mount| directory.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let made = match holder {
        None => make(rootfs, directory),
        Some(mount) => match (mount.source(), directory.strip_prefix(mount.destination())) {
            (Some(source), Ok(rest)) if source.is_absolute() && !rest.as_os_str().is_empty() => {
                make(source, rest)
            }
            _ => Ok(()),
        },
    };
    if let Err(error) = made {
        tracing::debug!(?directory, %error, "the working directory cannot be made");
    }
}
