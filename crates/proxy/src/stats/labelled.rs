//! Metrics with labels (Istio's standard metrics), kept in their Prometheus form.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Counter, Histogram};

/// One series.
#[derive(Clone)]
pub enum Series {
    /// A counter.
    Counter(Arc<Counter>),
    /// A histogram.
    Histogram(Arc<Histogram>),
}

/// All series, by metric name and rendered labels.
#[derive(Default)]
pub struct Labelled {
    series: RwLock<BTreeMap<String, BTreeMap<String, Series>>>,
}

impl Labelled {
    /// The counter of this metric with these labels (`a="b",c="d"`).
    pub fn counter(&self, metric: &str, labels: &str) -> Arc<Counter> {
        let mut series = self.series.write();
        let metric = series.entry(metric.to_owned()).or_default();
        match metric
            .entry(labels.to_owned())
            .or_insert_with(|| Series::Counter(Arc::default()))
        {
            Series::Counter(counter) => counter.clone(),
            Series::Histogram(_) => Arc::default(),
        }
    }

    /// The histogram of this metric with these labels.
    pub fn histogram(&self, metric: &str, labels: &str) -> Arc<Histogram> {
        let mut series = self.series.write();
        let metric = series.entry(metric.to_owned()).or_default();
        match metric
            .entry(labels.to_owned())
            .or_insert_with(|| Series::Histogram(Arc::default()))
        {
            Series::Histogram(histogram) => histogram.clone(),
            Series::Counter(_) => Arc::default(),
        }
    }

    /// Shows every series.
    pub fn visit(&self, see: &mut dyn FnMut(&str, &str, &Series)) {
        for (metric, series) in &*self.series.read() {
            for (labels, series) in series {
                see(metric, labels, series);
            }
        }
    }
}

/// Renders labels, values escaped as Prometheus wants.
pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}
