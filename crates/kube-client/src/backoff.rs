//! Exponential back-off with jitter. Pure: randomness is an argument.

use std::time::Duration;

/// Growing delays between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays that start at `initial` and double up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            attempts: 0,
        }
    }

    /// The next delay. `random` in 0..1 spreads it over 100% to 150% of its nominal length, so
    /// that clients that failed together do not come back together.
    pub fn next(&mut self, random: f64) -> Duration {
        let factor = 2f64.powi(i32::try_from(self.attempts.min(30)).unwrap_or(30));
        self.attempts = self.attempts.saturating_add(1);
        let nominal = (self.initial.as_secs_f64() * factor).min(self.max.as_secs_f64());
        Duration::from_secs_f64(nominal * (1.0 + random.clamp(0.0, 1.0) * 0.5))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many delays were given since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let nominal: Vec<u128> = (0..5).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(nominal, [100, 200, 400, 500, 500]);
        assert_eq!(backoff.attempts(), 5);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 150);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..10_000 {
            assert!(backoff.next(0.5) <= Duration::from_secs(45));
        }
    }
}
