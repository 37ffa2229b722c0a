//! What the manager and an executor say to each other.
//!
//! **Launch.** The manager writes [`Launch`] to `launch.json` in the pod's run folder, then spawns
//! `kplay internal execute RUN_DIR` with the write end of a pipe as file descriptor 3 and `executor.lock`, locked, as
//! descriptor 4. The executor writes [`Progress`] lines (JSON, one per line) into the pipe and closes it after `Started`
//! or `Failed`; an end of file before either means that it died. The manager may wait for more in `status.json`.
//!
//! **Pull.** A container that starts again may want another image: the executor runs `kplay internal pull RUN_DIR
//! CONTAINER`, which writes one [`PullAnswer`] into descriptor 3, and holds on to the image until descriptor 4 says that
//! it is recorded, by its end.
//!
//! **Control.** `control.sock` in the same folder is a `SOCK_SEQPACKET` socket: one packet is one JSON message.
//! A client sends one [`Request`]; the executor answers with [`Reply`] packets and closes.
//!
//! | request | replies | descriptors |
//! | --- | --- | --- |
//! | `Stop` | none: the socket is closed when the executor ends | |
//! | `Refresh` | `Refreshed` | |
//! | `Exec` without tty | `ExecStarted`, `ExecExited` | request: stdin, stdout, stderr, in this order |
//! | `Exec` with tty | `ExecStarted`, `ExecExited` | `ExecStarted`: the terminal's master side |
//! | `Attach` | `Attached`, `AttachEnded` | request: stdout, stderr; `Attached`: what can be written into, if anything |
//! | `Open` | `Opened` | `Opened`: the container's root folder, and its user namespace if that is not the executor's |
//! | `Connect` | `Connected` | `Connected`: the connection, which does not block |
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::event::PodEvent;
use crate::model::image::Image;
use crate::model::names::{ContainerName, VolumeName};
use crate::model::plan::{PodPlan, PullPolicy};
use crate::model::pull_secret::PullSecret;
use crate::model::status::Generation;
use crate::sys::ids::Person;

/// The version of everything here; both ends are the same binary unless kplay was upgraded under a running pod.
pub const VERSION: u32 = 2;

/// All that an executor needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub version: u32,
    /// `metadata.uid`.
    pub uid: String,
    pub plan: PodPlan,
    /// Of the plan.
    #[serde(default)]
    pub generation: Generation,
    /// For every container of the plan.
    pub images: BTreeMap<ContainerName, Image>,
    /// For every volume that is an image.
    pub volume_images: BTreeMap<VolumeName, Image>,
    /// The folders of kplay's own that the pod's claims are bound to.
    pub claims: BTreeMap<VolumeName, PathBuf>,
    /// The pod's folder under ROOT.
    pub data_dir: PathBuf,
    /// Where the container's log folders go.
    pub log_dir: PathBuf,
    /// Where links to the logs go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_links: Option<PathBuf>,
    /// The pod's cgroup, relative to the root of each hierarchy, unique on this machine: `kplay/CLASS/UID`.
    pub cgroup: String,
    /// Where profiles that `Localhost` names are looked for, one after the other.
    pub seccomp_folders: Vec<PathBuf>,
    /// The machine's name: `spec.nodeName`.
    pub node_name: String,
    /// The folder with the records of Services, which containers get variables from.
    pub objects: PathBuf,
    /// The folder of the network that the pod joins.
    pub network: PathBuf,
    /// The folder in which pods tell each other where they are.
    pub endpoints: PathBuf,
    /// How images are had when containers start again; without it, those of the launch have to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulling: Option<Pulling>,
}

/// How a running pod's images are pulled: as by the command that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulling {
    /// Instead of what the manifest says of each container.
    pub policy: Option<PullPolicy>,
    pub registries: Registries,
    /// The folder of the images.
    pub store: PathBuf,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `NAME=value`: what says where configuration, credentials and proxies are.
    pub environment: Vec<String>,
    /// What the pod shows to registries.
    pub secrets: Vec<PullSecret>,
    /// Whose configuration and credentials these are.
    #[serde(default)]
    pub user: u32,
}

/// Whether registries may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registries {
    Allowed,
    /// `--offline`: what is there has to do.
    Forbidden,
}

/// What became of a pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullAnswer {
    Pulled(Box<Image>),
    Failed {
        message: String,
    },
    /// The name means no image, whatever registries have.
    InvalidName {
        message: String,
    },
}

/// Executor → manager, during launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    Event(PodEvent),
    /// Every main container has been started (some may have ended since).
    Started,
    /// The pod could not be started, or ended or went into back-off before its main containers started.
    Failed(LaunchFailure),
}

/// Why a pod did not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    pub class: FailureClass,
    pub container: Option<ContainerName>,
    /// The kubelet's reason: `StartError`, `CreateContainerConfigError`, `FailedMount`, `Error`, …
    pub reason: String,
    pub message: String,
}

/// Whose fault it is, which decides the exit code and whether the pod is taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// The machine said no (a port is taken, a mount failed): undone, exit code 4.
    Machine,
    /// A container could not be started (its command is not in the image): undone, exit code 1.
    Start,
    /// A container ran and failed: stays for `logs` and `describe`, exit code 1.
    Workload,
}

/// Client → executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Terminate the pod, with this grace period in seconds instead of its own. 0 kills at once.
    Stop {
        grace_period: Option<u32>,
    },
    /// Read `launch.json` again: what can change in a running pod has changed.
    Refresh,
    Exec(Exec),
    Attach(Attach),
    /// Hand out the files of a running container.
    Open {
        /// The pod's first main container if `None`.
        container: Option<ContainerName>,
    },
    /// Connect to this port of the pod, as its containers would by the name `localhost`.
    Connect {
        port: u16,
    },
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The pod's first main container if `None`.
    pub container: Option<ContainerName>,
    /// At least the program.
    pub command: Vec<String>,
    /// The terminal's size (rows, columns) if the command gets one.
    pub tty: Option<(u16, u16)>,
}

/// To see what a container prints from now on, and to be its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The pod's first main container if `None`.
    pub container: Option<ContainerName>,
    /// Whether standard input is wanted. With `stdinOnce` it ends with the first client that has it.
    pub stdin: bool,
}

/// Executor → client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The pod is as its launch file says.
    Refreshed,
    Attached {
        /// Whether the container has a terminal: what is passed is its master side.
        terminal: bool,
    },
    /// The container has ended, and all of its output has been passed on.
    AttachEnded,
    Connected,
    /// Who works with the files is to be as the container.
    Opened(Opened),
    ExecStarted,
    /// 0–255; 128 + signal.
    ExecExited {
        code: u8,
    },
    /// The request was not carried out: the container is not running, the command is not there, …
    Refused {
        reason: Refusal,
        message: String,
    },
}

/// Whose a container's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The user of the container's process, with the capabilities it has.
    pub person: Person,
    /// Where the container's process starts.
    pub directory: PathBuf,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The pod has no such container.
    NoSuchContainer,
    /// It is there but not running.
    NotRunning,
    /// The program is not in the image: exit code 127.
    CommandNotFound,
    /// The program cannot be executed: exit code 126.
    CannotExecute,
    /// Anything else.
    Failed,
}
