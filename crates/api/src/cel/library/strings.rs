//! Texts: CEL's string extensions, and Kubernetes' `find` and `findAll`. Indices count characters.

use super::super::eval::Outcome;
use super::super::functions::no_overload;
use super::super::value::Value;
use regex::Regex;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

/// Compiled expressions: rules use the same ones for every object.
static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
const KEPT: usize = 256;

fn regex(pattern: &str) -> Result<Regex, String> {
    crate::go::regexp::check(pattern)?;
    let mut compiled = COMPILED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(regex) = compiled.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(pattern).map_err(|e| e.to_string())?;
    if compiled.len() >= KEPT {
        compiled.clear();
    }
    compiled.insert(pattern.to_string(), regex.clone());
    Ok(regex)
}

fn index(i: i64, length: usize) -> Result<usize, String> {
    usize::try_from(i)
        .ok()
        .filter(|i| *i <= length)
        .ok_or_else(|| format!("index out of range: {i}"))
}

fn from_chars(chars: &[char]) -> Value {
    Value::text(chars.iter().collect::<String>())
}

pub(super) fn call(function: &str, values: &[Value]) -> Outcome {
    use Value::{Int, List, String as Text};
    let Some(Text(text)) = values.first() else {
        return no_overload();
    };
    let chars = || text.chars().collect::<Vec<char>>();
    match (function, &values[1..]) {
        ("contains", [Text(part)]) => Ok(Value::Bool(text.contains(&**part))),
        ("startsWith", [Text(part)]) => Ok(Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Text(part)]) => Ok(Value::Bool(text.ends_with(&**part))),
        ("matches", [Text(pattern)]) => Ok(Value::Bool(regex(pattern)?.is_match(text))),
        ("find", [Text(pattern)]) => {
            let regex = regex(pattern)?;
            Ok(Value::text(
                regex.find(text).map_or("", |found| found.as_str()),
            ))
        }
        ("findAll", [Text(pattern)]) => find_all(text, pattern, -1),
        ("findAll", [Text(pattern), Int(most)]) => find_all(text, pattern, *most),
        ("charAt", [Int(i)]) => {
            let chars = chars();
            let i = index(*i, chars.len())?;
            Ok(from_chars(&chars[i..(i + 1).min(chars.len())]))
        }
        ("indexOf", [Text(part)]) => index_of(text, part, 0),
        ("indexOf", [Text(part), Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Text(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Text(part), Int(from)]) => last_index_of(text, part, Some(*from)),
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("replace", [Text(old), Text(new)]) => Ok(Value::text(text.replace(&**old, new))),
        ("replace", [Text(old), Text(new), Int(count)]) => Ok(match usize::try_from(*count) {
            Ok(count) => Value::text(text.replacen(&**old, new, count)),
            Err(_) => Value::text(text.replace(&**old, new)),
        }),
        ("split", [Text(separator)]) => Ok(split(text, separator, -1)),
        ("split", [Text(separator), Int(most)]) => Ok(split(text, separator, *most)),
        ("substring", [Int(from)]) => {
            let chars = chars();
            Ok(from_chars(&chars[index(*from, chars.len())?..]))
        }
        ("substring", [Int(from), Int(to)]) => {
            let chars = chars();
            let (start, end) = (index(*from, chars.len())?, index(*to, chars.len())?);
            if start > end {
                return Err(format!("invalid substring range. start: {from}, end: {to}"));
            }
            Ok(from_chars(&chars[start..end]))
        }
        ("strings.quote", []) => Ok(Value::text(crate::field::quote(text))),
        ("format", [List(args, _)]) => format(text, args),
        _ => no_overload(),
    }
}

fn find_all(text: &str, pattern: &str, most: i64) -> Outcome {
    let regex = regex(pattern)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(Value::list(
        regex
            .find_iter(text)
            .take(most)
            .map(|found| Value::text(found.as_str()))
            .collect(),
    ))
}

fn split(text: &str, separator: &str, most: i64) -> Value {
    let parts: Vec<Value> = match most {
        0 => Vec::new(),
        _ if separator.is_empty() => {
            let chars: Vec<char> = text.chars().collect();
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(chars.len());
            (0..most)
                .map(|i| {
                    let end = if i + 1 == most { chars.len() } else { i + 1 };
                    from_chars(&chars[i..end])
                })
                .collect()
        }
        most if most > 0 => text
            .splitn(most as usize, separator)
            .map(Value::text)
            .collect(),
        _ => text.split(separator).map(Value::text).collect(),
    };
    Value::list(parts)
}

fn index_of(text: &str, part: &str, from: i64) -> Outcome {
    let chars: Vec<char> = text.chars().collect();
    let from = index(from, chars.len())?;
    let part: Vec<char> = part.chars().collect();
    let found =
        (from..=chars.len().saturating_sub(part.len())).find(|i| chars[*i..].starts_with(&part));
    Ok(Value::Int(found.map_or(-1, |i| i as i64)))
}

fn last_index_of(text: &str, part: &str, from: Option<i64>) -> Outcome {
    let chars: Vec<char> = text.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let from = match from {
        Some(from) => index(from, chars.len())?,
        None => chars.len(),
    };
    if part.len() > chars.len() {
        return Ok(Value::Int(-1));
    }
    let found = (0..=from.min(chars.len() - part.len()))
        .rev()
        .find(|i| chars[*i..].starts_with(&part));
    Ok(Value::Int(found.map_or(-1, |i| i as i64)))
}

/// `'%s has %d'.format([...])`.
fn format(pattern: &str, args: &[Value]) -> Outcome {
    let mut out = String::new();
    let mut args = args.iter().enumerate();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(d) = chars.peek().filter(|d| d.is_ascii_digit()) {
                digits.push(*d);
                chars.next();
            }
            precision = digits.parse::<usize>().ok().map(|p| p.min(100));
        }
        let clause = chars
            .next()
            .ok_or("could not parse formatting clause: unexpected end of string")?;
        let (i, arg) = args
            .next()
            .ok_or_else(|| format!("index {} out of range", args_len(pattern)))?;
        let text = one(clause, precision, arg).ok_or_else(|| {
            format!(
                "error during formatting: argument {i} of type {} cannot be formatted by %{clause}",
                arg.type_name()
            )
        })?;
        out.push_str(&text);
    }
    Ok(Value::text(out))
}

fn args_len(pattern: &str) -> usize {
    pattern.matches('%').count().saturating_sub(1)
}

fn one(clause: char, precision: Option<usize>, arg: &Value) -> Option<String> {
    let number = |value: &Value| match value {
        Value::Int(i) => Some(*i as f64),
        Value::Uint(u) => Some(*u as f64),
        Value::Double(d) => Some(*d),
        _ => None,
    };
    Some(match (clause, arg) {
        ('s', value) => shown(value),
        ('d', Value::Int(i)) => i.to_string(),
        ('d', Value::Uint(u)) => u.to_string(),
        ('f', value) => format!("{:.*}", precision.unwrap_or(6), number(value)?),
        ('e', value) => {
            let text = format!("{:.*e}", precision.unwrap_or(6), number(value)?);
            let (digits, power) = text.split_once('e')?;
            let power: i32 = power.parse().ok()?;
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
        ('b', Value::Int(i)) if *i < 0 => format!("-{:b}", i.unsigned_abs()),
        ('b', Value::Int(i)) => format!("{i:b}"),
        ('b', Value::Uint(u)) => format!("{u:b}"),
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('o', Value::Int(i)) => format!("{i:o}"),
        ('o', Value::Uint(u)) => format!("{u:o}"),
        ('x' | 'X', value) => {
            let text = match value {
                Value::Int(i) if *i < 0 => format!("-{:x}", i.unsigned_abs()),
                Value::Int(i) => format!("{i:x}"),
                Value::Uint(u) => format!("{u:x}"),
                Value::String(s) => s.bytes().map(|b| format!("{b:02x}")).collect(),
                Value::Bytes(b) => b.iter().map(|b| format!("{b:02x}")).collect(),
                _ => return None,
            };
            if clause == 'X' {
                text.to_uppercase()
            } else {
                text
            }
        }
        _ => return None,
    })
}

/// A value as `%s` writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => s.to_string(),
        Value::Null => "null".into(),
        Value::Type(name) => name.to_string(),
        Value::List(items, _) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            use super::super::value::Key;
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        Key::Bool(b) => b.to_string(),
                        Key::Int(i) => i.to_string(),
                        Key::String(s) => s.to_string(),
                    };
                    format!("{key}: {}", shown(value))
                })
                .collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        other => {
            match super::super::functions::call("string", false, std::slice::from_ref(other)) {
                Ok(Value::String(s)) => s.to_string(),
                _ => other.type_name().to_string(),
            }
        }
    }
}
