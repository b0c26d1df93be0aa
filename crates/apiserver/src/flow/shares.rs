//! How many requests each priority level may run at once: its share of the server's seats, and what it lends and borrows.

use serde_json::Value;

/// Seats of the whole server, as `--max-requests-inflight` and `--max-mutating-requests-inflight` add up by default.
pub(crate) const SEATS: u32 = 600;
/// How much of the demand of long ago remains after each adjustment.
const SMOOTHING: f64 = 0.977;

/// What a level asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wish {
    pub exempt: bool,
    pub shares: u32,
    pub lendable_percent: u32,
    /// `None`: as much as there is.
    pub borrowing_percent: Option<u32>,
}

/// What a level gets of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    /// Its fair part.
    pub nominal: u32,
    /// What remains when it has lent all that it may.
    pub lower: u32,
    /// What it has when it has borrowed all that it may.
    pub upper: u32,
}

/// How many seats a level wanted lately.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Demand {
    pub high: u32,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Wish {
    /// Reads the spec of a PriorityLevelConfiguration.
    pub fn of(spec: &Value) -> Self {
        let exempt = spec["type"] == "Exempt";
        let own = &spec[if exempt { "exempt" } else { "limited" }];
        let number = |field: &str| own[field].as_u64().and_then(|n| u32::try_from(n).ok());
        Self {
            exempt,
            shares: number("nominalConcurrencyShares").unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: number("lendablePercent").unwrap_or(0).min(100),
            borrowing_percent: number("borrowingLimitPercent"),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // seats are small and not negative
fn seats(n: f64) -> u32 {
    n.max(0.0) as u32
}

fn percent(of: u32, percent: u32) -> u32 {
    seats((f64::from(of) * f64::from(percent) / 100.0).round())
}

/// Divides `total` seats by shares.
pub(crate) fn limits(total: u32, wishes: &[Wish]) -> Vec<Limits> {
    let sum: f64 = wishes.iter().map(|w| f64::from(w.shares)).sum();
    let one = |wish: &Wish| {
        let part = f64::from(total) * f64::from(wish.shares) / sum.max(1.0);
        let nominal = seats(part.ceil());
        let borrowed = wish
            .borrowing_percent
            .map_or(total, |p| percent(nominal, p));
        Limits {
            nominal,
            lower: nominal - percent(nominal, wish.lendable_percent),
            upper: nominal + borrowed,
        }
    };
    wishes.iter().map(one).collect()
}

/// The demand after another period, in which it had this peak, average and deviation.
pub(crate) fn demand(before: &Demand, high: u32, average: f64, deviation: f64) -> Demand {
    let envelope = f64::from(high).min(average + deviation);
    let faded = SMOOTHING * before.smoothed + (1.0 - SMOOTHING) * envelope;
    Demand {
        high,
        average,
        deviation,
        smoothed: envelope.max(faded),
    }
}

/// What each level may use until the next adjustment: all get the same part of what they want, within their bounds, so that
/// everything is given out. An exempt level has what it used, and the others share the rest.
pub(crate) fn lend(levels: &[(bool, Limits, Demand)]) -> Vec<u32> {
    let total: u32 = levels.iter().map(|(_, l, _)| l.nominal).sum();
    let least = |l: &Limits, d: &Demand| l.lower.max(l.nominal.min(d.high));
    let exempt = |l: &Limits, d: &Demand| l.lower.max(d.high);
    let others = || levels.iter().filter(|(e, _, _)| !e);
    let used: u32 = levels
        .iter()
        .filter(|(e, _, _)| *e)
        .map(|(_, l, d)| exempt(l, d))
        .sum();
    let remaining = total.saturating_sub(used);
    let lowest: u32 = others().map(|(_, l, _)| l.lower).sum();
    let leasts: u32 = others().map(|(_, l, d)| least(l, d)).sum();
    let share = |fraction: f64, l: &Limits, d: &Demand| {
        let low = f64::from(least(l, d));
        let target = low.max(d.smoothed).max(0.001);
        (fraction * target).clamp(low, f64::from(l.upper).max(low))
    };
    let fair = (remaining > leasts).then(|| {
        // What is given out grows with the fraction; bounds make it no straight line.
        let (mut low, mut high) = (0.0, f64::from(total) * 1000.0);
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            let sum: f64 = others().map(|(_, l, d)| share(middle, l, d)).sum();
            if sum < f64::from(total) {
                low = middle
            } else {
                high = middle
            }
        }
        low
    });
    let between = f64::from(remaining.saturating_sub(lowest)) / f64::from((leasts - lowest).max(1));
    let one = |(is_exempt, l, d): &(bool, Limits, Demand)| match fair {
        _ if *is_exempt => exempt(l, d),
        Some(fraction) => seats(share(fraction, l, d).round()),
        None => l.lower + seats((f64::from(least(l, d) - l.lower) * between.min(1.0)).round()),
    };
    levels.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_a_fresh_cluster_get_the_seats_that_a_real_one_gives_them() {
        let levels: Vec<(&str, Wish)> = api::flowcontrol::defaults()
            .iter()
            .filter(|o| o["kind"] == "PriorityLevelConfiguration")
            .map(|o| (api::meta::name(o), Wish::of(&o["spec"])))
            .collect();
        let wishes: Vec<Wish> = levels.iter().map(|(_, w)| *w).collect();
        let got: Vec<(&str, u32, u32)> = levels
            .iter()
            .zip(limits(SEATS, &wishes))
            .map(|((name, _), l)| (*name, l.nominal, l.lower))
            .collect();
        // apiserver_flowcontrol_{nominal,lower}_limit_seats of a kube-apiserver 1.32.0.
        let want = [
            ("catch-all", 13, 13),
            ("exempt", 0, 0),
            ("global-default", 49, 24),
            ("leader-election", 25, 25),
            ("node-high", 98, 73),
            ("system", 74, 50),
            ("workload-high", 98, 49),
            ("workload-low", 245, 24),
        ];
        assert_eq!(got, want);
    }

    fn limited(nominal: u32, lower: u32, upper: u32) -> Limits {
        Limits {
            nominal,
            lower,
            upper,
        }
    }

    fn wanted(high: u32) -> Demand {
        demand(&Demand::default(), high, f64::from(high), 0.0)
    }

    #[test]
    fn who_wants_more_borrows_what_others_do_not_use() {
        let busy = (false, limited(10, 5, 100), wanted(40));
        let idle = (false, limited(30, 10, 100), wanted(0));
        let got = lend(&[busy, idle]);
        assert_eq!(got.iter().sum::<u32>(), 40);
        assert!(got[0] > 10 && got[1] >= 10, "{got:?}");
        let stingy = (false, limited(30, 30, 100), wanted(0));
        assert_eq!(
            lend(&[busy, stingy]),
            [10, 30],
            "nothing is taken that may not be lent"
        );
        let modest = (false, limited(10, 5, 12), wanted(40));
        assert_eq!(
            lend(&[modest, idle]),
            [12, 28],
            "nobody borrows more than it may"
        );
    }

    #[test]
    fn an_exempt_level_takes_from_the_others_down_to_what_is_theirs() {
        let exempt = (true, limited(0, 0, 100), wanted(1000));
        let a = (false, limited(20, 10, 100), wanted(50));
        assert_eq!(lend(&[exempt, a]), [1000, 10]);
    }

    #[test]
    fn demand_rises_at_once_and_fades_slowly() {
        let risen = demand(&Demand::default(), 10, 8.0, 1.0);
        assert!((risen.smoothed - 9.0).abs() < 1e-9);
        let faded = demand(&risen, 0, 0.0, 0.0);
        assert!(faded.smoothed > 8.5 && faded.smoothed < 9.0);
    }
}
