//! Histograms with two significant digits, like Envoy's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const EXPONENTS: usize = 11;
const PER_EXPONENT: usize = 90;
const BINS: usize = 1 + EXPONENTS * PER_EXPONENT;

/// The bucket bounds Envoy and Istio show to Prometheus, in the unit of the histogram.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles of the text form.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// A histogram; takes memory only when something was recorded.
#[derive(Default)]
pub struct Histogram {
    bins: OnceLock<Box<[AtomicU64]>>,
    sum: AtomicU64,
}

impl Histogram {
    /// Records a value.
    pub fn record(&self, value: u64) {
        let bins = self
            .bins
            .get_or_init(|| (0..BINS).map(|_| AtomicU64::new(0)).collect());
        bins[bin(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.bins.get().map_or(0, |bins| {
            bins.iter().map(|bin| bin.load(Ordering::Relaxed)).sum()
        })
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// How many values were at most so large.
    pub fn at_most(&self, bound: f64) -> u64 {
        self.bins.get().map_or(0, |bins| {
            bins.iter()
                .enumerate()
                .take_while(|(at, _)| lower(*at) <= bound)
                .map(|(_, n)| n.load(Ordering::Relaxed))
                .sum()
        })
    }

    /// The value below which this share of all values lies; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let bins = self.bins.get()?;
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = share * total as f64;
        let mut below = 0.0;
        let mut last = 0.0;
        for (at, bin) in bins.iter().enumerate() {
            let n = bin.load(Ordering::Relaxed) as f64;
            if n == 0.0 {
                continue;
            }
            let (low, high) = (lower(at), upper(at));
            if below + n >= wanted {
                return Some(low + (high - low) * ((wanted - below) / n).clamp(0.0, 1.0));
            }
            below += n;
            last = high;
        }
        Some(last)
    }

    /// Forgets everything.
    pub fn reset(&self) {
        if let Some(bins) = self.bins.get() {
            for bin in bins {
                bin.store(0, Ordering::Relaxed);
            }
        }
        self.sum.store(0, Ordering::Relaxed);
    }
}

fn bin(value: u64) -> usize {
    if value == 0 {
        return 0;
    }
    let exponent = (value.ilog10() as usize).min(EXPONENTS - 1);
    let mantissa = if exponent == 0 {
        value * 10
    } else {
        value / 10u64.pow(exponent as u32 - 1)
    };
    1 + exponent * PER_EXPONENT + (mantissa.min(99) as usize - 10)
}

fn lower(bin: usize) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let (exponent, mantissa) = ((bin - 1) / PER_EXPONENT, (bin - 1) % PER_EXPONENT + 10);
    mantissa as f64 * 10f64.powi(exponent as i32 - 1)
}

fn upper(bin: usize) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let (exponent, mantissa) = ((bin - 1) / PER_EXPONENT, (bin - 1) % PER_EXPONENT + 10);
    (mantissa + 1) as f64 * 10f64.powi(exponent as i32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_again() {
        let histogram = Histogram::default();
        for value in [0, 1, 5, 10, 99, 100, 12_345] {
            histogram.record(value);
        }
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.at_most(0.5), 1);
        assert_eq!(histogram.at_most(1.0), 2);
        assert_eq!(histogram.at_most(10.0), 4);
        assert_eq!(histogram.at_most(100.0), 6);
        assert_eq!(histogram.at_most(30_000.0), 7);
        assert_eq!(histogram.quantile(1.0), Some(13_000.0));
    }

    #[test]
    fn an_empty_histogram_takes_no_memory() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        assert!(histogram.bins.get().is_none());
    }
}
