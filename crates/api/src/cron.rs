//! Schedules of CronJobs: the five fields of cron with names, ranges, lists and steps, `@hourly` and its siblings, and
//! `@every 90s`. All times are UTC.

use crate::time::Time;

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At every minute whose fields are all in the sets (bit n = value n).
    Fields {
        /// Minutes of the hour.
        minutes: u64,
        /// Hours of the day.
        hours: u64,
        /// Days of the month.
        days: u64,
        /// Months of the year.
        months: u64,
        /// Days of the week, Sunday = 0.
        weekdays: u64,
        /// Both day fields are restricted: one of them is enough then.
        either_day: bool,
    },
    /// At a fixed distance, in seconds.
    Every(i64),
}

/// No such minute within this many days means there is none (29 February is at most eight years away).
const HORIZON_DAYS: i64 = 366 * 8;

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds {
    low: 0,
    high: 59,
    names: &[],
};
const HOURS: Bounds = Bounds {
    low: 0,
    high: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    low: 1,
    high: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    low: 0,
    high: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads a schedule; the error is the text Kubernetes gives.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        if text.starts_with('@') {
            return Self::descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        let any = |field: &str| field.starts_with(['*', '?']);
        Ok(Self::Fields {
            minutes: set(minute, &MINUTES)?,
            hours: set(hour, &HOURS)?,
            days: set(day, &DAYS)?,
            months: set(month, &MONTHS)?,
            weekdays: set(weekday, &WEEKDAYS)?,
            either_day: !any(day) && !any(weekday),
        })
    }

    fn descriptor(text: &str) -> Result<Self, String> {
        Self::parse(match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => {
                let Some(every) = text.strip_prefix("@every ") else {
                    return Err(format!("unrecognized descriptor: {text}"));
                };
                let seconds = seconds(every).ok_or_else(|| {
                    format!(
                        "failed to parse duration {text}: time: invalid duration {}",
                        crate::field::quote(every)
                    )
                })?;
                return Ok(Self::Every(seconds.max(1)));
            }
        })
    }

    /// The first moment after `after` at which it is due; `None` when there is none.
    pub fn next(&self, after: Time) -> Option<Time> {
        let Self::Fields {
            minutes,
            hours,
            days,
            months,
            weekdays,
            either_day,
        } = self
        else {
            let Self::Every(seconds) = self else {
                return None;
            };
            let whole = after.replace_nanosecond(0).ok()?;
            return whole.checked_add(time::Duration::seconds(*seconds));
        };
        let has = |set: u64, value: u8| set & (1 << value) != 0;
        let mut at = after
            .replace_nanosecond(0)
            .ok()?
            .replace_second(0)
            .ok()?
            .checked_add(time::Duration::minutes(1))?;
        let last = after.checked_add(time::Duration::days(HORIZON_DAYS))?;
        while at < last {
            let by_day = has(*days, at.day());
            let by_weekday = has(*weekdays, at.weekday().number_days_from_sunday());
            let day = if *either_day {
                by_day || by_weekday
            } else {
                by_day && by_weekday
            };
            let step = if !has(*months, u8::from(at.month())) || !day {
                // On to the next midnight.
                let left = 1440 - i64::from(at.hour()) * 60 - i64::from(at.minute());
                time::Duration::minutes(left)
            } else if !has(*hours, at.hour()) {
                time::Duration::minutes(60 - i64::from(at.minute()))
            } else if !has(*minutes, at.minute()) {
                time::Duration::minutes(1)
            } else {
                return Some(at);
            };
            at = at.checked_add(step)?;
        }
        None
    }
}

/// A field as a set: `*`, `5`, `1-5`, `*/10`, `3/2`, and lists of these.
fn set(field: &str, bounds: &Bounds) -> Result<u64, String> {
    let mut out = 0;
    for part in field.split(',').filter(|part| !part.is_empty()) {
        out |= range(part, bounds)?;
    }
    Ok(out)
}

fn range(part: &str, bounds: &Bounds) -> Result<u64, String> {
    let (what, step) = match part.split_once('/') {
        None => (part, None),
        Some((_, step)) if step.contains('/') => {
            return Err(format!("too many slashes: {part}"));
        }
        Some((what, step)) => (what, Some(number(step)?)),
    };
    let (low, mut high) = match what.split_once('-') {
        _ if what == "*" || what == "?" => (bounds.low, bounds.high),
        None => {
            let one = named(what, bounds)?;
            (one, one)
        }
        Some((_, high)) if high.contains('-') => {
            return Err(format!("too many hyphens: {part}"));
        }
        Some((low, high)) => (named(low, bounds)?, named(high, bounds)?),
    };
    if step.is_some() && !what.contains(['-', '*', '?']) {
        // `3/2` is from 3 on.
        high = bounds.high;
    }
    if low < bounds.low {
        return Err(format!(
            "beginning of range ({low}) below minimum ({}): {part}",
            bounds.low
        ));
    }
    if high > bounds.high {
        return Err(format!(
            "end of range ({high}) above maximum ({}): {part}",
            bounds.high
        ));
    }
    if low > high {
        return Err(format!(
            "beginning of range ({low}) beyond end of range ({high}): {part}"
        ));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok((low..=high)
        .step_by(step as usize)
        .fold(0, |set, value| set | 1 << value))
}

fn named(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(at) => Ok(at as u32 + bounds.low),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n >= 0 => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Ok(n) => Err(format!("negative number ({n}) not allowed: {text}")),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
            crate::field::quote(text)
        )),
    }
}

/// `1h30m`, `90s` in whole seconds.
fn seconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| at + end);
        total += number
            * match &rest[end..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let at = crate::time::parse(after).unwrap();
        let schedule = Schedule::parse(schedule).unwrap();
        schedule
            .next(at)
            .map(crate::time::rfc3339)
            .unwrap_or_default()
    }

    #[test]
    fn the_next_moment_is_found() {
        for (schedule, after, expected) in [
            (
                "*/1 * * * ?",
                "2025-01-01T00:00:30Z",
                "2025-01-01T00:01:00Z",
            ),
            (
                "*/15 3 * * *",
                "2025-01-01T03:46:00Z",
                "2025-01-02T03:00:00Z",
            ),
            (
                "0 0 29 feb *",
                "2025-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "30 9 * * mon-fri",
                "2025-01-03T10:00:00Z",
                "2025-01-06T09:30:00Z",
            ),
            ("0 0 13 * 5", "2025-01-01T00:00:00Z", "2025-01-03T00:00:00Z"),
            ("@hourly", "2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z"),
            ("@every 90s", "2025-01-01T00:00:00Z", "2025-01-01T00:01:30Z"),
            ("0 0 31 2 *", "2025-01-01T00:00:00Z", ""),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (schedule, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            (
                "5-3 * * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@often", "unrecognized descriptor: @often"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), why);
        }
    }
}
