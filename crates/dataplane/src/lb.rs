//! Picking an endpoint.

use std::sync::Arc;

use crate::cluster::{ClusterConfig, HostSet};

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
/// Picking needs no lock and allocates nothing.
#[derive(Debug)]
pub struct LoadBalancer {
    hosts: Arc<HostSet>,
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
        let _ = (cluster, ejected(0), seed);
        Self { hosts }
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
        let _ = (context, load.active_requests(0), random());
        unimplemented!()
    }

    /// Whether traffic goes to all hosts of this priority because too few are healthy.
    pub fn in_panic(&self, priority: usize) -> bool {
        unimplemented!("{priority}")
    }

    /// The number of healthy hosts (`membership_healthy`).
    pub fn healthy(&self) -> usize {
        unimplemented!()
    }
}
