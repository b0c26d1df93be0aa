//! How traffic is spread over priorities: Envoy's arithmetic on whole percents.

/// How much of a priority can be used, in percent (with overprovisioning, at most 100).
#[derive(Debug, Clone)]
pub(super) struct Availability {
    healthy: u32,
    degraded: u32,
    hosts: usize,
    /// Without overprovisioning, for the panic.
    usable: f64,
}

impl Availability {
    pub(super) fn new(
        healthy: usize,
        degraded: usize,
        hosts: usize,
        overprovisioning: u32,
    ) -> Self {
        let percent = |some: usize| match hosts {
            0 => 0,
            hosts => (u64::from(overprovisioning) * some as u64 / hosts as u64).min(100) as u32,
        };
        let usable = if hosts == 0 {
            0.0
        } else {
            100.0 * (healthy + degraded) as f64 / hosts as f64
        };
        Self {
            healthy: percent(healthy),
            degraded: percent(degraded),
            hosts,
            usable,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.healthy + self.degraded > 0
    }

    /// Gets nothing.
    pub(super) fn exclude(&mut self) {
        (self.healthy, self.degraded, self.hosts) = (0, 0, 0);
    }
}

/// The share of every priority, in percent; all shares together are 100.
#[derive(Debug)]
pub(super) struct Loads {
    healthy: Vec<u32>,
    degraded: Vec<u32>,
    panic: Vec<bool>,
}

impl Loads {
    pub(super) fn new(levels: &[Availability], panic_threshold: f64) -> Self {
        let mut loads = Self {
            healthy: vec![0; levels.len()],
            degraded: vec![0; levels.len()],
            panic: vec![false; levels.len()],
        };
        if levels.is_empty() {
            return loads;
        }
        let total = levels
            .iter()
            .map(|level| level.healthy + level.degraded)
            .sum::<u32>()
            .min(100);
        if total > 0 {
            let mut left = 100;
            let spread = |shares: &mut Vec<u32>, of: fn(&Availability) -> u32, left: &mut u32| {
                let mut first = None;
                for (priority, level) in levels.iter().enumerate() {
                    let share = (of(level) * 100 / total).min(*left);
                    if first.is_none() && of(level) > 0 {
                        first = Some(priority);
                    }
                    shares[priority] = share;
                    *left -= share;
                }
                first
            };
            let first_healthy = spread(&mut loads.healthy, |level| level.healthy, &mut left);
            let first_degraded = spread(&mut loads.degraded, |level| level.degraded, &mut left);
            // What rounding left over goes to the first that can take it.
            match (first_healthy, first_degraded) {
                (Some(priority), _) => loads.healthy[priority] += left,
                (None, Some(priority)) => loads.degraded[priority] += left,
                (None, None) => {}
            }
        }
        if panic_threshold <= 0.0 && total == 0 {
            // No panic and nobody there: the first priority, which will answer that there is nobody.
            loads.healthy[0] = 100;
            return loads;
        }
        for (priority, level) in levels.iter().enumerate() {
            loads.panic[priority] = total < 100 && level.usable < panic_threshold;
        }
        if loads.panic.iter().all(|panic| *panic) {
            loads.in_total_panic(levels);
        }
        loads
    }

    /// Everything is in panic: health means nothing, the number of hosts decides.
    fn in_total_panic(&mut self, levels: &[Availability]) {
        let hosts: usize = levels.iter().map(|level| level.hosts).sum();
        self.degraded.fill(0);
        self.healthy.fill(0);
        if hosts == 0 {
            self.healthy[0] = 100;
            return;
        }
        let mut left = 100;
        for (share, level) in self.healthy.iter_mut().zip(levels) {
            *share = (100 * level.hosts / hosts) as u32;
            left -= *share;
        }
        if let Some(first) = levels.iter().position(|level| level.hosts > 0) {
            self.healthy[first] += left;
        }
    }

    /// Whether everything goes to the healthy hosts of the first priority.
    pub(super) fn trivial(&self) -> bool {
        self.healthy.first() == Some(&100)
    }

    /// The priority for a random number or hash, and whether its degraded hosts are meant.
    pub(super) fn choose(&self, draw: u64) -> (usize, bool) {
        let draw = (draw % 100) as u32 + 1;
        let mut sum = 0;
        for (shares, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (priority, share) in shares.iter().enumerate() {
                sum += share;
                if draw <= sum {
                    return (priority, degraded);
                }
            }
        }
        (0, false)
    }

    pub(super) fn in_panic(&self, priority: usize) -> bool {
        self.panic.get(priority).copied().unwrap_or(false)
    }

    pub(super) fn shares(&self) -> impl Iterator<Item = (u32, u32)> {
        self.healthy
            .iter()
            .copied()
            .zip(self.degraded.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(levels: &[(usize, usize, usize)], threshold: f64) -> (Vec<(u32, u32)>, Vec<bool>) {
        let levels: Vec<_> = levels
            .iter()
            .map(|(healthy, degraded, all)| Availability::new(*healthy, *degraded, *all, 140))
            .collect();
        let loads = Loads::new(&levels, threshold);
        (loads.shares().collect(), loads.panic.clone())
    }

    /// The examples of Envoy's documentation on priority levels.
    #[test]
    fn a_priority_takes_traffic_as_long_as_enough_of_it_is_healthy() {
        assert_eq!(
            shares(&[(72, 0, 100), (100, 0, 100)], 50.0).0,
            [(100, 0), (0, 0)]
        );
        assert_eq!(
            shares(&[(71, 0, 100), (100, 0, 100)], 50.0).0,
            [(99, 0), (1, 0)]
        );
        assert_eq!(
            shares(&[(50, 0, 100), (100, 0, 100)], 50.0).0,
            [(70, 0), (30, 0)]
        );
        assert_eq!(
            shares(&[(25, 0, 100), (25, 0, 100)], 0.0).0,
            [(50, 0), (50, 0)],
            "70 % together become 100"
        );
        assert_eq!(
            shares(&[(0, 0, 100), (100, 0, 100)], 50.0).0,
            [(0, 0), (100, 0)]
        );
    }

    #[test]
    fn degraded_hosts_get_what_healthy_ones_cannot_take() {
        assert_eq!(shares(&[(50, 50, 100)], 0.0).0, [(70, 30)]);
    }

    #[test]
    fn panic_is_per_priority_and_never_with_threshold_zero() {
        let (loads, panic) = shares(&[(0, 0, 10), (0, 0, 30)], 50.0);
        assert_eq!((loads, panic), (vec![(25, 0), (75, 0)], vec![true, true]));
        let (loads, panic) = shares(&[(0, 0, 10), (0, 0, 30)], 0.0);
        assert_eq!((loads, panic), (vec![(100, 0), (0, 0)], vec![false, false]));
        assert_eq!(shares(&[(1, 0, 10), (2, 0, 10)], 50.0).1, [true, true]);
        assert_eq!(
            shares(&[(1, 0, 10), (10, 0, 10)], 50.0).1,
            [false, false],
            "the second priority is enough"
        );
    }
}
