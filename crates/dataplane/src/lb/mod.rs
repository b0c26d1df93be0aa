//! Picking an endpoint: priorities by health, localities by weight, then one of Envoy's policies.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{ClusterConfig, Health, HostSet, LocalityHosts};

mod criteria;
mod pool;
mod priority;
mod subset;
mod tables;
#[cfg(test)]
mod tests;

pub use criteria::Criteria;
use pool::{Pool, Source};
use priority::Loads;
use subset::SubsetBalancer;
pub use subset::SubsetUse;

/// The load on hosts, read at the moment of a pick.
pub trait HostLoad {
    /// Active requests of the host with this index in [`HostSet::hosts`].
    fn active_requests(&self, host: usize) -> u64;

    /// How long it has been a member, for slow start.
    fn age(&self, host: usize) -> Duration {
        let _ = host;
        Duration::MAX
    }
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
    /// What the endpoint's metadata must say (`metadata_match`); counts where the cluster has subsets.
    pub criteria: Option<&'a Criteria>,
}

/// Who was picked, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// The index of the host; `None`: there is no healthy one (`UH`).
    pub host: Option<usize>,
    /// Too few of its priority are healthy, so that health did not count.
    pub panic: bool,
    /// How its subset was found; `None` without subsets, or where a selector's own fallback decided.
    pub subset: Option<SubsetUse>,
}

/// The load balancer over one host set and one state of ejections: build a new one when either changes.
/// Picking allocates nothing (except for `tried_priorities`).
#[derive(Debug)]
pub struct LoadBalancer {
    hosts: Arc<HostSet>,
    whole: Balancer,
    subsets: Option<SubsetBalancer>,
}

/// The balancing among some of the hosts of a set.
#[derive(Debug)]
struct Balancer {
    levels: Vec<Level>,
    availability: Vec<priority::Availability>,
    panic_threshold: f64,
    loads: Loads,
    hashing: bool,
    healthy: usize,
    degraded: usize,
}

/// What balancers are built from.
struct Build<'a> {
    cluster: &'a ClusterConfig,
    hosts: &'a HostSet,
    ejected: &'a dyn Fn(usize) -> bool,
    seed: u64,
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
        let build = Build {
            cluster,
            hosts: &hosts,
            ejected,
            seed,
        };
        let whole = build.balancer(&hosts.priorities, cluster.locality_weighted);
        let subsets = cluster.subsets.as_ref();
        let subsets = subsets.map(|config| SubsetBalancer::new(config, &build));
        Self {
            whole,
            subsets,
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
        self.choose(context, load, random).host
    }

    /// The host for a request, and how it was found.
    pub fn choose(
        &self,
        context: &PickContext<'_>,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Choice {
        match &self.subsets {
            None => self.whole.choose(context, load, random),
            Some(subsets) => subsets.choose(&self.whole, context, load, random),
        }
    }

    /// Whether traffic goes to all hosts of this priority because too few are healthy.
    pub fn in_panic(&self, priority: usize) -> bool {
        self.whole.loads.in_panic(priority)
    }

    /// The share of each priority in percent: healthy and degraded hosts.
    pub fn priority_loads(&self) -> impl Iterator<Item = (u32, u32)> {
        self.whole.loads.shares()
    }

    /// The number of healthy hosts (`membership_healthy`).
    pub fn healthy(&self) -> usize {
        self.whole.healthy
    }

    /// The number of degraded hosts (`membership_degraded`).
    pub fn degraded(&self) -> usize {
        self.whole.degraded
    }

    /// The number of subsets (`lb_subsets_active`).
    pub fn subsets(&self) -> usize {
        self.subsets.as_ref().map_or(0, SubsetBalancer::count)
    }
}

impl Build<'_> {
    /// The balancer among the hosts of these priorities; `weighted`: their localities have weights.
    fn balancer(&self, priorities: &[Vec<LocalityHosts>], weighted: bool) -> Balancer {
        let (cluster, seed) = (self.cluster, self.seed);
        let state = |index: usize| match self.hosts.hosts[index].health {
            _ if (self.ejected)(index) => Health::Unhealthy,
            health => health,
        };
        let mut levels = Vec::with_capacity(priorities.len());
        let mut availability = Vec::with_capacity(priorities.len());
        let (mut healthy_total, mut degraded_total) = (0, 0);
        for localities in priorities {
            let of = |wanted: Option<Health>| -> Vec<(&LocalityHosts, Vec<usize>)> {
                let keep = |index: &usize| wanted.is_none_or(|wanted| state(*index) == wanted);
                localities
                    .iter()
                    .map(|group| (group, group.hosts.iter().copied().filter(keep).collect()))
                    .collect()
            };
            let count = |groups: &[(&LocalityHosts, Vec<usize>)]| {
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
                self.hosts.overprovisioning,
            ));
            healthy_total += count(&healthy);
            degraded_total += count(&degraded);
            let all: Vec<usize> = all.into_iter().flat_map(|(_, hosts)| hosts).collect();
            levels.push(Level {
                healthy: Source::new(cluster, self.hosts, &healthy, weighted, seed),
                degraded: Source::new(cluster, self.hosts, &degraded, weighted, seed),
                all: Pool::new(cluster, self.hosts, &all, None, seed),
            });
        }
        let loads = Loads::new(&availability, cluster.panic_threshold);
        Balancer {
            levels,
            availability,
            panic_threshold: cluster.panic_threshold,
            loads,
            hashing: pool::is_hashing(&cluster.lb),
            healthy: healthy_total,
            degraded: degraded_total,
        }
    }
}

impl Balancer {
    fn choose(
        &self,
        context: &PickContext<'_>,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Choice {
        let hash = if self.hashing {
            Some(context.hash.unwrap_or_else(&mut *random))
        } else {
            None
        };
        let mut attempt = 0;
        loop {
            let choice = self.pick_once(context, hash, attempt, load, random);
            // When all draws are used up, a host that was tried is better than none.
            if choice.host.is_none_or(|host| {
                attempt >= context.reselections || !context.tried.contains(&host)
            }) {
                return choice;
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
    ) -> Choice {
        if self.levels.is_empty() {
            return Choice::default();
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
        let panic = loads.in_panic(priority);
        let host = if panic {
            level.all.pick(hash, attempt, load, random)
        } else if degraded {
            level.degraded.pick(hash, attempt, load, random)
        } else {
            level.healthy.pick(hash, attempt, load, random)
        };
        Choice {
            host,
            panic,
            subset: None,
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
}
