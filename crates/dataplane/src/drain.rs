//! Draining: which answers ask their connections to close while a listener, or the whole proxy, drains.

use std::time::Duration;

/// How connections are asked to close (`--drain-strategy`, `--drain-time-s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPolicy {
    /// The time in which they shall be gone.
    pub time: Duration,
    /// The longer it lasts the more of them are asked, instead of each one at its next answer.
    pub gradual: bool,
}

impl DrainPolicy {
    /// Whether a connection is asked to close with its next answer, so long after draining began. Envoy counts whole seconds.
    pub fn closes(&self, elapsed: Duration, random: &mut dyn FnMut() -> u64) -> bool {
        let time = self.time.as_secs();
        !self.gradual || time == 0 || elapsed >= self.time || elapsed.as_secs() > random() % time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_closed_connections_grows_with_time() {
        let policy = DrainPolicy {
            time: Duration::from_secs(10),
            gradual: true,
        };
        let closed = |policy: DrainPolicy, seconds: u64| {
            let asked = |draw: u64| policy.closes(Duration::from_secs(seconds), &mut || draw);
            (0..10).filter(|draw| asked(*draw)).count()
        };
        let shares: Vec<_> = [0, 1, 5, 9, 10].map(|at| closed(policy, at)).into();
        assert_eq!(shares, [0, 1, 5, 9, 10]);
        let at_once = DrainPolicy {
            gradual: false,
            ..policy
        };
        assert_eq!(closed(at_once, 0), 10);
    }
}
