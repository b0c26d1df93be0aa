//! Wall-clock time as plain numbers, so that every decision takes `now` as an argument.

use k8s_openapi::jiff::Timestamp;

/// Milliseconds since the Unix epoch (UTC).
pub type Millis = u64;

/// The present.
pub fn now() -> Millis {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as Millis)
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(at).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}

/// `2026-01-02T03:04:05Z`: `metav1.Time`, whole seconds.
pub fn rfc3339(at: Millis) -> String {
    timestamp(at / 1000 * 1000)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// `2026-01-02T03:04:05.678000Z`: `metav1.MicroTime` (leases, event series).
pub fn rfc3339_micro(at: Millis) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// `2026-01-02T03:04:05.678901234Z` from nanoseconds since the epoch: the prefix of a log line.
pub fn rfc3339_nano(nanos: i128) -> String {
    Timestamp::from_nanosecond(nanos)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
        .to_string()
}

/// Reads an RFC 3339 time; `None` when it is not one.
pub fn parse(text: &str) -> Option<Millis> {
    let at: Timestamp = text.parse().ok()?;
    Millis::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let at = parse("2026-01-02T03:04:05.678Z").unwrap();
        assert_eq!(rfc3339(at), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_micro(at), "2026-01-02T03:04:05.678000Z");
        assert_eq!(
            rfc3339_nano(i128::from(at) * 1_000_000 + 7),
            "2026-01-02T03:04:05.678000007Z"
        );
        assert_eq!(parse("2026-01-02T12:04:05.678+09:00"), Some(at));
        assert_eq!(parse("yesterday"), None);
    }
}
