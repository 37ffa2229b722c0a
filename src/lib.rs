//! kplay plays Kubernetes manifests on one Linux machine: no cluster, no daemon, one static binary.
//!
//! The [`loader`] turns manifests into plans. The [`manager`] makes the machine match the plans and starts one
//! executor per pod. The [`executor`] owns one pod until it ends: it is the parent of every process of the pod and
//! the only writer of its status. Between runs the truth is on disk ([`state`]) and in the kernel (processes,
//! cgroups, namespaces), nowhere else.
//!
//! ```text
//! kplay apply f.yaml          loader → manager: check all, pull all, compare with what runs, start and stop
//!    │  spawn (setsid) per pod, wait for "started" on a pipe
//!    ▼
//! kplay internal execute DIR  executor: one per pod, subreaper, one thread
//!    ├─ kplay internal create short-lived helper per container and per exec: calls libcontainer, exits
//!    ├─ infra (pause)         holds net, ipc, uts (pid with shareProcessNamespace, user with hostUsers: false)
//!    └─ init containers, sidecars, members
//! ```
//!
//! Who is not root becomes root of a user namespace first ([`manager::rootless`]): what that root may do is all that the
//! others need.
//!
//! A lower line below never names a higher one, and the services (`copy`, `image`, `network`, `volume`,
//! `runtime`) never name each other; `tests/tidy.rs` holds that as a test.

pub mod cli;
pub(crate) mod output;

pub mod loader;
pub mod manager;

pub mod executor;

pub mod copy;
pub mod image;
pub mod network;
pub mod runtime;
pub mod volume;

pub mod protocol;
pub mod state;

pub mod spec;

pub mod toolbox;

pub mod model;
pub mod sys;
