//! One process per pod, from its start to its end: the parent of every process of the pod, and the only writer of its
//! status.
//!
//! ```text
//!              ┌──────── control.sock ────────┐
//!  clients ───▶│ control                      │
//!              │    │ messages                │
//!  exits  ────▶│ driver ──▶ lifecycle (pure)  │──▶ status.json, events.jsonl, the manager's pipe
//!  ticks  ────▶│    │ actions                 │
//!              │ container, pod               │──▶ runtime, volumes, logs, forwarded ports
//!              └──────────────────────────────┘
//! ```
//!
//! Beside that loop, `neighbours` watches what the executors of other pods say of theirs: `service_addresses` keeps
//! Services' addresses and `dns` their names up to date inside the pod (`pod_network`; `machine_network` if it has the
//! machine's), `service_ports` those ports on the machine.
//!
//! It has one thread: it forks, and the price of an idle pod is this process. It reads no manifests, and asks no
//! registry: a container that starts again and wants its image pulled gets it from `kplay internal pull` ([`image`]).
#![forbid(unsafe_code)]

mod attach;
mod clock;
mod command;
mod container;
mod context;
mod control;
mod describe;
mod dial;
mod dns;
mod downward;
mod driver;
mod error;
mod etc;
mod eviction;
pub mod forward;
mod hook;
mod http;
mod image;
mod lifecycle;
pub mod log;
mod machine;
mod machine_network;
mod mounts;
mod neighbours;
mod output;
mod pod;
mod pod_network;
mod probe;
mod process;
mod profiles;
mod progress;
mod refresh;
mod restart;
mod service_addresses;
mod service_ports;
mod status;
mod termination;
mod users;
mod volumes;

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;

use self::context::{Context, Message};
use self::driver::Driver;
use self::error::system;
pub use self::error::{Error, SystemError};
use self::lifecycle::{Cause, Event};
use self::neighbours::Neighbours;
use self::pod::PodResources;
use self::progress::Channel;
use self::users::Users;
use crate::protocol::{self, Launch, Progress};
use crate::runtime::{Libcontainer, Program, Runtime, enter_private_mounts};
use crate::state::events::EventLog;
use crate::state::layout::PodPaths;
use crate::state::pod_dir::ExecutorDir;
use crate::sys::cgroup::Hierarchies;
use crate::sys::lockfile::PidLock;
use crate::sys::process::Reaper;
use crate::sys::socket::{Blocking, Listener};
use crate::sys::{cgroup, fd, fs, inet, namespace, process as processes};

/// The descriptor of the pipe to the manager.
const PROGRESS: i32 = 3;
/// The descriptor of the lock that says that this process lives.
const LOCK: i32 = 4;
/// What is read from a container at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Runs the pod whose run folder this is, to its end. The process must be new, with one thread, and have the write end
/// of the manager's pipe as descriptor 3 and the pod's executor lock, held, as descriptor 4.
///
/// # Errors
/// The pod could not be set up (the manager has been told), or its state cannot be written.
pub fn run(dir: &Path) -> Result<(), Error> {
    let pipe = fd::inherited(PROGRESS).map_err(system("find the manager's pipe"))?;
    let mut manager = Channel::new(pipe);
    let lock = fd::inherited(LOCK).map_err(system("find the executor's lock"))?;
    let result = set_up(dir, PidLock::inherited(lock)).and_then(|(context, messages)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start the event loop"))?;
        LocalSet::new().block_on(&runtime, play(context, messages, &mut manager))
    });
    if let Err(error) = &result {
        manager.tell(&Progress::Failed(error.to_launch_failure()));
    }
    result
}

type PodContext = Rc<Context<Libcontainer>>;

/// Everything that has to happen before there is an event loop.
fn set_up(dir: &Path, lock: PidLock) -> Result<(PodContext, UnboundedReceiver<Message>), Error> {
    let launch = read_launch(dir)?;
    let paths = PodPaths::at(launch.data_dir.clone(), dir.to_owned());
    let dir = ExecutorDir::new(paths, lock)?;
    processes::become_subreaper().map_err(system("become the subreaper"))?;
    // Connections to published ports take two each; containers have limits of their own.
    inet::raise_open_files_limit();
    processes::set_name("kplay-executor").map_err(system("set the process's name"))?;
    // Before the cgroups are out of sight.
    let facts = machine::facts(&launch)?;
    let host_mounts = match volumes::reach_host(&launch.plan) {
        true => Some(namespace::own_mounts().map_err(system("find the mounts"))?),
        false => None,
    };
    if let Some(folder) = cgroup::enter_delegated(&launch.uid) {
        let folder = folder.as_os_str().as_encoded_bytes();
        fs::replace_in_memory(&dir.paths().cgroup(), 0o600, folder)?;
    }
    let given = given_cgroups(dir.paths())?;
    let hierarchies = enter_private_mounts()?;
    let hierarchies = given.unwrap_or(hierarchies);
    fs::create_dir_all(&dir.paths().mounts(), 0o700)?;
    let users = Users::set_up(&launch.plan, dir.paths())?;
    let program = Program::read_only(&dir.paths().mounts().join("kplay"))?;
    let events = EventLog::open(&dir.paths().events())?;
    let reaper = Reaper::new();
    let (sender, messages) = mpsc::unbounded_channel();
    let launch = Rc::new(launch);
    let context = Context {
        facts,
        runtime: Libcontainer::new(program, Rc::clone(&reaper)),
        current: RefCell::new(Rc::clone(&launch)),
        launch,
        dir,
        reaper,
        hierarchies,
        host_mounts,
        cluster: Rc::default(),
        users,
        sandbox: RefCell::default(),
        network: RefCell::default(),
        machine_network: RefCell::default(),
        places: RefCell::default(),
        live: RefCell::default(),
        events: RefCell::new(events),
        observed: RefCell::default(),
        pulled: RefCell::default(),
        ending: tokio::sync::watch::Sender::new(false),
        volumes: RefCell::default(),
        buffer: RefCell::new(vec![0; BUFFER]),
        messages: sender,
    };
    Ok((Rc::new(context), messages))
}

/// The part of the machine's cgroups that is given to the pod, if that is not all of them.
fn given_cgroups(paths: &PodPaths) -> Result<Option<Hierarchies>, Error> {
    let Some(folder) = fs::read_if_there(&paths.cgroup())? else {
        return Ok(None);
    };
    let folder = PathBuf::from(OsString::from_vec(folder));
    cgroup::stand_in(&folder).map_err(system("stay in the scope of all pods"))?;
    Ok(Hierarchies::of_executor(&folder)?)
}

fn read_launch(dir: &Path) -> Result<Launch, Error> {
    let path = dir.join("launch.json");
    let launch: Launch = serde_json::from_slice(&fs::read(&path)?)
        .map_err(|source| Error::Launch { path, source })?;
    if launch.version == protocol::VERSION {
        Ok(launch)
    } else {
        Err(Error::Version {
            found: launch.version,
            known: protocol::VERSION,
        })
    }
}

async fn play<R: Runtime + 'static>(
    context: Rc<Context<R>>,
    messages: UnboundedReceiver<Message>,
    manager: &mut Channel,
) -> Result<(), Error> {
    tokio::task::spawn_local(reap(Rc::clone(&context)));
    tokio::task::spawn_local(obey_signals(Rc::clone(&context)));
    let listener = Listener::bind(&context.paths().control_socket(), Blocking::No)?;
    let neighbours = Neighbours::meet(&context)?;
    let resources = PodResources::acquire(&context)
        .inspect_err(|error| driver::give_up(&context, &error.to_launch_failure()))?;
    tokio::task::spawn_local(neighbours.follow(Rc::clone(&context)));
    tokio::task::spawn_local(eviction::watch(Rc::clone(&context)));
    tokio::task::spawn_local(control::serve(Rc::clone(&context), listener));
    Driver::new(context, messages, manager, resources)
        .run()
        .await;
    Ok(())
}

/// Waits for the children that nobody else waits for: helpers' leftovers and orphans of the pod.
async fn reap<R>(context: Rc<Context<R>>) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!(%error, "cannot watch for ended children");
            return;
        }
    };
    while ended.recv().await.is_some() {
        if let Err(error) = context.reaper.reap() {
            tracing::error!(%error, "cannot reap");
        }
    }
}

/// SIGTERM and SIGINT end the pod as `delete` does, with its grace period: a machine that shuts down sends them.
async fn obey_signals<R>(context: Rc<Context<R>>) {
    let both = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match both {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(%error, "cannot watch for signals");
            return;
        }
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        context.send(Message::Lifecycle(Event::Stop {
            grace: None,
            cause: Cause::Deleted,
        }));
    }
}
