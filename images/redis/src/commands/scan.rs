//! Walks over keys and members.

use bytes::Bytes;

use super::{Context, Failure, NOT_INTEGER, Outcome, SYNTAX, WRONG_TYPE, failure, is};
use crate::glob;
use crate::number::{format_double, parse_int};
use crate::resp::Reply;
use crate::value::Value;

pub(super) fn keys(context: &mut Context, args: &[Bytes]) -> Outcome {
    let pattern = &args[1];
    let keys = context
        .db()
        .iter()
        .filter(|(key, _)| glob::matches(pattern, key))
        .map(|(key, _)| Reply::Bulk(key.clone()))
        .collect();
    Ok(Reply::Array(keys))
}

struct Options {
    pattern: Option<Bytes>,
    count: usize,
    kind: Option<Bytes>,
}

fn options(words: &[Bytes], with_kind: bool) -> Result<Options, Failure> {
    let mut options = Options {
        pattern: None,
        count: 10,
        kind: None,
    };
    for pair in words.chunks(2) {
        let [word, value] = pair else {
            return Err(SYNTAX);
        };
        if is(word, "MATCH") {
            options.pattern = Some(value.clone());
        } else if is(word, "COUNT") {
            let count = parse_int(value).ok_or(NOT_INTEGER)?;
            options.count = usize::try_from(count)
                .ok()
                .filter(|count| *count > 0)
                .ok_or(SYNTAX)?;
        } else if is(word, "TYPE") && with_kind {
            options.kind = Some(value.clone());
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(options)
}

fn cursor(arg: &[u8]) -> Result<usize, Failure> {
    std::str::from_utf8(arg)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(failure("ERR invalid cursor"))
}

fn page(cursor: usize, items: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(items)])
}

/// The cursor is how many positions are still to be seen, from the end down to the first;
/// see [`crate::store::Database`] for why no key is missed.
pub(super) fn scan(context: &mut Context, args: &[Bytes]) -> Outcome {
    let start = cursor(&args[1])?;
    let options = options(&args[2..], true)?;
    let db = context.db();
    let end = if start == 0 {
        db.len()
    } else {
        start.min(db.len())
    };
    let next = end.saturating_sub(options.count);
    let items = (next..end)
        .rev()
        .filter_map(|index| db.at(index))
        .filter(|(key, entry)| {
            options
                .pattern
                .as_ref()
                .is_none_or(|pattern| glob::matches(pattern, key))
                && options
                    .kind
                    .as_ref()
                    .is_none_or(|kind| is(kind, entry.value.kind()))
        })
        .map(|(key, _)| Reply::Bulk(key.clone()))
        .collect();
    Ok(page(next, items))
}

/// Members are given all at once, as Redis does with small collections.
fn members(
    context: &mut Context,
    args: &[Bytes],
    items: impl Fn(&Value) -> Option<Vec<Vec<Bytes>>>,
) -> Outcome {
    cursor(&args[2])?;
    let options = options(&args[3..], false)?;
    let Some(value) = context.db().get(&args[1]) else {
        return Ok(page(0, Vec::new()));
    };
    let items = items(value)
        .ok_or(WRONG_TYPE)?
        .into_iter()
        .filter(|item| {
            options
                .pattern
                .as_ref()
                .is_none_or(|pattern| glob::matches(pattern, &item[0]))
        })
        .flatten()
        .map(Reply::Bulk)
        .collect();
    Ok(page(0, items))
}

pub(super) fn hscan(context: &mut Context, args: &[Bytes]) -> Outcome {
    members(context, args, |value| match value {
        Value::Hash(hash) => Some(
            hash.iter()
                .map(|(field, value)| vec![field.clone(), value.clone()])
                .collect(),
        ),
        _ => None,
    })
}

pub(super) fn sscan(context: &mut Context, args: &[Bytes]) -> Outcome {
    members(context, args, |value| match value {
        Value::Set(set) => Some(set.iter().map(|member| vec![member.clone()]).collect()),
        _ => None,
    })
}

pub(super) fn zscan(context: &mut Context, args: &[Bytes]) -> Outcome {
    members(context, args, |value| match value {
        Value::Sorted(sorted) => Some(
            sorted
                .iter()
                .map(|(score, member)| vec![member.clone(), format_double(score).into()])
                .collect(),
        ),
        _ => None,
    })
}
