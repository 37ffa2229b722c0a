//! Whole runs: goldens in `testdata/loader`, options, hostile input.
//!
//! `KPLAY_BLESS=1 cargo test` writes the goldens anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod env;
mod fields;
mod names;
mod pull_secrets;
mod services;

fn options() -> Options {
    Options {
        namespace: Namespace::default(),
        selector: None,
        set_image: Vec::new(),
        publish: Vec::new(),
        publish_declared: PublishDeclared::HostPorts,
        config_maps: Vec::new(),
        substitution: None,
        existing: Vec::new(),
        capacity: None,
        allowed_sysctls: AllowedSysctls::default(),
        current_dir: PathBuf::from("/current"),
        node_name: "node".to_owned(),
    }
}

fn source(text: impl AsRef<[u8]>) -> Source {
    Source {
        name: "t.yaml".to_owned(),
        text: text.as_ref().to_vec(),
        base_dir: Some(PathBuf::from("/base")),
    }
}

fn load_text(text: &str, options: &Options) -> Loaded {
    load(&[source(text)], options)
}

/// As a person would see it, for goldens.
fn rendered(diagnostics: &[Diagnostic]) -> String {
    let mut output = String::new();
    for diagnostic in diagnostics {
        let severity = format!("{:?}", diagnostic.severity).to_lowercase();
        writeln!(output, "{severity}: {}", diagnostic.message).unwrap();
        if let Some(place) = &diagnostic.place {
            writeln!(
                output,
                "  --> {}:{}:{}",
                place.file, place.line, place.column
            )
            .unwrap();
            writeln!(output, "   | {}", place.text).unwrap();
            let (space, mark) = (" ".repeat(place.column - 1), "^".repeat(place.width));
            writeln!(output, "   | {space}{mark}").unwrap();
        }
        if let Some(hint) = &diagnostic.hint {
            writeln!(output, "hint: {hint}").unwrap();
        }
    }
    output
}

#[expect(clippy::disallowed_methods, reason = "goldens are a test's own files")]
fn check_golden(path: &Path, actual: &str) {
    if std::env::var_os("KPLAY_BLESS").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{} differs; KPLAY_BLESS=1 writes it",
        path.display()
    );
}

fn manifests(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/loader")
        .join(folder);
    let mut sources = source::read(&[root.display().to_string()], source::Recurse::No).unwrap();
    sources.retain(|source| source.name.ends_with(".yaml"));
    for source in &mut sources {
        source.base_dir = Some(PathBuf::from("/base"));
    }
    sources
}

fn golden(source: &Source, extension: &str) -> PathBuf {
    Path::new(&source.name).with_extension(extension)
}

fn loaded(source: &Source) -> Loaded {
    let name = Path::new(&source.name)
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let source = Source {
        name,
        ..source.clone()
    };
    load(&[source], &options())
}

#[test]
fn valid_manifests_become_their_plans() {
    for source in manifests("valid") {
        let loaded = loaded(&source);
        let mut text = rendered(&loaded.diagnostics);
        for object in &loaded.objects {
            let played = if object.played { "" } else { " (not played)" };
            writeln!(text, "{} in {}{played}", object.key, object.key.namespace).unwrap();
        }
        check_golden(&golden(&source, "txt"), &text);
        assert!(!loaded.has_errors(), "{}", source.name);
        let plans: Vec<_> = loaded
            .objects
            .iter()
            .filter_map(|object| object.plan.as_ref())
            .collect();
        let json = serde_json::to_string_pretty(&plans).unwrap() + "\n";
        check_golden(&golden(&source, "plans.json"), &json);
        for plan in plans {
            let json = serde_json::to_string(plan).unwrap();
            assert_eq!(&serde_json::from_str::<PodPlan>(&json).unwrap(), plan);
        }
    }
}

#[test]
fn faulty_manifests_are_told_in_full() {
    for source in manifests("faulty") {
        let loaded = loaded(&source);
        check_golden(&golden(&source, "txt"), &rendered(&loaded.diagnostics));
        assert!(loaded.has_errors(), "{}", source.name);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let loaded = load(&[source(bytes)], &options());
        prop_assert!(loaded.has_errors() || loaded.objects.iter().any(|object| object.played));
    }
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: side, image: busybox}
  - name: web
    image: nginx
    ports: [{name: http, containerPort: 80}, {containerPort: 53, protocol: UDP}]
    env: [{name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode, optional: true}}}]
";
const SETTINGS: &str =
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {mode: fast}}";

/// The messages of a run, without their places.
fn messages(loaded: &Loaded) -> Vec<&str> {
    let all = loaded.diagnostics.iter();
    all.map(|diagnostic| diagnostic.message.as_str()).collect()
}

fn plan_with(options: &Options) -> PodPlan {
    let loaded = load_text(POD, options);
    assert_eq!(messages(&loaded), [""; 0]);
    loaded
        .objects
        .into_iter()
        .find_map(|object| object.plan)
        .unwrap()
}

#[test]
fn images_are_replaced_by_name() {
    let replace = |name: &str| Options {
        set_image: vec![(ContainerName::parse(name).unwrap(), "app:2".to_owned())],
        ..options()
    };
    let plan = plan_with(&replace("web"));
    let images: Vec<_> = plan
        .containers
        .iter()
        .map(|container| container.image.as_str())
        .collect();
    assert_eq!(images, ["busybox", "app:2"]);
    assert_eq!(
        plan.manifest.pointer("/spec/containers/1/image").unwrap(),
        "app:2"
    );
    let loaded = load_text(POD, &replace("other"));
    assert_eq!(
        messages(&loaded),
        ["`--set-image` names the container `other`, which no pod has"]
    );
}

#[test]
fn ports_are_published_where_they_are_declared() {
    let check = |publish: &[&str], declared, expected: &[&[(u16, Option<u16>)]]| {
        let options = Options {
            publish: publish
                .iter()
                .map(|text| Publish::parse(text).unwrap())
                .collect(),
            publish_declared: declared,
            ..options()
        };
        let plan = plan_with(&options);
        let ports = plan.containers.iter().map(|container| {
            let ports = container.ports.iter();
            ports
                .map(|port| (port.container_port, port.host_port))
                .collect::<Vec<_>>()
        });
        assert_eq!(ports.collect::<Vec<_>>(), expected, "{publish:?}");
        let ports = plan.manifest.pointer("/spec/containers/1/ports").unwrap();
        assert_eq!(
            ports.as_array().unwrap().len(),
            plan.containers[1].ports.len()
        );
    };
    let none = PublishDeclared::HostPorts;
    check(&[], none, &[&[], &[(80, None), (53, None)]]);
    check(&["8080:80"], none, &[&[], &[(80, Some(8080)), (53, None)]]);
    check(
        &["8080:80", "8081:80"],
        none,
        &[&[], &[(80, Some(8080)), (53, None), (80, Some(8081))]],
    );
    check(
        &["53:53"],
        none,
        &[&[(53, Some(53))], &[(80, None), (53, None)]],
    );
    check(
        &["8080:80"],
        PublishDeclared::All,
        &[&[], &[(80, Some(8080)), (53, Some(53))]],
    );
}

#[test]
fn ports_that_cannot_be_published_are_left_out_of_all() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: x, ports: \
                [{containerPort: 80}, {containerPort: 81, protocol: SCTP}]}]}}";
    let options = Options {
        publish_declared: PublishDeclared::All,
        ..options()
    };
    let check = |text: &str, expected: &[Option<u16>], told: &[&str]| {
        let loaded = load_text(text, &options);
        assert_eq!(messages(&loaded), told);
        let plan = loaded.objects[0].plan.as_ref().unwrap();
        let ports = plan.containers[0].ports.iter();
        assert_eq!(ports.map(|p| p.host_port).collect::<Vec<_>>(), expected);
    };
    check(
        text,
        &[Some(80), None],
        &["port 81 of `pod/web` is not published: only TCP and UDP are"],
    );
    // Nothing needs to be published there.
    let host_network = text.replace("spec: {", "spec: {hostNetwork: true, ");
    check(&host_network, &[Some(80), Some(81)], &[]);
}

#[test]
fn references_find_what_the_run_has() {
    let mode = |options: &Options| {
        let env = &plan_with(options).containers[1].env;
        env.iter()
            .map(|variable| variable.value.clone())
            .collect::<Vec<_>>()
    };
    let fast = vec![crate::model::plan::EnvValue::Literal("fast".to_owned())];
    assert_eq!(mode(&options()), []);
    let json = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default"}, "data": {"mode": "fast"}});
    assert_eq!(
        mode(&Options {
            existing: vec![json],
            ..options()
        }),
        fast
    );
    assert_eq!(
        mode(&Options {
            config_maps: vec![source(SETTINGS)],
            ..options()
        }),
        fast
    );
    let loaded = load_text(
        POD,
        &Options {
            config_maps: vec![source(POD)],
            ..options()
        },
    );
    assert_eq!(
        messages(&loaded),
        ["a file of `--configmap` may have only ConfigMaps, this is a Pod"]
    );
}

#[test]
fn selectors_and_namespaces_choose() {
    let keys = |options: &Options| {
        let loaded = load_text(&format!("{POD}---\n{SETTINGS}"), options);
        let keys = loaded
            .objects
            .iter()
            .map(|object| format!("{} {}", object.key, object.key.namespace));
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&options()),
        ["pod/web default", "configmap/settings default"]
    );
    let selector = Some(Selector::parse("app in (web)").unwrap());
    assert_eq!(
        keys(&Options {
            selector,
            ..options()
        }),
        ["pod/web default"]
    );
    let namespace = Namespace::parse("test").unwrap();
    assert_eq!(
        keys(&Options {
            namespace,
            ..options()
        }),
        ["pod/web test", "configmap/settings test"]
    );
}

#[test]
fn variables_are_substituted_when_asked() {
    let text = POD
        .replace("nginx", "${IMAGE}")
        .replace("80}", "${PORT}}")
        .replace("80}", "${PORT}}");
    let variables = [("IMAGE", "app:3"), ("PORT", "8080")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let substitution = Some(Substitution::new(variables.into()));
    let text = text.replace("containerPort: ${PORT}}", "containerPort: \"${PORT}\"}");
    let loaded = load_text(
        &text,
        &Options {
            substitution: substitution.clone(),
            ..options()
        },
    );
    assert_eq!(
        messages(&loaded),
        ["`containerPort` must be an integer, is a string"]
    );
    let text = text.replace("\"${PORT}\"}", "80}");
    let loaded = load_text(
        &text,
        &Options {
            substitution,
            ..options()
        },
    );
    let plan = loaded.objects[0].plan.as_ref().unwrap();
    assert_eq!(plan.containers[1].image, "app:3");
    let empty = Some(Substitution::default());
    let loaded = load_text(
        &text,
        &Options {
            substitution: empty,
            ..options()
        },
    );
    assert_eq!(messages(&loaded)[0], "the variable `IMAGE` is not defined");
}

#[test]
fn runs_are_checked_as_a_whole() {
    let check = |text: &str, expected: &[&str]| {
        let loaded = load_text(text, &options());
        assert_eq!(messages(&loaded), expected, "{text}");
    };
    let pod = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}, containers: [{{name: c, image: x, ports: [{{containerPort: 1, hostPort: 1}}]}}]}}}}\n---\n"
        )
    };
    check("", &["there is nothing to play in these manifests"]);
    check(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: x}}",
        &[
            "LimitRange `x` is not played: its defaults and bounds hold for no pod",
            "there is nothing to play in these manifests",
        ],
    );
    check(SETTINGS, &[]);
    check(
        &(pod("a", "hostPID: false") + &pod("b", "hostPID: false")),
        &["`pod/b` and `pod/a` both want port 1 of the machine"],
    );
    let job = "{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}";
    check(
        &(pod("a-0", "hostIPC: true") + job),
        &["`job.batch/a` and `pod/a-0` would both be played as pod `a-0`"],
    );
    check(
        "{apiVersion: v1, kind: Pod, metadata: {generateName: x}, spec: {containers: [{name: c, image: x}]}}",
        &["`metadata.name` is missing"],
    );
    check(
        "{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization, resources: [pod.yaml]}",
        &["a Kustomization is built before it is played"],
    );
    check(
        &format!("{SETTINGS}\n---\n{SETTINGS}"),
        &["ConfigMap `settings` is there twice in namespace `default`"],
    );
}

#[test]
fn encodings_are_understood_or_named() {
    let check = |bytes: &[u8], expected: &[&str]| {
        let loaded = load(&[source(bytes)], &options());
        assert_eq!(messages(&loaded), expected);
    };
    let utf16: Vec<u8> = "\u{feff}"
        .chars()
        .chain(SETTINGS.chars())
        .flat_map(|c| (c as u16).to_le_bytes())
        .collect();
    check(&utf16, &[]);
    check(format!("\u{feff}{SETTINGS}").as_bytes(), &[]);
    check(b"a: \xff", &["the file is not text in UTF-8"]);
    check(
        &utf16[2..],
        &["the file has a control character, which neither YAML nor JSON allows"],
    );
    check(
        format!("\t\n {SETTINGS}")
            .replace(['{', '}'], "")
            .as_bytes()
            .get(..0)
            .unwrap_or_default(),
        &["there is nothing to play in these manifests"],
    );
}

/// What this thread has worked, on which all of a load runs: how long it takes depends on what else the machine does.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// Large and repetitive: nothing here may be quadratic.
#[test]
fn large_manifests_are_read_in_little_time() {
    let many = |count: usize, item: fn(usize) -> String| (0..count).map(item).collect::<String>();
    let head = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";
    let container = "spec:\n  containers:\n  - name: c\n    image: x\n";
    let texts = [
        format!(
            "{head}  labels:\n{}",
            many(10_000, |i| format!("    l{i}: x-\n"))
        ),
        format!(
            "{head}{container}    volumeMounts:\n{}",
            many(10_000, |i| format!(
                "    - {{name: v{i}, mountPath: /{i}}}\n"
            ))
        ),
        format!(
            "{head}{container}  volumes:\n{}",
            many(10_000, |i| format!(
                "  - {{name: v{i}, configMap: {{name: c{i}}}}}\n"
            ))
        ),
        format!(
            "{head}{container}    resources:\n      limits:\n{}",
            many(10_000, |i| format!("        r{i}: 1\n"))
        ),
        format!(
            "{head}{container}    ports:\n{}",
            many(10_000, |i| format!("    - containerPort: {i}\n"))
        ),
        many(10_000, |i| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{i}}}, spec: {{hostNetwork: true, containers: [{{name: c, image: x, ports: [{{containerPort: 1}}]}}]}}}}\n---\n"
            )
        }),
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"labels\": {{{}\"x\": 1}}}}}}",
            many(10_000, |i| format!("\"l{i}\": 1, "))
        ),
    ];
    for text in texts {
        let started = processor_time();
        let loaded = load_text(&text, &options());
        assert!(loaded.diagnostics.len() <= 1001);
        let took = processor_time() - started;
        assert!(took.as_secs() < 20, "{took:?} for {:?}", text.get(..200));
    }
}

/// Pieces that mean something to a YAML parser or to the loader.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "- ",
        "? ",
        ": ",
        "key:",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\n",
        "\n  ",
        "\n    ",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!t ",
        "!!int ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "\\",
        "#",
        "%YAML 1.1\n",
        "\t",
        "<<: *a",
        "\u{85}",
        "\u{feff}",
        "0x",
        "1e9",
        "~",
        "\\'",
        "\r",
        "apiVersion: v1\n",
        "kind: Pod\n",
        "metadata: {name: a}\n",
        "spec:\n",
        "containers:\n",
        "- name: c\n",
        "${A}",
        "null",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => "\\PC{0,4}"]
}

proptest! {
    #[test]
    fn any_yaml_like_text_is_answered(parts in prop::collection::vec(fragment(), 0..40)) {
        let _loaded = load_text(&parts.concat(), &options());
    }

    #[test]
    fn a_damaged_manifest_is_answered(
        which in 0_usize..4,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..20, fragment()), 1..4),
    ) {
        let sources = [manifests("valid"), manifests("faulty")].concat();
        let mut text: Vec<char> = String::from_utf8_lossy(&sources[which % sources.len()].text).chars().collect();
        for (at, length, insert) in cuts {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, insert.chars());
        }
        let _loaded = load_text(&text.into_iter().collect::<String>(), &options());
    }
}
