//! The report, in the layout of the original. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::load::Measured;
use super::options::Options;

pub(super) const BANNER: &str = "\
This is ApacheBench, Version 2.3 <$Revision$>
Copyright 1996 Adam Twiss, Zeus Technology Ltd, http://www.zeustech.net/
Licensed to The Apache Software Foundation, http://www.apache.org/
";

/// What is printed after the load.
pub(super) fn text(options: &Options, measured: &Measured) -> String {
    let mut text = String::from("\n\n");
    let done = measured.done.len();
    let failed = measured.failed_connect
        + measured.failed_receive
        + measured.failed_length
        + measured.failed_exception;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{:<24}{value}", format!("{name}:"));
    };
    line("Server Software", measured.server.clone());
    line("Server Hostname", options.host.clone());
    line("Server Port", options.port.to_string());
    text.push('\n');
    let length = if options.variable_length {
        "Variable".to_owned()
    } else {
        format!("{} bytes", measured.document_length)
    };
    let seconds = measured.took.as_secs_f64();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{:<24}{value}", format!("{name}:"));
    };
    line("Document Path", options.path.clone());
    line("Document Length", length);
    text.push('\n');
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{:<24}{value}", format!("{name}:"));
    };
    line("Concurrency Level", options.concurrency.to_string());
    line("Time taken for tests", format!("{seconds:.3} seconds"));
    line("Complete requests", done.to_string());
    line("Failed requests", failed.to_string());
    if failed > 0 {
        let _ = writeln!(
            text,
            "   (Connect: {}, Receive: {}, Length: {}, Exceptions: {})",
            measured.failed_connect,
            measured.failed_receive,
            measured.failed_length,
            measured.failed_exception
        );
    }
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{:<24}{value}", format!("{name}:"));
    };
    if measured.not_2xx > 0 {
        line("Non-2xx responses", measured.not_2xx.to_string());
    }
    if options.keep_alive {
        line("Keep-Alive requests", measured.kept_alive.to_string());
    }
    line(
        "Total transferred",
        format!("{} bytes", measured.transferred),
    );
    if options.body > 0 {
        line("Total body sent", measured.sent.to_string());
    }
    line("HTML transferred", format!("{} bytes", measured.html));
    if done > 0 && seconds > 0.0 {
        let count = as_f64(done);
        let kilobytes = |bytes: usize| as_f64(bytes) / 1024.0 / seconds;
        line(
            "Requests per second",
            format!("{:.2} [#/sec] (mean)", count / seconds),
        );
        line(
            "Time per request",
            format!(
                "{:.3} [ms] (mean)",
                as_f64(options.concurrency) * seconds * 1000.0 / count
            ),
        );
        line(
            "Time per request",
            format!(
                "{:.3} [ms] (mean, across all concurrent requests)",
                seconds * 1000.0 / count
            ),
        );
        line(
            "Transfer rate",
            format!(
                "{:.2} [Kbytes/sec] received",
                kilobytes(measured.transferred)
            ),
        );
        if options.body > 0 {
            let _ = writeln!(text, "{:24}{:.2} kb/s sent", "", kilobytes(measured.sent));
            let _ = writeln!(
                text,
                "{:24}{:.2} kb/s total",
                "",
                kilobytes(measured.sent + measured.transferred)
            );
        }
    }
    if done > 0 {
        times(&mut text, options, measured);
    }
    text
}

/// The tables of times.
fn times(text: &mut String, options: &Options, measured: &Measured) {
    let column = |of: fn(&super::load::Done) -> Duration| {
        Spread::of(measured.done.iter().map(|done| micros(of(done))))
    };
    let connect = column(|done| done.connect);
    let processing = column(|done| done.total.saturating_sub(done.connect));
    let waiting = column(|done| done.wait);
    let total = column(|done| done.total);
    let named = [
        ("Connect:", "initial connection time", &connect),
        ("Processing:", "processing time", &processing),
        ("Waiting:", "waiting time", &waiting),
        ("Total:", "total time", &total),
    ];
    text.push_str("\nConnection Times (ms)\n");
    if options.confidence {
        text.push_str("              min  mean[+/-sd] median   max\n");
        for (name, _, spread) in named {
            let _ = writeln!(
                text,
                "{name:<12}{:>5} {:>4} {:>5.1} {:>6} {:>7}",
                ms(spread.min),
                ms(spread.mean),
                spread.deviation / 1000.0,
                ms(spread.median),
                ms(spread.max)
            );
        }
        for (_, what, spread) in named {
            let off = (spread.mean - spread.median).abs();
            if off > 2.0 * spread.deviation {
                let _ = writeln!(
                    text,
                    "ERROR: The median and mean for the {what} are more than twice the standard\n       \
                     deviation apart. These results are NOT reliable."
                );
            } else if off > spread.deviation {
                let _ = writeln!(
                    text,
                    "WARNING: The median and mean for the {what} are not within a normal deviation\n        \
                     These results are probably not that reliable."
                );
            }
        }
    } else {
        text.push_str("              min   avg   max\n");
        for (name, _, spread) in named {
            let _ = writeln!(
                text,
                "{name:<12}{:>5} {:>5} {:>5}",
                ms(spread.min),
                ms(spread.mean),
                ms(spread.max)
            );
        }
    }
    if options.percentiles && measured.done.len() > 1 {
        text.push_str("\nPercentage of the requests served within a certain time (ms)\n");
        for percent in [50, 66, 75, 80, 90, 95, 98, 99] {
            let at = total.sorted.len() * percent / 100;
            let _ = writeln!(text, "  {percent}%  {:>5}", ms(total.sorted[at]));
        }
        let _ = writeln!(text, " 100%  {:>5} (longest request)", ms(total.max));
    }
}

/// How a time is spread, in microseconds.
struct Spread {
    min: f64,
    mean: f64,
    median: f64,
    max: f64,
    deviation: f64,
    sorted: Vec<f64>,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let count = as_f64(sorted.len().max(1));
        let mean = sorted.iter().sum::<f64>() / count;
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => 0.0,
            len if len > 1 && len % 2 == 0 => f64::midpoint(sorted[middle], sorted[middle - 1]),
            _ => sorted[middle],
        };
        Self {
            min: sorted.first().copied().unwrap_or_default(),
            mean,
            median,
            max: sorted.last().copied().unwrap_or_default(),
            deviation: if sorted.len() > 1 {
                (squares / (count - 1.0)).sqrt()
            } else {
                0.0
            },
            sorted,
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000_000.0
}

/// Whole milliseconds.
fn ms(micros: f64) -> String {
    format!("{:.0}", (micros / 1000.0).round())
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes of one run")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::load::Done;
    use super::super::options::Asked;
    use super::*;

    fn options(text: &str) -> Box<Options> {
        match Options::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()) {
            Ok(Asked::Load(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_report_has_the_layout_of_the_original() {
        let done = |connect, wait, total| Done {
            connect: Duration::from_millis(connect),
            wait: Duration::from_millis(wait),
            total: Duration::from_millis(total),
        };
        let measured = Measured {
            done: vec![done(0, 3, 3), done(0, 5, 6), done(1, 8, 10), done(0, 1, 1)],
            took: Duration::from_millis(230),
            server: "SimpleHTTP/0.6".into(),
            document_length: 6,
            failed_length: 1,
            transferred: 760,
            html: 24,
            ..Measured::default()
        };
        let expected = "

Server Software:        SimpleHTTP/0.6
Server Hostname:        127.0.0.1
Server Port:            18099

Document Path:          /index.html
Document Length:        6 bytes

Concurrency Level:      2
Time taken for tests:   0.230 seconds
Complete requests:      4
Failed requests:        1
   (Connect: 0, Receive: 0, Length: 1, Exceptions: 0)
Total transferred:      760 bytes
HTML transferred:       24 bytes
Requests per second:    17.39 [#/sec] (mean)
Time per request:       115.000 [ms] (mean)
Time per request:       57.500 [ms] (mean, across all concurrent requests)
Transfer rate:          3.23 [Kbytes/sec] received

Connection Times (ms)
              min  mean[+/-sd] median   max
Connect:        0    0   0.5      0       1
Processing:     1    5   3.5      5       9
Waiting:        1    4   3.0      4       8
Total:          1    5   3.9      5      10

Percentage of the requests served within a certain time (ms)
  50%      6
  66%      6
  75%     10
  80%     10
  90%     10
  95%     10
  98%     10
  99%     10
 100%     10 (longest request)
";
        assert_eq!(
            text(
                &options("-n 4 -c 2 http://127.0.0.1:18099/index.html"),
                &measured
            ),
            expected
        );
    }
}
