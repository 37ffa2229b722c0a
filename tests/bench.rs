//! kplay beside Debian's podman: the same manifests, the same image, in the same run, one after the other.
//!
//! `cargo bench` prints medians with minima and their ratios. `cargo bench -- --quick` does fewer rounds;
//! `KPLAY_BENCH=apply,exec,memory,logs,probes,network,forward,pull` chooses sections. Needs root, podman and busybox-static (`.ci/deps`).
//!
//! Both tools keep their state on tmpfs, so that neither waits for a disk. podman gets a configuration of its own
//! (`testdata/root/containers.conf`); its first pod, which makes its network and its pause image, is not counted.
//! The workload ends at once on SIGTERM: what is measured is the tool and not a grace period.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark that cannot reach its files should panic right there"
)]
#![expect(clippy::print_stdout, reason = "the numbers are its purpose")]

#[path = "bench/forward.rs"]
mod forward;
#[path = "bench/network.rs"]
mod network;
#[path = "bench/pull.rs"]
mod pull;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Stays until SIGTERM.
const WORKLOAD: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// Between two commands: the kernel takes pods' network namespaces down a while after their end, and has the lock of all
/// links meanwhile, which the other tool's command would wait for.
const REST: Duration = Duration::from_millis(300);

/// Files of lines in the image, and how long the lines are, ends included.
const LINES: &[(&str, usize)] = &[("two", 2), ("eighty", 80), ("long", 4096)];

/// How large each is, about.
const LINES_FILE: usize = 4 << 20;

/// Set in the process that measures.
const MEASURES: &str = "KPLAY_BENCH_MEASURES";

fn main() -> ExitCode {
    if std::env::var_os(MEASURES).is_some() {
        measure();
        return ExitCode::SUCCESS;
    }
    reap_for_measurements()
}

/// Measures in a child and reaps whatever is orphaned meanwhile. podman waits for its conmon to vanish, which takes
/// seconds where process 1 reaps late or never, as in many containers: that would be an unfair comparison.
#[expect(clippy::zombie_processes, reason = "the loop waits for every child")]
fn reap_for_measurements() -> ExitCode {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).expect("nothing forbids it");
    let program = std::env::current_exe().expect("our own path");
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(MEASURES, "1")
        .spawn()
        .expect("our own program");
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid().cast_unsigned() == child.id() => {
                return ExitCode::from(u8::from(status.exit_status() != Some(0)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("cannot wait: {e}"),
        }
    }
}

fn measure() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let sections = std::env::var("KPLAY_BENCH")
        .unwrap_or_else(|_| "apply,exec,memory,logs,probes,network,forward,pull".into());
    let wanted = |name: &str| sections.split(',').any(|section| section == name);
    let bench = Bench::new();
    println!(
        "{:<26}{:>18}{:>20}{:>9}{:>7}",
        "median (min), ms", "kplay", "podman", "ratio", "aim"
    );
    if wanted("apply") {
        let rounds = if quick { 3 } else { 15 };
        bench.apply_and_delete("1 pod x 1 container", 1, 1, rounds, (10, 20));
        bench.apply_and_delete("1 pod x 5 containers", 1, 5, rounds, (12, 20));
        bench.apply_and_delete("10 pods x 1 container", 10, 1, rounds.div_ceil(3), (20, 20));
    }
    if wanted("exec") {
        bench.exec(if quick { 5 } else { 30 });
    }
    if wanted("memory") {
        bench.memory();
    }
    if wanted("logs") {
        bench.logs(quick);
    }
    if wanted("probes") {
        bench.probes(Duration::from_secs(if quick { 5 } else { 20 }));
    }
    if wanted("network") {
        bench.network(quick);
    }
    if wanted("forward") {
        bench.forward(quick);
    }
    if wanted("pull") {
        bench.pull(quick);
    }
}

/// One of the two tools, with its state in a folder of its own.
struct Tool {
    name: &'static str,
    program: PathBuf,
    /// Before every command.
    common: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    apply: &'static [&'static str],
    delete: &'static [&'static str],
    /// How it names container `c0` of pod `p0` for `exec`.
    exec: &'static [&'static str],
}

impl Tool {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.common)
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// How long the command takes, from its start to its end, on a machine at rest.
    fn time(&self, args: &[&str]) -> Duration {
        std::thread::sleep(REST);
        let start = Instant::now();
        let output = self
            .command(args)
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap_or_else(|e| panic!("cannot run {}: {e}; run .ci/deps", self.name));
        let took = start.elapsed();
        assert!(
            output.status.success(),
            "{} {args:?}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        took
    }

    fn apply(&self, manifest: &str) -> Duration {
        self.time(&[self.apply, &[manifest]].concat())
    }

    fn delete(&self, manifest: &str) -> Duration {
        self.time(&[self.delete, &[manifest]].concat())
    }

    fn exec(&self) -> Duration {
        self.time(&[self.exec, &["true"]].concat())
    }
}

struct Bench {
    dir: PathBuf,
    /// podman's cgroups from before: somebody else's.
    cgroups_before: Vec<PathBuf>,
    kplay: Tool,
    podman: Tool,
}

impl Bench {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/dev/shm/kplay-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder on tmpfs, as root");
        let path = |name: &str| dir.join(name).display().to_string();
        let kplay = Tool {
            name: "kplay",
            program: env!("CARGO_BIN_EXE_kplay").into(),
            common: vec![
                "--root".into(),
                path("k/root"),
                "--runroot".into(),
                path("k/run"),
            ],
            environment: Vec::new(),
            apply: &["apply"],
            delete: &["delete", "-f"],
            exec: &["exec", "p0", "-c", "c0", "--"],
        };
        let configuration = dir.join("containers.conf");
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/root/containers.conf");
        let text = fs::read_to_string(shared).expect("podman's configuration");
        let networks = path("p/networks");
        fs::write(
            &configuration,
            format!("{text}\n[network]\nnetwork_config_dir = {networks:?}\n"),
        )
        .expect("writable");
        let podman = Tool {
            name: "podman",
            program: "podman".into(),
            common: vec![
                "--root".into(),
                path("p/root"),
                "--runroot".into(),
                path("p/run"),
            ],
            environment: vec![("CONTAINERS_CONF", configuration)],
            apply: &["kube", "play"],
            delete: &["kube", "down"],
            exec: &["exec", "p0-c0"],
        };
        let bench = Self {
            dir,
            cgroups_before: cgroups_of_podman(),
            kplay,
            podman,
        };
        bench.prepare();
        bench
    }

    /// The image for both, and podman's first pod.
    fn prepare(&self) {
        let rootfs = self.dir.join("rootfs/bin");
        fs::create_dir_all(&rootfs).expect("a folder");
        fs::copy("/bin/busybox", rootfs.join("busybox")).expect("busybox-static; run .ci/deps");
        for applet in ["sh", "sleep", "true", "cat"] {
            std::os::unix::fs::symlink("busybox", rootfs.join(applet)).expect("a link");
        }
        for (name, line) in LINES {
            let text = format!("{}\n", "y".repeat(*line - 1)).repeat(LINES_FILE / line);
            fs::write(self.dir.join("rootfs").join(name), text).expect("writable");
        }
        let file = |name: &str| self.dir.join(name).display().to_string();
        let (tar, archive) = (file("rootfs.tar"), file("image.tar"));
        let packed = Command::new("tar")
            .args(["-C", &file("rootfs"), "-cf", &tar, "."])
            .status()
            .expect("tar");
        assert!(packed.success());
        let image = "localhost/bench:1";
        self.podman
            .time(&["import", "-q", "-c", "ENV PATH=/bin", &tar, image]);
        self.podman.time(&["save", "-q", "-o", &archive, image]);
        self.kplay.time(&["load", "-i", &archive]);
        let first = self.manifest(1, 1);
        for tool in [&self.podman, &self.kplay] {
            tool.apply(&first);
            tool.delete(&first);
        }
    }

    /// A file with so many pods of so many containers.
    fn manifest(&self, pods: usize, containers: usize) -> String {
        let command = serde_json::to_string(WORKLOAD).expect("a string");
        let mut text = String::new();
        for pod in 0..pods {
            text += &format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{pod}}}\nspec:\n  restartPolicy: Never\n  containers:\n"
            );
            for container in 0..containers {
                text += &format!(
                    "  - {{name: c{container}, image: 'localhost/bench:1', imagePullPolicy: IfNotPresent, command: [sh, -c, {command}]}}\n"
                );
            }
        }
        let path = self.dir.join(format!("{pods}x{containers}.yaml"));
        fs::write(&path, text).expect("writable");
        path.display().to_string()
    }

    fn apply_and_delete(
        &self,
        what: &str,
        pods: usize,
        containers: usize,
        rounds: usize,
        aims: (u32, u32),
    ) {
        let manifest = self.manifest(pods, containers);
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..rounds {
            for (tool, at) in [(&self.kplay, 0), (&self.podman, 2)] {
                times[at].push(tool.apply(&manifest));
                // The workload has its handler for SIGTERM when its second process is there.
                wait_for_workloads(pods * containers);
                times[at + 1].push(tool.delete(&manifest));
            }
        }
        let [apply, delete, apply_peer, delete_peer] = times;
        report(&format!("apply {what}"), apply, apply_peer, Some(aims.0));
        report(&format!("delete {what}"), delete, delete_peer, Some(aims.1));
    }

    fn exec(&self, rounds: usize) {
        let manifest = self.manifest(1, 1);
        let mut times: [Vec<Duration>; 2] = Default::default();
        for tool in [&self.kplay, &self.podman] {
            tool.apply(&manifest);
        }
        for _ in 0..rounds {
            times[0].push(self.kplay.exec());
            times[1].push(self.podman.exec());
        }
        for tool in [&self.kplay, &self.podman] {
            tool.delete(&manifest);
        }
        let [ours, theirs] = times;
        report("exec true", ours, theirs, None);
    }

    /// How fast what a container prints is taken, from its start to its last line, and by how much of a processor:
    /// the container itself needs the rest of the machine. The logs are on tmpfs and rotated at 10 MiB. podman's
    /// conmon truncates its file instead of keeping the last ones.
    fn logs(&self, quick: bool) {
        /// In MB for each second of a processor.
        const AIM: u32 = 500;
        println!("\nMB/s of a container's output");
        for (name, line) in LINES {
            // About as long for each.
            let megabytes = match (line, quick) {
                (..8, true) => 16,
                (..8, false) => 64,
                (_, true) => 128,
                (_, false) => 512,
            };
            let times = (megabytes << 20) / LINES_FILE;
            let script = format!(
                "i=0; while [ $i -lt {times} ]; do cat /{name}; i=$((i+1)); done; exec sleep 100000"
            );
            let quoted = serde_json::to_string(&script).expect("a string");
            let manifest = self.dir.join(format!("{name}.yaml"));
            fs::write(
                &manifest,
                format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{name: logs}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c0, image: 'localhost/bench:1', imagePullPolicy: IfNotPresent, command: [sh, -c, {quoted}]}}\n"
                ),
            )
            .expect("writable");
            let manifest = manifest.display().to_string();
            let run = ["run", "-d", "--name=logs", "--network=none"];
            let log = ["--log-driver=k8s-file", "--log-opt=max-size=10mb"];
            let command = ["localhost/bench:1", "sh", "-c", &script];
            let ours = self.taken(&self.kplay, &["apply", &manifest], "internal execute");
            self.kplay.delete(&manifest);
            let run = [&run[..], &log, &command].concat();
            let theirs = self.taken(&self.podman, &run, "conmon");
            self.podman.time(&["rm", "-f", "-t", "0", "logs"]);
            let megabytes = (megabytes << 20) as f64 / 1e6;
            for (what, ours, theirs, aim) in [
                ("by the clock", ours.0, theirs.0, String::new()),
                ("by the processor", ours.1, theirs.1, format!("{AIM}")),
            ] {
                let rate = |took: Duration| megabytes / took.as_secs_f64();
                println!(
                    "{:<34}{:>12.0}{:>18.0}{:>8.1}x{aim:>7}",
                    format!("lines of {line} bytes, {what}"),
                    rate(ours),
                    rate(theirs),
                    rate(ours) / rate(theirs)
                );
            }
        }
    }

    /// How long a container that this command starts prints, and how long the program of the name `log` that takes it had
    /// a processor.
    fn taken(&self, tool: &Tool, start: &[&str], log: &str) -> (Duration, Duration) {
        let before = Instant::now();
        tool.time(start);
        wait_for_workloads(1);
        let took = before.elapsed() - REST;
        let folder = self.dir.to_string_lossy();
        let processor: u64 = processes()
            .iter()
            .filter(|process| process.command.contains(log) && process.command.contains(&*folder))
            .map(|process| processor_time(process.pid))
            .sum();
        assert!(processor > 0, "no {log} of {}", tool.name);
        (took, Duration::from_nanos(processor))
    }

    /// On a machine with both cgroup versions podman leaves empty cgroups of the second.
    fn remove_cgroups_of_podman(&self) {
        for cgroup in cgroups_of_podman() {
            if !self.cgroups_before.contains(&cgroup) {
                // One that is still in use is not ours to remove.
                fs::remove_dir(&cgroup).ok();
            }
        }
    }

    /// What ten idle pods cost beside their workload.
    fn memory(&self) {
        const PODS: usize = 10;
        let manifest = self.manifest(PODS, 1);
        let cost = |tool: &Tool, folder: &str| {
            tool.apply(&manifest);
            wait_for_workloads(PODS);
            let cost = overhead_at_rest(&self.dir.join(folder));
            tool.delete(&manifest);
            cost
        };
        let (ours, theirs) = (cost(&self.kplay, "k"), cost(&self.podman, "p"));
        println!("\nidle PSS per pod with {PODS} pods, KiB (all processes but the workload's)");
        for (name, cost) in [("kplay", &ours), ("podman", &theirs)] {
            let per_pod = cost.iter().map(|(_, pss)| pss).sum::<u64>() / PODS as u64;
            let mut names: Vec<String> = Vec::new();
            let distinct: BTreeSet<&str> = cost.iter().map(|(name, _)| name.as_str()).collect();
            for program in distinct {
                let of_it: Vec<u64> = cost
                    .iter()
                    .filter(|(name, _)| name == program)
                    .map(|(_, pss)| *pss)
                    .collect();
                names.push(format!(
                    "{} {program}: {}",
                    of_it.len(),
                    of_it.iter().sum::<u64>()
                ));
            }
            println!("{name:<26}{per_pod:>18}   ({})", names.join(", "));
        }
    }
}

impl Bench {
    /// What it costs to ask 100 pods every second whether they are ready. Their servers are not counted.
    fn probes(&self, time: Duration) {
        const PODS: usize = 100;
        /// In percent of one processor.
        const AIM: u32 = 5;
        let pods: String = (0..PODS).map(probed_pod).collect();
        let manifest = self.dir.join("probes.yaml");
        fs::write(&manifest, pods).expect("writable");
        let manifest = manifest.display().to_string();
        self.kplay.time(&["apply", "--wait=ready", &manifest]);
        // The first seconds are those of the start: what is not needed at rest is given back then.
        std::thread::sleep(Duration::from_secs(3));
        let executors: Vec<u32> = processes()
            .iter()
            .filter(|process| process.command.contains("internal execute"))
            .filter(|process| process.command.contains(&*self.dir.to_string_lossy()))
            .map(|process| process.pid)
            .collect();
        assert_eq!(executors.len(), PODS);
        let total = |of: fn(u32) -> u64| executors.iter().map(|pid| of(*pid)).sum::<u64>();
        let (start, processor_before, faults_before) =
            (Instant::now(), total(processor_time), total(page_faults));
        std::thread::sleep(time);
        let (took, processor, faults) = (
            start.elapsed(),
            total(processor_time) - processor_before,
            total(page_faults) - faults_before,
        );
        let share = Duration::from_nanos(processor).as_secs_f64() / took.as_secs_f64();
        let per_second = faults as f64 / took.as_secs_f64();
        println!("\n{PODS} pods, an HTTP probe every second: all executors together");
        println!(
            "{:<30}{:>15.2} %{:>35}",
            "of one processor",
            share * 100.0,
            format!("{AIM} %")
        );
        println!("{:<30}{per_second:>17.1}", "page faults per second");
        println!(
            "{:<30}{:>17}",
            "PSS per executor, KiB",
            total(pss) / PODS as u64
        );
        self.kplay.delete(&manifest);
    }
}

/// A server that is asked every second whether it is ready.
fn probed_pod(number: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: probed{number}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: web\n    image: kplay.local/toolbox\n    args: [http]\n    readinessProbe: {{httpGet: \
         {{port: 8080, path: /healthz}}, periodSeconds: 1}}\n"
    )
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a panic pods may be left; the tools' own words about what is not there do not matter.
        self.kplay
            .command(&["delete", "--all", "--force"])
            .output()
            .ok();
        for args in [
            &["pod", "rm", "-a", "-f", "-t", "0"][..],
            &["system", "reset", "-f"],
        ] {
            self.podman.command(args).output().ok();
        }
        self.remove_cgroups_of_podman();
        // podman mounts its storage onto itself.
        Command::new("umount")
            .arg(self.dir.join("p/root/overlay"))
            .stderr(Stdio::null())
            .status()
            .ok();
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            println!("cannot remove {}: {e}", self.dir.display());
        }
    }
}

fn report(what: &str, mut ours: Vec<Duration>, mut theirs: Vec<Duration>, aim: Option<u32>) {
    ours.sort();
    theirs.sort();
    let middle = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1000.0;
    let least = |times: &[Duration]| times[0].as_secs_f64() * 1000.0;
    let cell = |times: &[Duration]| format!("{:.1} ({:.1})", middle(times), least(times));
    let ratio = middle(&theirs) / middle(&ours);
    let aim = aim.map_or(String::new(), |aim| format!("{aim}x"));
    println!(
        "{what:<30}{:>16}{:>18}{ratio:>8.1}x{aim:>7}",
        cell(&ours),
        cell(&theirs)
    );
}

/// The cgroups of podman's pods, in every hierarchy.
fn cgroups_of_podman() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    hierarchies
        .filter_map(|hierarchy| fs::read_dir(hierarchy.path().join("libpod_parent")).ok())
        .flat_map(|pods| pods.flatten().map(|pod| pod.path()))
        .filter(|path| path.is_dir())
        .collect()
}

/// One process of the machine.
struct Process {
    pid: u32,
    parent: u32,
    command: String,
}

fn processes() -> Vec<Process> {
    fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            Some(Process {
                pid,
                parent,
                command: String::from_utf8_lossy(&command)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            })
        })
        .collect()
}

fn is_workload(command: &str) -> bool {
    command == "sleep 100000" || command.starts_with("sh -c trap")
}

/// Waits until this many workloads have got as far as their second process.
fn wait_for_workloads(count: usize) {
    let start = Instant::now();
    loop {
        let ready = processes()
            .iter()
            .filter(|process| process.command == "sleep 100000")
            .count();
        if ready >= count {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{ready} of {count} workloads run"
        );
        // Rarely enough to leave the processors to what is measured.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The [`overhead`] when it has stopped to fall: what is idle is not what has just started.
fn overhead_at_rest(folder: &Path) -> Vec<(String, u64)> {
    let total = |cost: &[(String, u64)]| cost.iter().map(|(_, pss)| pss).sum::<u64>();
    let mut cost = overhead(folder);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = overhead(folder);
        let falls = total(&now) < total(&cost) - total(&cost) / 50;
        cost = now;
        if !falls {
            return cost;
        }
    }
}

/// Program and PSS in KiB of every process that names `folder`, and of what these started, except workloads.
fn overhead(folder: &Path) -> Vec<(String, u64)> {
    let all = processes();
    let folder = folder.to_str().expect("a readable path");
    let own = std::process::id();
    let mut counted: BTreeSet<u32> = all
        .iter()
        .filter(|process| process.command.contains(folder) && process.pid != own)
        .map(|process| process.pid)
        .collect();
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|process| counted.contains(&process.parent) && !counted.contains(&process.pid))
            .map(|process| process.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        counted.extend(more);
    }
    all.iter()
        .filter(|process| counted.contains(&process.pid) && !is_workload(&process.command))
        .map(|process| {
            let program = process.command.split(' ').next().unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            (name.to_owned(), pss(process.pid))
        })
        .collect()
}

/// How long a process of one thread has had a processor, in nanoseconds.
fn processor_time(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// How often the kernel had to give a process a page.
fn page_faults(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    fields
        .split(' ')
        .nth(7)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// A process's proportional share of memory, in KiB.
fn pss(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
