//! One container's run: from its root file system to its last log line.

mod end;

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use self::end::Watch;
use super::attach::Audience;
use super::context::{Context, Message};
use super::describe::{Description, Places};
use super::error::{StartFailure, system};
use super::lifecycle::{Fault, Index};
use super::log::{LogWriter, Stream};
use super::status::Observation;
use super::users::{self, Joined, Users};
use super::{describe, image, output, probe, profiles, volumes};
use crate::model::cause::chain;
use crate::model::event::EventType;
use crate::model::image::Pull;
use crate::model::plan::{ContainerPlan, ContainerRole};
use crate::protocol::Opened;
use crate::runtime::{self, ExecRequest, Prepared, Runtime, StartRequest, Stdio, Tenancy, rootfs};
use crate::spec::{self, Spec};
use crate::state::logs::{self, links};
use crate::sys::cgroup::{Cgroup, DevicePolicy, Limits};
use crate::sys::pidfd::PidFd;
use crate::sys::signal::Signal;
use crate::sys::{fd, fs, identity, namespace};
use crate::volume;

/// A terminal nobody looks at.
const TERMINAL: (u16, u16) = (24, 80);

/// A container that runs.
#[derive(Debug)]
pub(super) struct Live {
    id: String,
    process: Rc<PidFd>,
    cgroup: Rc<Cgroup>,
    stop_signal: Signal,
    seccomp: runtime::SeccompProfile,
    spec: Spec,
    /// Of a pod with a user namespace.
    tenancy: Option<Tenancy>,
    started: Instant,
    pub(super) probes: probe::Workers,
    /// Kept open where the manifest asks for standard input, until a client has had it if that is once only.
    stdin: RefCell<Option<OwnedFd>>,
    /// The container's terminal.
    terminal: Option<OwnedFd>,
    pub(super) audience: Rc<Audience>,
}

/// A container's files.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) root: OwnedFd,
    /// Of a pod with a user namespace.
    pub(super) users: Option<OwnedFd>,
    pub(super) opened: Opened,
}

/// `stdinOnce`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Once {
    Yes,
    No,
}

/// What a container is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stop,
    Kill,
}

impl Live {
    /// Gives its cgroup new limits.
    pub(super) fn set_limits(&self, limits: &Limits) -> Result<(), crate::sys::cgroup::Error> {
        self.cgroup.set(limits)
    }

    /// The run's id.
    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    /// Sends the stop signal, or kills all of the container.
    pub(super) fn signal(&self, wish: Wish) -> io::Result<()> {
        match wish {
            Wish::Stop => self.process.signal(self.stop_signal),
            Wish::Kill => self.process.signal(Signal::KILL),
        }
    }

    /// Gives what can be written into: the terminal, or standard input if it is wanted and there is one. What is
    /// returned closes it for good, once it has been passed on.
    pub(super) fn input(&self, stdin: bool, once: Once) -> io::Result<Option<OwnedFd>> {
        if let Some(terminal) = &self.terminal {
            return terminal.try_clone().map(Some);
        }
        let mut held = self.stdin.borrow_mut();
        match (&*held, once) {
            (_, _) if !stdin => Ok(None),
            (_, Once::Yes) => Ok(held.take()),
            (Some(held), Once::No) => held.try_clone().map(Some),
            (None, Once::No) => Ok(None),
        }
    }

    /// The container's files, for who is as its process.
    pub(super) fn files(&self) -> io::Result<Files> {
        let process = spec::process_of(&self.spec);
        let pid = self.process.pid();
        let users = self.tenancy.as_ref().map(|_| namespace::users_of(pid));
        Ok(Files {
            root: namespace::root_of(pid)?,
            users: users.transpose()?,
            opened: Opened {
                person: runtime::person(&process),
                directory: process.cwd().clone(),
            },
        })
    }

    /// What runs `command` in this container, as its user and with its limits.
    pub(super) fn exec_request(
        &self,
        state: PathBuf,
        command: Vec<String>,
        stdio: Stdio,
    ) -> Result<ExecRequest, crate::sys::cgroup::Error> {
        let terminal = matches!(stdio, Stdio::Terminal { .. });
        Ok(ExecRequest {
            id: self.id.clone(),
            state,
            process: spec::exec_process(&self.spec, command, terminal),
            seccomp: self.seccomp.clone(),
            cgroup: self.cgroup.entry()?,
            stdio,
            tenancy: self.tenancy.clone(),
        })
    }
}

/// Where a container's first run will start: its cgroup, and what waits there to start it.
#[derive(Debug)]
pub(super) struct Place {
    cgroup: Cgroup,
    prepared: Prepared,
}

/// Prepares a container's first start, to have it sooner.
pub(super) fn prepare<R: Runtime + 'static>(context: &Rc<Context<R>>, index: Index) {
    let place = Run::new(context, index, 0, String::new()).make_place();
    match place {
        Ok(place) => drop(context.places.borrow_mut().insert(index, place)),
        // Tried again, and told, when it starts.
        Err(error) => tracing::debug!(container = index, %error, "cannot prepare a start"),
    }
}

/// Prepares the container after this one, if that starts as soon as this one runs.
fn prepare_next<R: Runtime + 'static>(context: &Rc<Context<R>>, index: Index) {
    let plan = &context.launch.plan;
    let this = context.container_plan(index);
    let is_waited_for = match this.role {
        ContainerRole::Init => true,
        ContainerRole::Sidecar => this.probes.startup.is_some(),
        ContainerRole::Main => false,
    };
    let follows = !is_waited_for && index + 1 < plan.all_containers().count();
    if follows {
        let context = Rc::clone(context);
        tokio::task::spawn_local(async move { prepare(&context, index + 1) });
    }
}

/// Begins to probe a container. One that has ended meanwhile is not worth it.
pub(super) fn probe<R: Runtime + 'static>(
    context: &Rc<Context<R>>,
    container: Index,
    kind: probe::Kind,
) {
    if let Some(live) = context.live.borrow_mut().get_mut(&container) {
        let run = probe::Run {
            container,
            id: live.id.clone(),
            started: live.started,
        };
        live.probes.start(context, run, kind);
    }
}

/// Starts a container; returns its id. Its exit arrives as a message.
pub(super) async fn start<R: Runtime + 'static>(
    context: &Rc<Context<R>>,
    index: Index,
    attempt: u32,
) -> Result<String, Fault> {
    let id = match identity::random_hex() {
        Ok(id) => id,
        Err(source) => {
            let failure = StartFailure::from(system("get a random number")(source));
            return Err(failure.into_fault(String::new()));
        }
    };
    let run = Run::new(context, index, attempt, id);
    match run.start().await {
        Ok(()) => Ok(run.id),
        Err(failure) => {
            run.clean_up();
            Err(failure.into_fault(run.id))
        }
    }
}

/// One run of a container: its places, and their undo.
struct Run<R> {
    context: Rc<Context<R>>,
    index: Index,
    attempt: u32,
    id: String,
    /// The container's name and the attempt.
    name: String,
}

/// The ends of a container's output that the executor reads, and of its input that it holds.
struct Ends {
    outputs: Vec<(Stream, OwnedFd)>,
    stdin: Option<OwnedFd>,
}

impl<R: Runtime + 'static> Run<R> {
    fn new(context: &Rc<Context<R>>, index: Index, attempt: u32, id: String) -> Self {
        Self {
            context: Rc::clone(context),
            index,
            attempt,
            id,
            name: format!("{}-{attempt}", context.container_plan(index).name),
        }
    }

    fn plan(&self) -> &ContainerPlan {
        self.context.container_plan(self.index)
    }

    fn dir(&self) -> PathBuf {
        self.context.paths().container(&self.name)
    }

    fn rootfs(&self) -> PathBuf {
        match &self.context.users {
            None => self.context.paths().rootfs(&self.name),
            Some(users) => users.rootfs(&self.name),
        }
    }

    fn places(&self) -> Places {
        Places {
            run: self.name.clone(),
            rootfs: self.rootfs(),
            dir: self.dir(),
            sub_paths: self.context.paths().sub_paths(&self.name),
        }
    }

    async fn start(&self) -> Result<(), StartFailure> {
        let (context, plan) = (&self.context, self.plan());
        let image = image::of_start(context, self.index, self.attempt).await?;
        self.report_image(image.pull.as_ref());
        self.mount(&image.layers)?;
        let Description { spec, late_mounts } =
            describe::container(context, plan, &image, &self.places())?;
        profiles::check_app_armor(plan)?;
        let seccomp = profiles::seccomp(context, plan)?;
        let Place { cgroup, prepared } = self.place()?;
        self.report("Created", format!("Created container: {}", plan.name));
        let (stdio, mut ends) = self.stdio()?;
        let tenancy = context.users.as_ref().map(Users::tenancy).transpose()?;
        let request = StartRequest {
            id: self.id.clone(),
            bundle: context.paths().bundle(&self.id),
            state: context.paths().oci_state(),
            spec: spec.clone(),
            late_mounts,
            host_mounts: self.host_mounts()?,
            ids: context.users.as_ref().map(Users::ids),
            seccomp: seccomp.clone(),
            prepared,
            stdio,
        };
        if let Some(sandbox) = context.sandbox.borrow().as_ref() {
            sandbox.settle()?;
        }
        if self.attempt == 0 {
            prepare_next(context, self.index);
        }
        let started = context.runtime.start(request).await;
        let started = started.map_err(|error| {
            let failure = self.explain(error, &cgroup);
            remove_cgroup(&cgroup);
            failure
        })?;
        let mut terminal = None;
        if let Some(master) = started.terminal {
            terminal = Some(master.try_clone().map_err(system("keep a terminal"))?);
            ends.outputs.push((Stream::Stdout, master));
        }
        let audience = Rc::new(Audience::default());
        let process = Rc::new(started.process);
        let cgroup = Rc::new(cgroup);
        let stop_signal = stop_signal(plan, image.config.stop_signal.as_deref());
        let observation = Observation {
            user: describe::user(&spec),
            stop_signal: stop_signal.to_string(),
        };
        context
            .observed
            .borrow_mut()
            .insert(self.index, observation);
        let live = Live {
            id: self.id.clone(),
            process: Rc::clone(&process),
            cgroup: Rc::clone(&cgroup),
            stop_signal,
            seccomp,
            spec,
            tenancy,
            started: Instant::now(),
            probes: probe::Workers::default(),
            stdin: RefCell::new(ends.stdin),
            terminal,
            audience: Rc::clone(&audience),
        };
        context.live.borrow_mut().insert(self.index, live);
        if !Rc::ptr_eq(&context.launch, &context.current()) {
            // The cgroup may be from before a resize.
            cgroup.set(&self.limits())?;
        }
        let log_dir = context.launch.log_dir.join(plan.name.as_str());
        let log = Rc::new(RefCell::new(LogWriter::open(&log_dir, self.attempt)?));
        self.tried(output::forget_old_runs(&log_dir, self.attempt));
        self.tried(self.link_log(&log_dir));
        let outputs = ends.outputs.into_iter();
        let pumps = outputs
            .map(|output| {
                output::pump(
                    Rc::clone(context),
                    Rc::clone(&log),
                    Rc::clone(&audience),
                    self.index,
                    output,
                )
            })
            .collect();
        let watch = Watch {
            run: Self::new(context, self.index, self.attempt, self.id.clone()),
            process,
            cgroup,
            pumps,
            audience,
            _kept: started.kept,
        };
        tokio::task::spawn_local(watch.until_the_end());
        Ok(())
    }

    /// Makes the link to this run's log, and removes those of runs that are forgotten.
    fn link_log(&self, log_dir: &Path) -> Result<(), fs::Error> {
        let Some(folder) = &self.context.launch.log_links else {
            return Ok(());
        };
        let log = logs::current_file(log_dir, self.attempt);
        let pod = self.context.launch.plan.key();
        links::make(folder, &pod, self.plan().name.as_str(), &self.id, &log)?;
        if self.attempt < 2 {
            return Ok(());
        }
        links::sweep(folder)
    }

    /// Says that the container's limit was too low for its start, if that was it.
    fn explain(&self, error: runtime::Error, cgroup: &Cgroup) -> StartFailure {
        let limit = self.limits().memory_bytes;
        match limit.filter(|_| cgroup.oom_kills().is_ok_and(|kills| kills > 0)) {
            Some(limit) => StartFailure::OutOfMemory { limit },
            None => error.into(),
        }
    }

    fn mount(&self, layers: &[PathBuf]) -> Result<(), StartFailure> {
        let (dir, rootfs) = (self.dir(), self.rootfs());
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for folder in [&upper, &work, &rootfs] {
            fs::create_dir_all(folder, 0o755)?;
        }
        let users = users::namespace(&self.context)?;
        let users = users.as_ref().map(Joined::as_users);
        Ok(rootfs::mount(layers, &upper, &work, &rootfs, users)?)
    }

    fn place(&self) -> Result<Place, StartFailure> {
        let prepared = match self.attempt {
            0 => self.context.places.borrow_mut().remove(&self.index),
            _ => None,
        };
        prepared.map_or_else(|| self.make_place(), Ok)
    }

    fn make_place(&self) -> Result<Place, StartFailure> {
        let cgroup = self.make_cgroup()?;
        let entry = cgroup.entry().map_err(StartFailure::from);
        let prepared = entry.and_then(|entry| Ok(self.context.runtime.prepare(&entry)?));
        let prepared = prepared.inspect_err(|_| remove_cgroup(&cgroup))?;
        Ok(Place { cgroup, prepared })
    }

    fn limits(&self) -> Limits {
        let launch = self.context.current();
        let current = launch.plan.all_containers().nth(self.index);
        super::pod::container_limits(&launch.plan, current.unwrap_or(self.plan()))
    }

    fn make_cgroup(&self) -> Result<Cgroup, StartFailure> {
        let mut limits = self.limits();
        limits.oom_group = true;
        // A kubelet's `NoSwap`.
        limits.no_swap = true;
        limits.devices = if self.plan().security.privileged {
            DevicePolicy::All
        } else {
            let and = volumes::block_devices(&self.context.launch.plan, self.plan())?;
            DevicePolicy::Default { and }
        };
        let path = format!("{}/{}", self.context.launch.cgroup, self.name);
        Ok(self.context.hierarchies.create(&path, &limits)?)
    }

    fn host_mounts(&self) -> Result<Option<OwnedFd>, StartFailure> {
        let host = self.context.host_mounts.as_ref();
        let again = host.map(OwnedFd::try_clone).transpose();
        Ok(again.map_err(system("pass the machine's mounts on"))?)
    }

    fn stdio(&self) -> Result<(Stdio, Ends), StartFailure> {
        let failed = |e| system("make a pipe")(e);
        let none = Ends {
            outputs: Vec::new(),
            stdin: None,
        };
        if self.plan().tty {
            let (rows, columns) = TERMINAL;
            return Ok((Stdio::Terminal { rows, columns }, none));
        }
        let (stdin, held) = if self.plan().stdin {
            let (read, write) = fd::pipe().map_err(failed)?;
            (read, Some(write))
        } else {
            (fd::dev_null().map_err(failed)?, None)
        };
        let (out_read, stdout) = fd::pipe().map_err(failed)?;
        let (err_read, stderr) = fd::pipe().map_err(failed)?;
        let ends = Ends {
            outputs: vec![(Stream::Stdout, out_read), (Stream::Stderr, err_read)],
            stdin: held,
        };
        let stdio = Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok((stdio, ends))
    }

    /// Tells how the image came to the machine, in the words of the kubelet's `image_manager.go`.
    fn report_image(&self, pull: Option<&Pull>) {
        let image = &self.plan().image;
        let Some(pull) = pull else {
            let present = format!("Container image \"{image}\" already present on machine");
            self.report("Pulled", present);
            return;
        };
        let took = go_seconds(pull.milliseconds);
        let size = match pull.size {
            // It was made on this machine.
            0 => String::new(),
            bytes => format!(" Image size: {bytes} bytes."),
        };
        let pulling = format!("Pulling image \"{image}\"");
        let pulled = format!(
            "Successfully pulled image \"{image}\" in {took} ({took} including waiting).{size}"
        );
        let end = pull.began + Duration::from_millis(pull.milliseconds);
        for (time, reason, message) in [(pull.began, "Pulling", pulling), (end, "Pulled", pulled)] {
            let index = Some(self.index);
            let mut event = self
                .context
                .event(EventType::Normal, reason, message, index);
            event.time = time;
            self.context.send(Message::Event(event));
        }
    }

    fn report(&self, reason: &str, message: String) {
        let event = self
            .context
            .event(EventType::Normal, reason, message, Some(self.index));
        self.context.send(Message::Event(event));
    }

    /// Gives back all that a run of this container may hold. Its processes are gone or were never there.
    fn clean_up(&self) {
        let paths = self.context.paths();
        self.tried(self.context.runtime.forget(&paths.oci_state(), &self.id));
        if let Some(users) = &self.context.users {
            self.tried(volume::unmount_sub_paths(&users.mounts(&self.name)));
        }
        self.tried(volume::unmount_sub_paths(&paths.sub_paths(&self.name)));
        self.tried(rootfs::unmount(&self.rootfs()));
        self.tried(fs::remove_dir_all(&self.rootfs()));
        self.tried(fs::remove_dir_all(&self.dir()));
        self.tried(fs::remove_dir_all(&paths.bundle(&self.id)));
    }

    fn tried<E: std::error::Error>(&self, result: Result<(), E>) {
        if let Err(error) = result {
            // The pod's end removes its folders again, and `delete` does so once more.
            tracing::warn!(
                container = self.name,
                error = chain(&error),
                "cannot clean up"
            );
        }
    }
}

fn remove_cgroup(cgroup: &Cgroup) {
    if let Err(error) = cgroup.kill().and_then(|()| cgroup.remove()) {
        // The pod's end removes the one above it.
        tracing::warn!(
            cgroup = cgroup.path(),
            error = chain(&error),
            "cannot remove a cgroup"
        );
    }
}

/// The manifest's stop signal, or the image's; SIGTERM if neither names one that exists.
fn stop_signal(plan: &ContainerPlan, image: Option<&str>) -> Signal {
    let name = plan.stop_signal.as_deref().or(image);
    name.and_then(Signal::parse).unwrap_or(Signal::TERM)
}

/// Milliseconds as Go prints a duration: `450ms`, `1.234s`, `1m2.5s`.
fn go_seconds(milliseconds: u64) -> String {
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    let seconds = format!("{}{fraction}s", rest / 1000);
    match (minutes / 60, minutes % 60) {
        (0, 0) if milliseconds < 1000 => format!("{milliseconds}ms"),
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// The folder that a container's files on the host are in.
pub(super) fn termination_log(dir: &Path) -> PathBuf {
    dir.join("termination-log")
}
