//! Kubernetes times: RFC 3339 in UTC, and ages as people read them.

use ::time::macros::format_description;
use ::time::{Duration, OffsetDateTime, UtcOffset};

pub use ::time::OffsetDateTime as Time;

/// `2006-01-02T15:04:05Z`, the format of `metav1.Time`.
pub fn rfc3339(t: OffsetDateTime) -> String {
    let f = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    t.to_offset(UtcOffset::UTC)
        .format(&f)
        .expect("a date always formats")
}

/// `2006-01-02T15:04:05.000000Z`, the format of `metav1.MicroTime` (leases, events).
pub fn rfc3339_micro(t: OffsetDateTime) -> String {
    let f =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    t.to_offset(UtcOffset::UTC)
        .format(&f)
        .expect("a date always formats")
}

/// Parses RFC 3339 with or without fractions; `None` when it is not a time, or one whose year in UTC has not four digits.
pub fn parse(s: &str) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::parse(s, &::time::format_description::well_known::Rfc3339).ok()?;
    let time = time.checked_to_offset(UtcOffset::UTC)?;
    (0..=9999).contains(&time.year()).then_some(time)
}

/// A duration as `kubectl` prints ages: `5s`, `3m4s`, `5h12m`, `3d4h`, `2y35d`. Negative up to two seconds is `0s`,
/// more is `<invalid>` (clocks that disagree).
pub fn human_duration(d: Duration) -> String {
    let seconds = d.whole_seconds();
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    if seconds < 60 * 2 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        let s = seconds % 60;
        return if s == 0 {
            format!("{minutes}m")
        } else {
            format!("{minutes}m{s}s")
        };
    }
    if minutes < 60 * 3 {
        return format!("{minutes}m");
    }
    let hours = seconds / 3600;
    if hours < 8 {
        let m = minutes % 60;
        return if m == 0 {
            format!("{hours}h")
        } else {
            format!("{hours}h{m}m")
        };
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    if hours < 24 * 8 {
        let h = hours % 24;
        return if h == 0 {
            format!("{}d", hours / 24)
        } else {
            format!("{}d{h}h", hours / 24)
        };
    }
    if hours < 24 * 365 * 2 {
        return format!("{}d", hours / 24);
    }
    if hours < 24 * 365 * 8 {
        let d = hours / 24 % 365;
        return if d == 0 {
            format!("{}y", hours / 24 / 365)
        } else {
            format!("{}y{d}d", hours / 24 / 365)
        };
    }
    format!("{}y", hours / 24 / 365)
}

/// The age of a timestamp string as tables print it; `<unknown>` for a missing or unreadable one.
pub fn age(timestamp: Option<&str>, now: OffsetDateTime) -> String {
    match timestamp.and_then(parse) {
        Some(t) => human_duration(now - t),
        None => "<unknown>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_parses() {
        let t = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        assert_eq!(rfc3339(t), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_micro(t), "2023-11-14T22:13:20.000000Z");
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(t));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let h = |s: i64| human_duration(Duration::seconds(s));
        assert_eq!(h(-1), "0s");
        assert_eq!(h(-2), "<invalid>");
        assert_eq!(h(119), "119s");
        assert_eq!(h(120), "2m");
        assert_eq!(h(184), "3m4s");
        assert_eq!(h(600), "10m");
        assert_eq!(h(3 * 3600), "3h");
        assert_eq!(h(5 * 3600 + 720), "5h12m");
        assert_eq!(h(47 * 3600), "47h");
        assert_eq!(h(76 * 3600), "3d4h");
        assert_eq!(h(30 * 86400), "30d");
        assert_eq!(h(86400 * (365 * 2 + 35)), "2y35d");
        assert_eq!(h(86400 * 365 * 9), "9y");
    }
}
