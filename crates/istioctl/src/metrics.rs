//! `istioctl x metrics`: rates and latencies of workloads, as a Prometheus beside the control plane has them.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use kube_client::{ListParams, PODS};
use serde_json::Value;

use crate::mesh::Mesh;
use crate::{Global, Shell, USAGE, async_runtime, command};

const PORT: u16 = 9090;

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Workloads: NAME[.NAMESPACE]
    workloads: Vec<String>,
    /// Time over which rates and latencies are taken
    #[arg(long, short = 'd', value_name = "DURATION", default_value = "1m")]
    duration: String,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    if arguments.workloads.is_empty() {
        let usage = command::help(&["experimental", "metrics"]);
        writeln!(shell.stderr, "{usage}")?;
        bail!("metrics requires workload name");
    }
    let text = &arguments.duration;
    let Ok(duration) = text.parse::<api::istio::Duration>() else {
        writeln!(
            shell.stderr,
            "Error: invalid argument {text:?} for \"-d, --duration\" flag: time: invalid duration {text:?}"
        )?;
        return Ok(USAGE);
    };
    let mesh = Mesh::connect(global, shell)?;
    let runtime = async_runtime()?;
    let selector = ListParams::labels("app.kubernetes.io/name=prometheus");
    let namespace = mesh.istio_namespace.clone();
    let pods = runtime
        .block_on(mesh.client.list(&PODS, Some(&namespace), &selector))
        .map_err(|error| anyhow!("not able to locate Prometheus pod: {error}"))?;
    let Some(pod) = pods.items.first() else {
        bail!("no Prometheus pods found");
    };
    let pod = (api::meta::name(pod), namespace.as_str());
    write!(shell.stdout, "{}", line(&HEADER.map(str::to_owned)))?;
    for workload in &arguments.workloads {
        let measured = runtime
            .block_on(measure(&mesh, pod, workload, &go_duration(duration.nanos())))
            .map_err(|error| {
                anyhow!(
                    "could not build metrics for workload '{workload}': error retrieving some metrics: {error}"
                )
            })?;
        write!(shell.stdout, "{}", row(workload, &measured))?;
    }
    Ok(0)
}

const HEADER: [&str; 6] = [
    "WORKLOAD",
    "TOTAL RPS",
    "ERROR RPS",
    "P50 LATENCY",
    "P90 LATENCY",
    "P99 LATENCY",
];

/// The two rates, in requests a second, and the latencies in milliseconds.
async fn measure(
    mesh: &Mesh,
    pod: (&str, &str),
    workload: &str,
    duration: &str,
) -> Result<[f64; 5]> {
    let mut out = [0.0; 5];
    for (value, query) in out.iter_mut().zip(queries(workload, duration)) {
        let path = format!("/api/v1/query?query={}", encoded(&query));
        let answer = mesh.ask(pod, "GET", &path, PORT).await;
        let answer = answer.and_then(|body| first(&serde_json::from_slice(&body)?));
        *value = answer.map_err(|error| anyhow!("query() failure for '{query}': {error}"))?;
    }
    Ok(out)
}

/// A text in the query of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// What Prometheus is asked: all requests, failed ones, and three quantiles of the latency.
fn queries(workload: &str, duration: &str) -> [String; 5] {
    let mut parts = workload.split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or_default();
    let of = format!(
        r#"destination_workload=~"{name}.*", destination_workload_namespace=~"{namespace}.*",reporter="destination""#
    );
    let rate = |also: &str| format!("sum(rate(istio_requests_total{{{of}{also}}}[{duration}]))");
    let quantile = |part: f64| {
        format!(
            "histogram_quantile({part:.6}, sum(rate(istio_request_duration_milliseconds_bucket{{{of}}}[{duration}])) by (le))"
        )
    };
    [
        rate(""),
        rate(r#",response_code=~"[45][0-9]{2}""#),
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
    ]
}

/// The first value of an answer; 0 where there is none.
fn first(answer: &Value) -> Result<f64> {
    if answer["status"] != "success" {
        bail!("{}", answer["error"].as_str().unwrap_or("no success"));
    }
    if answer["data"]["resultType"] != "vector" {
        bail!("bad metric value type returned for query");
    }
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.unwrap_or("0").parse()?)
}

fn row(workload: &str, measured: &[f64; 5]) -> String {
    let [total, errors, latencies @ ..] = measured;
    // Whole milliseconds; what is no number becomes what Go makes of it.
    let latency = |milliseconds: f64| go_duration((milliseconds as i64).saturating_mul(1_000_000));
    line(&[
        workload.to_owned(),
        format!("{total:.3}"),
        format!("{errors:.3}"),
        latency(latencies[0]),
        latency(latencies[1]),
        latency(latencies[2]),
    ])
}

/// Cells to the right, each at least 13 wide with two blanks before; the first 40 and those two.
fn line(cells: &[String; 6]) -> String {
    let mut out = String::new();
    for (index, cell) in cells.iter().enumerate() {
        let cell = if index == 0 {
            format!("{cell:>40}")
        } else {
            cell.clone()
        };
        let width = (cell.chars().count() + 2).max(13);
        out.push_str(&format!("{cell:>width$}"));
    }
    out + "\n"
}

/// A duration as Go prints it.
fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let duration = Duration::from_nanos(nanos.unsigned_abs());
    let sign = if nanos < 0 { "-" } else { "" };
    let seconds = duration.as_secs();
    let trimmed = |text: String| {
        let text = text.trim_end_matches('0').trim_end_matches('.');
        text.to_owned()
    };
    if seconds == 0 {
        let (value, unit) = match duration.as_nanos() {
            n if n < 1_000 => (n as f64, "ns"),
            n if n < 1_000_000 => (n as f64 / 1e3, "µs"),
            n => (n as f64 / 1e6, "ms"),
        };
        return format!("{sign}{value}{unit}");
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = format!("{}.{:09}", seconds % 60, duration.subsec_nanos());
    let rest = trimmed(rest);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prometheus_is_asked_as_istio_asks_it() {
        let [total, errors, p50, ..] = queries("reviews-v1.bar", "1m0s");
        assert_eq!(
            total,
            r#"sum(rate(istio_requests_total{destination_workload=~"reviews-v1.*", destination_workload_namespace=~"bar.*",reporter="destination"}[1m0s]))"#
        );
        assert!(errors.contains(r#"reporter="destination",response_code=~"[45][0-9]{2}"}"#));
        assert!(p50.starts_with(
            "histogram_quantile(0.500000, sum(rate(istio_request_duration_milliseconds_bucket{"
        ));
        assert!(p50.ends_with("[1m0s])) by (le))"));
    }

    #[test]
    fn the_first_value_counts_and_none_is_zero() {
        let vector = |result: Value| json!({"status": "success", "data": {"resultType": "vector", "result": result}});
        assert_eq!(
            first(&vector(json!([{"metric": {}, "value": [1.5, "2.25"]}]))).unwrap(),
            2.25
        );
        assert_eq!(first(&vector(json!([]))).unwrap(), 0.0);
        assert!(first(&json!({"status": "error", "error": "bad"})).is_err());
    }

    #[test]
    fn rows_are_aligned_to_the_right() {
        assert_eq!(
            line(&HEADER.map(str::to_owned)),
            format!(
                "  {:>40}    TOTAL RPS    ERROR RPS  P50 LATENCY  P90 LATENCY  P99 LATENCY\n",
                "WORKLOAD"
            )
        );
        let cells = row("w", &[1.0, 0.25, 12.9, 1500.0, f64::NAN]);
        assert_eq!(
            cells,
            format!(
                "  {:>40}        1.000        0.250         12ms         1.5s           0s\n",
                "w"
            )
        );
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, want) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (300, "300ns"),
        ] {
            assert_eq!(go_duration(nanos), want);
        }
    }
}
