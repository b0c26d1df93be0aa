//! A queue of keys to work on. Pure: time and randomness are arguments.
//!
//! A key waits at most once, is never worked on twice at the same time, and comes back after a
//! growing delay when the work failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// First delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after failures.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The queue.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and keys asked for again while being worked on.
    wanted: HashSet<K>,
    working: HashSet<K>,
    /// Keys that become ready later. The number keeps equal instants apart.
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Asks for work on a key.
    pub fn add(&mut self, key: K) {
        if self.wanted.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Asks for work on a key at an instant; the earliest wish counts.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some(&known) = self.due.get(&key) {
            if known.0 <= at {
                return;
            }
            self.delayed.remove(&known);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), key);
    }

    /// Takes the next key, if one is ready. It must be given back with [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    /// When the next delayed key becomes ready.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Gives a key back after the work on it succeeded.
    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.release(key);
    }

    /// Gives a key back after the work on it failed; it comes again after the delay returned.
    /// `random` in 0..1 spreads delays.
    pub fn failed(&mut self, key: &K, now: Instant, random: f64) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let factor = 2u32.saturating_pow((*failures).min(20));
        *failures += 1;
        let delay = FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY);
        let delay = delay.mul_f64(1.0 + random.clamp(0.0, 1.0) * 0.2);
        self.release(key);
        self.add_at(key.clone(), now + delay);
        delay
    }

    fn release(&mut self, key: &K) {
        self.working.remove(key);
        if self.wanted.contains(key) {
            self.ready.push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_is_never_worked_on_twice_at_once() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a");
        assert_eq!(queue.take(now), Some("b"));
        assert_eq!(queue.take(now), None);
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn failures_delay_longer_and_longer_until_a_success() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(1);
        let mut delays = Vec::new();
        let mut at = now;
        for _ in 0..4 {
            assert_eq!(queue.take(at), Some(1));
            let delay = queue.failed(&1, at, 0.0);
            assert_eq!(queue.take(at), None);
            delays.push(delay.as_millis());
            at += delay;
        }
        assert_eq!(delays, [5, 10, 20, 40]);
        assert_eq!(queue.take(at), Some(1));
        queue.done(&1);
        queue.add(1);
        queue.take(at);
        assert_eq!(queue.failed(&1, at, 0.0).as_millis(), 5);
    }

    #[test]
    fn the_earliest_of_two_wishes_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = Queue::default();
        queue.add_at("a", now + 2 * second);
        queue.add_at("a", now + second);
        queue.add_at("a", now + 3 * second);
        assert_eq!(queue.next_due(), Some(now + second));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + second), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.next_due(), None);
    }
}
