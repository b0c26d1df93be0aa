//! Circuit breakers: how much of what may be in use towards one cluster at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xds::envoy::config::cluster::v3::CircuitBreakers as Config;
use xds::envoy::config::cluster::v3::circuit_breakers::Thresholds as ConfigThresholds;

/// The routing priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections to the upstream (`cx_open`).
    Connections,
    /// Requests waiting for a connection (`rq_pending_open`).
    Pending,
    /// Requests in flight (`rq_open`).
    Requests,
    /// Retries in flight (`rq_retry_open`).
    Retries,
    /// Connection pools (`cx_pool_open`).
    Pools,
}

/// The limits of one priority.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// `max_connections`, 1024 by default.
    pub connections: u64,
    /// `max_pending_requests`, 1024 by default.
    pub pending: u64,
    /// `max_requests`, 1024 by default.
    pub requests: u64,
    /// `max_retries`, 3 by default; not used with a budget.
    pub retries: u64,
    /// `max_connection_pools`, unlimited by default.
    pub pools: u64,
    /// `retry_budget`.
    pub budget: Option<RetryBudget>,
    /// `track_remaining`: whether the remaining_* gauges are kept.
    pub track_remaining: bool,
}

/// A share of the active requests that may be retries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Percent of the active and pending requests, 20 by default.
    pub percent: f64,
    /// At least so many, 3 by default.
    pub min_concurrency: u64,
    /// Requests of this past count, too; zero counts only active ones.
    pub interval: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            pools: u64::MAX,
            budget: None,
            track_remaining: false,
        }
    }
}

impl Thresholds {
    fn compile(config: &ConfigThresholds) -> Self {
        let default = Self::default();
        let or = |value: Option<u32>, default: u64| value.map_or(default, u64::from);
        Self {
            connections: or(config.max_connections, default.connections),
            pending: or(config.max_pending_requests, default.pending),
            requests: or(config.max_requests, default.requests),
            retries: or(config.max_retries, default.retries),
            pools: or(config.max_connection_pools, default.pools),
            budget: config.retry_budget.as_ref().map(|budget| RetryBudget {
                percent: budget
                    .budget_percent
                    .as_ref()
                    .map_or(20.0, |percent| percent.value),
                min_concurrency: or(budget.min_retry_concurrency, 3),
                interval: crate::cluster::duration(budget.budget_interval.as_ref())
                    .unwrap_or_default(),
            }),
            track_remaining: config.track_remaining,
        }
    }

    /// Reads the limits of both priorities (default, high).
    pub fn of(config: Option<&Config>) -> [Self; 2] {
        let mut both = [Self::default(), Self::default()];
        for thresholds in config.iter().flat_map(|config| &config.thresholds) {
            both[usize::from(thresholds.priority == 1)] = Self::compile(thresholds);
        }
        both
    }

    fn limit(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Connections => self.connections,
            Resource::Pending => self.pending,
            Resource::Requests => self.requests,
            Resource::Retries => self.retries,
            Resource::Pools => self.pools,
        }
    }
}

/// The breakers of one cluster; shared by all threads of the process.
#[derive(Debug, Default)]
pub struct Breakers {
    thresholds: [Thresholds; 2],
    used: [[AtomicU64; 5]; 2],
}

impl Breakers {
    /// Breakers with these limits, nothing in use.
    pub fn new(thresholds: [Thresholds; 2]) -> Arc<Self> {
        Arc::new(Self {
            thresholds,
            used: Default::default(),
        })
    }

    /// The limits of a priority.
    pub fn thresholds(&self, priority: Priority) -> &Thresholds {
        &self.thresholds[priority as usize]
    }

    /// How much is in use.
    pub fn used(&self, priority: Priority, resource: Resource) -> u64 {
        self.used[priority as usize][resource as usize].load(Ordering::Relaxed)
    }

    /// The limit now in force; with a retry budget it follows the active requests.
    pub fn limit(&self, priority: Priority, resource: Resource) -> u64 {
        let thresholds = self.thresholds(priority);
        match (resource, &thresholds.budget) {
            (Resource::Retries, Some(budget)) => {
                let active = self.used(priority, Resource::Requests)
                    + self.used(priority, Resource::Pending);
                ((active as f64 * budget.percent / 100.0) as u64).max(budget.min_concurrency)
            }
            _ => thresholds.limit(resource),
        }
    }

    /// Whether the limit is reached: the gauges `cx_open`, `rq_open`, ...
    pub fn open(&self, priority: Priority, resource: Resource) -> bool {
        self.used(priority, resource) >= self.limit(priority, resource)
    }

    /// Takes one, unless the limit is reached. It is given back when the permit is dropped.
    pub fn try_acquire(self: &Arc<Self>, priority: Priority, resource: Resource) -> Option<Permit> {
        let limit = self.limit(priority, resource);
        let counter = &self.used[priority as usize][resource as usize];
        // The counter alone decides; nothing else is published with it.
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < limit).then_some(used + 1)
            })
            .ok()
            .map(|_| Permit {
                breakers: self.clone(),
                priority,
                resource,
            })
    }

    /// Takes one whatever the limit says, for what Envoy always allows: the first connection of a pool.
    pub fn acquire(self: &Arc<Self>, priority: Priority, resource: Resource) -> Permit {
        self.used[priority as usize][resource as usize].fetch_add(1, Ordering::Relaxed);
        Permit {
            breakers: self.clone(),
            priority,
            resource,
        }
    }
}

/// One unit of a limited resource; dropping gives it back.
#[derive(Debug)]
pub struct Permit {
    breakers: Arc<Breakers>,
    priority: Priority,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.used[self.priority as usize][self.resource as usize]
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_and_given_back() {
        let config = Config {
            thresholds: vec![ConfigThresholds {
                max_requests: Some(1),
                ..Default::default()
            }],
            ..Default::default()
        };
        let breakers = Breakers::new(Thresholds::of(Some(&config)));
        let (default, high) = (Priority::Default, Priority::High);
        let permit = breakers
            .try_acquire(default, Resource::Requests)
            .expect("one is allowed");
        assert!(breakers.open(default, Resource::Requests));
        assert!(breakers.try_acquire(default, Resource::Requests).is_none());
        assert!(
            breakers.try_acquire(high, Resource::Requests).is_some(),
            "priorities are separate"
        );
        drop(permit);
        assert!(breakers.try_acquire(default, Resource::Requests).is_some());
        assert_eq!(
            breakers.limit(default, Resource::Retries),
            3,
            "Envoy's default"
        );
    }

    #[test]
    fn a_retry_budget_follows_the_active_requests() {
        let budget = RetryBudget {
            percent: 20.0,
            min_concurrency: 3,
            interval: Duration::ZERO,
        };
        let limits = Thresholds {
            budget: Some(budget),
            ..Default::default()
        };
        let breakers = Breakers::new([limits, Thresholds::default()]);
        assert_eq!(breakers.limit(Priority::Default, Resource::Retries), 3);
        let held: Vec<_> = (0..50)
            .map(|_| breakers.acquire(Priority::Default, Resource::Requests))
            .collect();
        assert_eq!(breakers.limit(Priority::Default, Resource::Retries), 10);
        drop(held);
        assert_eq!(breakers.used(Priority::Default, Resource::Requests), 0);
    }
}
