//! Ages, in kubectl's words.

use jiff::Timestamp;

/// How long ago `then` was, in at most two units, as kubectl's `HumanDuration` says it.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> String {
    human(now.duration_since(then).as_secs())
}

/// A number of seconds, in at most two units.
///
/// Two seconds of a clock that runs ahead are forgiven; more is `<invalid>`.
pub(crate) fn human(seconds: i64) -> String {
    const YEAR: i64 = 365 * 24;
    let two = |large: i64, large_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 8 * 24 => two(hours / 24, 'd', hours % 24, 'h'),
        () if hours < 2 * YEAR => format!("{}d", hours / 24),
        () if hours < 8 * YEAR => two(hours / YEAR, 'y', (hours / 24) % 365, 'd'),
        () => format!("{}y", hours / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kubectl's own table (`k8s.io/apimachinery/pkg/util/duration`).
    #[test]
    fn a_duration_reads_as_kubectl_writes_it() {
        let check = |seconds: i64, expected: &str| assert_eq!(human(seconds), expected);
        let (minute, hour, day, year) = (60, 3600, 86_400, 365 * 86_400);
        check(-2, "<invalid>");
        check(-1, "0s");
        check(0, "0s");
        check(1, "1s");
        check(70, "70s");
        check(119, "119s");
        check(190, "3m10s");
        check(2 * minute, "2m");
        check(10 * minute, "10m");
        check(47 * minute, "47m");
        check(3 * hour, "3h");
        check(3 * hour + 29 * minute, "3h29m");
        check(9 * hour + 29 * minute, "9h");
        check(47 * hour, "47h");
        check(2 * day, "2d");
        check(2 * day + 4 * hour, "2d4h");
        check(8 * day, "8d");
        check(year, "365d");
        check(2 * year, "2y");
        check(2 * year + 5 * day, "2y5d");
        check(8 * year + 3 * day, "8y");
    }
}
