#![expect(
    clippy::disallowed_methods,
    reason = "tests panic right where a file operation fails"
)]
#![expect(
    clippy::print_stderr,
    reason = "says why a test was skipped, or what was measured"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{LogWriter, MAX_FILE, MAX_FILES, Stream};
use crate::state::logs;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kplay-log-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_475_713_029, 669_794_202)
}

const TIME: &str = "2016-10-06T00:17:09.669794202Z";

fn content(dir: &Path) -> String {
    std::fs::read_to_string(logs::current_file(dir, 0)).unwrap()
}

/// Writes chunks to stdout and checks the records, without their times.
fn check(chunks: &[&str], expected: &[&str]) {
    let folder = Folder::new();
    let mut log = LogWriter::open(&folder.0, 0).unwrap();
    for chunk in chunks {
        log.write_chunk(Stream::Stdout, chunk.as_bytes(), now())
            .unwrap();
    }
    log.finish(Stream::Stdout, now()).unwrap();
    let content = content(&folder.0);
    let prefix = format!("{TIME} stdout ");
    let records: Vec<&str> = content
        .split_terminator('\n')
        .map(|record| {
            record
                .strip_prefix(&prefix)
                .expect("it has time and stream")
        })
        .collect();
    assert_eq!(records, expected, "of {chunks:?}");
}

#[test]
fn lines_become_records() {
    check(&["a\nb\n"], &["F a", "F b"]);
    check(&["\n\n"], &["F ", "F "]);
    check(&["one ", "line\n"], &["F one line"]);
    check(&["a\nb", "c\nd", "\n"], &["F a", "F bc", "F d"]);
    check(&["no end"], &["P no end"]);
    check(&["a\nno end"], &["F a", "P no end"]);
    check(&[], &[]);
    check(&["x \u{1F600} \t\n"], &["F x \u{1F600} \t"]);
}

#[test]
fn carriage_returns_before_the_end_go() {
    check(&["a\r\nb\n"], &["F a", "F b"]);
    check(&["a\r", "\nb"], &["F a", "P b"]);
    check(&["a\r\r\n\r\n"], &["F a\r", "F "]);
    check(&["a\rb\n"], &["F a\rb"]);
    check(&["a\r"], &["P a\r"]);
}

#[test]
fn long_lines_are_split() {
    let full = "x".repeat(16384);
    let piece = format!("P {full}");
    let last = format!("F {full}");
    check(&[&full, "\n"], &[&last]);
    check(&[&format!("{full}\r"), "\n"], &[&last]);
    check(&[&format!("{full}y\n")], &[&piece, "F y"]);
    check(&[&full, "y\n"], &[&piece, "F y"]);
    check(&[&format!("{full}\r"), "y\n"], &[&piece, "F \ry"]);
    check(&[&format!("{full}\r\r\n")], &[&piece, "F \r"]);
    check(&[&format!("{full}{full}\n")], &[&piece, &last]);
    check(
        &[&full.repeat(5)],
        &[&piece, &piece, &piece, &piece, &piece],
    );
    check(&[&full, "\r"], &[&piece, "P \r"]);
    check(
        &["a\n", &full[1..], "zz", &full],
        &[
            "F a",
            &format!("P {}z", &full[1..]),
            &format!("P z{}", &full[1..]),
            "P x",
        ],
    );
}

#[test]
fn streams_do_not_mix() {
    let folder = Folder::new();
    let mut log = LogWriter::open(&folder.0, 0).unwrap();
    log.write_chunk(Stream::Stdout, b"out", now()).unwrap();
    log.write_chunk(Stream::Stderr, b"err\n", now()).unwrap();
    log.write_chunk(Stream::Stdout, b"put\n", now()).unwrap();
    let expected = format!("{TIME} stderr F err\n{TIME} stdout F output\n");
    assert_eq!(content(&folder.0), expected);
}

#[test]
fn a_torn_end_is_ended() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::write(logs::current_file(&folder.0, 0), "2016-10-06T00:1").unwrap();
    let mut log = LogWriter::open(&folder.0, 0).unwrap();
    log.write_chunk(Stream::Stdout, b"a\n", now()).unwrap();
    assert_eq!(
        content(&folder.0),
        format!("2016-10-06T00:1\n{TIME} stdout F a\n")
    );
}

#[test]
fn files_are_rotated_and_the_oldest_goes() {
    let folder = Folder::new();
    let mut log = LogWriter::open(&folder.0, 3).unwrap();
    let chunk = [vec![b'x'; 16383], vec![b'\n']].concat().repeat(64);
    // One chunk is a little more than 1 MiB of records: nine to a file.
    for _ in 0..9 * 7 {
        log.write_chunk(Stream::Stdout, &chunk, now()).unwrap();
    }
    let rotations = logs::rotations(&folder.0, 3).unwrap();
    assert_eq!(rotations.len() as u64, MAX_FILES - 1);
    assert!(rotations[0] > 1, "{rotations:?}");
    for number in rotations {
        let size = std::fs::metadata(logs::rotated_file(&folder.0, 3, number))
            .unwrap()
            .len();
        assert!(size <= MAX_FILE && size > MAX_FILE - 300_000, "{size}");
    }
    assert_eq!(logs::restarts(&folder.0).unwrap(), [3]);
    // The newest rotated file is left for those who are reading it.
    let compressed = |log: &LogWriter| {
        let number = log.next_to_compress().unwrap()?;
        let mut compression = log.compress(number).unwrap().expect("it is there");
        while !compression.step().unwrap() {}
        Some(number)
    };
    let newest = log.rotations();
    for number in [newest - 3, newest - 2, newest - 1] {
        assert_eq!(compressed(&log), Some(number));
    }
    assert_eq!(compressed(&log), None);
    drop(log);
    let mut log = LogWriter::open(&folder.0, 3).unwrap();
    for _ in 0..10 {
        log.write_chunk(Stream::Stdout, &chunk, now()).unwrap();
    }
    assert_eq!(
        logs::rotations(&folder.0, 3).unwrap(),
        [newest - 2, newest - 1, newest, newest + 1]
    );
    assert_eq!(
        Some(log.file.next - 1),
        logs::rotations(&folder.0, 3).unwrap().pop()
    );
    logs::remove(&folder.0, 3).unwrap();
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[test]
fn a_full_disk_loses_lines_but_tears_none() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new(args[0])
            .args(&args[1..])
            .arg(&folder.0)
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "kplay-test"]) {
        eprintln!("skipped: may not mount");
        return;
    }
    let mut log = LogWriter::open(&folder.0, 0).unwrap();
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(
            log.write_chunk(Stream::Stdout, &[b'x'; 1000], now())
                .is_err(),
        );
        failed += u32::from(log.write_chunk(Stream::Stdout, b"\n", now()).is_err());
    }
    let content = content(&folder.0);
    drop(log);
    assert!(mount(&["umount"]));
    assert!(failed > 30, "{failed}");
    assert!(content.ends_with("xx\n"));
    assert!(content.lines().all(|line| line.len() == 40 + 1000));
}

/// Not run by default: it measures, and says nothing in a debug build.
/// `cargo test --release --lib log::tests::speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (name, line) in [
        ("2 byte lines", "y\n"),
        ("80 byte lines", &*format!("{}\n", "z".repeat(79))),
    ] {
        let folder = Folder::new();
        let mut log = LogWriter::open(&folder.0, 0).unwrap();
        let chunk = line.repeat(65536 / line.len());
        let lines = 65536 / line.len();
        let start = Instant::now();
        let mut written = 0;
        while start.elapsed() < Duration::from_secs(3) {
            for _ in 0..10 {
                log.write_chunk(Stream::Stdout, chunk.as_bytes(), SystemTime::now())
                    .unwrap();
                written += lines * (40 + line.len());
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        eprintln!(
            "{name}: {:.0} MB/s of records",
            written as f64 / seconds / 1e6
        );
    }
}
