//! Times as text, without a time zone database: everything is UTC.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A calendar date and time of day.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    day_of_year: u32,
    week_day: u32,
    second: u32,
    nanos: u32,
    unix: i64,
}

impl Civil {
    fn of(time: SystemTime) -> Self {
        let (unix, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (since.as_secs() as i64, since.subsec_nanos()),
            Err(before) => (-(before.duration().as_secs() as i64), 0),
        };
        let days = unix.div_euclid(86_400);
        // Years are counted from March, so that the leap day is the last of them; eras are 400 years.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let march_day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * march_day + 2) / 153;
        let day = (march_day - (153 * march_month + 2) / 5 + 1) as u32;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        } as u32;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let day_of_year = BEFORE[month as usize - 1] + day + u32::from(leap && month > 2);
        Self {
            year,
            month,
            day,
            day_of_year,
            week_day: (days + 4).rem_euclid(7) as u32,
            second: unix.rem_euclid(86_400) as u32,
            nanos,
            unix,
        }
    }

    fn hour(&self) -> u32 {
        self.second / 3600
    }

    fn minute(&self) -> u32 {
        self.second / 60 % 60
    }
}

/// `2026-11-21T06:34:22.069Z`, appended to `out`.
pub fn iso8601(time: SystemTime, out: &mut String) {
    let t = Civil::of(time);
    let (h, m, s, ms) = (t.hour(), t.minute(), t.second % 60, t.nanos / 1_000_000);
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z",
        t.year, t.month, t.day
    );
}

/// `Sat, 21 Nov 2026 06:34:22 GMT`: the `date` header.
pub fn http_date(time: SystemTime) -> String {
    let mut out = String::new();
    strftime(time, "%a, %d %b %Y %H:%M:%S GMT", &mut out);
    out
}

/// The usual conversions of strftime, and Envoy's `%f`, `%1f` ... `%9f`, `%E3S` and the like. Others stay.
pub(super) fn strftime(time: SystemTime, format: &str, out: &mut String) {
    let t = Civil::of(time);
    let fraction = |digits: u32| t.nanos / 10_u32.pow(9 - digits.min(9));
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let conversion = chars.next();
        let _ = match conversion {
            Some('Y') => write!(out, "{:04}", t.year),
            Some('y') => write!(out, "{:02}", t.year.rem_euclid(100)),
            Some('m') => write!(out, "{:02}", t.month),
            Some('d') => write!(out, "{:02}", t.day),
            Some('e') => write!(out, "{:2}", t.day),
            Some('j') => write!(out, "{:03}", t.day_of_year),
            Some('H') => write!(out, "{:02}", t.hour()),
            Some('I') => write!(out, "{:02}", (t.hour() + 11) % 12 + 1),
            Some('M') => write!(out, "{:02}", t.minute()),
            Some('S') => write!(out, "{:02}", t.second % 60),
            Some('p') => write!(out, "{}", if t.hour() < 12 { "AM" } else { "PM" }),
            Some('a') => write!(out, "{}", &DAYS[t.week_day as usize][..3]),
            Some('A') => write!(out, "{}", DAYS[t.week_day as usize]),
            Some('b' | 'h') => write!(out, "{}", &MONTHS[t.month as usize - 1][..3]),
            Some('B') => write!(out, "{}", MONTHS[t.month as usize - 1]),
            Some('s') => write!(out, "{}", t.unix),
            Some('f') => write!(out, "{:09}", t.nanos),
            Some('z') => write!(out, "+0000"),
            Some('Z') => write!(out, "UTC"),
            Some('%') => write!(out, "%"),
            Some('T') => write!(
                out,
                "{:02}:{:02}:{:02}",
                t.hour(),
                t.minute(),
                t.second % 60
            ),
            Some('F') => write!(out, "{:04}-{:02}-{:02}", t.year, t.month, t.day),
            Some('R') => write!(out, "{:02}:{:02}", t.hour(), t.minute()),
            Some(digit @ '1'..='9') => {
                let digits = digit as u32 - '0' as u32;
                if chars.as_str().starts_with('f') {
                    chars.next();
                    write!(out, "{:0width$}", fraction(digits), width = digits as usize)
                } else {
                    write!(out, "%{digit}")
                }
            }
            Some('E') => match (chars.next(), chars.next()) {
                (Some(digit @ '1'..='9'), Some('S')) => {
                    let digits = digit as u32 - '0' as u32;
                    write!(
                        out,
                        "{:02}.{:0width$}",
                        t.second % 60,
                        fraction(digits),
                        width = digits as usize
                    )
                }
                (a, b) => write!(
                    out,
                    "%E{}{}",
                    a.map_or(String::new(), String::from),
                    b.map_or(String::new(), String::from)
                ),
            },
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_printed_in_utc() {
        let time = UNIX_EPOCH + Duration::new(1_795_242_862, 69_000_000);
        let mut text = String::new();
        iso8601(time, &mut text);
        assert_eq!(text, "2026-11-21T06:34:22.069Z");
        assert_eq!(http_date(time), "Sat, 21 Nov 2026 06:34:22 GMT");
        let mut text = String::new();
        strftime(time, "%s.%3f|%E6S|%j|%I%p|%Q|%F %T", &mut text);
        assert_eq!(
            text,
            "1795242862.069|22.069000|325|06AM|%Q|2026-11-21 06:34:22"
        );
        let mut text = String::new();
        iso8601(UNIX_EPOCH + Duration::from_secs(951_782_400), &mut text);
        assert_eq!(text, "2000-02-29T00:00:00.000Z");
    }
}
