//! Nothing is left of what has ended.

use std::time::{Duration, Instant};

use kplay::runtime::SeccompProfile;
use kplay::sys::cgroup::{DevicePolicy, Limits};
use kplay::sys::pidfd::Exit;
use serde_json::json;

use crate::fixture::{Pod, children, isolated, pipes, process, spec, wait, wait_for_children};

struct Counts {
    children: usize,
    fds: usize,
    mounts: usize,
    cgroups: usize,
}

fn counts(pod: &Pod) -> Counts {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    Counts {
        children: children(pod),
        fds: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        mounts: mounts.lines().count(),
        cgroups: usize::from(pod.hierarchies.find(&format!("{}/c", pod.cgroup)).is_some()),
    }
}

#[test]
fn twenty_starts() {
    isolated("leftovers::twenty_starts", async |pod| {
        // The first start compiles the seccomp program and keeps it.
        pod.run("c", spec(process(&["true"]))).await;
        let before = counts(pod);
        for _ in 0..20 {
            let (.., exit) = pod.run("c", spec(process(&["true"]))).await;
            assert_eq!(exit, Exit::Code(0));
        }
        for _ in 0..3 {
            let (stdio, _streams) = pipes();
            pod.start("c", spec(process(&["nothing"])), stdio)
                .await
                .unwrap_err();
            pod.end("c");
            let mut broken = spec(process(&["true"]));
            broken["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"destination": "/x", "type": "nonsense"}));
            let (stdio, _streams) = pipes();
            pod.start("c", broken, stdio).await.unwrap_err();
            pod.end("c");
        }
        wait_for_children(pod, before.children).await;
        let after = counts(pod);
        assert_eq!(
            (after.fds, after.mounts, after.cgroups),
            (before.fds, before.mounts, before.cgroups)
        );
    });
}

#[test]
fn many_execs() {
    isolated("leftovers::many_execs", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("c", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        pod.run_exec("c", process(&["true"])).await;
        let before = counts(pod);
        for _ in 0..20 {
            pod.run_exec("c", process(&["true"])).await;
        }
        wait_for_children(pod, before.children).await;
        assert_eq!(counts(pod).fds, before.fds);
        let cgroup = pod.hierarchies.find(&pod.cgroup).unwrap();
        assert_eq!(cgroup.pids().unwrap().len(), 1);
    });
}

/// A request that is given up takes its helper with it.
#[test]
fn a_dropped_request() {
    isolated("leftovers::a_dropped_request", async |pod| {
        // Compiles the seccomp program and keeps it.
        pod.run("c", spec(process(&["true"]))).await;
        let before = counts(pod);
        for patience in [0, 1, 2, 4, 8] {
            let (stdio, streams) = pipes();
            let start = pod.start("c", spec(process(&["sleep", "1000"])), stdio);
            tokio::time::timeout(std::time::Duration::from_millis(patience), start)
                .await
                .ok();
            pod.end("c");
            drop(streams);
        }
        wait_for_children(pod, before.children).await;
        assert_eq!(counts(pod).fds, before.fds);
    });
}

/// Not a test of anything: how long a start and an exec take here, in a loop and after a rest. A start is everything
/// that one container costs: its cgroup with limits, its root file system, its process.
#[test]
#[ignore = "a measurement"]
fn latency() {
    isolated("leftovers::latency", async |pod| {
        let (stdio, _streams) = pipes();
        let _main = pod
            .start("main", spec(process(&["sleep", "1000"])), stdio)
            .await
            .unwrap();
        for rest in [Duration::ZERO, Duration::from_millis(100)] {
            let mut starts = Vec::new();
            let mut execs = Vec::new();
            for _ in 0..40 {
                std::thread::sleep(rest);
                let (stdio, _streams) = pipes();
                let limits = Limits {
                    cpu_shares: Some(100),
                    memory_bytes: Some(64 << 20),
                    devices: DevicePolicy::Default { and: Vec::new() },
                    ..Limits::default()
                };
                let begin = Instant::now();
                let cgroup = pod.container_cgroup("c", &limits);
                let start = pod.start_in(
                    "c",
                    spec(process(&["true"])),
                    stdio,
                    SeccompProfile::RuntimeDefault,
                    &cgroup,
                );
                let started = start.await.unwrap();
                starts.push(begin.elapsed().as_secs_f64() * 1e3);
                wait(&started.process);
                drop(started);
                pod.end("c");
                std::thread::sleep(rest);
                let (stdio, _streams) = pipes();
                let begin = Instant::now();
                let started = pod.exec("main", process(&["true"]), stdio).await.unwrap();
                execs.push(begin.elapsed().as_secs_f64() * 1e3);
                wait(&started.process);
            }
            for (name, mut times) in [("start", starts), ("exec", execs)] {
                times.sort_by(f64::total_cmp);
                let (median, least) = (times[times.len() / 2], times[0]);
                eprintln!("{name} after {rest:?}: median {median:.1} ms, min {least:.1} ms");
            }
        }
    });
}
