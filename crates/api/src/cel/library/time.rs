//! Parts of times and durations.

use super::super::eval::Outcome;
use super::super::functions::no_overload;
use super::super::value::Value;
use time::{OffsetDateTime, UtcOffset};

pub(super) fn call(function: &str, values: &[Value]) -> Outcome {
    match values {
        [Value::Duration(nanos)] => Ok(Value::Int(match function {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos / 1_000_000 % 1000,
            _ => return no_overload(),
        })),
        [Value::Timestamp(t)] => part(function, t.to_offset(UtcOffset::UTC)),
        [Value::Timestamp(t), Value::String(zone)] => part(function, t.to_offset(offset(zone)?)),
        _ => no_overload(),
    }
}

fn part(function: &str, t: OffsetDateTime) -> Outcome {
    Ok(Value::Int(match function {
        "getFullYear" => t.year().into(),
        "getMonth" => i64::from(u8::from(t.month())) - 1,
        "getDate" => t.day().into(),
        "getDayOfMonth" => i64::from(t.day()) - 1,
        "getDayOfWeek" => t.weekday().number_days_from_sunday().into(),
        "getDayOfYear" => i64::from(t.ordinal()) - 1,
        "getHours" => t.hour().into(),
        "getMinutes" => t.minute().into(),
        "getSeconds" => t.second().into(),
        "getMilliseconds" => t.millisecond().into(),
        _ => return no_overload(),
    }))
}

/// `UTC` and offsets such as `+09:00`. Names of zones need a database that this program does not carry.
fn offset(zone: &str) -> Result<UtcOffset, String> {
    if matches!(zone, "" | "UTC" | "Etc/UTC" | "GMT") {
        return Ok(UtcOffset::UTC);
    }
    let unknown = || format!("unknown time zone {zone}");
    let negative = zone.starts_with('-');
    let (hours, minutes) = zone
        .trim_start_matches(['+', '-'])
        .split_once(':')
        .ok_or_else(unknown)?;
    let (hours, minutes): (i8, i8) = (
        hours.parse().map_err(|_| unknown())?,
        minutes.parse().map_err(|_| unknown())?,
    );
    let sign = if negative { -1 } else { 1 };
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).map_err(|_| unknown())
}
