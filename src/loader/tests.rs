//! Whole runs: goldens in `testdata/loader`, options, hostile input.
//!
//! `KPLAY_BLESS=1 cargo test` writes the goldens anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

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
