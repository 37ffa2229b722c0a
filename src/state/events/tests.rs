use super::*;
use crate::model::event::EventType;
use crate::state::testing::Scratch;

fn event(second: i64, reason: &str, message: &str) -> PodEvent {
    PodEvent {
        time: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        r#type: EventType::Warning,
        reason: reason.into(),
        message: message.into(),
        container: None,
    }
}

/// What is on disk: reason, message, count, seconds of the first and the last time.
fn told(path: &Path) -> Vec<(String, String, u32, i64, i64)> {
    let second = |time: Timestamp| time.as_second() - 1_800_000_000;
    read(path)
        .unwrap()
        .into_iter()
        .map(|series| {
            (
                series.event.reason,
                series.event.message,
                series.count,
                second(series.first),
                second(series.event.time),
            )
        })
        .collect()
}

#[test]
fn what_happens_again_is_counted_also_by_the_next_process() {
    let scratch = Scratch::new();
    let path = scratch.layout().locks().join("events.jsonl");
    fs::create_dir_all(path.parent().unwrap(), 0o700).unwrap();
    let mut log = EventLog::open(&path).unwrap();
    log.add(&event(1, "BackOff", "again")).unwrap();
    log.add(&event(2, "Started", "web")).unwrap();
    let series = log.add(&event(3, "BackOff", "again")).unwrap();
    assert_eq!((series.number, series.count), (1, 2));
    // Its writer was killed within a line.
    let mut content = fs::read(&path).unwrap();
    content.extend_from_slice(b"{\"number\":");
    fs::replace(&path, 0o600, &content).unwrap();
    let mut log = EventLog::open(&path).unwrap();
    log.add(&event(4, "BackOff", "again")).unwrap();
    log.add(&event(5, "BackOff", "otherwise")).unwrap();
    let expected = [
        ("Started", "web", 1, 2, 2),
        ("BackOff", "again", 3, 1, 4),
        ("BackOff", "otherwise", 1, 5, 5),
    ];
    let expected = expected.map(|(reason, message, count, first, last)| {
        (reason.to_owned(), message.to_owned(), count, first, last)
    });
    assert_eq!(told(&path), expected);
}

#[test]
fn similar_events_are_combined_from_the_tenth_on() {
    let scratch = Scratch::new();
    let path = scratch.layout().locks().join("events.jsonl");
    fs::create_dir_all(path.parent().unwrap(), 0o700).unwrap();
    let mut log = EventLog::open(&path).unwrap();
    for n in 0..15 {
        log.add(&event(n, "Unhealthy", &format!("probe {n}")))
            .unwrap();
    }
    log.add(&event(20, "Unhealthy", "probe 3")).unwrap();
    let events = told(&path);
    assert_eq!(events.len(), 10);
    let combined = &events[8];
    assert_eq!(
        (combined.1.as_str(), combined.2, combined.3, combined.4),
        ("(combined from similar events): probe 14", 6, 9, 14)
    );
    assert_eq!((events[9].1.as_str(), events[9].2), ("probe 3", 2));
    // After a pause they are told one by one again.
    log.add(&event(1000, "Unhealthy", "probe 99")).unwrap();
    assert_eq!(told(&path).last().unwrap().1, "probe 99");
}

#[test]
fn the_file_stays_small_and_keeps_the_newest() {
    let scratch = Scratch::new();
    let path = scratch.layout().locks().join("events.jsonl");
    fs::create_dir_all(path.parent().unwrap(), 0o700).unwrap();
    let mut log = EventLog::open(&path).unwrap();
    let long = "ä".repeat(MAX_MESSAGE);
    for n in 0..200 {
        log.add(&event(n, &format!("R{n}"), &long)).unwrap();
        log.add(&event(n, "Always", "there")).unwrap();
    }
    let size = fs::read(&path).unwrap().len() as u64;
    assert!(size < MAX_FILE + 2 * MAX_MESSAGE as u64 + 1000, "{size}");
    let events = told(&path);
    let [.., newest, always] = &events[..] else {
        panic!("{}", events.len())
    };
    assert_eq!(newest.0, "R199");
    assert_eq!(newest.1.len(), MAX_MESSAGE);
    assert_eq!((always.0.as_str(), always.2), ("Always", 200));
    assert!(log.known.len() <= KEPT + 64, "{}", log.known.len());
}
