//! When to probe, and when a run of answers becomes a verdict.

use k8s_openapi::api::core::v1::Probe;

use crate::clock::Millis;
use crate::pod_sync::ProbeKind;

/// The first gap between eager attempts.
const EAGER: Millis = 50;

/// A verdict that the pod's state machine has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Past the success threshold.
    Healthy,
    /// Past the failure threshold.
    Unhealthy,
}

/// What follows from one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The new verdict, if it changed (startup and liveness failures: each time the threshold is reached).
    pub verdict: Option<Verdict>,
    /// Whether the failure counts, and is worth an event.
    pub counted_failure: bool,
    /// When to ask again.
    pub at: Millis,
}

/// The timing of one probe of one container instance.
///
/// Kubernetes asks once a period. Before the first success of a startup or readiness probe this asks
/// eagerly, every 50 ms and then ever slower (a tenth of the time waited so far, at most the period),
/// so that a container that is ready counts as ready at once. Failures count only once a period, so
/// that `failureThreshold` means the same time as in Kubernetes.
#[derive(Clone, Debug)]
pub struct Schedule {
    period: Millis,
    /// How long one attempt may take.
    pub timeout: Millis,
    success_threshold: u32,
    failure_threshold: u32,
    eager: bool,
    kind: ProbeKind,
    begin: Millis,
    counted_until: Millis,
    successes: u32,
    failures: u32,
    verdict: Option<Verdict>,
}

impl Schedule {
    /// The schedule of `probe` for an instance that started at `started`.
    pub fn new(probe: &Probe, kind: ProbeKind, started: Millis) -> Self {
        let seconds = |value: Option<i32>, default: i32, least: i32| {
            Millis::try_from(value.filter(|value| *value >= least).unwrap_or(default)).unwrap_or(0)
                * 1000
        };
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        let begin = started + seconds(probe.initial_delay_seconds, 0, 0);
        Self {
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            eager: kind != ProbeKind::Liveness,
            kind,
            begin,
            counted_until: begin,
            successes: 0,
            failures: 0,
            verdict: None,
        }
    }

    /// When to ask for the first time.
    pub fn first(&self) -> Millis {
        self.begin
    }

    /// Takes in an answer that arrived at `now`.
    pub fn record(&mut self, success: bool, now: Millis) -> Next {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            let reached = self.successes >= self.success_threshold;
            let verdict =
                (reached && self.verdict != Some(Verdict::Healthy)).then_some(Verdict::Healthy);
            if reached {
                self.eager = false;
                self.verdict = Some(Verdict::Healthy);
            }
            self.counted_until = now;
            return Next {
                verdict,
                counted_failure: false,
                at: now + self.period,
            };
        }
        self.successes = 0;
        let counted = !self.eager || now >= self.counted_until + self.period;
        let mut verdict = None;
        if counted {
            self.counted_until = now;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.failure_threshold {
                // A readiness verdict is said once; the others end the instance.
                verdict = (self.verdict != Some(Verdict::Unhealthy)
                    || self.kind != ProbeKind::Readiness)
                    .then_some(Verdict::Unhealthy);
                self.verdict = Some(Verdict::Unhealthy);
            }
        }
        let gap = if self.eager {
            (now.saturating_sub(self.begin) / 10).clamp(EAGER, self.period)
        } else {
            self.period
        };
        Next {
            verdict,
            counted_failure: counted,
            at: now + gap,
        }
    }
}
