//! How fast and how soon a recommendation is followed: limits, policies, stabilization windows.

use api::time::Time;
use serde_json::Value;
use time::Duration;

use crate::object::{int, items};

/// How long a scale-down waits for a higher recommendation when the autoscaler does not say.
const SCALE_DOWN_WINDOW: Duration = Duration::minutes(5);

/// What earlier looks at one autoscaler recommended and did. A controller keeps it in memory, as the real one does.
#[derive(Debug, Clone, Default)]
pub struct History {
    recommended: Vec<(Time, i64)>,
    /// Changes of the scale, with sign.
    changes: Vec<(Time, i64)>,
}

impl History {
    /// The first look counts what is there as a recommendation.
    pub(super) fn begin(&mut self, replicas: i64, now: Time) {
        if self.recommended.is_empty() {
            self.recommended.push((now, replicas));
        }
    }

    fn recommend(&mut self, replicas: i64, longest: Duration, now: Time) {
        self.recommended.retain(|(at, _)| *at >= now - longest);
        self.recommended.push((now, replicas));
    }

    /// Notes a change of the scale, which policies count.
    pub(super) fn scaled(&mut self, behavior: &Value, change: i64, now: Time) {
        if !behavior.is_object() {
            return;
        }
        let longest = ["scaleUp", "scaleDown"]
            .iter()
            .flat_map(|direction| items(&behavior[direction]["policies"]))
            .map(|policy| int(&policy["periodSeconds"]))
            .max();
        let longest = Duration::seconds(longest.unwrap_or(0));
        self.changes.retain(|(at, _)| *at > now - longest);
        self.changes.push((now, change));
    }

    /// What the number of replicas was so many seconds ago, by the changes since.
    fn before(&self, current: i64, seconds: i64, now: Time) -> i64 {
        let since = now - Duration::seconds(seconds);
        let changed: i64 = self
            .changes
            .iter()
            .filter(|(at, _)| *at > since)
            .map(|(_, change)| change)
            .sum();
        current - changed
    }
}

/// A reason and a message of a condition.
type Reason = (&'static str, &'static str);

/// A recommendation after all limits.
#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    pub replicas: i64,
    /// Of condition `AbleToScale`.
    pub able: Reason,
    /// Of condition `ScalingLimited`, and whether it holds.
    pub limit: Reason,
    pub limited: bool,
}

const READY: Reason = ("ReadyForNewScale", "recommended size matches current size");
const HELD_UP: Reason = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const HELD_DOWN: Reason = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: Reason = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const UP_LIMIT: Reason = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Reason = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Reason = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const TOO_FEW: Reason = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);

/// Brings a recommendation within what the autoscaler allows at this moment.
pub(super) fn normalize(
    behavior: &Value,
    history: &mut History,
    current: i64,
    wanted: i64,
    least: i64,
    most: i64,
    now: Time,
) -> Judged {
    let (steady, able) = if behavior.is_object() {
        stabilized_by_rules(behavior, history, current, wanted, now)
    } else {
        let recent = history
            .recommended
            .iter()
            .filter(|(at, _)| *at >= now - SCALE_DOWN_WINDOW);
        let steady = recent.map(|(_, n)| *n).fold(wanted, i64::max);
        history.recommend(wanted, SCALE_DOWN_WINDOW, now);
        (steady, HELD_DOWN)
    };
    let (replicas, limit) = if behavior.is_object() {
        limited_by_rules(behavior, history, current, steady, least, most, now)
    } else {
        limited(current, steady, least, most)
    };
    Judged {
        replicas,
        able: if steady == wanted { READY } else { able },
        limit,
        limited: replicas != steady,
    }
}

/// Without rules: at most twice as many (or four) at once.
fn limited(current: i64, wanted: i64, least: i64, most: i64) -> (i64, Reason) {
    let rate = (2 * current).max(4);
    let (ceiling, reason) = if most > rate {
        (rate, UP_LIMIT)
    } else {
        (most, TOO_MANY)
    };
    if wanted < least {
        (least, TOO_FEW)
    } else if wanted > ceiling {
        (ceiling, reason)
    } else {
        (wanted, WITHIN)
    }
}

/// Not above the lowest recommendation of the window of scaling up, not below the highest of that of scaling down.
fn stabilized_by_rules(
    behavior: &Value,
    history: &mut History,
    current: i64,
    wanted: i64,
    now: Time,
) -> (i64, Reason) {
    let window = |direction: &str, default: Duration| {
        behavior[direction]["stabilizationWindowSeconds"]
            .as_i64()
            .map_or(default, Duration::seconds)
    };
    let (up, down) = (
        window("scaleUp", Duration::ZERO),
        window("scaleDown", SCALE_DOWN_WINDOW),
    );
    let within = |length: Duration| {
        history
            .recommended
            .iter()
            .filter(move |(at, _)| *at > now - length)
            .map(|(_, n)| *n)
    };
    let lowest = within(up).fold(wanted, i64::min);
    let highest = within(down).fold(wanted, i64::max);
    let steady = current.max(lowest).min(highest);
    history.recommend(wanted, up.max(down), now);
    (
        steady,
        if wanted >= current {
            HELD_UP
        } else {
            HELD_DOWN
        },
    )
}

fn limited_by_rules(
    behavior: &Value,
    history: &History,
    current: i64,
    wanted: i64,
    least: i64,
    most: i64,
    now: Time,
) -> (i64, Reason) {
    if wanted > current {
        let rate = rate(&behavior["scaleUp"], true, history, current, now).max(current);
        let (ceiling, reason) = if most > rate {
            (rate, UP_LIMIT)
        } else {
            (most, TOO_MANY)
        };
        if wanted > ceiling {
            return (ceiling, reason);
        }
    } else if wanted < current {
        let rate = rate(&behavior["scaleDown"], false, history, current, now).min(current);
        let (floor, reason) = if least < rate {
            (rate, DOWN_LIMIT)
        } else {
            (least, TOO_FEW)
        };
        if wanted < floor {
            return (floor, reason);
        }
    }
    (wanted, WITHIN)
}

/// The furthest number of replicas the policies of one direction allow now.
fn rate(rules: &Value, up: bool, history: &History, current: i64, now: Time) -> i64 {
    let select = rules["selectPolicy"].as_str().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let allowed = items(&rules["policies"]).iter().map(|policy| {
        let start = history.before(current, int(&policy["periodSeconds"]), now);
        let value = int(&policy["value"]);
        // Upwards a share is rounded up, so that few replicas can grow at all; downwards towards fewer.
        match (policy["type"] == "Percent", up) {
            (false, true) => start + value,
            (false, false) => start - value,
            (true, true) => start + (start * value + 99).div_euclid(100),
            (true, false) => (start * (100 - value)) / 100,
        }
    });
    // `Max` is the policy that changes most: upwards the greatest number, downwards the smallest.
    let greatest = up == (select == "Max");
    if greatest {
        allowed.max()
    } else {
        allowed.min()
    }
    .unwrap_or(current)
}
