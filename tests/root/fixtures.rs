//! Images for the tests, made once by podman and skopeo from Debian's busybox-static, and registries that serve them.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

use crate::harness::free_port;
use crate::leftovers;
use crate::wait;

/// `localhost/busybox:1` as `podman save` writes it.
pub(crate) fn busybox_archive() -> PathBuf {
    fixture("podman-docker-archive.tar")
}

/// `localhost/settings:1`: an image with an entrypoint, a user, a working directory, variables and a stop signal.
pub(crate) fn settings_archive() -> PathBuf {
    fixture("settings.tar")
}

/// `localhost/hostile:1`: busybox with [`HOSTILE`].
pub(crate) fn hostile_archive() -> PathBuf {
    fixture("hostile.tar")
}

/// The symbolic links of the hostile image, and where they lead to.
const HOSTILE: [(&str, &str); 7] = [
    ("to-proc", "/proc"),
    ("to-sys-of-proc", "../../proc/sys"),
    ("to-dev", "/dev"),
    ("to-sys", "/sys"),
    ("to-root", "/"),
    ("out", "../../../../../../../tmp/kplay-hostile"),
    ("loop", "loop"),
];

/// A file or folder of the fixtures; see [`make`] for their names.
pub(crate) fn fixture(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(prepared).join(name);
    assert!(path.exists(), "there is no fixture {path:?}");
    path
}

/// The folder of fixtures, made by the first process that needs it while the others wait. Its name has the age of
/// what goes in, so that an old one is not used.
fn prepared() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = fs::File::create(parent.join("fixtures.lock")).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let folder = parent.join(format!("fixtures-{:x}", age()));
    if !folder.exists() {
        let unfinished = parent.join("fixtures-unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).expect("removable");
        }
        fs::create_dir_all(&unfinished).expect("a folder");
        make(&unfinished);
        fs::rename(&unfinished, &folder).expect("renamable");
    }
    folder
}

fn age() -> u64 {
    let inputs = ["/bin/busybox", "/usr/bin/podman", "/usr/bin/skopeo"];
    let own = ["Containerfile", "containers.conf", "passwd", "group"].map(testdata);
    let newest = inputs
        .iter()
        .map(PathBuf::from)
        .chain(own)
        .map(|path| {
            let modified = fs::metadata(&path).and_then(|meta| meta.modified());
            modified.unwrap_or_else(|e| panic!("cannot see {path:?}: {e}; run .ci/deps"))
        })
        .max()
        .expect("there are inputs");
    newest
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/root")
        .join(name)
}

/// Every file that [`fixture`] can name.
fn make(folder: &Path) {
    let context = folder.join("context");
    root_filesystem(&context.join("rootfs"));
    tool(
        folder,
        "tar",
        &[
            "-C",
            "context/rootfs",
            "--owner=0",
            "--group=0",
            "-cf",
            "context/rootfs.tar",
            ".",
        ],
    );
    hostile_links(folder, &context);
    fs::copy(testdata("Containerfile"), context.join("Containerfile")).expect("a copy");
    for image in ["plain", "settings", "hostile"] {
        let name = format!(
            "localhost/{}:1",
            if image == "plain" { "busybox" } else { image }
        );
        podman(
            folder,
            &["build", "-q", "--target", image, "-t", &name, "context"],
        );
    }
    for format in ["docker-archive", "oci-archive"] {
        let file = format!("podman-{format}.tar");
        podman(
            folder,
            &[
                "save",
                "-q",
                "--format",
                format,
                "-o",
                &file,
                "localhost/busybox:1",
            ],
        );
    }
    podman(
        folder,
        &["save", "-q", "-o", "settings.tar", "localhost/settings:1"],
    );
    podman(
        folder,
        &["save", "-q", "-o", "hostile.tar", "localhost/hostile:1"],
    );
    let source = "docker-archive:podman-docker-archive.tar";
    let named = ":localhost/busybox:1";
    skopeo(
        folder,
        &[
            source,
            &format!("docker-archive:skopeo-docker-archive.tar{named}"),
        ],
    );
    skopeo(
        folder,
        &[
            source,
            &format!("oci-archive:skopeo-oci-archive.tar{named}"),
        ],
    );
    skopeo(folder, &[source, &format!("oci:layout-gzip{named}")]);
    skopeo(
        folder,
        &[
            "--dest-oci-accept-uncompressed-layers",
            source,
            &format!("oci:layout-plain{named}"),
        ],
    );
    skopeo(
        folder,
        &[
            "--dest-compress",
            "--dest-compress-format",
            "zstd",
            source,
            &format!("oci:layout-zstd{named}"),
        ],
    );
    let registry = Registry::start_in(&folder.join("registry"), Guests::Anybody);
    for (from, tag) in [("layout-gzip", "gzip"), ("layout-zstd", "zstd")] {
        let from = format!("oci:{from}{named}");
        let to = format!("docker://127.0.0.1:{}/test/busybox:{tag}", registry.port);
        skopeo(folder, &["--dest-tls-verify=false", &from, &to]);
    }
    let to = format!("docker://127.0.0.1:{}/test/busybox:docker", registry.port);
    skopeo(
        folder,
        &["--dest-tls-verify=false", "--format", "v2s2", source, &to],
    );
    drop(registry);
    fs::remove_dir_all(podman_state()).expect("removable");
}

/// Links to where nothing is to be mounted, and out of the image.
fn hostile_links(folder: &Path, context: &Path) {
    let links = context.join("links");
    fs::create_dir_all(&links).expect("a folder");
    for (name, target) in HOSTILE {
        symlink(target, links.join(name)).expect("a link");
    }
    tool(
        folder,
        "tar",
        &["-C", "context/links", "-cf", "context/links.tar", "."],
    );
}

fn root_filesystem(root: &Path) {
    let bin = root.join("bin");
    for dir in ["bin", "etc", "home/app", "root", "srv/work", "tmp"] {
        fs::create_dir_all(root.join(dir)).expect("a folder");
    }
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    let applets = tool(root, "/bin/busybox", &["--list"]);
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", bin.join(applet)).expect("a link");
    }
    for file in ["passwd", "group"] {
        fs::copy(testdata(file), root.join("etc").join(file)).expect("a copy");
    }
}

/// podman's own state: it refuses a long path, which the fixtures' folder may have.
fn podman_state() -> PathBuf {
    std::env::temp_dir().join(format!("{}podman", leftovers::prefix()))
}

fn podman(folder: &Path, args: &[&str]) {
    let root = podman_state().join("root");
    let run = podman_state().join("run");
    let own = [
        "--root",
        utf8(&root),
        "--runroot",
        utf8(&run),
        "--storage-driver",
        "vfs",
    ];
    tool(folder, "podman", &[&own, args].concat());
}

/// What `podman pull` with a `registries.conf` gets: the image's id.
pub(crate) fn podman_pulls(registries_conf: &Path, image: &str) -> String {
    let name = format!("{}podman-{}", leftovers::prefix(), free_port());
    let state = std::env::temp_dir().join(name);
    fs::create_dir_all(&state).expect("a folder");
    let output = Command::new("podman")
        .args(["--root", "root", "--runroot", "run"])
        .args(["--storage-driver", "vfs", "pull", "-q", image])
        .current_dir(&state)
        .env("CONTAINERS_CONF", testdata("containers.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", registries_conf)
        .output()
        .unwrap_or_else(|e| panic!("cannot run podman: {e}; run .ci/deps"));
    fs::remove_dir_all(&state).expect("removable");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "podman pull {image}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The digest that skopeo with a `registries.conf` finds for a name.
pub(crate) fn skopeo_finds(registries_conf: &Path, image: &str) -> String {
    let image = format!("docker://{image}");
    let args = [
        "--registries-conf",
        utf8(registries_conf),
        "inspect",
        "--no-tags",
        "--format",
        "{{.Digest}}",
        &image,
    ];
    tool(Path::new("/"), "skopeo", &args).trim().to_owned()
}

fn skopeo(folder: &Path, args: &[&str]) {
    tool(
        folder,
        "skopeo",
        &[&["copy", "-q", "--insecure-policy"], args].concat(),
    );
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

/// Runs a program that the tests need, which must succeed, and returns its output.
fn tool(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env("CONTAINERS_CONF", testdata("containers.conf"))
        .output()
        .unwrap_or_else(|e| panic!("cannot run {program}: {e}; run .ci/deps"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/image")
        .join(name)
}

/// Whom a registry lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guests {
    Anybody,
    User,
    /// The same, and only through TLS.
    UserWithTls,
    /// Who has a certificate of `testdata/image/client-ca.pem`.
    Certified,
}

/// What `htpasswd -Bbn user secret` prints, made in less time.
const USERS: &str = "user:$2b$04$CIvegxorE/0BygprkQA1q.OxqmSFcJNKg3VyiNUh.88hyF7GRizJ2\n";

/// Debian's docker-registry on a loopback port, without TLS; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) port: u16,
    process: Child,
    /// A copy that a test may damage.
    storage: PathBuf,
    /// Whether the storage goes with the registry.
    temporary: bool,
}

impl Registry {
    /// One that serves `test/busybox` with the tags `gzip`, `zstd` and `docker`, from a copy that is its own.
    pub(crate) fn start() -> Self {
        Self::start_for(Guests::Anybody)
    }

    /// The same for `user` with the password `secret` alone.
    pub(crate) fn with_password() -> Self {
        Self::start_for(Guests::User)
    }

    /// The same with TLS, on `localhost` too.
    pub(crate) fn with_tls_and_password() -> Self {
        Self::start_for(Guests::UserWithTls)
    }

    /// The same for who has the certificate of `testdata/image/client.pem`.
    pub(crate) fn with_client_certificates() -> Self {
        Self::start_for(Guests::Certified)
    }

    /// A folder in `parent` with the certificate of who signed the registry's.
    pub(crate) fn authorities(&self, parent: &Path) -> PathBuf {
        let folder = parent.join(format!("authorities-{}", self.port));
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(tls_file("ca.pem"), folder.join("ca.crt")).expect("a copy");
        folder
    }

    /// Puts what says who asks into such a folder.
    pub(crate) fn identify(folder: &Path) {
        for (from, to) in [("client.pem", "me.cert"), ("client.key", "me.key")] {
            fs::copy(tls_file(from), folder.join(to)).expect("a copy");
        }
    }

    fn start_for(guests: Guests) -> Self {
        let name = format!("{}registry-{}", leftovers::prefix(), free_port());
        let storage = std::env::temp_dir().join(name);
        let source = fixture("registry");
        let parent = source.parent().expect("the fixtures");
        tool(parent, "cp", &["-r", "registry", utf8(&storage)]);
        let mut registry = Self::start_in(&storage, guests);
        registry.temporary = true;
        registry
    }

    fn start_in(storage: &Path, guests: Guests) -> Self {
        fs::create_dir_all(storage).expect("a folder");
        // Somebody may take the port between the look and the start.
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(storage, free_port(), guests) {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    fn try_start(storage: &Path, port: u16, guests: Guests) -> Option<Self> {
        let configuration = storage.join("config.yml");
        let clients = match guests {
            Guests::Certified => format!(", clientcas: [{:?}]", tls_file("client-ca.pem")),
            Guests::Anybody | Guests::User | Guests::UserWithTls => String::new(),
        };
        let tls = match guests {
            Guests::Anybody | Guests::User => String::new(),
            Guests::UserWithTls | Guests::Certified => format!(
                ", tls: {{certificate: {:?}, key: {:?}{clients}}}",
                tls_file("server.pem"),
                tls_file("server.key")
            ),
        };
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"{tls}}}\n"
        );
        let auth = match guests {
            Guests::Anybody | Guests::Certified => String::new(),
            Guests::User | Guests::UserWithTls => {
                let users = storage.join("users");
                fs::write(&users, USERS).expect("a file");
                format!("auth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n")
            }
        };
        fs::write(&configuration, text + &auth).expect("a file");
        let process = Command::new("docker-registry")
            .args(["serve", utf8(&configuration)])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run docker-registry: {e}; run .ci/deps"));
        let mut registry = Self {
            port,
            process,
            storage: storage.to_owned(),
            temporary: false,
        };
        let mut listening = false;
        wait::holds_within(wait::PATIENCE, || {
            listening = TcpStream::connect(("127.0.0.1", port)).is_ok();
            listening
                || registry
                    .process
                    .try_wait()
                    .expect("our own child")
                    .is_some()
        });
        listening.then_some(registry)
    }

    /// The reference of a tag of the test image.
    pub(crate) fn image(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/test/busybox:{tag}", self.port)
    }

    /// The stored content of a digest (`sha256:…`).
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// The digest of a tag's manifest.
    pub(crate) fn digest(&self, tag: &str) -> String {
        let link = self
            .storage
            .join("docker/registry/v2/repositories/test/busybox/_manifests/tags")
            .join(tag)
            .join("current/link");
        fs::read_to_string(link).expect("the tag is there")
    }

    /// Gives the image of one tag another tag, which may have been another's.
    pub(crate) fn tag(&self, from: &str, to: &str) {
        self.link(&format!("_manifests/tags/{to}/current"), &self.digest(from));
    }

    /// Gives a tag an image that differs from another tag's by its configuration.
    pub(crate) fn tag_with(
        &self,
        from: &str,
        to: &str,
        change: impl FnOnce(&mut serde_json::Value),
    ) {
        let manifest = self.manifest(from);
        let config = manifest["config"]["digest"].as_str().expect("a digest");
        let config = fs::read(self.blob(config)).expect("the configuration is there");
        let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        change(&mut config["config"]);
        self.put_image(to, manifest, &config);
    }

    /// Gives a tag an image that has one more layer than another tag's for each of these archives, and returns the digests
    /// of those.
    pub(crate) fn tag_with_layers(
        &self,
        from: &str,
        to: &str,
        archives: &[Vec<u8>],
    ) -> Vec<String> {
        let mut manifest = self.manifest(from);
        let config = manifest["config"]["digest"].as_str().expect("a digest");
        let config = fs::read(self.blob(config)).expect("the configuration is there");
        let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        let mut layer = manifest["layers"][0].clone();
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
        let mut digests = Vec::new();
        for archive in archives {
            let digest = self.put_blob(archive);
            layer["digest"] = digest.clone().into();
            layer["size"] = archive.len().into();
            let add = |list: &mut serde_json::Value, one: serde_json::Value| {
                list.as_array_mut().expect("a list").push(one);
            };
            add(&mut manifest["layers"], layer.clone());
            add(&mut config["rootfs"]["diff_ids"], digest.clone().into());
            digests.push(digest);
        }
        // Its steps are no longer as many as its layers.
        config["history"] = serde_json::Value::Array(Vec::new());
        self.put_image(to, manifest, &config);
        digests
    }

    fn put_image(&self, to: &str, mut manifest: serde_json::Value, config: &serde_json::Value) {
        let config = config.to_string();
        manifest["config"]["digest"] = self.put_blob(config.as_bytes()).into();
        manifest["config"]["size"] = config.len().into();
        let digest = self.put(manifest.to_string().as_bytes());
        self.link(
            &format!("_manifests/revisions/sha256/{}", &digest[7..]),
            &digest,
        );
        self.link(&format!("_manifests/tags/{to}/current"), &digest);
    }

    fn link(&self, place: &str, digest: &str) {
        let repository = self
            .storage
            .join("docker/registry/v2/repositories/test/busybox");
        let place = repository.join(place);
        fs::create_dir_all(&place).expect("a folder");
        fs::write(place.join("link"), digest).expect("a file");
    }

    fn put_blob(&self, content: &[u8]) -> String {
        let digest = self.put(content);
        self.link(&format!("_layers/sha256/{}", &digest[7..]), &digest);
        digest
    }

    fn put(&self, content: &[u8]) -> String {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(content);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let place = self.blob(&digest);
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        fs::write(place, content).expect("a file");
        digest
    }

    /// A tag's manifest.
    pub(crate) fn manifest(&self, tag: &str) -> serde_json::Value {
        let bytes = fs::read(self.blob(&self.digest(tag))).expect("the manifest is there");
        serde_json::from_slice(&bytes).expect("a manifest is JSON")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        self.process.kill().ok();
        self.process.wait().ok();
        if self.temporary {
            fs::remove_dir_all(&self.storage).ok();
        }
    }
}

/// An archive with one file of bytes that do not compress.
pub(crate) fn noise_archive(dir: &Path, name: &str, bytes: usize) -> Vec<u8> {
    let mut state = name
        .bytes()
        .fold(1_u64, |state, byte| state * 31 + u64::from(byte))
        | 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(bytes)
    .collect();
    fs::write(dir.join(name), noise).expect("a file");
    let archive = Command::new("tar")
        .args(["--owner=0", "--group=0", "-cC", utf8(dir), name])
        .output()
        .expect("tar");
    assert!(archive.status.success(), "{archive:?}");
    archive.stdout
}
