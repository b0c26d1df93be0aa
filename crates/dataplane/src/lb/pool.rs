//! The hosts among which one policy decides.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::HostLoad;
use super::tables::{Maglev, Ring, murmur2};
use crate::cluster::{ClusterConfig, HostSet, LbPolicy, LocalityHosts};
use crate::route::xxhash64;

pub(super) fn is_hashing(policy: &LbPolicy) -> bool {
    matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. })
}

/// The hosts of one priority in one state of health.
#[derive(Debug)]
pub(super) struct Source {
    whole: Pool,
    /// With locality weights: which locality is next, and their hosts.
    localities: Option<(Schedule, Vec<Pool>)>,
}

impl Source {
    pub(super) fn new(
        cluster: &ClusterConfig,
        set: &HostSet,
        groups: &[(&LocalityHosts, Vec<usize>)],
        weighted: bool,
        seed: u64,
    ) -> Self {
        let all: Vec<usize> = groups
            .iter()
            .flat_map(|(_, hosts)| hosts.iter().copied())
            .collect();
        let weighted = weighted
            && groups
                .iter()
                .any(|(group, _)| group.weight.unwrap_or(0) > 0);
        if !weighted {
            return Self {
                whole: Pool::new(cluster, set, &all, None, seed),
                localities: None,
            };
        }
        // A locality that has lost hosts gives up a part of its weight, less what overprovisioning hides.
        let weights: Vec<f64> = groups
            .iter()
            .map(|(group, hosts)| {
                let available = hosts.len() as f64 / group.hosts.len().max(1) as f64;
                f64::from(group.weight.unwrap_or(0))
                    * (available * f64::from(set.overprovisioning) / 100.0).min(1.0)
            })
            .collect();
        if is_hashing(&cluster.lb) {
            let shares: Vec<f64> = groups
                .iter()
                .zip(&weights)
                .flat_map(|((_, hosts), weight)| {
                    let sum: f64 = hosts
                        .iter()
                        .map(|host| f64::from(set.hosts[*host].weight))
                        .sum();
                    hosts
                        .iter()
                        .map(move |host| weight * f64::from(set.hosts[*host].weight) / sum)
                })
                .collect();
            return Self {
                whole: Pool::new(cluster, set, &all, Some(&shares), seed),
                localities: None,
            };
        }
        let pools = groups
            .iter()
            .map(|(_, hosts)| Pool::new(cluster, set, hosts, None, seed))
            .collect();
        Self {
            whole: Pool::new(cluster, set, &all, None, seed),
            localities: Some((Schedule::new(&weights, seed), pools)),
        }
    }

    pub(super) fn pick(
        &self,
        hash: Option<u64>,
        attempt: u32,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if let Some((schedule, pools)) = &self.localities
            && let Some(locality) = schedule.next(|_| None)
        {
            return pools[locality].pick(hash, attempt, load, random);
        }
        self.whole.pick(hash, attempt, load, random)
    }
}

/// Some hosts and the way one of them is picked.
#[derive(Debug)]
pub(super) struct Pool {
    hosts: Vec<usize>,
    picker: Picker,
    slow: Option<Slow>,
}

/// `slow_start_config` with a window: the weight of a host grows with its age.
#[derive(Debug, Clone, Copy)]
struct Slow {
    window: Duration,
    aggression: f64,
    least: f64,
}

impl Slow {
    fn of(policy: &LbPolicy) -> Option<Self> {
        let (LbPolicy::RoundRobin(config)
        | LbPolicy::LeastRequest {
            slow_start: config, ..
        }) = policy
        else {
            return None;
        };
        Some(Self {
            window: config.window?,
            aggression: config.aggression,
            least: config.min_weight_percent / 100.0,
        })
    }

    /// The part of its weight that a host of this age has.
    fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let age = age.max(Duration::from_millis(1));
        let part = age.as_secs_f64() / self.window.as_secs_f64();
        part.powf(1.0 / self.aggression).max(self.least)
    }
}

#[derive(Debug)]
enum Picker {
    Turn(AtomicUsize),
    Weighted(Schedule, Vec<f64>),
    Random,
    Least(u32),
    /// `choices`: the hosts are equal unless some are young.
    WeightedLeast {
        schedule: Schedule,
        weights: Vec<f64>,
        bias: f64,
        choices: Option<u32>,
    },
    Ring(Ring),
    Maglev(Maglev),
}

impl Pool {
    /// `shares` replaces the hosts' own weights in hash tables.
    pub(super) fn new(
        cluster: &ClusterConfig,
        set: &HostSet,
        hosts: &[usize],
        shares: Option<&[f64]>,
        seed: u64,
    ) -> Self {
        let weights: Vec<f64> = match shares {
            Some(shares) => shares.to_vec(),
            None => hosts
                .iter()
                .map(|host| f64::from(set.hosts[*host].weight))
                .collect(),
        };
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let keys = || -> Vec<String> {
            let key = |host: &usize| {
                let host = &set.hosts[*host];
                // A key of its own may stand in the metadata, to survive changes of address.
                let own = host
                    .metadata
                    .get("envoy.lb")
                    .and_then(|lb| lb.get("hash_key"))
                    .and_then(|key| key.as_str());
                match own {
                    Some(key) => key.to_owned(),
                    None if cluster.hash_host_names && !host.hostname.is_empty() => {
                        host.hostname.clone()
                    }
                    None => host.address.to_string(),
                }
            };
            hosts.iter().map(key).collect()
        };
        let slow = Slow::of(&cluster.lb);
        let picker = match &cluster.lb {
            LbPolicy::RoundRobin(_) | LbPolicy::ClusterProvided if equal && slow.is_none() => {
                Picker::Turn(AtomicUsize::new(seed as usize % hosts.len().max(1)))
            }
            LbPolicy::RoundRobin(_) | LbPolicy::ClusterProvided => {
                Picker::Weighted(Schedule::new(&weights, seed), weights)
            }
            LbPolicy::LeastRequest { choices, .. } if equal && slow.is_none() => {
                Picker::Least(*choices)
            }
            LbPolicy::LeastRequest { choices, bias, .. } => Picker::WeightedLeast {
                schedule: Schedule::new(&weights, seed),
                weights,
                bias: *bias,
                choices: equal.then_some(*choices),
            },
            LbPolicy::Random => Picker::Random,
            LbPolicy::RingHash { min, max, murmur } => {
                let hash: fn(&[u8]) -> u64 = match murmur {
                    true => murmur2,
                    false => |key| xxhash64(key, 0),
                };
                Picker::Ring(Ring::new(&keys(), &weights, *min, *max, hash))
            }
            LbPolicy::Maglev { table } => Picker::Maglev(Maglev::new(&keys(), &weights, *table)),
        };
        Self {
            hosts: hosts.to_vec(),
            picker,
            slow,
        }
    }

    pub(super) fn pick(
        &self,
        hash: Option<u64>,
        attempt: u32,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let count = self.hosts.len();
        if count == 0 {
            return None;
        }
        let mut less_busy = |choices: u32| {
            let mut best = random() as usize % count;
            for _ in 1..choices {
                let other = random() as usize % count;
                if load.active_requests(self.hosts[other]) < load.active_requests(self.hosts[best])
                {
                    best = other;
                }
            }
            best
        };
        let factor = |place: usize| {
            self.slow
                .map_or(1.0, |slow| slow.factor(load.age(self.hosts[place])))
        };
        let grown = || {
            let old = |slow: Slow| self.hosts.iter().all(|host| load.age(*host) >= slow.window);
            self.slow.is_none_or(old)
        };
        let place = match &self.picker {
            Picker::Turn(next) => next.fetch_add(1, Ordering::Relaxed) % count,
            Picker::Weighted(schedule, weights) => {
                schedule.next(|place| self.slow.map(|_| weights[place] * factor(place)))?
            }
            Picker::Random => less_busy(1),
            Picker::Least(_) if count == 1 => 0,
            Picker::Least(choices) => less_busy(*choices),
            Picker::WeightedLeast {
                choices: Some(choices),
                ..
            } if grown() => less_busy(*choices),
            Picker::WeightedLeast {
                schedule,
                weights,
                bias,
                ..
            } => schedule.next(|place| {
                let active = load.active_requests(self.hosts[place]) as f64 + 1.0;
                Some(weights[place] / active.powf(*bias) * factor(place))
            })?,
            Picker::Ring(ring) => ring.pick(hash.unwrap_or_default(), attempt)?,
            Picker::Maglev(maglev) => maglev.pick(hash.unwrap_or_default(), attempt)?,
        };
        Some(self.hosts[place])
    }
}

/// Earliest deadline first: everybody comes up in proportion to his weight, evenly spread.
#[derive(Debug)]
pub(super) struct Schedule {
    // Held for one pop and one push; nothing is allocated meanwhile.
    queue: Mutex<(BinaryHeap<Turn>, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    deadline: f64,
    order: u64,
    place: usize,
    weight: f64,
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Turn {
    /// The heap gives the greatest: the earliest deadline, then the one that was queued first.
    fn cmp(&self, other: &Self) -> Order {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

impl Schedule {
    /// Places without weight never come up.
    pub(super) fn new(weights: &[f64], seed: u64) -> Self {
        let positive = weights
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight > 0.0);
        let turn = |(order, (place, weight)): (usize, (usize, &f64))| Turn {
            deadline: 1.0 / weight,
            order: order as u64,
            place,
            weight: *weight,
        };
        let queue: BinaryHeap<Turn> = positive.enumerate().map(turn).collect();
        let count = queue.len() as u64;
        let schedule = Self {
            queue: Mutex::new((queue, count)),
        };
        for _ in 0..seed % count.max(1) {
            schedule.next(|_| None);
        }
        schedule
    }

    /// The next place; `weight` may give it another weight for its next turn.
    pub(super) fn next(&self, weight: impl FnOnce(usize) -> Option<f64>) -> Option<usize> {
        // A poisoned queue is still a queue: nothing in here leaves it half changed.
        let mut queue = self
            .queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let (heap, orders) = &mut *queue;
        let mut top = heap.peek_mut()?;
        let place = top.place;
        let weight = weight(place).unwrap_or(top.weight);
        top.deadline += 1.0 / weight;
        top.order = *orders;
        *orders += 1;
        Some(place)
    }
}
