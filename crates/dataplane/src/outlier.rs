//! Outlier detection: hosts that fail too often are taken out of the rotation for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use xds::envoy::config::cluster::v3::OutlierDetection;

use crate::cluster::duration;

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
    /// `enforcing_success_rate`.
    pub enforcing_success_rate: u32,
    /// `success_rate_minimum_hosts`.
    pub success_rate_minimum_hosts: u32,
    /// `success_rate_request_volume`.
    pub success_rate_request_volume: u32,
    /// `success_rate_stdev_factor`, in thousandths.
    pub success_rate_stdev_factor: u32,
    /// `enforcing_failure_percentage`.
    pub enforcing_failure_percentage: u32,
    /// `failure_percentage_threshold`.
    pub failure_percentage_threshold: u32,
    /// `failure_percentage_minimum_hosts`.
    pub failure_percentage_minimum_hosts: u32,
    /// `failure_percentage_request_volume`.
    pub failure_percentage_request_volume: u32,
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
    /// A connection was made, a request will follow on it: counts in split mode only.
    LocalOriginSuccess,
    /// A connection was made and that is all (TCP).
    TcpConnected,
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
    /// Its success rate lies far below that of the others.
    SuccessRate,
    /// Too large a share of its answers are failures.
    FailurePercentage,
}

impl Detection {
    /// As in `ejections_detected_<name>` and `ejections_enforced_<name>`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

/// The counters of one host; shared by all threads, no lock. Lives as long as the host is a member.
#[derive(Debug, Default)]
pub struct HostMonitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local_origin: AtomicU32,
    /// Answers of this interval, and the good ones among them.
    total: AtomicU32,
    good: AtomicU32,
}

impl HostMonitor {
    /// The answers of the interval that ends now, and the good ones among them.
    pub fn take_rate(&self) -> (u32, u32) {
        (
            self.total.swap(0, Ordering::Relaxed),
            self.good.swap(0, Ordering::Relaxed),
        )
    }

    /// Counts a result. Detections are to be brought to [`Detector::detected`], in this order; their counters
    /// restart, whatever comes of it.
    pub fn record(&self, result: HostResult, config: &OutlierConfig) -> [Option<Detection>; 2] {
        let status = match (result, config.split_local_origin) {
            (HostResult::Http(status), _) => status,
            (HostResult::LocalOriginFailure, false) => 503,
            (HostResult::LocalOriginTimeout, false) => 504,
            (HostResult::LocalOriginSuccess, false) => return [None, None],
            (HostResult::TcpConnected, false) => 200,
            (HostResult::LocalOriginFailure | HostResult::LocalOriginTimeout, true) => {
                let hit = count(
                    &self.consecutive_local_origin,
                    config.consecutive_local_origin_failure,
                );
                return [
                    hit.then_some(Detection::ConsecutiveLocalOriginFailure),
                    None,
                ];
            }
            (HostResult::LocalOriginSuccess | HostResult::TcpConnected, true) => {
                reset(&self.consecutive_local_origin);
                return [None, None];
            }
        };
        self.total.fetch_add(1, Ordering::Relaxed);
        if !(500..600).contains(&status) {
            self.good.fetch_add(1, Ordering::Relaxed);
            reset(&self.consecutive_5xx);
            reset(&self.consecutive_gateway);
            return [None, None];
        }
        let gateway = if (502..=504).contains(&status) {
            count(
                &self.consecutive_gateway,
                config.consecutive_gateway_failure,
            )
        } else {
            reset(&self.consecutive_gateway);
            false
        };
        let all = count(&self.consecutive_5xx, config.consecutive_5xx);
        [
            gateway.then_some(Detection::ConsecutiveGatewayFailure),
            all.then_some(Detection::Consecutive5xx),
        ]
    }

    /// Starts anew: the host came back.
    pub fn reset(&self) {
        reset(&self.consecutive_5xx);
        reset(&self.consecutive_gateway);
        reset(&self.consecutive_local_origin);
    }
}

/// Counts one more; whether that reaches the threshold. Then counting starts from 0. Of several threads
/// exactly one reaches it.
fn count(counter: &AtomicU32, threshold: u32) -> bool {
    let reached = counter.fetch_add(1, Ordering::Relaxed) + 1 == threshold;
    if reached {
        counter.store(0, Ordering::Relaxed);
    }
    reached
}

/// The usual case is a success after a success: it only reads.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
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
    hosts: HashMap<K, HostState>,
}

#[derive(Debug, Default, Clone, Copy)]
struct HostState {
    /// When it was ejected and how much longer than otherwise it stays out.
    ejected: Option<(Time, Duration)>,
    /// How often in a row: the multiplier of the base time.
    times: u32,
}

impl OutlierConfig {
    /// Reads the configuration with Envoy's defaults.
    pub fn compile(config: &OutlierDetection) -> Self {
        let time = |value: &Option<prost_types::Duration>, default| {
            duration(value.as_ref()).unwrap_or(default)
        };
        let base_ejection_time = time(&config.base_ejection_time, Duration::from_secs(30));
        Self {
            consecutive_5xx: config.consecutive_5xx.unwrap_or(5),
            consecutive_gateway_failure: config.consecutive_gateway_failure.unwrap_or(5),
            consecutive_local_origin_failure: config.consecutive_local_origin_failure.unwrap_or(5),
            split_local_origin: config.split_external_local_origin_errors,
            interval: time(&config.interval, Duration::from_secs(10)),
            base_ejection_time,
            max_ejection_time: time(&config.max_ejection_time, Duration::from_secs(300))
                .max(base_ejection_time),
            max_ejection_time_jitter: time(&config.max_ejection_time_jitter, Duration::ZERO),
            max_ejection_percent: config.max_ejection_percent.unwrap_or(10).min(100),
            always_eject_one: config.always_eject_one_host.unwrap_or(false),
            enforcing_5xx: config.enforcing_consecutive_5xx.unwrap_or(100),
            enforcing_success_rate: config.enforcing_success_rate.unwrap_or(100),
            success_rate_minimum_hosts: config.success_rate_minimum_hosts.unwrap_or(5),
            success_rate_request_volume: config.success_rate_request_volume.unwrap_or(100),
            success_rate_stdev_factor: config.success_rate_stdev_factor.unwrap_or(1900),
            enforcing_failure_percentage: config.enforcing_failure_percentage.unwrap_or(0),
            failure_percentage_threshold: config.failure_percentage_threshold.unwrap_or(85),
            failure_percentage_minimum_hosts: config.failure_percentage_minimum_hosts.unwrap_or(5),
            failure_percentage_request_volume: config
                .failure_percentage_request_volume
                .unwrap_or(50),
            enforcing_gateway: config.enforcing_consecutive_gateway_failure.unwrap_or(0),
            enforcing_local_origin: config
                .enforcing_consecutive_local_origin_failure
                .unwrap_or(100),
        }
    }

    fn enforcing(&self, detection: Detection) -> u32 {
        match detection {
            Detection::Consecutive5xx => self.enforcing_5xx,
            Detection::ConsecutiveGatewayFailure => self.enforcing_gateway,
            Detection::ConsecutiveLocalOriginFailure => self.enforcing_local_origin,
            Detection::SuccessRate => self.enforcing_success_rate,
            Detection::FailurePercentage => self.enforcing_failure_percentage,
        }
    }

    /// How long a host stays out that is ejected for the n-th time in a row.
    /// Which hosts stand out by the share of their good answers in an interval. `measured` has for each host that is
    /// not ejected the number of its answers and of the good ones; what comes back are indices into it.
    pub fn outliers_by_rate(&self, measured: &[(u32, u32)]) -> Vec<(usize, Detection)> {
        let rates = |volume: u32| -> Vec<(usize, f64)> {
            measured
                .iter()
                .enumerate()
                .filter(|(_, (total, _))| *total > 0 && *total >= volume)
                .map(|(index, (total, good))| (index, 100.0 * f64::from(*good) / f64::from(*total)))
                .collect()
        };
        let mut found = Vec::new();
        let known = rates(self.success_rate_request_volume);
        if !known.is_empty() && known.len() >= self.success_rate_minimum_hosts as usize {
            let count = known.len() as f64;
            let mean = known.iter().map(|(_, rate)| rate).sum::<f64>() / count;
            let variance = known
                .iter()
                .map(|(_, rate)| (rate - mean).powi(2))
                .sum::<f64>()
                / count;
            let threshold =
                mean - f64::from(self.success_rate_stdev_factor) / 1000.0 * variance.sqrt();
            let low = known.iter().filter(|(_, rate)| *rate < threshold);
            found.extend(low.map(|(index, _)| (*index, Detection::SuccessRate)));
        }
        let known = rates(self.failure_percentage_request_volume);
        if known.len() >= self.failure_percentage_minimum_hosts as usize {
            let limit = f64::from(self.failure_percentage_threshold);
            let failing = known.iter().filter(|(_, rate)| 100.0 - rate >= limit);
            found.extend(failing.map(|(index, _)| (*index, Detection::FailurePercentage)));
        }
        found
    }

    fn ejection_time(&self, times: u32) -> Duration {
        self.base_ejection_time
            .saturating_mul(times)
            .min(self.max_ejection_time)
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
        if self.is_ejected(host) {
            return Verdict::Already;
        }
        let active = self.active();
        let percent = 100.0 * (active + 1) as f64 / members.max(1) as f64;
        let spared = active == 0 && self.config.always_eject_one;
        if percent > f64::from(self.config.max_ejection_percent) && !spared {
            return Verdict::Overflow;
        }
        let enforcing = u64::from(self.config.enforcing(detection));
        if enforcing < 100 && (enforcing == 0 || random() % 100 >= enforcing) {
            return Verdict::NotEnforced;
        }
        let max_jitter =
            u64::try_from(self.config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX);
        let jitter = if max_jitter > 0 {
            Duration::from_millis(random() % max_jitter)
        } else {
            Duration::ZERO
        };
        let state = self.hosts.entry(host.clone()).or_default();
        state.ejected = Some((now, jitter));
        // The multiplier stops growing where it has no effect any more.
        if self.config.base_ejection_time.saturating_mul(state.times)
            < self.config.max_ejection_time + self.config.base_ejection_time
        {
            state.times += 1;
        }
        Verdict::Ejected {
            duration: self.config.ejection_time(state.times) + jitter,
        }
    }

    /// The sweep, due every `interval`: which hosts come back. Their monitors are to be reset.
    pub fn tick(&mut self, now: Time) -> Vec<K> {
        let mut back = Vec::new();
        for (host, state) in &mut self.hosts {
            match state.ejected {
                None => state.times = state.times.saturating_sub(1),
                Some((since, jitter)) => {
                    if now.saturating_sub(since) >= self.config.ejection_time(state.times) + jitter
                    {
                        state.ejected = None;
                        back.push(host.clone());
                    }
                }
            }
        }
        self.hosts
            .retain(|_, state| state.ejected.is_some() || state.times > 0);
        back
    }

    /// Whether a host is ejected.
    pub fn is_ejected(&self, host: &K) -> bool {
        self.hosts
            .get(host)
            .is_some_and(|state| state.ejected.is_some())
    }

    /// The number of ejected hosts (`ejections_active`).
    pub fn active(&self) -> usize {
        self.hosts
            .values()
            .filter(|state| state.ejected.is_some())
            .count()
    }

    /// Forgets hosts that are no longer members. The others keep their state.
    pub fn retain(&mut self, member: impl Fn(&K) -> bool) {
        self.hosts.retain(|host, _| member(host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> Arc<OutlierConfig> {
        Arc::new(OutlierConfig::compile(
            &xds::json::from_value(json, true).expect("a valid message"),
        ))
    }

    fn sec(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    fn never() -> u64 {
        panic!("no draw is needed")
    }

    const FIVE: Detection = Detection::Consecutive5xx;

    #[test]
    fn the_default_percentage_never_ejects_one_of_two() {
        let mut detector = Detector::new(config(serde_json::json!({"consecutive_5xx": 3})));
        assert_eq!(
            detector.detected(&"a", FIVE, 2, sec(0), &mut never),
            Verdict::Overflow
        );
        assert!(matches!(
            detector.detected(&"a", FIVE, 10, sec(0), &mut never),
            Verdict::Ejected { .. }
        ));
        assert_eq!(
            detector.detected(&"b", FIVE, 10, sec(0), &mut never),
            Verdict::Overflow,
            "20 % would be out"
        );
        let mut one = Detector::new(config(serde_json::json!({"always_eject_one_host": true})));
        assert!(matches!(
            one.detected(&"a", FIVE, 2, sec(0), &mut never),
            Verdict::Ejected { .. }
        ));
        assert_eq!(
            one.detected(&"b", FIVE, 2, sec(0), &mut never),
            Verdict::Overflow
        );
    }

    #[test]
    fn hosts_come_back_at_a_sweep_and_stay_out_longer_each_time() {
        let json = serde_json::json!({"base_ejection_time": "3s", "interval": "1s", "max_ejection_percent": 100});
        let mut detector = Detector::new(config(json));
        let eject = |detector: &mut Detector<&str>, now| match detector.detected(
            &"a",
            FIVE,
            1,
            sec(now),
            &mut never,
        ) {
            Verdict::Ejected { duration } => duration.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(eject(&mut detector, 0), 3);
        assert_eq!(
            detector.detected(&"a", FIVE, 1, sec(1), &mut never),
            Verdict::Already
        );
        assert!(detector.tick(sec(2)).is_empty());
        assert_eq!(detector.tick(sec(3)), ["a"]);
        assert_eq!(eject(&mut detector, 3), 6, "no healthy sweep in between");
        assert_eq!(detector.tick(sec(9)), ["a"]);
        detector.tick(sec(10));
        detector.tick(sec(11));
        assert_eq!(eject(&mut detector, 11), 3, "two healthy sweeps");
        detector.retain(|_| false);
        assert_eq!(detector.active(), 0);
    }

    #[test]
    fn failures_must_be_consecutive_and_counting_restarts() {
        let config =
            config(serde_json::json!({"consecutive_5xx": 3, "consecutive_gateway_failure": 2}));
        let monitor = HostMonitor::default();
        let record = |result| monitor.record(result, &config);
        let mut detections = 0;
        for _ in 0..7 {
            detections += record(HostResult::Http(500))[1].iter().count();
        }
        assert_eq!(detections, 2, "7 failures at threshold 3");
        record(HostResult::Http(200));
        assert_eq!(record(HostResult::Http(503)), [None, None]);
        assert_eq!(
            record(HostResult::Http(500)),
            [None, None],
            "500 resets the gateway counter"
        );
        assert_eq!(
            record(HostResult::Http(502)),
            [None, Some(Detection::Consecutive5xx)]
        );
        assert_eq!(
            record(HostResult::LocalOriginTimeout),
            [Some(Detection::ConsecutiveGatewayFailure), None]
        );
        assert_eq!(record(HostResult::LocalOriginSuccess), [None, None]);
    }

    #[test]
    fn split_mode_counts_local_failures_apart() {
        let config = config(
            serde_json::json!({"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 2}),
        );
        let monitor = HostMonitor::default();
        assert_eq!(
            monitor.record(HostResult::LocalOriginFailure, &config),
            [None, None]
        );
        monitor.record(HostResult::LocalOriginSuccess, &config);
        assert_eq!(
            monitor.record(HostResult::LocalOriginFailure, &config),
            [None, None]
        );
        monitor.record(HostResult::Http(200), &config);
        let second = monitor.record(HostResult::LocalOriginFailure, &config);
        assert_eq!(
            second,
            [Some(Detection::ConsecutiveLocalOriginFailure), None]
        );
    }

    #[test]
    fn enforcement_is_drawn_and_zero_thresholds_never_fire() {
        let mut detector = Detector::new(config(
            serde_json::json!({"enforcing_consecutive_5xx": 50, "max_ejection_percent": 100}),
        ));
        assert_eq!(
            detector.detected(&"a", FIVE, 2, sec(0), &mut || 50),
            Verdict::NotEnforced
        );
        assert_eq!(
            detector.detected(
                &"a",
                Detection::ConsecutiveGatewayFailure,
                2,
                sec(0),
                &mut never
            ),
            Verdict::NotEnforced
        );
        assert!(matches!(
            detector.detected(&"a", FIVE, 2, sec(0), &mut || 49),
            Verdict::Ejected { .. }
        ));
        let off = config(serde_json::json!({"consecutive_5xx": 0}));
        let monitor = HostMonitor::default();
        assert!((0..100).all(|_| monitor.record(HostResult::Http(500), &off) == [None, None]));
    }
}
