#![expect(
    clippy::disallowed_methods,
    reason = "tests panic right where a file operation fails"
)]

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::{
    Compression, Follower, Line, Options, Record, Stream, Streams, Tag, Timestamp, Timestamps,
    current_file, read, remove, restarts, rotated_file, rotations,
};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kplay-logs-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

const ALL: Options = Options {
    tail: None,
    since: None,
    streams: Streams::Both,
};

#[test]
fn timestamps() {
    let check = |seconds, nanos, expected: &str| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        assert_eq!(
            std::str::from_utf8(Timestamp::new(time).as_bytes()),
            Ok(expected)
        );
    };
    check(0, 0, "1970-01-01T00:00:00.000000000Z");
    check(951_782_399, 1, "2000-02-28T23:59:59.000000001Z");
    check(951_782_400, 0, "2000-02-29T00:00:00.000000000Z");
    check(951_868_800, 0, "2000-03-01T00:00:00.000000000Z");
    check(1_475_713_029, 669_794_202, "2016-10-06T00:17:09.669794202Z");
    check(1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z");
    check(4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z");
    check(253_402_300_800, 0, "9999-12-31T23:59:59.999999999Z");
}

#[test]
fn records() {
    let parse = |line: &'static str| Record::parse(line.as_bytes());
    let record = |stream, tag, text: &'static str| {
        Some(Record {
            time: "2016-10-06T00:17:09Z",
            stream,
            tag,
            text: text.as_bytes(),
        })
    };
    assert_eq!(
        parse("2016-10-06T00:17:09Z stdout F a b"),
        record(Stream::Stdout, Tag::Full, "a b")
    );
    assert_eq!(
        parse("2016-10-06T00:17:09Z stderr P "),
        record(Stream::Stderr, Tag::Partial, "")
    );
    assert_eq!(
        parse("2016-10-06T00:17:09Z stdout F:x t"),
        record(Stream::Stdout, Tag::Full, "t")
    );
    for bad in [
        "",
        "x",
        "2016-10-06T00:17:09Z stdin F a",
        "2016-10-06T00:17:09Z stdout Q a",
        "now stdout F a",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn names() {
    let folder = Folder::new();
    for name in [
        "0.log",
        "10.log",
        "2.log",
        "2.log.9",
        "2.log.10",
        "2.log.8.gz",
        "2.log.9.gz",
        "2.log.7.gz.tmp",
        "x.log",
        "3.log.gz",
        "2.logs",
    ] {
        std::fs::write(folder.0.join(name), "").unwrap();
    }
    assert_eq!(restarts(&folder.0).unwrap(), [0, 2, 10]);
    assert_eq!(rotations(&folder.0, 2).unwrap(), [8, 9, 10]);
    assert!(restarts(Path::new("/nonexistent")).unwrap().is_empty());
}

/// Makes records of `o:F:text` words; second by second.
fn records_of(first: u64, words: &[&str]) -> String {
    let record = |(at, word): (usize, &&str)| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(first + at as u64);
        let time = Timestamp::new(time);
        let time = std::str::from_utf8(time.as_bytes()).unwrap();
        let (stream, rest) = word.split_once(':').unwrap();
        let (tag, text) = rest.split_once(':').unwrap();
        let stream = if stream == "o" { "stdout" } else { "stderr" };
        format!("{time} {stream} {tag} {text}\n")
    };
    words.iter().enumerate().map(record).collect()
}

fn shown(dir: &Path, options: &Options, timestamps: Timestamps) -> String {
    let mut out = Vec::new();
    read(dir, 0, options, &mut |line: &Line<'_>| {
        line.write_to(&mut out, timestamps)
    })
    .unwrap();
    String::from_utf8(out).unwrap()
}

/// Two files, each with some records.
fn two_files() -> Folder {
    let folder = Folder::new();
    let old = records_of(0, &["o:F:a", "e:F:b", "o:P:c", "e:P:d"]);
    let new = records_of(4, &["o:P:-", "e:F:D", "o:F:C", "o:P:end"]);
    std::fs::write(rotated_file(&folder.0, 0, 7), old).unwrap();
    std::fs::write(current_file(&folder.0, 0), new).unwrap();
    folder
}

/// Compresses a rotated file, if it is there.
fn compress(dir: &Path, number: u64) {
    if let Some(mut compression) = Compression::begin(dir, 0, number, 0o600).unwrap() {
        while !compression.step().unwrap() {}
    }
}

#[test]
fn compressed_files_are_read_as_the_others() {
    let folder = two_files();
    let compression = Compression::begin(&folder.0, 0, 7, 0o600).unwrap();
    drop(compression);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2);
    compress(&folder.0, 7);
    compress(&folder.0, 7);
    assert_eq!(rotations(&folder.0, 0).unwrap(), [7]);
    let bytes = std::fs::read(folder.0.join("0.log.7.gz")).unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    assert_eq!(
        shown(&folder.0, &ALL, Timestamps::Hidden),
        "a\nb\ndD\nc-C\nend"
    );
    let last = Options {
        tail: Some(4),
        ..ALL
    };
    assert_eq!(
        shown(&folder.0, &last, Timestamps::Hidden),
        "b\ndD\nc-C\nend"
    );
    remove(&folder.0, 0).unwrap();
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[test]
fn lines_are_joined_across_files() {
    let folder = two_files();
    assert_eq!(
        shown(&folder.0, &ALL, Timestamps::Hidden),
        "a\nb\ndD\nc-C\nend"
    );
    assert_eq!(
        shown(
            &folder.0,
            &Options {
                streams: Streams::Only(Stream::Stderr),
                ..ALL
            },
            Timestamps::Shown
        ),
        "1970-01-01T00:00:01.000000000Z b\n1970-01-01T00:00:03.000000000Z dD\n"
    );
    assert_eq!(
        shown(Path::new("/nonexistent"), &ALL, Timestamps::Hidden),
        ""
    );
}

#[test]
fn since() {
    let folder = two_files();
    let check = |seconds, expected: &str| {
        let since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(
            shown(&folder.0, &Options { since, ..ALL }, Timestamps::Hidden),
            expected
        );
    };
    check(0, "a\nb\ndD\nc-C\nend");
    check(1, "b\ndD\nc-C\nend");
    check(3, "dD\nend");
    check(7, "end");
    check(8, "");
}

#[test]
fn tail() {
    let folder = two_files();
    let check = |lines, streams, expected: &str| {
        let options = Options {
            tail: Some(lines),
            streams,
            ..ALL
        };
        assert_eq!(
            shown(&folder.0, &options, Timestamps::Hidden),
            expected,
            "{lines}"
        );
    };
    check(0, Streams::Both, "");
    check(1, Streams::Both, "end");
    check(4, Streams::Both, "b\ndD\nc-C\nend");
    check(5, Streams::Both, "a\nb\ndD\nc-C\nend");
    check(500, Streams::Both, "a\nb\ndD\nc-C\nend");
    check(usize::MAX, Streams::Both, "a\nb\ndD\nc-C\nend");
    check(2, Streams::Only(Stream::Stdout), "c-C\nend");
    check(1, Streams::Only(Stream::Stderr), "dD\n");
}

#[test]
fn tail_of_large_files() {
    let folder = Folder::new();
    let lines = |range: std::ops::Range<usize>| {
        let words: Vec<String> = range.map(|n| format!("o:F:line {n}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        records_of(0, &words)
    };
    std::fs::write(rotated_file(&folder.0, 0, 1), lines(0..20_000)).unwrap();
    std::fs::write(current_file(&folder.0, 0), lines(20_000..40_000)).unwrap();
    let counts = [
        1, 10, 1000, 1300, 1400, 19_999, 20_000, 20_001, 39_999, 40_000,
    ];
    for (round, count) in counts.into_iter().chain(counts).enumerate() {
        if round == counts.len() {
            compress(&folder.0, 1);
            assert!(!rotated_file(&folder.0, 0, 1).exists());
        }
        let shown = shown(
            &folder.0,
            &Options {
                tail: Some(count),
                ..ALL
            },
            Timestamps::Hidden,
        );
        assert_eq!(shown.lines().count(), count);
        assert_eq!(
            shown.lines().next(),
            Some(&*format!("line {}", 40_000 - count))
        );
        assert!(shown.ends_with("line 39999\n"));
    }
}

#[test]
fn long_lines_come_in_parts_and_rubbish_is_passed_over() {
    let folder = Folder::new();
    let piece = format!("o:P:{}", "x".repeat(16384));
    let mut words = vec![&*piece; 200];
    words.push("o:F:end");
    let mut text = format!("rubbish\n\n{}", records_of(0, &words));
    text.push_str("1970-01-01T00:00:00Z stdout F torn");
    std::fs::write(current_file(&folder.0, 0), text).unwrap();
    let mut parts = Vec::new();
    read(&folder.0, 0, &ALL, &mut |line: &Line<'_>| {
        parts.push((line.starts, line.ends, line.text.len()));
        Ok(())
    })
    .unwrap();
    assert_eq!(parts.len(), 4, "{parts:?}");
    assert_eq!(
        parts.iter().map(|part| part.2).sum::<usize>(),
        200 * 16384 + 3
    );
    assert!(parts[0].0 && !parts[0].1 && !parts[3].0 && parts[3].1);
}

#[test]
fn what_is_written_while_it_is_read_is_for_the_next_time() {
    let folder = Folder::new();
    let path = current_file(&folder.0, 0);
    std::fs::write(&path, records_of(0, &["o:F:0", "o:F:1", "o:F:2"])).unwrap();
    let add_two = || {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)?;
        file.write_all(records_of(0, &["o:F:more", "o:F:more"]).as_bytes())
    };
    let mut seen = 0;
    let mut each = |_: &Line<'_>| {
        seen += 1;
        if seen == 2 {
            std::fs::rename(&path, rotated_file(&folder.0, 0, 1))?;
        }
        add_two()
    };
    let mut follower = Follower::open(&folder.0, 0, &ALL).unwrap();
    follower.read(&mut each).unwrap();
    assert_eq!(seen, 3);
    follower = Follower::open(&folder.0, 0, &ALL).unwrap();
    let mut count = 0;
    let mut each = |_: &Line<'_>| {
        count += 1;
        Ok(())
    };
    follower.read(&mut each).unwrap();
    assert_eq!(count, 9, "in both files");
    // Nor does it count for the last lines.
    for tail in [2, 4, 6] {
        let options = Options {
            tail: Some(tail),
            ..ALL
        };
        let mut shown = 0;
        read(&folder.0, 0, &options, &mut |_: &Line<'_>| {
            shown += 1;
            add_two()
        })
        .unwrap();
        assert_eq!(shown, tail);
    }
}

#[test]
fn a_follower_sees_every_line_through_rotations() {
    const LINES: usize = 3000;
    let folder = Folder::new();
    let mut follower = Follower::open(&folder.0, 0, &ALL).unwrap();
    let dir = folder.0.clone();
    let (ended, end) = std::os::unix::net::UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut rotated = 0;
        for n in 0..LINES {
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(current_file(&dir, 0))
                .unwrap();
            file.write_all(records_of(0, &[&format!("o:F:{n}")]).as_bytes())
                .unwrap();
            if n % 100 == 99 {
                rotated += 1;
                std::fs::rename(current_file(&dir, 0), rotated_file(&dir, 0, rotated)).unwrap();
                // All but the newest.
                compress(&dir, rotated - 1);
            }
        }
        drop(end);
    });
    let mut seen = Vec::new();
    let mut each = |line: &Line<'_>| {
        seen.push(String::from_utf8(line.text.to_vec()).unwrap());
        Ok(())
    };
    loop {
        let over = writer.is_finished();
        follower.read(&mut each).unwrap();
        if over {
            break;
        }
        follower.wait(Some(ended.as_fd())).unwrap();
    }
    follower.finish(&mut each).unwrap();
    writer.join().unwrap();
    let expected: Vec<String> = (0..LINES).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected);
}
