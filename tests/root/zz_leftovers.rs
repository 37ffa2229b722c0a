//! The suite's last test: nothing of it is left on the machine.
//!
//! It is a binary of its own whose name sorts last, because `cargo test` runs binaries one after another in the
//! order of their names; nextest is told in `.config/nextest.toml` to start it last and alone. In CI nobody else
//! uses kplay, so there must be no pod's cgroup and no kplay process at all; elsewhere only what the tests could
//! have made is looked for, so that the pods of whoever runs them do not matter.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot reach its files should panic right there"
)]
#![allow(dead_code, reason = "shares a file with the root tests")]

#[path = "leftovers.rs"]
mod leftovers;
#[path = "wait.rs"]
mod wait;

/// How long the kernel may take to forget what was killed: a namespace's links vanish a while after its last process.
const SETTLE: Duration = Duration::from_secs(30);

use std::fs;
use std::path::Path;
use std::time::Duration;

#[test]
fn nothing_is_left_on_the_machine() {
    let mut left = Vec::new();
    wait::holds_within(SETTLE, || {
        left = all();
        left.is_empty()
    });
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn all() -> Vec<String> {
    let temporary = std::env::temp_dir();
    let prefix = leftovers::prefix();
    let path = temporary.join(&prefix);
    let mut left = leftovers::of_dir(&path);
    left.extend(
        fs::read_dir(&temporary)
            .expect("the temporary folder")
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with(&prefix)
            })
            .map(|entry| format!("folder {:?}", entry.path())),
    );
    let built = Path::new(env!("CARGO_BIN_EXE_kplay"));
    left.extend(
        leftovers::processes()
            .iter()
            .filter(|process| {
                // The kernel marks a program that was replaced meanwhile.
                process.program.as_ref().is_some_and(|program| {
                    let program = program.to_string_lossy();
                    Path::new(program.trim_end_matches(" (deleted)")) == built
                })
            })
            .map(ToString::to_string),
    );
    if std::env::var_os("CI").is_some() {
        left.extend(anybodys());
    }
    left
}

/// Pods of any state folder, and networks for them. Which test's a network was is not to be seen when its state folder is
/// gone; each test looks for its own.
fn anybodys() -> Vec<String> {
    let mut left: Vec<String> = leftovers::hierarchies()
        .iter()
        .filter_map(|hierarchy| fs::read_dir(hierarchy.join("kplay")).ok())
        .flat_map(Iterator::flatten)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| format!("cgroup {:?}", entry.path()))
        .collect();
    // What systemd gave to the executor of who is not root.
    for hierarchy in leftovers::hierarchies() {
        let scopes = leftovers::named(&hierarchy, "kplay-").into_iter();
        left.extend(scopes.map(|scope| format!("cgroup {scope:?}")));
    }
    left.extend(
        leftovers::processes()
            .iter()
            .filter(|process| {
                process.cgroups.contains("/kplay/") || process.command.contains("internal execute")
            })
            .map(ToString::to_string),
    );
    let is_ours = |name: &String| name.starts_with("kplay");
    let links = leftovers::links().into_iter().filter(is_ours);
    left.extend(links.map(|link| format!("link {link}")));
    let tables = leftovers::nft_tables().into_iter().filter(is_ours);
    left.extend(tables.map(|table| format!("nftables table {table}")));
    left
}
