//! Images: archives of every format, registries, pull policies, the embedded image.

use crate::Kplay;
use crate::fixtures::{Registry, fixture, podman_pulls, skopeo_finds};
use crate::harness::script_pod;

/// Plays a pod of this image to its end.
#[track_caller]
fn plays(kplay: &Kplay, image: &str) {
    let pod = script_pod(
        "image",
        "",
        "imagePullPolicy: Never,",
        "busybox | head -n 1 | cut -c 1-7",
    )
    .replace("localhost/busybox:1", image);
    kplay.apply_with(&pod, ["--wait=complete"]).succeeds();
    assert_eq!(
        kplay.run(["logs", "image"]).succeeds(),
        "BusyBox\n",
        "{image}"
    );
    kplay.run(["delete", "pod", "image"]).succeeds();
}

#[test]
fn archives_and_layouts_of_every_kind() {
    for name in [
        "podman-docker-archive.tar",
        "podman-oci-archive.tar",
        "skopeo-docker-archive.tar",
        "skopeo-oci-archive.tar",
        "layout-gzip",
        "layout-plain",
        "layout-zstd",
    ] {
        let Some(kplay) = Kplay::new() else { return };
        let loaded = kplay.load(fixture(name));
        assert!(loaded.contains("localhost/busybox:1"), "{name}: {loaded}");
        plays(&kplay, "localhost/busybox:1");
    }
}

#[test]
fn an_archive_from_standard_input() {
    let Some(kplay) = Kplay::new() else { return };
    for name in ["podman-docker-archive.tar", "skopeo-oci-archive.tar"] {
        let archive = std::fs::read(fixture(name)).expect("the fixture");
        let loaded = kplay
            .command(["load", "-i", "-"])
            .stdin(archive)
            .run()
            .succeeds();
        assert!(loaded.contains("localhost/busybox:1"), "{name}: {loaded}");
    }
    plays(&kplay, "localhost/busybox:1");
}

#[test]
fn an_archive_cut_short() {
    let Some(kplay) = Kplay::new() else { return };
    for name in [
        "podman-docker-archive.tar",
        "podman-oci-archive.tar",
        "skopeo-oci-archive.tar",
    ] {
        let archive = std::fs::read(fixture(name)).expect("the fixture");
        let cut = kplay.file("cut.tar", &archive[..archive.len() / 2]);
        let cut = cut.to_str().expect("a readable path").to_owned();
        kplay.run(["load", "-i", &cut]).fails(4, &["cut.tar"]);
    }
    assert_eq!(kplay.run(["images", "-q"]).stdout, "");
}

#[test]
fn pulled_from_a_registry() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    for tag in ["gzip", "zstd", "docker"] {
        let image = registry.image(tag);
        kplay.run(["pull", &image]).succeeds();
        plays(&kplay, &image);
    }
    let by_digest = format!(
        "127.0.0.1:{}/test/busybox@{}",
        registry.port,
        registry.digest("gzip")
    );
    kplay.run(["pull", &by_digest]).succeeds();
    plays(&kplay, &by_digest);
    let listed = kplay.run(["images"]).succeeds();
    assert!(
        listed.contains(&format!("127.0.0.1:{}/test/busybox", registry.port)),
        "{listed}"
    );
    let zstd = registry.image("zstd");
    kplay.run(["rmi", &zstd]).succeeds();
    kplay.run(["rmi", &zstd]).fails(5, &[&zstd]);
    let pod = script_pod("gone", "", "imagePullPolicy: Never,", "true")
        .replace("localhost/busybox:1", &zstd);
    kplay.apply(&pod).fails(4, &[&zstd]);
}

const CONF: &str = "CONTAINERS_REGISTRIES_CONF";

#[test]
fn a_mirror_serves_kplay_and_podman_alike() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let text = format!(
        "[[registry]]\nprefix = 'example.test/lib'\nlocation = '127.0.0.1:1/gone'\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:{port}/empty'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:{port}/test'\ninsecure = true\n\
         [[registry]]\nprefix = 'example.test/lib/secret'\nlocation = '127.0.0.1:{port}/test'\nblocked = true\n\
         [aliases]\nbox = 'example.test/lib/busybox'\n",
        port = registry.port
    );
    let conf = kplay.file("registries.conf", text);
    let image = "example.test/lib/busybox:gzip";
    let pull = |name: &str| kplay.command(["pull", name]).env(CONF, &conf).run();
    let id = pull(image).succeeds();
    let id = id.trim().trim_start_matches("sha256:");
    assert_eq!(podman_pulls(&conf, image), id);
    assert_eq!(podman_pulls(&conf, "box:gzip"), id);
    assert_eq!(skopeo_finds(&conf, image), registry.digest("gzip"));
    // It is stored under the whole name, also when it was asked for by the short one.
    plays(&kplay, image);
    assert_eq!(pull("box:gzip").succeeds().trim(), format!("sha256:{id}"));
    let listed = kplay.run(["images"]).succeeds();
    assert!(listed.contains("example.test/lib/busybox"), "{listed}");
    assert!(!listed.contains("127.0.0.1"), "{listed}");
    let pod = script_pod("short", "", "", "true").replace("localhost/busybox:1", "box:zstd");
    let pod = kplay.file("short.yaml", pod);
    let apply = kplay.command([
        "apply".into(),
        "--wait=complete".into(),
        pod.into_os_string(),
    ]);
    apply.env(CONF, &conf).run().succeeds();
    let status = &kplay.pod("short")["status"]["containerStatuses"][0];
    assert_eq!(status["image"], "box:zstd");
    kplay.run(["delete", "pod", "short"]).succeeds();
    let remove = kplay.command(["rmi", "box:zstd"]).env(CONF, &conf).run();
    assert!(remove.succeeds().contains("example.test/lib/busybox:zstd"));
    let why = ["example.test/lib/secret", "blocked", "registries.conf:10"];
    pull("example.test/lib/secret:1").fails(4, &why);
    pull("example.test/lib/other:1").fails(
        4,
        &["/empty/other`", "/test/other`", "127.0.0.1:1/gone/other`"],
    );
}

#[test]
fn a_wrong_registries_conf_has_a_place() {
    let Some(kplay) = Kplay::new() else { return };
    let conf = kplay.file(
        "registries.conf",
        "[[registry]]\nlocation = 'a.test'\ninsecure = 1\n",
    );
    let pull = kplay.command(["pull", "a.test/b"]).env(CONF, &conf).run();
    pull.fails(
        4,
        &["registries.conf:3: `insecure` must be `true` or `false`"],
    );
}

#[test]
fn apply_pulls_what_its_pods_need() {
    let Some(kplay) = Kplay::new() else { return };
    let registry = Registry::start();
    let image = registry.image("gzip");
    let pod = |policy: &str| {
        script_pod(
            "pulls",
            "",
            &format!("imagePullPolicy: {policy},"),
            "echo pulled",
        )
        .replace("localhost/busybox:1", &image)
    };
    kplay.apply(&pod("Never")).fails(4, &[&image, "Never"]);
    kplay
        .apply_with(&pod("IfNotPresent"), ["--wait=complete"])
        .succeeds();
    assert_eq!(kplay.run(["logs", "pulls"]).succeeds(), "pulled\n");
    kplay
        .apply_with(&pod("Always"), ["--wait=complete", "--replace"])
        .succeeds();
    drop(registry);
    // It is here, but Always means to ask.
    kplay
        .apply_with(&pod("Always"), ["--replace"])
        .fails(4, &[&image]);
    kplay
        .apply_with(&pod("IfNotPresent"), ["--wait=complete", "--replace"])
        .succeeds();
}

#[test]
fn an_image_in_use_stays() {
    let Some(kplay) = Kplay::with_busybox() else {
        return;
    };
    kplay
        .apply(&script_pod("user", "", "", "sleep 1000"))
        .succeeds();
    kplay
        .run(["rmi", "localhost/busybox:1"])
        .fails(4, &["localhost/busybox:1", "used"]);
    assert_eq!(kplay.shell("user", "echo still here"), "still here\n");
}

#[test]
fn the_embedded_image_needs_no_registry() {
    let Some(kplay) = Kplay::new() else { return };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: tools}\nspec: {restartPolicy: Never, containers: \
               [{name: main, image: kplay.local/toolbox, args: [print, out of the box]}]}\n";
    kplay.apply_with(pod, ["--wait=complete"]).succeeds();
    assert_eq!(kplay.run(["logs", "tools"]).succeeds(), "out of the box\n");
}
