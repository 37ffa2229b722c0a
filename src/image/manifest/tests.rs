//! Documents of every kind, and which of an index is chosen.

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn manifest(config_type: &str, layer_type: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"sha256:{HEX}","size":1}},
        "layers":[{{"mediaType":"{layer_type}","digest":"sha256:{HEX}","size":2}}]}}"#
    )
}

#[test]
fn a_document_is_an_image_or_an_index_or_an_error() {
    let check = |text: &str, expected: &str| {
        let found = match Document::parse(text.as_bytes()) {
            Ok(Document::Image(manifest)) => format!("{} layers", manifest.layers.len()),
            Ok(Document::Index(entries)) => format!("{} entries", entries.len()),
            Err(e) => e.to_string(),
        };
        assert!(found.starts_with(expected), "{text}: {found}");
    };
    check(&manifest(CONFIG, LAYER), "1 layers");
    check(r#"{"schemaVersion":2,"manifests":[]}"#, "0 entries");
    check(
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        "manifests of schema version 1",
    );
    check(
        &manifest("application/vnd.cncf.helm.config.v1+json", LAYER),
        "it is of the type `application/vnd.cncf",
    );
    check(
        &manifest(CONFIG, "text/plain"),
        "it is of the type `text/plain`",
    );
    check(
        &manifest(CONFIG, LAYER).replace(HEX, "../../etc"),
        "the manifest names the digest",
    );
    check(
        &manifest(CONFIG, &format!("{LAYER}+encrypted")),
        "its layers are encrypted",
    );
    let empty = manifest("application/vnd.oci.empty.v1+json", "text/plain");
    check(&empty, "it is of the type `application/vnd.oci.empty");
    let of_type = empty.replacen('{', r#"{"artifactType":"application/vnd.example+sbom","#, 1);
    check(&of_type, "it is of the type `application/vnd.example+sbom`");
    // An image may say what it is beside.
    let image = manifest(CONFIG, LAYER);
    check(
        &image.replacen('{', r#"{"artifactType":"x/y","#, 1),
        "1 layers",
    );
    let old = manifest("application/octet-stream", LAYER);
    check(&old, "it is of the type `application/octet-stream`");
    let of_docker = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","#);
    check(&old.replacen('{', &of_docker, 1), "1 layers");
    for kind in [
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        check(&manifest(CONFIG, kind), "1 layers");
    }
    check(r#"{"schemaVersion":2}"#, "it is of the type `neither");
    check(
        &manifest(CONFIG, LAYER).replace("\"layers\"", "\"manifests\":[],\"layers\""),
        "it is of the type `neither",
    );
    check("{", "the manifest is not valid JSON");
    check(&" ".repeat((4 << 20) + 1), "the manifest has more than");
}

#[test]
fn a_configuration_may_have_null_for_nothing() {
    let text = format!(
        r#"{{"created":"2024-01-01T00:00:00Z","os":"linux","architecture":"arm64","variant":"v8",
        "config":{{"Env":null,"Entrypoint":["/a"],"Cmd":null,"User":"1:2","WorkingDir":"/w","Labels":null,"StopSignal":"",
        "Volumes":{{"/b/":{{}},"a/../c":{{}},"/../..":{{}},"/b":{{}}}},"Healthcheck":{{"Test":["NONE"]}}}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{HEX}"]}}}}"#
    );
    let read = Configuration::parse(text.as_bytes()).expect("a configuration");
    assert_eq!(read.config.entrypoint, ["/a"]);
    assert_eq!(
        (read.config.user.as_str(), read.config.working_dir.as_str()),
        ("1:2", "/w")
    );
    assert_eq!(read.config.stop_signal, None);
    assert_eq!(read.config.volumes, [Path::new("/b"), Path::new("/c")]);
    assert!(!read.config.healthcheck);
    let text = r#"{"config":{"Volumes":null,"Healthcheck":{"Test":["CMD-SHELL","true"]}}}"#;
    let other = Configuration::parse(text.as_bytes()).expect("a configuration");
    assert!(other.config.healthcheck && other.config.volumes.is_empty());
    assert_eq!(read.platform.to_string(), "linux/arm64/v8");
    assert!(read.check_layers(1).is_ok() && read.check_layers(2).is_err());
    let wanted = |text| Platform::parse(text).expect("a platform");
    assert!(read.check_platform(&wanted("arm64")).is_ok());
    assert!(read.check_platform(&wanted("amd64")).is_err());
    assert!(Configuration::parse(b"{}").is_ok_and(|c| c.diff_ids.is_empty()));
}

#[test]
fn of_the_same_image_the_faster_is_chosen() {
    let entry = |zstd: &str| {
        let annotations = format!(r#"{{"{ZSTD}":"{zstd}"}}"#);
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":{},"annotations":{annotations},
            "platform":{{"os":"linux","architecture":"amd64"}}}}"#,
            zstd.len()
        )
    };
    let all = [entry("no"), entry("true"), entry("other")].join(",");
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{all}]}}"#);
    let Ok(Document::Index(entries)) = Document::parse(index.as_bytes()) else {
        panic!("{index}");
    };
    let wanted = Platform::parse("amd64").expect("a platform");
    let chosen = choose(&entries, &wanted).expect("one of them");
    assert_eq!(chosen.descriptor.size, 4);
}

#[test]
fn the_best_platform_of_an_index_is_chosen() {
    let check = |offered: &[&str], wanted: &str, expected: Result<usize, &str>| {
        let entries: Vec<Entry> = offered
            .iter()
            .enumerate()
            .map(|(i, platform)| Entry {
                descriptor: Descriptor {
                    media_type: String::new(),
                    digest: Digest::of(&[]),
                    size: i as u64,
                    urls: Vec::new(),
                },
                platform: Platform::parse(platform).ok(),
                annotations: BTreeMap::new(),
            })
            .collect();
        let wanted = Platform::parse(wanted).expect("a platform");
        let chosen = choose(&entries, &wanted).map(|e| e.descriptor.size as usize);
        assert_eq!(
            chosen.map_err(|e| e.to_string()),
            expected.map_err(str::to_owned)
        );
    };
    check(
        &["linux/arm/v6", "linux/arm/v7", "linux/arm/v8"],
        "linux/arm/v7",
        Ok(1),
    );
    check(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Ok(1));
    check(&["linux/arm", "linux/arm/v7"], "linux/arm/v7", Ok(1));
    check(&["linux/arm/v5", "linux/arm"], "linux/arm", Ok(1));
    check(&["linux/arm/v5", "linux/arm/v8"], "linux/arm", Ok(1));
    check(&["linux/amd64/v3", "linux/amd64"], "amd64", Ok(1));
    check(
        &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
        "linux/amd64/v3",
        Ok(1),
    );
    check(&["linux/amd64", "linux/amd64"], "amd64", Ok(0));
    check(&[""], "amd64", Ok(0));
    check(
        &["linux/arm64", "unknown/unknown"],
        "amd64",
        Err("there is no image for linux/amd64; there is: linux/arm64"),
    );
    check(
        &[],
        "amd64",
        Err("there is no image for linux/amd64; there is: nothing"),
    );
}
