//! `manifests/hello.yaml`, as the README plays it.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::Kplay;
use crate::ports::{page, served};

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the manifest is part of the test"
)]
fn the_readmes_first_command() {
    let Some(kplay) = Kplay::new() else { return };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/hello.yaml");
    let text = std::fs::read_to_string(&manifest).expect("the manifest");
    let port: u16 = text
        .lines()
        .find_map(|line| line.split("hostPort:").nth(1))
        .and_then(|rest| rest.trim().trim_end_matches(['}', ']', ',']).parse().ok())
        .expect("a hostPort in the manifest");
    let apply = || {
        let run = kplay.run(["apply".as_ref(), manifest.as_os_str()]);
        kplay.note_pods();
        run.succeeds()
    };
    let created = apply();
    assert!(created.contains("pod/hello created\n"), "{created}");
    let address = (Ipv4Addr::LOCALHOST, port);
    let answer = served(address);
    assert!(answer.contains("hello"), "{answer}");
    let pod = kplay.pod("hello");
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .expect("containers");
    assert_eq!(containers.len(), 2);
    let inits = pod["status"]["initContainerStatuses"]
        .as_array()
        .expect("init containers");
    assert_eq!(inits.len(), 1);
    let _typed: k8s_openapi::api::core::v1::Pod =
        serde_json::from_value(pod.clone()).expect("a v1.Pod");
    for container in containers {
        let name = container["name"].as_str().expect("a name");
        kplay.run(["logs", "hello", "-c", name]).succeeds();
    }
    let env = kplay
        .run(["exec", "hello", "--", "/toolbox", "env"])
        .succeeds();
    assert!(env.contains("HOSTNAME=hello"), "{env}");
    let again = apply();
    assert!(again.contains("pod/hello unchanged\n"), "{again}");
    kplay
        .run(["delete".as_ref(), "-f".as_ref(), manifest.as_os_str()])
        .succeeds();
    assert!(page(address, "/").is_err(), "nobody listens any more");
    kplay.assert_nothing_left();
}
