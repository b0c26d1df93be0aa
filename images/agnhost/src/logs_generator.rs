//! Lines for tests of logs, evenly over a time.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::Rng;

use crate::flags::{Flag, Flags};

/// Prints `--log-lines-total` lines within `--run-duration`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Short("log-lines-total", 't', "0"),
            Flag::Short("run-duration", 'd', "0"),
        ],
    )?;
    let total: i64 = flags.get("log-lines-total")?;
    let duration = flags.duration("run-duration")?;
    if total <= 0 {
        bail!("Invalid total number of lines: {total}");
    }
    if duration.is_zero() {
        bail!("Invalid duration: {}", flags.text("run-duration"));
    }
    let delay = duration / u32::try_from(total)?;
    let mut random = rand::rng();
    for id in 0..total {
        eprintln!("{}", line(id, std::process::id(), now(), &mut random));
        std::thread::sleep(delay);
    }
    Ok(())
}

/// Seconds of the day and microseconds: enough for the head of a line.
fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// `I0102 03:04:05.000006       1 logs_generator.go:76] 0 GET /api/v1/namespaces/ns/pods/abc 200`: the head of the
/// logging library of Kubernetes, then number, method, URL and status.
fn line(id: i64, pid: u32, at: Duration, random: &mut impl Rng) -> String {
    let days = at.as_secs() / 86_400;
    let (month, day) = month_and_day(i64::try_from(days).unwrap_or(0));
    let second = at.as_secs() % 86_400;
    let mut out = format!(
        "I{month:02}{day:02} {:02}:{:02}:{:02}.{:06} {pid:>7} logs_generator.go:76] {id} ",
        second / 3600,
        second / 60 % 60,
        second % 60,
        at.subsec_micros(),
    );
    let method = ["GET", "POST", "PUT"][random.random_range(0..3)];
    let namespace = ["kube-system", "default", "ns"][random.random_range(0..3)];
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let name: String = (0..random.random_range(3..5))
        .map(|_| char::from(letters[random.random_range(0..letters.len())]))
        .collect();
    let status = random.random_range(200..600);
    let _ = write!(
        out,
        "{method} /api/v1/namespaces/{namespace}/pods/{name} {status}"
    );
    out
}

/// Month and day of a number of days since 1970 (civil-from-days).
fn month_and_day(days: i64) -> (i64, i64) {
    let z = days + 719_468;
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_number_method_url_and_status() {
        let at = Duration::from_micros(951_782_400_000_001);
        let line = line(7, 42, at, &mut rand::rng());
        assert!(
            line.starts_with("I0229 00:00:00.000001      42 logs_generator.go:76] 7 "),
            "{line}"
        );
        assert!(line.contains(" /api/v1/namespaces/"), "{line}");
    }
}
