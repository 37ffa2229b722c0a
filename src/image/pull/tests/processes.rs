//! Pulls that need another process: this test once more, or the registry that people run.

use std::process::Command;

use super::*;
use crate::image::testing::can;

/// Runs itself once more, because the certificates' place is in the environment.
#[test]
fn a_private_authority_is_trusted_through_the_environment() {
    const REFERENCE: &str = "KPLAY_TEST_PULL";
    if !can_be_root() {
        return;
    }
    if let Ok(reference) = std::env::var(REFERENCE) {
        let setup = Setup::new();
        setup
            .pull(&Reference::parse(&reference).expect("a reference"))
            .expect("pulled");
        return;
    }
    let (registry, sample) = (Registry::with_tls(Access::Anybody), sample());
    registry.add("app", "1", &sample);
    for (runs, host) in ["127.0.0.1", "localhost"].into_iter().enumerate() {
        let name =
            "image::pull::tests::processes::a_private_authority_is_trusted_through_the_environment";
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name])
            .env(
                "SSL_CERT_FILE",
                concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/image/ca.pem"),
            )
            .env(
                REFERENCE,
                format!("{host}:{}/app:1", registry.address().port()),
            )
            .status();
        assert!(status.expect("this test again").success(), "{host}");
        // A name that fits no test would run nothing, and succeed.
        let fetched = registry
            .log()
            .iter()
            .filter(|path| path.contains(&blob(&sample, 1)))
            .count();
        assert_eq!(fetched, runs + 1, "{host}");
    }
}

/// Two processes, each pulling the same image into the same store.
#[test]
fn two_processes_share_the_work() {
    const STORE: &str = "KPLAY_TEST_STORE";
    const REFERENCE: &str = "KPLAY_TEST_PULL";
    if !can_be_root() {
        return;
    }
    if let (Ok(store), Ok(reference)) = (std::env::var(STORE), std::env::var(REFERENCE)) {
        let store = Store::open(store.as_ref()).expect("a store");
        let reference = Reference::parse(&reference).expect("a reference");
        runtime()
            .block_on(pull(&store, &reference.into(), &options(), &|_| ()))
            .expect("pulled");
        return;
    }
    let (registry, setup, sample) = (Registry::start(Access::Anybody), Setup::new(), sample());
    registry.add("app", "1", &sample);
    let children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().expect("this test"))
                .args([
                    "--exact",
                    "image::pull::tests::processes::two_processes_share_the_work",
                ])
                .env(STORE, setup.folder.path())
                .env(REFERENCE, registry.reference("app:1").to_string())
                .spawn()
                .expect("this test again")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    let image = setup
        .store
        .find(&registry.reference("app:1"))
        .expect("readable")
        .expect("there");
    assert_eq!(
        tree(&image.layers[1]),
        "755 0:0 /\n644 0:0 big = 2000000 bytes"
    );
    let fetched = |layer| {
        registry
            .log()
            .iter()
            .filter(|path| path.contains(&blob(&sample, layer)))
            .count()
    };
    assert_eq!((fetched(0), fetched(1)), (1, 1));
    assert_eq!(
        fs::list(&setup.folder.path().join("tmp"))
            .expect("a folder")
            .len(),
        0
    );
}

/// The registry that people run, with what another tool pushed there.
#[test]
fn an_image_is_pulled_from_dockers_registry() {
    let have = [
        "/usr/bin/docker-registry",
        "/usr/bin/skopeo",
        "/usr/bin/busybox",
    ];
    let there = have.iter().all(|path| std::path::Path::new(path).exists());
    if !can_be_root() || !can("docker-registry, skopeo and busybox", there) {
        return;
    }
    let folder = Folder::new();
    let busybox = fs::read("/usr/bin/busybox".as_ref()).expect("busybox");
    let head = crate::image::testing::Head {
        path: b"bin/busybox",
        mode: 0o755,
        ..Default::default()
    };
    let sample = Sample::new(&[Tar::default().entry(&head, &busybox).end()], |plain| {
        plain.to_vec()
    });
    let archive = folder.path().join("image.tar");
    fs::replace(&archive, 0o600, &sample.docker_archive(&["busybox:test"])).expect("an archive");
    let server = DockerRegistry::start(&folder);
    for (format, compression) in [("v2s2", "gzip"), ("oci", "zstd")] {
        let name = format!("{}/busybox:{format}", server.address);
        let pushed = Command::new("skopeo")
            .args([
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--insecure-policy",
                "--format",
                format,
            ])
            .args(["--dest-compress-format", compression])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{name}"))
            .status();
        assert!(pushed.expect("skopeo").success(), "{format}");
        let setup = Setup::new();
        let image = setup
            .pull(&Reference::parse(&name).expect("a reference"))
            .expect("pulled");
        let copy = fs::read(&image.layers[0].join("bin/busybox")).expect("a file");
        assert!(copy == busybox, "{format}");
    }
}

struct DockerRegistry {
    process: std::process::Child,
    address: String,
}

impl DockerRegistry {
    fn start(folder: &Folder) -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            folder.path().join("registry").display()
        );
        let path = folder.path().join("registry.yml");
        fs::replace(&path, 0o600, config.as_bytes()).expect("a file");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("docker-registry");
        // It says nothing when it is ready; a connection does.
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(
                process.try_wait().expect("a process").is_none(),
                "docker-registry ended"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { process, address }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it ends");
    }
}
