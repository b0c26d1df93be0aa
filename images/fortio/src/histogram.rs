//! Sums of what was measured: a counter, and a histogram with fortio's buckets. Pure.

use std::fmt::Write as _;

use crate::number::g;

/// The ends of the buckets, in units of the resolution.
const ENDS: [f64; 56] = [
    0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 14., 16., 18., 20., 25., 30., 35., 40.,
    45., 50., 60., 70., 80., 90., 100., 120., 140., 160., 180., 200., 250., 300., 350., 400., 450.,
    500., 600., 700., 800., 900., 1000., 2000., 3000., 4000., 5000., 7500., 10_000., 20_000.,
    30_000., 40_000., 50_000., 75_000., 100_000.,
];

/// Count, mean, spread and ends of a series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    squares: f64,
}

impl Counter {
    pub fn record(&mut self, value: f64) {
        if self.count == 0 || value < self.min {
            self.min = value;
        }
        if self.count == 0 || value > self.max {
            self.max = value;
        }
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    /// Both series as one.
    pub fn add(&mut self, other: &Counter) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum / as_f64(self.count)
        }
    }

    pub fn deviation(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let count = as_f64(self.count);
        let variance = (self.squares - self.sum * self.sum / count) / count;
        // What is left of rounding is no spread.
        variance.max(0.0).sqrt()
    }

    /// A line of the report.
    pub fn line(&self, name: &str) -> String {
        format!(
            "{name} : count {} avg {} +/- {} min {} max {} sum {}\n",
            self.count,
            g(self.mean(), Some(8)),
            g(self.deviation(), Some(4)),
            g(self.min, None),
            g(self.max, None),
            g(self.sum, Some(9)),
        )
    }
}

/// A counter that also knows how values are spread.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub counter: Counter,
    resolution: f64,
    /// One for each end, and one for what is beyond the last.
    buckets: Vec<u64>,
}

/// A bucket that holds something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub start: f64,
    pub end: f64,
    pub percent: f64,
    pub count: u64,
}

impl Histogram {
    pub fn new(resolution: f64) -> Self {
        Self {
            counter: Counter::default(),
            resolution,
            buckets: vec![0; ENDS.len() + 1],
        }
    }

    pub fn record(&mut self, value: f64) {
        self.counter.record(value);
        let scaled = value / self.resolution;
        let index = ENDS.partition_point(|end| *end < scaled);
        self.buckets[index] += 1;
    }

    /// Both series as one.
    pub fn add(&mut self, other: &Histogram) {
        self.counter.add(&other.counter);
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
    }

    /// The buckets that are not empty; the first begins at the minimum, the last ends at the maximum.
    pub fn filled(&self) -> Vec<Bucket> {
        let mut seen = 0;
        let mut filled: Vec<Bucket> = Vec::new();
        for (index, count) in self.buckets.iter().enumerate() {
            if *count == 0 {
                continue;
            }
            seen += count;
            let before = index.checked_sub(1).map_or(0.0, |before| ENDS[before]);
            let start = if filled.is_empty() {
                self.counter.min
            } else {
                before * self.resolution
            };
            let end = match ENDS.get(index) {
                Some(end) if seen < self.counter.count => end * self.resolution,
                _ => self.counter.max,
            };
            filled.push(Bucket {
                start,
                end,
                percent: 100.0 * as_f64(seen) / as_f64(self.counter.count),
                count: *count,
            });
        }
        filled
    }

    /// The value below which `percent` of the series is, interpolated in its bucket.
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut before = 0.0;
        for bucket in self.filled() {
            if percent <= bucket.percent {
                let width = bucket.percent - before;
                return bucket.start + (percent - before) / width * (bucket.end - bucket.start);
            }
            before = bucket.percent;
        }
        self.counter.max
    }

    /// The block of the report.
    pub fn block(&self, name: &str, percentiles: &[f64]) -> String {
        if self.counter.count == 0 {
            return format!("{name} : no data\n");
        }
        let mut text = self.counter.line(name);
        text.push_str("# range, mid point, percentile, count\n");
        for (index, bucket) in self.filled().iter().enumerate() {
            let _ = writeln!(
                text,
                "{} {} <= {} , {} , {:.2}, {}",
                if index == 0 { ">=" } else { ">" },
                g(bucket.start, Some(6)),
                g(bucket.end, Some(6)),
                g(f64::midpoint(bucket.start, bucket.end), Some(6)),
                bucket.percent,
                bucket.count
            );
        }
        for percent in percentiles {
            let _ = writeln!(
                text,
                "# target {}% {}",
                g(*percent, None),
                g(self.percentile(*percent), Some(6))
            );
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_buckets_and_percentiles_are_interpolated() {
        let mut histogram = Histogram::new(0.001);
        for value in [0.0012, 0.0018, 0.0025, 0.0055] {
            histogram.record(value);
        }
        assert_eq!(
            histogram.block("Aggregated Function Time", &[50.0, 75.0, 99.9]),
            "Aggregated Function Time : count 4 avg 0.00275 +/- 0.001653 min 0.0012 max 0.0055 sum 0.011\n\
             # range, mid point, percentile, count\n\
             >= 0.0012 <= 0.002 , 0.0016 , 50.00, 2\n\
             > 0.002 <= 0.003 , 0.0025 , 75.00, 1\n\
             > 0.005 <= 0.0055 , 0.00525 , 100.00, 1\n\
             # target 50% 0.002\n\
             # target 75% 0.003\n\
             # target 99.9% 0.005498\n"
        );
    }

    #[test]
    fn nothing_measured_is_told_in_one_line() {
        assert_eq!(
            Histogram::new(0.001).block("Error cases", &[50.0]),
            "Error cases : no data\n"
        );
    }
}
