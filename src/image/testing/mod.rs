//! What tests of images share: archives with anything in them, folders that go away, trees as text.

pub(super) mod proxy;
pub(super) mod registry;

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::digest::{Digest, chain_ids};
use crate::sys::{beneath, fs};

/// A folder on tmpfs that goes with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("kplay-image-{}-{number}", std::process::id()));
        beneath::remove_all(&path).expect("an old folder goes");
        fs::create_dir_all(&path, 0o755).expect("a folder");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        beneath::remove_all(&self.0).expect("the folder goes");
    }
}

/// Whether the test can run as what it needs; in CI it has to.
pub(super) fn can(what: &str, there: bool) -> bool {
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{what} is needed in CI");
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: needs {what}");
        }
    }
    there
}

/// Root can make devices and give files away.
pub(super) fn can_be_root() -> bool {
    can("root", is_root())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// An archive in the making. Nothing in it is checked.
#[derive(Clone, Default)]
pub(super) struct Tar(Vec<u8>);

/// Fields of a header with what most entries have.
pub(super) struct Head<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    pub(super) time: u64,
    pub(super) target: &'a [u8],
    pub(super) device: (u32, u32),
}

impl Default for Head<'_> {
    fn default() -> Self {
        Self {
            path: b"",
            kind: b'0',
            mode: 0o644,
            owner: (0, 0),
            time: 1,
            target: b"",
            device: (0, 0),
        }
    }
}

impl Tar {
    pub(super) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(
            &Head {
                path: path.as_bytes(),
                ..Head::default()
            },
            content,
        )
    }

    pub(super) fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(
            &Head {
                path: path.as_bytes(),
                kind: b'5',
                mode,
                ..Head::default()
            },
            b"",
        )
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        let (path, target) = (path.as_bytes(), target.as_bytes());
        self.entry(
            &Head {
                path,
                kind: b'2',
                mode: 0o777,
                target,
                ..Head::default()
            },
            b"",
        )
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        let (path, target) = (path.as_bytes(), target.as_bytes());
        self.entry(
            &Head {
                path,
                kind: b'1',
                target,
                ..Head::default()
            },
            b"",
        )
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(
            &Head {
                path: b"pax",
                kind: b'x',
                ..Head::default()
            },
            &bytes,
        )
    }

    pub(super) fn entry(self, head: &Head<'_>, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let name = &mut header.as_gnu_mut().expect("gnu").name;
        name[..head.path.len()].copy_from_slice(head.path);
        let link = &mut header.as_gnu_mut().expect("gnu").linkname;
        link[..head.target.len()].copy_from_slice(head.target);
        header.set_entry_type(tar::EntryType::new(head.kind));
        header.set_mode(head.mode);
        header.set_uid(head.owner.0);
        header.set_gid(head.owner.1);
        header.set_mtime(head.time);
        header.set_size(content.len() as u64);
        header.set_device_major(head.device.0).expect("gnu");
        header.set_device_minor(head.device.1).expect("gnu");
        self.raw(&mut header, content)
    }

    pub(super) fn raw(mut self, header: &mut tar::Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(super) fn unended(self) -> Vec<u8> {
        self.0
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).expect("memory")
}

/// Bytes that do not compress; always the same.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(|| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.take(length).collect()
}

/// An image to be served or archived.
pub(super) struct Sample {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    /// As they are served.
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) chain: Vec<Digest>,
}

impl Sample {
    /// Of layers as archives, and what compresses them.
    pub(super) fn new(layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Self {
        Self::of_platform(layers, compress, &super::Platform::host())
    }

    pub(super) fn of_platform(
        layers: &[Vec<u8>],
        compress: fn(&[u8]) -> Vec<u8>,
        platform: &super::Platform,
    ) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({
            "created": "2024-05-06T07:08:09Z", "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
            "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| compress(layer)).collect();
        let described: Vec<_> = layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": described,
        });
        let manifest = manifest.to_string().into_bytes();
        Self {
            config,
            manifest,
            layers,
            chain: chain_ids(&diff_ids),
        }
    }

    pub(super) fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// As `docker save` writes it.
    pub(super) fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let names: Vec<String> = (0..self.layers.len())
            .map(|i| format!("{i}/layer.tar"))
            .collect();
        let table =
            json!([{ "Config": "config.json", "RepoTags": tags, "Layers": names }]).to_string();
        let mut tar = Tar::default().file("config.json", &self.config);
        for (name, layer) in names.iter().zip(&self.layers) {
            tar = tar.file(name, layer);
        }
        tar.file("manifest.json", table.as_bytes()).end()
    }
}

pub(super) fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content), "size": content.len() })
}

/// What is in a folder, one line for each: mode, owner, kind, path, and content or target.
pub(super) fn tree(root: &Path) -> String {
    let mut lines = Vec::new();
    describe(root, root, &mut lines);
    lines.join("\n")
}

fn describe(root: &Path, path: &Path, lines: &mut Vec<String>) {
    let meta = std::fs::symlink_metadata(path).expect("an entry");
    let kind = meta.file_type();
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    let name = path
        .strip_prefix(root)
        .expect("beneath")
        .display()
        .to_string();
    let what = if kind.is_dir() {
        let opaque = [b"trusted.overlay.opaque".as_slice(), b"user.overlay.opaque"]
            .iter()
            .any(|name| {
                let opened = beneath::open_file(path).expect("a folder");
                beneath::attribute(&opened, name).is_ok_and(|value| value.is_some())
            });
        if opaque {
            "/ opaque".to_owned()
        } else {
            "/".to_owned()
        }
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).expect("a link");
        format!(
            " -> {}",
            String::from_utf8_lossy(target.as_os_str().as_bytes())
        )
    } else if kind.is_char_device() || kind.is_block_device() {
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        format!(" {letter} {}:{}", meta.rdev() >> 8, meta.rdev() & 0xff)
    } else if kind.is_fifo() {
        " fifo".into()
    } else {
        let content = fs::read(path).expect("a file");
        match content.len() {
            0..=64 => format!(" = {}", String::from_utf8_lossy(&content)),
            length => format!(" = {length} bytes"),
        }
    };
    if !kind.is_symlink() {
        lines.push(format!("{mode:o} {uid}:{gid} {name}{what}"));
    } else {
        lines.push(format!("{uid}:{gid} {name}{what}"));
    }
    if kind.is_dir() {
        for entry in fs::list(path).expect("a folder") {
            describe(root, &path.join(entry), lines);
        }
    }
}
