//! The examples in `manifests/` whose pods talk to each other.

use std::net::SocketAddr;
use std::path::Path;

use crate::Kplay;
use crate::ports::{page, served};
use crate::wait;

impl Kplay {
    /// `apply --wait=ready` of an example.
    #[track_caller]
    fn play(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("manifests")
            .join(name);
        let limit = wait::stretched(std::time::Duration::from_secs(50)).as_secs();
        let limit = format!("--timeout={limit}s");
        let args = ["apply", "--wait=ready", &limit].map(std::ffi::OsString::from);
        self.run(args.into_iter().chain([path.into()])).succeeds();
        self.note_pods();
    }

    /// Names of the pods with this label.
    fn pods_with(&self, label: &str) -> Vec<String> {
        let names = self
            .run(["get", "pods", "-l", label, "-o", "name"])
            .succeeds();
        names
            .lines()
            .map(|name| name.trim_start_matches("pod/").to_owned())
            .collect()
    }

    fn ready(&self, pod: &str) -> bool {
        let pod = self.pod(pod);
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[test]
fn a_guestbook_of_three_tiers() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.play("guestbook.yaml");
    let one = |label: &str| kplay.pods_with(label).first().expect("a pod").clone();
    let (frontend, database) = (one("tier=frontend"), one("tier=database"));
    let backends = kplay.pods_with("tier=backend");
    assert_eq!(backends.len(), 2, "{backends:?}");
    served(local(30080));
    let mut left = backends.clone();
    wait::until("both backends answer", || {
        let answer = page(local(30080), "/upstream").unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains(&format!("\r\n\r\n{frontend}\n")),
            "{answer}"
        );
        assert!(
            answer.contains("200: Ada was here.\n    Grace, too.\n"),
            "{answer}"
        );
        left.retain(|backend| {
            !answer.contains(&format!("http://backend:80/upstream 200: {backend}\n"))
        });
        left.is_empty()
    });
    // One after the other is told to wait.
    let switch = |to: &str| {
        let url = format!("localhost:8080/ready/{to}");
        kplay.fetch(&database, &url).succeeds();
    };
    switch("no");
    wait::until("nobody is ready", || {
        [&frontend, &database]
            .into_iter()
            .chain(&backends)
            .all(|pod| !kplay.ready(pod))
    });
    wait::until("nobody serves", || page(local(30080), "/").is_err());
    switch("yes");
    wait::until("all are ready", || {
        [&frontend, &database]
            .into_iter()
            .chain(&backends)
            .all(|pod| kplay.ready(pod))
    });
    served(local(30080));
}

#[test]
fn a_blog_and_its_database() {
    let Some(kplay) = Kplay::new() else { return };
    kplay.play("wordpress.yaml");
    served(local(30081));
    let answer = page(local(30081), "/upstream").expect("served");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("\n  http://wordpress-mysql:3306/files/posts 200: Hello world!\n"),
        "{answer}"
    );
    // The name is the pod's own address.
    let pod = kplay
        .pods_with("tier=mysql")
        .first()
        .expect("a pod")
        .clone();
    let frontend = kplay
        .pods_with("tier=frontend")
        .first()
        .expect("a pod")
        .clone();
    let found = kplay.found(&frontend, &["wordpress-mysql"]);
    assert_eq!(found, [kplay.ips(&pod)[0].clone()]);
    kplay.run(["delete", "--all"]).succeeds();
    kplay.run(["delete", "pvc", "--all"]).succeeds();
}

#[test]
fn three_databases_find_each_other() {
    const NAMES: [&str; 3] = ["blue-0", "green-0", "red-0"];
    let Some(kplay) = Kplay::new() else { return };
    kplay.play("statefulset.yaml");
    for pod in NAMES {
        let page = kplay.fetch(pod, "localhost/upstream").succeeds();
        for peer in NAMES {
            assert!(
                page.contains(&format!("http://{peer}.peers:80/hostname 200: {peer}\n")),
                "{page}"
            );
            let full = format!("{peer}.peers.default.svc.cluster.local");
            for name in [&*full, &format!("{peer}.peers.default.svc")] {
                assert_eq!(
                    kplay.found(pod, &[name]),
                    [kplay.ips(peer)[0].clone()],
                    "{name}"
                );
            }
        }
    }
    let mut all: Vec<String> = NAMES.iter().map(|pod| kplay.ips(pod)[0].clone()).collect();
    all.sort();
    assert_eq!(kplay.found("red-0", &["peers"]), all);
    let places = NAMES.map(|pod| format!("0 33 80 {pod}.peers.default.svc.cluster.local."));
    assert_eq!(kplay.found("blue-0", &["_http._tcp.peers", "SRV"]), places);
}
