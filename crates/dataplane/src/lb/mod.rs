//! Picking an endpoint: priorities by health, localities by weight, then one of Envoy's policies.

use std::sync::Arc;

use crate::cluster::{ClusterConfig, Health, HostSet};

mod pool;
mod priority;
mod tables;
#[cfg(test)]
mod tests;

use pool::{Pool, Source};
use priority::Loads;

/// The load on hosts, read at the moment of a pick.
pub trait HostLoad {
    /// Active requests of the host with this index in [`HostSet::hosts`].
    fn active_requests(&self, host: usize) -> u64;
}

/// No host has any active request.
impl HostLoad for () {
    fn active_requests(&self, _: usize) -> u64 {
        0
    }
}

/// What is to be considered in a pick.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// The hash of the request, see [`crate::route::Route::hash`]; `None`: hash policies fall back to random.
    pub hash: Option<u64>,
    /// Hosts of earlier attempts, to be avoided.
    pub tried: &'a [usize],
    /// How often another host is drawn to avoid those (`host_selection_retry_max_attempts`).
    pub reselections: u32,
    /// Priorities of earlier attempts, to be avoided (`previous_priorities`).
    pub tried_priorities: &'a [usize],
}

/// The load balancer over one host set and one state of ejections: build a new one when either changes.
/// Picking allocates nothing (except for `tried_priorities`).
#[derive(Debug)]
pub struct LoadBalancer {
    hosts: Arc<HostSet>,
    levels: Vec<Level>,
    availability: Vec<priority::Availability>,
    panic_threshold: f64,
    loads: Loads,
    hashing: bool,
    healthy: usize,
    degraded: usize,
}

/// The hosts of one priority.
#[derive(Debug)]
struct Level {
    healthy: Source,
    degraded: Source,
    /// Everybody, for the panic.
    all: Pool,
}

impl LoadBalancer {
    /// Builds tables and schedules. `ejected` says which hosts outlier detection has taken out; `seed`
    /// shifts the start of round robin (Envoy starts anywhere).
    pub fn new(
        cluster: &ClusterConfig,
        hosts: Arc<HostSet>,
        ejected: &dyn Fn(usize) -> bool,
        seed: u64,
    ) -> Self {
        let state = |index: usize| match hosts.hosts[index].health {
            _ if ejected(index) => Health::Unhealthy,
            health => health,
        };
        let mut levels = Vec::with_capacity(hosts.priorities.len());
        let mut availability = Vec::with_capacity(hosts.priorities.len());
        let (mut healthy_total, mut degraded_total) = (0, 0);
        for localities in &hosts.priorities {
            let of = |wanted: Option<Health>| -> Vec<(&crate::cluster::LocalityHosts, Vec<usize>)> {
                let keep = |index: &usize| wanted.is_none_or(|wanted| state(*index) == wanted);
                localities
                    .iter()
                    .map(|group| (group, group.hosts.iter().copied().filter(keep).collect()))
                    .collect()
            };
            let count = |groups: &[(&crate::cluster::LocalityHosts, Vec<usize>)]| {
                groups.iter().map(|(_, hosts)| hosts.len()).sum()
            };
            let (healthy, degraded, all) = (
                of(Some(Health::Healthy)),
                of(Some(Health::Degraded)),
                of(None),
            );
            availability.push(priority::Availability::new(
                count(&healthy),
                count(&degraded),
                count(&all),
                hosts.overprovisioning,
            ));
            healthy_total += count(&healthy);
            degraded_total += count(&degraded);
            let all: Vec<usize> = all.into_iter().flat_map(|(_, hosts)| hosts).collect();
            levels.push(Level {
                healthy: Source::new(cluster, &hosts, &healthy, seed),
                degraded: Source::new(cluster, &hosts, &degraded, seed),
                all: Pool::new(cluster, &hosts, &all, None, seed),
            });
        }
        let loads = Loads::new(&availability, cluster.panic_threshold);
        Self {
            levels,
            availability,
            panic_threshold: cluster.panic_threshold,
            loads,
            hashing: pool::is_hashing(&cluster.lb),
            healthy: healthy_total,
            degraded: degraded_total,
            hosts,
        }
    }

    /// The hosts it picks from.
    pub fn hosts(&self) -> &Arc<HostSet> {
        &self.hosts
    }

    /// The index of the host for a request; `None`: there is no healthy one (`UH`).
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let hash = if self.hashing {
            Some(context.hash.unwrap_or_else(&mut *random))
        } else {
            None
        };
        let mut attempt = 0;
        loop {
            let host = self.pick_once(context, hash, attempt, load, random)?;
            // When all draws are used up, a host that was tried is better than none.
            if attempt >= context.reselections || !context.tried.contains(&host) {
                return Some(host);
            }
            attempt += 1;
        }
    }

    fn pick_once(
        &self,
        context: &PickContext<'_>,
        hash: Option<u64>,
        attempt: u32,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if self.levels.is_empty() {
            return None;
        }
        // With one priority there is nothing to draw.
        let draw = hash.unwrap_or_else(|| if self.loads.trivial() { 0 } else { random() });
        let without;
        let loads = if context.tried_priorities.is_empty() {
            &self.loads
        } else {
            without = self.loads_without(context.tried_priorities);
            &without
        };
        let (priority, degraded) = loads.choose(draw);
        let level = &self.levels[priority];
        if loads.in_panic(priority) {
            level.all.pick(hash, attempt, load, random)
        } else if degraded {
            level.degraded.pick(hash, attempt, load, random)
        } else {
            level.healthy.pick(hash, attempt, load, random)
        }
    }

    /// The loads when some priorities are to be avoided; when all are, they all count again.
    fn loads_without(&self, tried: &[usize]) -> Loads {
        let untried =
            |priority: usize| !tried.contains(&priority) && self.availability[priority].any();
        if !(0..self.levels.len()).any(untried) {
            return Loads::new(&self.availability, self.panic_threshold);
        }
        let mut availability = self.availability.clone();
        for priority in tried {
            if let Some(availability) = availability.get_mut(*priority) {
                availability.exclude();
            }
        }
        Loads::new(&availability, self.panic_threshold)
    }

    /// Whether traffic goes to all hosts of this priority because too few are healthy.
    pub fn in_panic(&self, priority: usize) -> bool {
        self.loads.in_panic(priority)
    }

    /// The share of each priority in percent: healthy and degraded hosts.
    pub fn priority_loads(&self) -> impl Iterator<Item = (u32, u32)> {
        self.loads.shares()
    }

    /// The number of healthy hosts (`membership_healthy`).
    pub fn healthy(&self) -> usize {
        self.healthy
    }

    /// The number of degraded hosts (`membership_degraded`).
    pub fn degraded(&self) -> usize {
        self.degraded
    }
}
