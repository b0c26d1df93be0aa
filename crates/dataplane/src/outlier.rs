//! Outlier detection: hosts that fail too often are taken out of the rotation for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use xds::envoy::config::cluster::v3::OutlierDetection;

/// Times are durations since an instant of the caller's choice (the start of the process).
pub type Time = Duration;

/// Outlier detection of one cluster, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierConfig {
    /// `consecutive_5xx`; 5 by default, 0 never detects.
    pub consecutive_5xx: u32,
    /// `consecutive_gateway_failure`, 5 by default.
    pub consecutive_gateway_failure: u32,
    /// `consecutive_local_origin_failure`, 5 by default.
    pub consecutive_local_origin_failure: u32,
    /// `split_external_local_origin_errors`.
    pub split_local_origin: bool,
    /// `interval` between the sweeps that bring hosts back, 10 s by default.
    pub interval: Duration,
    /// `base_ejection_time`, 30 s by default.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, 300 s by default (or the base, if that is longer).
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`, none by default.
    pub max_ejection_time_jitter: Duration,
    /// `max_ejection_percent`, 10 by default.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`.
    pub always_eject_one: bool,
    /// `enforcing_consecutive_5xx`, 100 by default.
    pub enforcing_5xx: u32,
    /// `enforcing_consecutive_gateway_failure`, 0 by default.
    pub enforcing_gateway: u32,
    /// `enforcing_consecutive_local_origin_failure`, 100 by default.
    pub enforcing_local_origin: u32,
}

/// What a host did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostResult {
    /// An HTTP response with this status.
    Http(u16),
    /// The connection could not be made or was reset by us or by the network.
    LocalOriginFailure,
    /// No response in time.
    LocalOriginTimeout,
    /// A connection was made (counts for TCP and in split mode).
    LocalOriginSuccess,
}

/// Why a host is suspected: the names in the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detection {
    /// `consecutive_5xx`.
    Consecutive5xx,
    /// `consecutive_gateway_failure`.
    ConsecutiveGatewayFailure,
    /// `consecutive_local_origin_failure`.
    ConsecutiveLocalOriginFailure,
}

impl Detection {
    /// As in `ejections_detected_<name>` and `ejections_enforced_<name>`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
        }
    }
}

/// The counters of one host; shared by all threads, no lock. Lives as long as the host is a member.
#[derive(Debug, Default)]
pub struct HostMonitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local_origin: AtomicU32,
}

impl HostMonitor {
    /// Counts a result. A detection is to be brought to [`Detector::detected`]; its counter restarts.
    pub fn record(&self, result: HostResult, config: &OutlierConfig) -> Option<Detection> {
        let _ = (
            &self.consecutive_5xx,
            &self.consecutive_gateway,
            &self.consecutive_local_origin,
        );
        unimplemented!("{result:?} {config:?}")
    }
}

/// What came of a detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The host is ejected now (`ejections_enforced_*`, `ejections_active`).
    Ejected {
        /// For so long, at least.
        duration: Duration,
    },
    /// Detected, but the enforcing percentage spared it.
    NotEnforced,
    /// Detected, but too many hosts are ejected already (`ejections_overflow`).
    Overflow,
    /// It is ejected already.
    Already,
}

/// The ejections of one cluster. `K` names a host (its address).
#[derive(Debug)]
pub struct Detector<K> {
    config: Arc<OutlierConfig>,
    hosts: HashMap<K, ()>,
}

impl OutlierConfig {
    /// Reads the configuration with Envoy's defaults.
    pub fn compile(config: &OutlierDetection) -> Self {
        unimplemented!("{config:?}")
    }
}

impl<K: std::hash::Hash + Eq + Clone> Detector<K> {
    /// Nothing ejected.
    pub fn new(config: Arc<OutlierConfig>) -> Self {
        Self {
            config,
            hosts: HashMap::new(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<OutlierConfig> {
        let _ = &self.hosts;
        &self.config
    }

    /// Decides about a detection. `members` is the number of hosts of the cluster now.
    pub fn detected(
        &mut self,
        host: &K,
        detection: Detection,
        members: usize,
        now: Time,
        random: &mut dyn FnMut() -> u64,
    ) -> Verdict {
        let _ = (host, detection, members, now, random());
        unimplemented!()
    }

    /// The sweep, due every `interval`: which hosts come back. Their monitors start anew.
    pub fn tick(&mut self, now: Time) -> Vec<K> {
        unimplemented!("{now:?}")
    }

    /// Whether a host is ejected.
    pub fn is_ejected(&self, host: &K) -> bool {
        self.hosts.contains_key(host)
    }

    /// The number of ejected hosts (`ejections_active`).
    pub fn active(&self) -> usize {
        unimplemented!()
    }

    /// Forgets hosts that are no longer members. The others keep their state.
    pub fn retain(&mut self, member: impl Fn(&K) -> bool) {
        self.hosts.retain(|host, ()| member(host));
    }
}
