//! A machine for the manager's tests: a layout of its own, images that are only names, and a fake executor.
//!
//! The fake is a real process (this test binary, which runs only the test [`fake_executor`]) that speaks the real
//! protocol over the real pipe and socket. What it does is the first argument of its pod's first container.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::apply::{
    AppliedObject, ApplyInput, ApplyOptions, Kept, Mode, Prune, Rollback, WaitFor, apply,
};
use super::diff::Replace;
use super::images::{ImageSource, Registries, SourceError};
use super::report::Event;
use super::services::Ranges;
use super::{Error, Launcher, Manager};
use crate::image::PullProgress;
use crate::image::containers::Imported;
use crate::model::image::{Image, ImageConfig};
use crate::model::names::{ContainerName, ObjectKey};
use crate::model::plan::{ContainerPlan, ContainerRole, PodPlan, RestartPolicy};
use crate::model::pull_secret::PullSecret;
use crate::model::reference::{ImageName, Reference};
use crate::model::status::{
    ConditionStatus, ContainerState, ContainerStatus, Phase, PodCondition, PodStatus, Running,
};
use crate::model::testing;
use crate::protocol::{FailureClass, Launch, LaunchFailure, Progress, Reply, Request};
use crate::state::layout::{Layout, PodPaths};
use crate::state::pod_dir::{ExecutorDir, Liveness, PodDir};
use crate::state::record::SourceSet;
use crate::state::testing::{Scratch, key, object_key};
use crate::state::view::{self, PodView};
use crate::sys::cgroup::{Hierarchies, Limits};
use crate::sys::lockfile::PidLock;
use crate::sys::poll::Interrupt;
use crate::sys::process::{self, ParentDeath, Session, Spawn};
use crate::sys::socket::{Blocking, Listener};
pub(super) use crate::sys::testing::eventually;
use crate::sys::{fd, fs, lockfile};

/// A machine, with what it told so far.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) manager: Manager,
    pub(super) images: FakeImages,
    pub(super) told: Vec<Event>,
    pub(super) scratch: Scratch,
}

impl Machine {
    pub(super) fn new() -> Self {
        let scratch = Scratch::new();
        Self {
            manager: manager(scratch.layout()),
            images: FakeImages::with(&["web:1"]),
            told: Vec::new(),
            scratch,
        }
    }

    pub(super) fn apply(&mut self, input: &ApplyInput) -> Result<super::apply::Applied, Error> {
        self.told.clear();
        let told = &mut self.told;
        apply(&self.manager, &self.images, input, &mut |event| {
            told.push(event);
        })
    }

    pub(super) fn dir(&self, name: &str) -> PodDir {
        PodDir::new(&self.manager.layout, &key(name))
    }

    pub(super) fn view(&self, name: &str) -> Option<PodView> {
        view::view(&self.dir(name)).unwrap()
    }

    /// `name uid phase`, where the uid is that of the pod if it lives.
    pub(super) fn uid(&self, name: &str) -> String {
        self.view(name).unwrap().record.uid
    }

    /// What the pod that is there was asked to do.
    pub(super) fn behaviour(&self, name: &str) -> String {
        let launch = super::launch::read_launch(&self.dir(name))
            .unwrap()
            .unwrap();
        launch.plan.containers[0].args.clone().unwrap()[0].clone()
    }

    pub(super) fn pid(&self, name: &str) -> u32 {
        assert!(
            self.dir(name).has_executor().unwrap(),
            "{name} has no executor"
        );
        let path = self.dir(name).paths().executor_lock();
        lockfile::pid(&path).unwrap().unwrap()
    }

    /// Ends a pod's executor as the kernel does when memory is short.
    pub(super) fn kill(&self, name: &str) {
        let pid = i32::try_from(self.pid(name)).unwrap();
        let process = crate::sys::pidfd::PidFd::open(pid).unwrap();
        process.signal(crate::sys::signal::Signal::KILL).unwrap();
        process.wait().unwrap();
        let is_dead = || self.dir(name).liveness().unwrap() == Liveness::Dead;
        eventually("its locks are free", is_dead);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let mut told = Vec::new();
        let targets = [super::delete::Target::All(None)];
        let deleted = super::delete::delete(
            &self.manager,
            &targets,
            delete_options(super::stop::Grace::Kill),
            &mut |event| told.push(event),
        );
        if !std::thread::panicking() {
            deleted.unwrap();
            assert_eq!(fs::list(&self.manager.layout.pods_run()).unwrap().len(), 0);
            assert_eq!(fs::list(&self.manager.layout.logs()).unwrap().len(), 0);
        }
    }
}

pub(super) fn manager(layout: Layout) -> Manager {
    let test = "manager::testing::fake_executor";
    let arguments = ["kplay-test", "--nocapture", "--exact", test];
    Manager {
        layout,
        launcher: Launcher {
            program: "/proc/self/exe".into(),
            arguments: arguments.map(Into::into).into(),
            patience: Duration::from_millis(100),
        },
        service_ranges: Ranges::default(),
        interrupt: Interrupt::install().unwrap(),
    }
}

pub(super) fn delete_options(grace: super::stop::Grace) -> super::delete::DeleteOptions {
    super::delete::DeleteOptions {
        grace,
        volumes: super::delete::Volumes::Keep,
        missing: super::delete::Missing::Error,
        wait: super::delete::Wait::ForEnd,
    }
}

/// Images that are there, and such that can be pulled.
#[derive(Debug, Default)]
pub(super) struct FakeImages {
    pub(super) here: BTreeSet<Reference>,
    pub(super) there: BTreeSet<Reference>,
    /// What another engine has, and where it cannot be taken from.
    pub(super) elsewhere: BTreeSet<Reference>,
    pub(super) damaged_elsewhere: BTreeSet<Reference>,
    /// During whose import somebody interrupts the command.
    pub(super) interrupted_elsewhere: BTreeSet<Reference>,
    pub(super) looked_elsewhere: RefCell<Vec<Reference>>,
    pub(super) pulled: RefCell<Vec<Reference>>,
    /// The names of the Secrets that the pulls were given.
    pub(super) shown: RefCell<Vec<String>>,
}

impl FakeImages {
    pub(super) fn with(names: &[&str]) -> Self {
        let here = names.iter().map(|name| Reference::parse(name).unwrap());
        Self {
            here: here.collect(),
            ..Self::default()
        }
    }
}

impl ImageSource for FakeImages {
    fn find(&self, name: &ImageName) -> Result<Option<Image>, SourceError> {
        let reference = name.reference();
        Ok(self
            .here
            .contains(reference)
            .then(|| image(&reference.to_string())))
    }

    fn import(&self, name: &ImageName) -> Result<Option<Imported>, SourceError> {
        let reference = name.reference();
        self.looked_elsewhere.borrow_mut().push(reference.clone());
        if self.interrupted_elsewhere.contains(reference) {
            crate::sys::poll::raise_interrupt();
            return Err("given up".into());
        }
        if self.damaged_elsewhere.contains(reference) {
            return Err("the store is damaged".into());
        }
        Ok(self.elsewhere.contains(reference).then(|| Imported {
            image: image(&format!("{reference} of another engine")),
            from: "/other".into(),
        }))
    }

    fn resolved(&self, name: &ImageName) -> Reference {
        name.reference().clone()
    }

    async fn pull(
        &self,
        name: &ImageName,
        secrets: &[PullSecret],
        progress: &dyn Fn(PullProgress),
    ) -> Result<Image, SourceError> {
        let reference = name.reference();
        // Lets the other pulls begin.
        tokio::task::yield_now().await;
        self.pulled.borrow_mut().push(reference.clone());
        let names = secrets.iter().map(|secret| secret.name.clone());
        self.shown.borrow_mut().extend(names);
        progress(PullProgress::Resolved {
            layers: 1,
            missing: 1,
            bytes: 1,
            size: 2,
        });
        if self.there.contains(reference) || self.here.contains(reference) {
            Ok(image(&format!("{reference} as pulled")))
        } else {
            Err("no such image".into())
        }
    }
}

pub(super) fn image(id: &str) -> Image {
    Image {
        id: id.into(),
        layers: Vec::new(),
        config: ImageConfig::default(),
        pull: None,
    }
}

/// A pod of a Deployment: `web-0` is owned by `web`.
pub(super) fn plan(name: &str, behaviour: &str) -> PodPlan {
    let owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner);
    let restart_policy = match behaviour {
        "complete" => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    };
    PodPlan {
        owner: object_key("Deployment", "apps", owner),
        runs_to_completion: restart_policy == RestartPolicy::Never,
        manifest: json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "main", "image": "web:1"}],
                "restartPolicy": restart_policy,
            },
        }),
        restart_policy,
        containers: vec![container(behaviour)],
        ..testing::plan(name)
    }
}

fn container(behaviour: &str) -> ContainerPlan {
    ContainerPlan {
        image: "web:1".into(),
        reference: Reference::parse("web:1").unwrap(),
        args: Some(vec![behaviour.into()]),
        ..testing::container("main", ContainerRole::Main)
    }
}

pub(super) fn object(kind: &str, group: &str, name: &str, content: &str) -> AppliedObject {
    AppliedObject {
        key: object_key(kind, group, name),
        manifest: json!({"kind": kind, "data": content}),
        kept: Kept::WithFiles,
    }
}

/// The pods with what they do, each with its Deployment.
pub(super) fn input(pods: &[(&str, &str)]) -> ApplyInput {
    let plans: Vec<PodPlan> = pods.iter().map(|(name, does)| plan(name, does)).collect();
    let owners: BTreeSet<ObjectKey> = plans.iter().map(|plan| plan.owner.clone()).collect();
    let objects = owners.into_iter().map(|key| AppliedObject {
        manifest: json!({"kind": key.kind}),
        key,
        kept: Kept::WithFiles,
    });
    ApplyInput {
        objects: objects.collect(),
        plans,
        pull_secrets: std::collections::BTreeMap::new(),
        ways: super::apply::PullWays::default(),
        sources: SourceSet::new(["/test.yaml".to_owned()]),
        options: ApplyOptions {
            mode: Mode::Real,
            wait: WaitFor::Started,
            timeout: Some(Duration::from_secs(30)),
            pull: None,
            registries: Registries::Allowed,
            replace: Replace::Changed,
            rollback: Rollback::Yes,
            prune: Prune::No,
        },
    }
}

/// Not a test but the fake executor, when it is started with a pod's folder.
#[test]
fn fake_executor() {
    let argument = std::env::args().next_back().unwrap_or_default();
    let run = Path::new(&argument);
    if !run.join("launch.json").is_file() {
        return;
    }
    let launch: Launch =
        serde_json::from_slice(&fs::read(&run.join("launch.json")).unwrap()).unwrap();
    let behaviour = launch.plan.containers[0].args.clone().unwrap()[0].clone();
    let paths = PodPaths::at(launch.data_dir.clone(), run.into());
    let lock = PidLock::inherited(fd::inherited(4).unwrap());
    let dir = ExecutorDir::new(paths, lock).unwrap();
    let listener = Listener::bind(&dir.paths().control_socket(), Blocking::Yes).unwrap();
    let failed = |class, reason: &str| {
        Progress::Failed(LaunchFailure {
            class,
            container: Some(ContainerName::parse("main").unwrap()),
            reason: reason.into(),
            message: "as the test wants it".into(),
        })
    };
    let name = behaviour.split(' ').next().unwrap_or_default();
    let says = match name {
        "die" => panic!("no space on the moon"),
        "start-error" => Some(failed(FailureClass::Start, "StartError")),
        "workload" => Some(failed(FailureClass::Workload, "Error")),
        "frozen" => {
            let pid = i32::try_from(std::process::id()).unwrap();
            let stop = crate::sys::signal::Signal::parse("SIGSTOP").unwrap();
            let this = crate::sys::pidfd::PidFd::open(pid).unwrap();
            this.signal(stop).unwrap();
            None
        }
        "silent" | "slow" => None,
        _ => Some(Progress::Started),
    };
    let (phase, ready) = match name {
        "workload" => (Phase::Failed, ConditionStatus::False),
        "complete" => (Phase::Succeeded, ConditionStatus::False),
        "unready" => (Phase::Running, ConditionStatus::False),
        "slow" => (Phase::Pending, ConditionStatus::False),
        _ => (Phase::Running, ConditionStatus::True),
    };
    dir.write_status(&status(phase, ready)).unwrap();
    if name == "leave" {
        leave_a_process(&launch);
    }
    if let Some(progress) = says {
        let mut line = serde_json::to_vec(&progress).unwrap();
        line.push(b'\n');
        let mut pipe = OpenOptions::new()
            .write(true)
            .open("/proc/self/fd/3")
            .unwrap();
        pipe.write_all(&line).unwrap();
    }
    if !matches!(name, "workload" | "complete") {
        serve(&listener, name, &dir);
        dir.write_status(&status(Phase::Succeeded, ConditionStatus::False))
            .unwrap();
    }
}

/// Until it is asked to stop. A command starts what was slow.
fn serve(listener: &Listener, behaviour: &str, dir: &ExecutorDir) {
    loop {
        let connection = listener.accept(Blocking::Yes).unwrap();
        let packet = connection.receive().unwrap().unwrap();
        match serde_json::from_slice(&packet.bytes).unwrap() {
            Request::Stop { .. } if behaviour == "hang" => {}
            Request::Stop { .. } => return,
            Request::Refresh => {
                let bytes = serde_json::to_vec(&Reply::Refreshed).unwrap();
                connection.send(&bytes, &[]).unwrap();
            }
            Request::Attach(_) => unreachable!("no test of the manager looks at a container"),
            Request::Open { .. } => unreachable!("no test of the manager copies files"),
            Request::Connect { .. } => unreachable!("no test of the manager connects"),
            Request::Exec(exec) => {
                dir.write_status(&status(Phase::Running, ConditionStatus::True))
                    .unwrap();
                let reply = |reply, fds: &[_]| {
                    let bytes = serde_json::to_vec(&reply).unwrap();
                    connection.send(&bytes, fds).unwrap();
                };
                reply(Reply::ExecStarted, &[]);
                let mut fds = packet.fds;
                let mut stdout = std::fs::File::from(fds.remove(1));
                write!(stdout, "{}", exec.command.join(" ")).unwrap();
                drop((stdout, fds));
                reply(Reply::ExecExited { code: 7 }, &[]);
            }
        }
    }
}

fn leave_a_process(launch: &Launch) {
    let hierarchies = Hierarchies::open().unwrap();
    let cgroup = hierarchies
        .create(&launch.cgroup, &Limits::default())
        .unwrap();
    let entry = cgroup.entry().unwrap();
    process::spawn(&Spawn {
        program: Path::new("/bin/sleep"),
        args: &["sleep".as_ref(), "1000".as_ref()],
        env: &[],
        fds: &[],
        stderr: None,
        session: Session::Own,
        parent_death: ParentDeath::Survive,
        cgroup: Some(&entry),
    })
    .unwrap();
}

fn status(phase: Phase, ready: ConditionStatus) -> PodStatus {
    PodStatus {
        phase,
        conditions: vec![PodCondition {
            r#type: "Ready".into(),
            status: ready,
            reason: None,
            message: None,
            last_transition_time: Timestamp::UNIX_EPOCH,
            observed_generation: None,
        }],
        container_statuses: vec![ContainerStatus {
            name: "main".into(),
            state: ContainerState::Running(Running {
                started_at: Timestamp::UNIX_EPOCH,
            }),
            ready: ready == ConditionStatus::True,
            ..ContainerStatus::default()
        }],
        ..PodStatus::default()
    }
}
