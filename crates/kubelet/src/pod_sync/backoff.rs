//! Exponential waiting with a reset after a long quiet time.

use crate::clock::Millis;

/// A doubling delay. After no use for twice the maximum it starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackOff {
    initial: Millis,
    max: Millis,
    current: Millis,
    updated: Millis,
}

impl BackOff {
    /// A delay that has not been used yet.
    pub fn new(initial: Millis, max: Millis) -> Self {
        Self {
            initial,
            max,
            current: 0,
            updated: 0,
        }
    }

    /// The delay last given out; 0 before the first.
    pub fn current(&self) -> Millis {
        self.current
    }

    /// Doubles the delay (or starts it) because of something that happened at `at`, and returns it.
    pub fn next(&mut self, at: Millis) -> Millis {
        let expired = at.saturating_sub(self.updated) > 2 * self.max;
        self.current = if self.current == 0 || expired {
            self.initial
        } else {
            (self.current * 2).min(self.max)
        };
        self.updated = at;
        self.current
    }

    /// Until when something that failed at `at` has to wait; `None` when it need not (first failure,
    /// or the last one is long ago).
    pub fn blocked_until(&self, at: Millis) -> Option<Millis> {
        let expired = at.saturating_sub(self.updated) > 2 * self.max;
        (self.current > 0 && !expired).then_some(at + self.current)
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(millis: Millis) -> String {
    let seconds = millis / 1000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = String::new();
    if hours > 0 {
        out.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        out.push_str(&format!("{minutes}m"));
    }
    let fraction = millis % 1000;
    if fraction > 0 && seconds == 0 {
        return format!("{fraction}ms");
    }
    out.push_str(&format!("{rest}s"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_maximum_and_forgets_after_a_quiet_time() {
        let mut back_off = BackOff::new(10_000, 300_000);
        assert_eq!(back_off.blocked_until(5), None);
        let seen: Vec<Millis> = (0..7).map(|_| back_off.next(1_000_000)).collect();
        assert_eq!(
            seen,
            [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]
        );
        assert_eq!(back_off.blocked_until(1_000_100), Some(1_300_100));
        assert_eq!(back_off.blocked_until(1_600_001), None);
        assert_eq!(back_off.next(1_600_001), 10_000);
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (10_000, "10s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
            (500, "500ms"),
        ] {
            assert_eq!(go_duration(millis), text);
        }
    }
}
