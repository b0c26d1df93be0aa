//! Statistics as text, JSON and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Value as Json, json};

use super::histogram::{BUCKETS, QUANTILES};
use super::labelled::Series;
use super::tags::Tags;
use super::{Histogram, Registry, Value};

/// What to show.
#[derive(Default)]
pub struct Query {
    /// Only names this expression is found in.
    pub filter: Option<Regex>,
    /// Only what was used.
    pub used_only: bool,
    /// Only `Counters`, `Gauges` or `Histograms`.
    pub kind: Option<String>,
}

impl Query {
    fn wants(&self, name: &str, value: &Value<'_>) -> bool {
        let kind = match value {
            Value::Counter(_) => "Counters",
            Value::Gauge(..) => "Gauges",
            Value::Histogram(_) => "Histograms",
        };
        if self
            .kind
            .as_ref()
            .is_some_and(|wanted| wanted != "All" && wanted != kind)
        {
            return false;
        }
        if self.used_only {
            let used = match value {
                Value::Counter(value) => *value > 0,
                Value::Gauge(_, used) => *used,
                Value::Histogram(histogram) => histogram.count() > 0,
            };
            if !used {
                return false;
            }
        }
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(name))
    }
}

/// `name: value` lines, counters and gauges first.
pub fn text(stats: &Registry, tags: &Tags, query: &Query) -> String {
    let mut plain = BTreeMap::new();
    let mut histograms = BTreeMap::new();
    stats.visit(&mut |name, value| {
        if !tags.shows(name) || !query.wants(name, &value) {
            return;
        }
        match value {
            Value::Counter(value) | Value::Gauge(value, _) => {
                plain.insert(name.to_owned(), value.to_string());
            }
            Value::Histogram(histogram) => {
                histograms.insert(name.to_owned(), quantiles(histogram));
            }
        }
    });
    let mut out = String::new();
    for (name, value) in plain.iter().chain(&histograms) {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

fn quantiles(histogram: &Histogram) -> String {
    if histogram.count() == 0 {
        return "No recorded values".into();
    }
    let mut out = String::new();
    for share in QUANTILES {
        let value = histogram.quantile(share).unwrap_or(0.0);
        if !out.is_empty() {
            out.push(' ');
        }
        let _ = write!(
            out,
            "P{}(nan,{})",
            share * 100.0,
            (value * 1000.0).round() / 1000.0
        );
    }
    out
}

/// `{"stats":[...]}`
pub fn json(stats: &Registry, tags: &Tags, query: &Query) -> Json {
    let mut plain = BTreeMap::new();
    let mut histograms = Vec::new();
    stats.visit(&mut |name, value| {
        if !tags.shows(name) || !query.wants(name, &value) {
            return;
        }
        match value {
            Value::Counter(value) | Value::Gauge(value, _) => {
                plain.insert(name.to_owned(), value);
            }
            Value::Histogram(histogram) => {
                let values: Vec<Json> = QUANTILES
                    .iter()
                    .map(|share| json!({"interval": Json::Null, "cumulative": histogram.quantile(*share)}))
                    .collect();
                histograms.push(json!({"name": name, "values": values}));
            }
        }
    });
    let mut all: Vec<Json> = plain
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    if !histograms.is_empty() {
        let supported: Vec<f64> = QUANTILES.iter().map(|share| share * 100.0).collect();
        all.push(json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": histograms}}));
    }
    json!({ "stats": all })
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Prometheus' text format.
pub fn prometheus(stats: &Registry, tags: &Tags, query: &Query) -> String {
    let mut families: BTreeMap<(Kind, String), Vec<String>> = BTreeMap::new();
    stats.visit(&mut |name, value| {
        if !tags.shows(name) || !query.wants(name, &value) {
            return;
        }
        let tagged = tags.extract(name);
        let family = sanitize(&format!("envoy_{}", tagged.name));
        let mut labels = String::new();
        for (tag, value) in &tagged.tags {
            if !labels.is_empty() {
                labels.push(',');
            }
            let _ = write!(labels, "{}=\"{}\"", sanitize(tag), escape(value));
        }
        let mut lines = Vec::new();
        let kind = match value {
            Value::Counter(value) => {
                lines.push(format!("{family}{{{labels}}} {value}"));
                Kind::Counter
            }
            Value::Gauge(value, _) => {
                lines.push(format!("{family}{{{labels}}} {value}"));
                Kind::Gauge
            }
            Value::Histogram(histogram) => {
                // Empty histograms are 22 lines of nothing each.
                if histogram.count() == 0 {
                    return;
                }
                buckets(&family, &labels, histogram, &mut lines);
                Kind::Histogram
            }
        };
        families.entry((kind, family)).or_default().extend(lines);
    });
    stats.labelled.visit(&mut |metric, labels, series| {
        let mut lines = Vec::new();
        let kind = match series {
            Series::Counter(counter) => {
                lines.push(format!("{metric}{{{labels}}} {}", counter.get()));
                Kind::Counter
            }
            Series::Histogram(histogram) => {
                buckets(metric, labels, histogram, &mut lines);
                Kind::Histogram
            }
        };
        families
            .entry((kind, metric.to_owned()))
            .or_default()
            .extend(lines);
    });
    let mut out = String::new();
    for ((kind, family), lines) in families {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(out, "# TYPE {family} {kind}");
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

fn buckets(family: &str, labels: &str, histogram: &Histogram, lines: &mut Vec<String>) {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in BUCKETS {
        lines.push(format!(
            "{family}_bucket{{{labels}{comma}le=\"{bound}\"}} {}",
            histogram.at_most(bound)
        ));
    }
    lines.push(format!(
        "{family}_bucket{{{labels}{comma}le=\"+Inf\"}} {}",
        histogram.count()
    ));
    lines.push(format!("{family}_sum{{{labels}}} {}", histogram.sum()));
    lines.push(format!("{family}_count{{{labels}}} {}", histogram.count()));
}

fn sanitize(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
