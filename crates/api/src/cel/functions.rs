//! What the operators and the functions of the standard library do; those of Kubernetes' libraries are in
//! [`super::library`].

use super::eval::Outcome;
use super::library;
use super::value::{Key, ListKind, Value};
use crate::go;
use std::cmp::Ordering;
use std::sync::Arc;
use time::OffsetDateTime;

pub(super) const NO_OVERLOAD: &str = "no such overload";
const OVERFLOW: &str = "integer overflow";
const UNSIGNED_OVERFLOW: &str = "unsigned integer overflow";

pub(super) fn no_overload() -> Outcome {
    Err(NO_OVERLOAD.into())
}

/// Calls a function; with `member` the first value is the target.
pub(super) fn call(function: &str, member: bool, values: &[Value]) -> Outcome {
    use Value::*;
    let ordering = |fine: fn(Ordering) -> bool| match values {
        [Double(a), _] | [_, Double(a)] if a.is_nan() => Ok(Bool(false)),
        [a, b] => a
            .compare(b)
            .map(|o| Bool(fine(o)))
            .ok_or_else(|| NO_OVERLOAD.to_string()),
        _ => no_overload(),
    };
    match (function, values) {
        ("_==_", [a, b]) => Ok(Bool(a == b)),
        ("_!=_", [a, b]) => Ok(Bool(a != b)),
        ("_<_", _) => ordering(Ordering::is_lt),
        ("_<=_", _) => ordering(Ordering::is_le),
        ("_>_", _) => ordering(Ordering::is_gt),
        ("_>=_", _) => ordering(Ordering::is_ge),
        ("!_", [Bool(b)]) => Ok(Bool(!b)),
        ("-_", [Int(i)]) => i.checked_neg().map(Int).ok_or_else(|| OVERFLOW.into()),
        ("-_", [Double(d)]) => Ok(Double(-d)),
        ("_+_", [a, b]) => add(a, b),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_" | "_/_" | "_%_", [a, b]) => multiply(function, a, b),
        ("@in", [a, List(items, _)]) => Ok(Bool(items.contains(a))),
        ("@in", [a, Map(map)]) => Ok(Bool(a.key().is_some_and(|key| map.contains_key(&key)))),
        ("_[_]", [Optional(inner), index]) => match inner {
            None => Ok(Optional(None)),
            Some(inner) => Ok(optional(at(inner, index).ok())),
        },
        ("_[_]", [target, index]) => at(target, index),
        ("_[?_]", [Optional(None), _]) => Ok(Optional(None)),
        ("_[?_]", [Optional(Some(inner)), index]) => Ok(optional(at(inner, index).ok())),
        ("_[?_]", [target, index]) => Ok(optional(at(target, index).ok())),
        ("size", [value]) => size(value),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Type(value.type_name().into())),
        (
            "int" | "uint" | "double" | "string" | "bytes" | "bool" | "timestamp" | "duration",
            [value],
        ) if !member => convert(function, value),
        ("optional.of", [value]) => Ok(optional(Some(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(optional((!value.is_zero()).then(|| value.clone())))
        }
        ("optional.none", []) => Ok(Optional(None)),
        ("hasValue", [Optional(inner)]) => Ok(Bool(inner.is_some())),
        ("value", [Optional(Some(inner))]) => Ok((**inner).clone()),
        ("value", [Optional(None)]) => Err("optional.none() dereference".into()),
        _ => library::call(function, member, values),
    }
}

fn optional(value: Option<Value>) -> Value {
    Value::Optional(value.map(Arc::new))
}

fn size(value: &Value) -> Outcome {
    let count = match value {
        Value::String(s) => s.chars().count(),
        Value::Bytes(b) => b.len(),
        Value::List(items, _) => items.len(),
        Value::Map(map) => map.len(),
        _ => return no_overload(),
    };
    Ok(Value::Int(count as i64))
}

fn at(target: &Value, index: &Value) -> Outcome {
    match target {
        Value::List(items, _) => {
            let i = match index {
                Value::Int(i) => *i,
                Value::Uint(u) => i64::try_from(*u).unwrap_or(i64::MAX),
                Value::Double(d) if d.fract() == 0.0 => *d as i64,
                _ => return no_overload(),
            };
            usize::try_from(i)
                .ok()
                .and_then(|i| items.get(i))
                .cloned()
                .ok_or_else(|| format!("index out of bounds: {i}"))
        }
        Value::Map(map) => {
            let missing = || match index {
                Value::String(s) => format!("no such key: {s}"),
                Value::Int(i) => format!("no such key: {i}"),
                Value::Bool(b) => format!("no such key: {b}"),
                _ => "no such key".into(),
            };
            let key: Key = index.key().ok_or_else(missing)?;
            map.get(&key).cloned().ok_or_else(missing)
        }
        _ => no_overload(),
    }
}

/// The longest and earliest times of the language.
fn in_range(t: OffsetDateTime) -> Outcome {
    if (1..=9999).contains(&t.year()) {
        Ok(Value::Timestamp(t))
    } else {
        Err("timestamp overflow".into())
    }
}

fn add(a: &Value, b: &Value) -> Outcome {
    use Value::*;
    match (a, b) {
        (Int(a), Int(b)) => a.checked_add(*b).map(Int).ok_or_else(|| OVERFLOW.into()),
        (Uint(a), Uint(b)) => a
            .checked_add(*b)
            .map(Uint)
            .ok_or_else(|| UNSIGNED_OVERFLOW.into()),
        (Double(a), Double(b)) => Ok(Double(a + b)),
        (String(a), String(b)) => Ok(Value::text(format!("{a}{b}"))),
        (Bytes(a), Bytes(b)) => Ok(Bytes([&a[..], &b[..]].concat().into())),
        (List(a, kind), List(b, _)) => {
            let mut out = a.to_vec();
            for item in b.iter() {
                match &**kind {
                    ListKind::Set if out.contains(item) => {}
                    ListKind::Map(keys) => {
                        let same = |other: &Value| {
                            keys.iter().all(|key| {
                                let key = Value::String(key.clone());
                                at(other, &key).ok() == at(item, &key).ok()
                            })
                        };
                        match out.iter().position(same) {
                            Some(i) => out[i] = item.clone(),
                            None => out.push(item.clone()),
                        }
                    }
                    _ => out.push(item.clone()),
                }
            }
            Ok(List(Arc::new(out), kind.clone()))
        }
        (Duration(a), Duration(b)) => a
            .checked_add(*b)
            .map(Duration)
            .ok_or_else(|| "duration overflow".into()),
        (Timestamp(t), Duration(d)) | (Duration(d), Timestamp(t)) => t
            .checked_add(time::Duration::nanoseconds(*d))
            .map_or_else(|| Err("timestamp overflow".into()), in_range),
        _ => no_overload(),
    }
}

fn subtract(a: &Value, b: &Value) -> Outcome {
    use Value::*;
    match (a, b) {
        (Int(a), Int(b)) => a.checked_sub(*b).map(Int).ok_or_else(|| OVERFLOW.into()),
        (Uint(a), Uint(b)) => a
            .checked_sub(*b)
            .map(Uint)
            .ok_or_else(|| UNSIGNED_OVERFLOW.into()),
        (Double(a), Double(b)) => Ok(Double(a - b)),
        (Duration(a), Duration(b)) => a
            .checked_sub(*b)
            .map(Duration)
            .ok_or_else(|| "duration overflow".into()),
        (Timestamp(t), Duration(d)) => t
            .checked_sub(time::Duration::nanoseconds(*d))
            .map_or_else(|| Err("timestamp overflow".into()), in_range),
        (Timestamp(a), Timestamp(b)) => i64::try_from((*a - *b).whole_nanoseconds())
            .map(Duration)
            .map_err(|_| "duration overflow".into()),
        _ => no_overload(),
    }
}

fn multiply(function: &str, a: &Value, b: &Value) -> Outcome {
    use Value::*;
    match (function, a, b) {
        ("_/_", Int(_), Int(0)) | ("_/_", Uint(_), Uint(0)) => Err("division by zero".into()),
        ("_%_", Int(_), Int(0)) | ("_%_", Uint(_), Uint(0)) => Err("modulus by zero".into()),
        (f, Int(a), Int(b)) => match f {
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Int)
        .ok_or_else(|| OVERFLOW.into()),
        (f, Uint(a), Uint(b)) => match f {
            "_*_" => a.checked_mul(*b),
            "_/_" => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Uint)
        .ok_or_else(|| UNSIGNED_OVERFLOW.into()),
        ("_*_", Double(a), Double(b)) => Ok(Double(a * b)),
        ("_/_", Double(a), Double(b)) => Ok(Double(a / b)),
        _ => no_overload(),
    }
}

/// A duration as the language writes it: seconds with a fraction.
fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A time in RFC 3339, with as much of a second as there is.
fn time_text(t: OffsetDateTime) -> String {
    t.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

fn convert(to: &str, value: &Value) -> Outcome {
    use Value::*;
    let wrong = |target: &str| {
        Err(format!(
            "type conversion error from '{}' to '{target}'",
            value.type_name()
        ))
    };
    match (to, value) {
        ("int", Int(_))
        | ("uint", Uint(_))
        | ("double", Double(_))
        | ("string", String(_))
        | ("bytes", Bytes(_))
        | ("bool", Bool(_))
        | ("timestamp", Timestamp(_))
        | ("duration", Duration(_)) => Ok(value.clone()),
        ("int", Uint(u)) => i64::try_from(*u).map(Int).map_err(|_| OVERFLOW.into()),
        ("int", Double(d)) if d.is_finite() && d.abs() < 9.223_372_036_854_775e18 => {
            Ok(Int(*d as i64))
        }
        ("int", Double(_)) => Err(OVERFLOW.into()),
        ("int", String(s)) => match go::strconv::atoi(s) {
            Ok(i) => Ok(Int(i)),
            Err(_) => wrong("int"),
        },
        ("int", Timestamp(t)) => Ok(Int(t.unix_timestamp())),
        ("int", Duration(d)) => Ok(Int(*d)),
        ("uint", Int(i)) => u64::try_from(*i)
            .map(Uint)
            .map_err(|_| UNSIGNED_OVERFLOW.into()),
        ("uint", Double(d)) if (0.0..1.844_674_407_370_955e19).contains(d) => Ok(Uint(*d as u64)),
        ("uint", Double(_)) => Err(UNSIGNED_OVERFLOW.into()),
        ("uint", String(s)) => match go::strconv::parse_uint(s, 64) {
            Ok(u) => Ok(Uint(u)),
            Err(_) => wrong("uint"),
        },
        ("double", Int(i)) => Ok(Double(*i as f64)),
        ("double", Uint(u)) => Ok(Double(*u as f64)),
        ("double", String(s)) => s.parse().map(Double).or_else(|_| wrong("double")),
        ("bool", String(s)) => match go::strconv::parse_bool(s) {
            Ok(b) => Ok(Bool(b)),
            Err(_) => wrong("bool"),
        },
        ("string", Bool(b)) => Ok(Value::text(b.to_string())),
        ("string", Int(i)) => Ok(Value::text(i.to_string())),
        ("string", Uint(u)) => Ok(Value::text(u.to_string())),
        ("string", Double(d)) => Ok(Value::text(go::strconv::format_float(*d))),
        ("string", Bytes(b)) => match std::str::from_utf8(b) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err("invalid UTF-8 in bytes, cannot convert to string".into()),
        },
        ("string", Timestamp(t)) => Ok(Value::text(time_text(*t))),
        ("string", Duration(d)) => Ok(Value::text(duration_text(*d))),
        ("string", Ip(ip)) => Ok(Value::text(ip.to_string())),
        ("string", Cidr(ip, bits)) => Ok(Value::text(format!("{ip}/{bits}"))),
        ("bytes", String(s)) => Ok(Bytes(s.as_bytes().into())),
        ("timestamp", String(s)) => match crate::time::parse(s) {
            Some(t) => in_range(t),
            None => wrong("google.protobuf.Timestamp"),
        },
        ("timestamp", Int(i)) => OffsetDateTime::from_unix_timestamp(*i)
            .map_or_else(|_| Err("timestamp overflow".into()), in_range),
        ("duration", String(s)) => match go::time::parse_duration(s) {
            Ok(d) => Ok(Duration(d)),
            Err(_) => wrong("google.protobuf.Duration"),
        },
        ("duration", Int(i)) => Ok(Duration(*i)),
        _ => no_overload(),
    }
}
