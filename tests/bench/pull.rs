//! Pulls from a registry on loopback, beside podman's: an image of five layers with tens of thousands of files of this
//! machine's packages, and one of a single program. The store is on tmpfs, so that no disk is measured.
//!
//! The floor is inflating the layers one after the other, and making all files on all processors, measured in the same round.
//! What cannot be done without is told apart: inflating on all processors as well; and with the two digests of each layer that
//! every pull has to check.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Bench, Tool, report};

/// Files of the image, and how large they may be together.
const FILES: usize = 40_000;
const BYTES: u64 = 440_000_000;
/// The largest file: a few of those would be an image that is not like others.
const LARGEST: u64 = 256 << 10;
/// Which part of the files each layer has.
const LAYERS: [usize; 5] = [40, 25, 15, 12, 8];
/// How many times the floor a pull may take.
const AIM: f64 = 1.25;
/// MiB that a pull may have at its peak.
const MOST_MEMORY: u64 = 120;
/// Milliseconds for a pull of what is there.
const AGAIN: u64 = 20;

/// The image's layers.
struct Layers {
    /// As the registry has them.
    compressed: Vec<Vec<u8>>,
    files: usize,
    bytes: u64,
}

impl Bench {
    pub(super) fn pull(&self, quick: bool) {
        let dir = self.dir.join("pull");
        fs::create_dir_all(&dir).expect("a folder");
        let registry = Registry::start(&dir);
        let big = registry.push(&dir, "big", &chosen_files());
        let program = vec![vec![PathBuf::from("/usr/bin/busybox")]];
        registry.push(&dir, "small", &program);
        println!(
            "\npull of {} files, {} MB, {} MB compressed, in {} layers; ms",
            big.files,
            big.bytes / 1_000_000,
            big.compressed.iter().map(Vec::len).sum::<usize>() / 1_000_000,
            big.compressed.len()
        );
        let mut times: [Vec<Duration>; 4] = Default::default();
        let mut alone = Vec::new();
        let (mut inflating, mut writing, mut hashing) = (Vec::new(), Vec::new(), Vec::new());
        let mut peak = 0;
        for _ in 0..if quick { 3 } else { 7 } {
            for (tool, at) in [(&self.kplay, 0), (&self.podman, 2)] {
                times[at].push(registry.pull(tool, "big"));
                times[at + 1].push(registry.pull(tool, "big"));
                registry.remove(tool, "big");
            }
            let start = Instant::now();
            big.compressed.iter().for_each(|layer| inflate(layer));
            alone.push(start.elapsed());
            inflating.push(on_all_processors(&big.compressed, |layer, _| {
                inflate(layer);
            }));
            writing.push(write_all(&dir.join("floor"), &big.compressed));
            hashing.push(hash_all(&big.compressed));
            peak = peak.max(self.peak_of_pull(&registry.image("big")));
            registry.remove(&self.kplay, "big");
        }
        let mut small: [Vec<Duration>; 2] = Default::default();
        for _ in 0..if quick { 5 } else { 21 } {
            for (tool, at) in [(&self.kplay, 0), (&self.podman, 1)] {
                small[at].push(registry.pull(tool, "small"));
                registry.remove(tool, "small");
            }
        }
        let pulled = middle(&times[0]);
        let floor = middle(&alone) + middle(&writing);
        let again = middle(&times[1]).as_secs_f64() * 1e3;
        let [ours, ours_again, theirs, theirs_again] = times;
        report("pull of many files", ours, theirs, Some(4));
        report("pull of what is there", ours_again, theirs_again, None);
        let [ours, theirs] = small;
        report("pull of one program", ours, theirs, Some(3));
        let line =
            |what: &str, value: String, aim: String| println!("{what:<30}{value:>16}{aim:>33}");
        let [inflating, writing, hashing] = [&inflating, &writing, &hashing].map(|all| middle(all));
        let part = |of: Duration| format!("{:.2}", pulled.as_secs_f64() / of.as_secs_f64());
        line("of the floor", part(floor), AIM.to_string());
        line(
            "  inflated on all processors",
            part(inflating + writing),
            String::new(),
        );
        line(
            "  and with the digests",
            part(inflating + writing + hashing),
            String::new(),
        );
        let parts = [middle(&alone), inflating, writing, hashing].map(|time| time.as_millis());
        let [alone, inflating, writing, hashing] = parts;
        line(
            "  inflate, write, hash; ms",
            format!("{alone} ({inflating}) + {writing} + {hashing}"),
            String::new(),
        );
        line(
            "of what is there, ms",
            format!("{again:.1}"),
            AGAIN.to_string(),
        );
        line(
            "peak memory, MiB",
            (peak >> 10).to_string(),
            MOST_MEMORY.to_string(),
        );
    }

    /// KiB.
    fn peak_of_pull(&self, image: &str) -> u64 {
        let mut child = self.kplay.command(&["pull", image]).spawn().expect("kplay");
        let mut peak = 0;
        while child.try_wait().expect("our own child").is_none() {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let value = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(value.unwrap_or(0));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(child.wait().expect("our own child").success());
        peak
    }
}

/// Files of packages, some of each folder, always the same on the same machine.
fn chosen_files() -> Vec<Vec<PathBuf>> {
    let mut all = Vec::new();
    for folder in ["/usr/lib", "/usr/share"] {
        collect(Path::new(folder), &mut all);
    }
    let step = (all.len() as f64 / FILES as f64).max(1.0);
    let mut left = BYTES;
    let chosen: Vec<PathBuf> = (0..FILES.min(all.len()))
        .map(|number| &all[(number as f64 * step) as usize])
        .filter(|(_, size)| {
            let fits = *size <= left;
            left -= if fits { *size } else { 0 };
            fits
        })
        .map(|(path, _)| path.clone())
        .collect();
    let mut rest = chosen.as_slice();
    let layers = LAYERS.iter().map(|part| {
        let (layer, others) = rest.split_at((chosen.len() * part / 100).min(rest.len()));
        rest = others;
        layer.to_vec()
    });
    layers.collect()
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, u64)>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // What goes meanwhile is not chosen.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            collect(&entry.path(), files);
        } else if meta.is_file() && meta.len() <= LARGEST {
            files.push((entry.path(), meta.len()));
        }
    }
}

/// Debian's docker-registry.
struct Registry {
    port: u16,
    process: Child,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let port = super::forward::free_port();
        let configuration = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            dir.join("registry")
        );
        fs::write(&configuration, text).expect("writable");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry; run .ci/deps");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "no registry");
            std::thread::yield_now();
        }
        Self { port, process }
    }

    fn image(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/bench:{tag}", self.port)
    }

    fn pull(&self, tool: &Tool, tag: &str) -> Duration {
        match tool.name {
            "podman" => tool.time(&["pull", "-q", "--tls-verify=false", &self.image(tag)]),
            _ => tool.time(&["pull", &self.image(tag)]),
        }
    }

    fn remove(&self, tool: &Tool, tag: &str) {
        tool.time(&["rmi", &self.image(tag)]);
    }

    /// Makes an image of these files, a layer of each list, and gives it to the registry.
    fn push(&self, dir: &Path, tag: &str, layers: &[Vec<PathBuf>]) -> Layers {
        let layout = dir.join(tag);
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a folder");
        let put = |media_type: &str, content: &[u8]| -> Value {
            let digest = digest(content);
            fs::write(blobs.join(&digest), content).expect("writable");
            json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": format!("sha256:{digest}"), "size": content.len()})
        };
        let (mut diffs, mut described, mut compressed, mut bytes) =
            (Vec::new(), Vec::new(), Vec::new(), 0);
        for files in layers {
            let archive = archive(dir, files);
            bytes += archive.len() as u64;
            diffs.push(format!("sha256:{}", digest(&archive)));
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&archive).expect("memory");
            let layer = encoder.finish().expect("memory");
            described.push(put("layer.v1.tar+gzip", &layer));
            compressed.push(layer);
        }
        let config = json!({
            "os": "linux", "architecture": architecture(), "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = put("config.v1+json", config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": described,
        });
        let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(layout.join("index.json"), index.to_string()).expect("writable");
        fs::write(
            layout.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("writable");
        let pushed = Command::new("skopeo")
            .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}", self.image(tag)))
            .status()
            .expect("skopeo; run .ci/deps");
        assert!(pushed.success());
        fs::remove_dir_all(layout).expect("ours");
        Layers {
            compressed,
            files: layers.iter().map(Vec::len).sum(),
            bytes,
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// As registries name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files with the folders above them, as GNU tar packs them.
fn archive(dir: &Path, files: &[PathBuf]) -> Vec<u8> {
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let file = file.strip_prefix("/").expect("a whole path");
        let mut above: Vec<&Path> = file.ancestors().skip(1).collect();
        above.pop();
        let shown = |path: &Path| path.to_str().expect("a readable path").to_owned();
        names.extend(above.into_iter().rev().map(shown));
        names.push(shown(file));
    }
    // Each folder once, before what is in it.
    let mut known = std::collections::HashSet::new();
    names.retain(|name| known.insert(name.clone()));
    let (list, archive) = (dir.join("list"), dir.join("layer.tar"));
    fs::write(&list, names.join("\n")).expect("writable");
    let packed = Command::new("tar")
        .args([
            "-C",
            "/",
            "--no-recursion",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .args(["--mtime=@1700000000", "--verbatim-files-from", "-cf"])
        .args([&archive, Path::new("-T"), &list])
        .status()
        .expect("tar");
    assert!(packed.success());
    let bytes = fs::read(&archive).expect("the archive");
    fs::remove_file(archive).expect("ours");
    bytes
}

/// How long it takes to do this to all, the largest first.
fn on_all_processors(all: &[Vec<u8>], work: impl Fn(&[u8], usize) + Sync) -> Duration {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|at| all[*at].len());
    let order = Mutex::new(order);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = order.lock().expect("no panic").pop();
                    let Some(at) = next else { return };
                    work(&all[at], at);
                }
            });
        }
    });
    start.elapsed()
}

fn inflate(layer: &[u8]) {
    let (mut inflated, mut block) = (GzDecoder::new(layer), vec![0; 128 << 10]);
    while inflated.read(&mut block).expect("a layer") > 0 {}
}

/// One entry of an archive.
enum Entry {
    Folder,
    File { content: Vec<u8>, mode: u32 },
    Other,
}

/// How long it takes to make the files of all layers, with their modes and times.
fn write_all(dir: &Path, compressed: &[Vec<u8>]) -> Duration {
    let parsed: Vec<Vec<(PathBuf, Entry)>> =
        compressed.iter().map(|layer| entries(layer)).collect();
    let time =
        FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    for at in 0..compressed.len() {
        fs::create_dir_all(dir.join(at.to_string())).expect("a folder");
    }
    let took = on_all_processors(compressed, |_, at| {
        let root = dir.join(at.to_string());
        for (path, entry) in &parsed[at] {
            let path = root.join(path);
            match entry {
                Entry::Folder => match fs::create_dir(&path) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.expect("a folder"),
                },
                Entry::File { content, mode } => {
                    let mut file = File::create_new(&path).expect("a file");
                    file.write_all(content).expect("space");
                    if *mode != 0o644 {
                        file.set_permissions(fs::Permissions::from_mode(*mode))
                            .expect("ours");
                    }
                    file.set_times(time).expect("ours");
                }
                Entry::Other => {}
            }
        }
    });
    fs::remove_dir_all(dir).expect("ours");
    took
}

/// How long it takes to get the digests of all layers, compressed and not.
fn hash_all(compressed: &[Vec<u8>]) -> Duration {
    let inflated = |layer: &Vec<u8>| {
        let mut bytes = Vec::new();
        let read = GzDecoder::new(&**layer).read_to_end(&mut bytes);
        read.expect("a layer");
        bytes
    };
    let inflated: Vec<Vec<u8>> = compressed.iter().map(inflated).collect();
    on_all_processors(&inflated, |layer, at| {
        drop((digest(layer), digest(&compressed[at])));
    })
}

fn entries(layer: &[u8]) -> Vec<(PathBuf, Entry)> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    let entries = archive.entries().expect("an archive");
    let read = entries.map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let kind = entry.header().entry_type();
        let content = if kind.is_dir() {
            Entry::Folder
        } else if kind.is_file() {
            let mode = entry.header().mode().expect("a mode");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            Entry::File { content, mode }
        } else {
            Entry::Other
        };
        (path, content)
    });
    read.collect()
}

fn middle(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
