//! The architecture as a test: who may name whom, one home per foreign crate, and what every module begins with.
//!
//! The tables say what `src/lib.rs` says in prose; when one changes, so does the other. Sources are read as tokens,
//! without comments and literals; `use` trees are unfolded and `super` is resolved. Unit tests inside `src/`
//! (`#[cfg(test)]` modules, `tests.rs`) may name anything.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot read the sources should panic right there"
)]
#![expect(clippy::print_stderr, reason = "what is worth a look but no fault")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which top-level modules each top-level module may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "output", "loader", "manager", "executor", "copy", "image", "network", "runtime",
            "volume", "protocol", "state", "spec", "toolbox", "model", "sys",
        ],
    ),
    ("output", &["model"]),
    ("loader", &["model"]),
    (
        "manager",
        &["image", "network", "state", "protocol", "model", "sys"],
    ),
    (
        "executor",
        &[
            "network", "volume", "runtime", "spec", "state", "protocol", "model", "sys",
        ],
    ),
    ("copy", &["model", "sys"]),
    ("image", &["model", "sys"]),
    ("network", &["model", "sys"]),
    ("runtime", &["model", "sys"]),
    ("volume", &["model", "sys"]),
    ("protocol", &["model", "sys"]),
    ("state", &["model", "sys"]),
    ("spec", &["model"]),
    ("toolbox", &[]),
    ("model", &[]),
    ("sys", &[]),
];

/// Foreign crates and the only modules that may name them. A crate that is not here may be named anywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("k8s_openapi", &["loader", "output"]),
    ("granit_parser", &["loader"]),
    ("serde_yaml", &["loader", "output"]),
    ("reqwest", &["image"]),
    ("http_auth", &["image"]),
    ("rustls", &["image", "executor", "toolbox"]),
    ("tokio_rustls", &["executor", "toolbox"]),
    ("hyper", &["executor", "image"]),
    ("h2", &["executor", "toolbox"]),
    ("hyper_util", &["executor"]),
    ("http_body_util", &["executor"]),
    ("hickory_resolver", &["executor", "image"]),
    ("hickory_proto", &["executor", "toolbox"]),
    ("url", &["executor", "image"]),
    ("toml", &["image"]),
    ("tar", &["copy", "image"]),
    // Layers, and rotated logs.
    ("flate2", &["image", "state"]),
    ("zstd", &["image"]),
    ("sha2", &["image"]),
    ("netlink_packet_route", &["network"]),
    ("netlink_packet_core", &["network"]),
    ("netlink_sys", &["network"]),
    ("libcontainer", &["runtime"]),
    ("oci_spec", &["spec", "runtime", "image"]),
    ("libc", &["sys"]),
    // The toolbox names nothing in this crate, so it has its system calls from nix.
    ("nix", &["sys", "toolbox"]),
    ("rustix", &["sys"]),
];

/// What the top level of the repository holds, beside dotfiles and `target`.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "manifests",
    "src",
    "testdata",
    "tests",
];

/// Longest source file.
const LONGEST: usize = 600;

/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[];

#[test]
fn modules_name_only_what_they_may() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(module) = source.module.first() else {
            continue;
        };
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| name == module) else {
            faults.push(format!("{}: `{module}` is not in the table", source.file));
            continue;
        };
        for path in paths(&source.tokens, &source.module) {
            let Some(Root::Crate(segments)) = path.root() else {
                continue;
            };
            let Some(named) = segments.first() else {
                continue;
            };
            let known = MAY_NAME.iter().any(|(name, _)| name == named);
            if known && named != module && !allowed.contains(&named.as_str()) {
                faults.push(format!(
                    "{}: `{module}` must not name `{named}` ({})",
                    source.file,
                    segments.join("::")
                ));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn every_foreign_crate_has_one_home() {
    let mut faults = Vec::new();
    for source in sources() {
        let module = source.module.first().map_or("main", String::as_str);
        for path in paths(&source.tokens, &source.module) {
            let Some(Root::Foreign(name)) = path.root() else {
                continue;
            };
            let home = HOMES.iter().find(|(foreign, _)| *foreign == name);
            if let Some((_, home)) = home
                && !home.contains(&module)
            {
                faults.push(format!(
                    "{}: `{name}` is for {home:?} only ({})",
                    source.file,
                    path.segments.join("::")
                ));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let mut faults = Vec::new();
    for source in sources() {
        let name = source.module.first().map_or("main", String::as_str);
        let top = Path::new(&source.file)
            .strip_prefix("src")
            .expect("a source file");
        let is_root = top.components().count() == 1 || top.ends_with(format!("{name}/mod.rs"));
        // What lib.rs forbids would hold for sys as well.
        if name == "sys" || !is_root || source.file == "src/lib.rs" {
            continue;
        }
        if !source.text.contains("\n#![forbid(unsafe_code)]\n") {
            faults.push(format!("{}: no #![forbid(unsafe_code)]", source.file));
        }
    }
    assert_none(faults);
}

#[test]
fn every_module_says_what_it_is_for() {
    let faults = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not open with //!", source.file))
        .collect();
    assert_none(faults);
}

#[test]
fn files_have_a_readable_size() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LONGEST && !LONG.iter().any(|(file, _)| *file == source.file) {
            faults.push(format!("{}: {lines} lines", source.file));
        } else if lines > LONGEST / 2 {
            eprintln!("worth a look: {} has {lines} lines", source.file);
        }
    }
    assert_none(faults);
}

#[test]
fn the_top_level_stays_small() {
    let entries = fs::read_dir(repository()).expect("the repository");
    let faults = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != "target")
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name}: does not belong at the top level"))
        .collect();
    assert_none(faults);
}

#[test]
fn every_dependency_has_its_reason() {
    let text = fs::read_to_string(repository().join("Cargo.toml")).expect("Cargo.toml");
    let (_, section) = text.split_once("\n[dependencies]\n").expect("a table");
    let section = section.split("\n[").next().unwrap_or_default();
    let mut explained = false;
    let mut faults = Vec::new();
    // A comment speaks for the lines beneath it, up to an empty one.
    for line in section.lines() {
        if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if !explained {
            faults.push(format!("Cargo.toml: no reason for `{line}`"));
        }
    }
    assert_none(faults);
}

#[track_caller]
fn assert_none(faults: Vec<String>) {
    let faults: BTreeSet<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One file of `src/`.
struct Source {
    /// Relative to the repository.
    file: String,
    /// `["image", "store"]`; empty for `main.rs` and `lib.rs`.
    module: Vec<String>,
    text: String,
    /// Without those of unit tests.
    tokens: Vec<String>,
}

/// All source files except those of unit tests.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&repository().join("src"), &mut files);
    files.sort();
    let sources: Vec<Source> = files
        .iter()
        .map(|path| (path, path.strip_prefix(repository()).expect("beneath it")))
        .filter(|(_, file)| !file.ends_with("tests.rs") && !file.iter().any(|part| part == "tests"))
        .map(|(path, file)| {
            let text = fs::read_to_string(path).expect("a source file");
            Source {
                module: module_of(file),
                tokens: without_tests(tokens(&text)),
                file: file.to_string_lossy().into_owned(),
                text,
            }
        })
        .collect();
    assert!(sources.len() > 20, "the sources are not where they were");
    sources
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .iter()
        .skip(1)
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "main" | "lib")
    ) {
        parts.pop();
    }
    parts
}

/// Identifiers, `::`, and single characters for everything else; no comments, no literals.
fn tokens(text: &str) -> Vec<String> {
    let bytes: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        if c == '/' && next == Some('/') {
            at = end_of_line(&bytes, at);
        } else if c == '/' && next == Some('*') {
            at = end_of_comment(&bytes, at);
        } else if let Some(end) = end_of_raw_string(&bytes, at) {
            at = end;
        } else if c == '"' {
            at = end_of_quoted(&bytes, at, '"');
        } else if c == '\'' && is_character(&bytes, at) {
            at = end_of_quoted(&bytes, at, '\'');
        } else if is_word(c) {
            let end = (at..bytes.len())
                .find(|i| !is_word(bytes[*i]))
                .unwrap_or(bytes.len());
            tokens.push(bytes[at..end].iter().collect());
            at = end;
        } else if c == ':' && next == Some(':') {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(text: &[char], at: usize) -> usize {
    (at..text.len())
        .find(|i| text[*i] == '\n')
        .unwrap_or(text.len())
}

fn end_of_comment(text: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < text.len() {
        match (text[i], text[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

/// The end of `r"…"`, `r#"…"#`, `br"…"` if one begins here.
fn end_of_raw_string(text: &[char], at: usize) -> Option<usize> {
    if at > 0 && is_word(text[at - 1]) {
        return None;
    }
    let mut i = at + usize::from(matches!(text[at], 'b' | 'c'));
    if text.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = text[i..].iter().take_while(|c| **c == '#').count();
    i += hashes;
    if text.get(i) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let rest = &text[i + 1..];
    let end = rest
        .windows(closing.len())
        .position(|window| window == closing.as_slice())?;
    Some(i + 1 + end + closing.len())
}

/// Whether the quote at `at` begins a character and not a lifetime.
fn is_character(text: &[char], at: usize) -> bool {
    text.get(at + 1) == Some(&'\\') || text.get(at + 2) == Some(&'\'')
}

fn end_of_quoted(text: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while let Some(&c) = text.get(i) {
        if c == '\\' {
            i += 2;
        } else if c == quote {
            return i + 1;
        } else {
            i += 1;
        }
    }
    text.len()
}

/// Cuts out what `#[cfg(test)]` governs: a block, or a line that ends with a semicolon.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&MARK.map(String::from)) {
            at = end_of_item(&tokens, at + MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn end_of_item(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.as_str() {
            ";" if depth == 0 => return i + 1,
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// A path as it is written, and the module in which it is.
struct NamedPath {
    segments: Vec<String>,
    module: Vec<String>,
}

/// Where a path begins.
enum Root {
    /// The rest, from the crate's root.
    Crate(Vec<String>),
    Foreign(String),
}

impl NamedPath {
    /// `None` for a path that begins with something local.
    fn root(&self) -> Option<Root> {
        let first = self.segments.first()?;
        match first.as_str() {
            "crate" | "kplay" => Some(Root::Crate(self.segments[1..].to_vec())),
            "super" => {
                let up = self.segments.iter().take_while(|s| *s == "super").count();
                let depth = self.module.len().checked_sub(up)?;
                let inside = &self.module[..depth];
                Some(Root::Crate([inside, &self.segments[up..]].concat()))
            }
            "self" => Some(Root::Crate(
                [self.module.as_slice(), &self.segments[1..]].concat(),
            )),
            _ => Some(Root::Foreign(first.clone())),
        }
    }
}

/// All paths of more than one segment, and all that `use` names.
fn paths(tokens: &[String], module: &[String]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut module = module.to_vec();
    // The depths at which inline modules began.
    let mut inline = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                module.push(tokens[at + 1].clone());
                inline.push(depth);
                depth += 1;
                at += 3;
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            "use" if !is_precise_capture(tokens, at) => {
                at = unfold(tokens, at + 1, &[], &module, &mut found);
                continue;
            }
            "::" if at > 0 && is_name(&tokens[at - 1]) && !continues(tokens, at - 1) => {
                let mut segments = vec![tokens[at - 1].clone()];
                while tokens.get(at).is_some_and(|token| token == "::")
                    && tokens.get(at + 1).is_some_and(|token| is_name(token))
                {
                    segments.push(tokens[at + 1].clone());
                    at += 2;
                }
                found.push(NamedPath {
                    segments,
                    module: module.clone(),
                });
                at = at.max(1);
                if tokens.get(at).is_some_and(|token| token == "::") {
                    at += 1;
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_name(token: &str) -> bool {
    token.chars().all(is_word)
}

/// Whether the word at `at` is itself behind a `::`.
fn continues(tokens: &[String], at: usize) -> bool {
    at > 0 && tokens[at - 1] == "::"
}

/// `impl Trait + use<'a, T>`.
fn is_precise_capture(tokens: &[String], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|token| token == "<")
}

/// Unfolds the `use` tree that begins at `at`; returns where it ends.
fn unfold(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    module: &[String],
    found: &mut Vec<NamedPath>,
) -> usize {
    let mut segments = prefix.to_vec();
    let mut renamed = false;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = unfold(tokens, at, &segments, module, found);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => renamed = true,
            name if !renamed => segments.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    found.push(NamedPath {
        segments,
        module: module.to_vec(),
    });
    at
}

/// The paths that a piece of code in module `a::b` names, resolved.
fn named(code: &str) -> Vec<String> {
    paths(
        &without_tests(tokens(code)),
        &["a".to_owned(), "b".to_owned()],
    )
    .iter()
    .filter_map(|path| match path.root()? {
        Root::Crate(segments) => Some(format!("crate::{}", segments.join("::"))),
        Root::Foreign(name) => Some(name),
    })
    .collect()
}

#[test]
fn paths_are_read_as_rustc_reads_them() {
    fn check(code: &str, expected: &[&str]) {
        assert_eq!(named(code), expected, "{code}");
    }
    check("use crate::model::plan;", &["crate::model::plan"]);
    check(
        "pub(crate) use crate::{sys::fs, state::{self, layout::Layout as L}};",
        &[
            "crate::sys::fs",
            "crate::state::self",
            "crate::state::layout::Layout",
        ],
    );
    check("use super::c::D;", &["crate::a::c::D"]);
    check(
        "use super::super::sys::{x, y};",
        &["crate::sys::x", "crate::sys::y"],
    );
    check(
        "mod c { use super::super::e; } use super::f;",
        &["crate::a::e", "crate::a::f"],
    );
    check(
        "fn f() -> crate::sys::fs::Result<()> { libc::kill(1, 2) }",
        &["crate::sys::fs::Result", "libc"],
    );
    check(
        "// use crate::sys;\n/* libc::x /* y */ */ let s = \"crate::image::x\";",
        &[],
    );
    check(
        "let s = r#\"crate::\"image\"::x\"#; let c = '\"'; nix::y()",
        &["nix"],
    );
    check(
        "#[cfg(test)] mod tests { use k8s_openapi::X; } use a::b;",
        &["a"],
    );
    check("#[cfg(test)]\nmod tests;\nuse a::b;", &["a"]);
    check(
        "fn f<'a>(x: &'a str) { Vec::<u8>::new(); tar::x(); }",
        &["Vec", "tar"],
    );
}
