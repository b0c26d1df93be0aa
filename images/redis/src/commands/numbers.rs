//! Strings that are numbers.

use bytes::Bytes;

use super::{Context, NOT_INTEGER, Outcome, failure, float, integer};
use crate::number::{format_sum, parse_float, parse_int};
use crate::resp::Reply;
use crate::value::Value;

pub(super) fn incr(context: &mut Context, args: &[Bytes]) -> Outcome {
    add(context, args, 1)
}

pub(super) fn decr(context: &mut Context, args: &[Bytes]) -> Outcome {
    add(context, args, -1)
}

pub(super) fn incrby(context: &mut Context, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[2])?;
    add(context, args, amount)
}

pub(super) fn decrby(context: &mut Context, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[2])?
        .checked_neg()
        .ok_or(failure("ERR decrement would overflow"))?;
    add(context, args, amount)
}

fn add(context: &mut Context, args: &[Bytes], amount: i64) -> Outcome {
    let before = match context.text(&args[1])? {
        Some(text) => parse_int(text).ok_or(NOT_INTEGER)?,
        None => 0,
    };
    let sum = before
        .checked_add(amount)
        .ok_or(failure("ERR increment or decrement would overflow"))?;
    replace(context, &args[1], sum.to_string());
    context.changed(args);
    Ok(Reply::Int(sum))
}

pub(super) fn incrbyfloat(context: &mut Context, args: &[Bytes]) -> Outcome {
    let before = match context.text(&args[1])? {
        Some(text) => parse_float(text).ok_or(super::NOT_FLOAT)?,
        None => 0.0,
    };
    let sum = before + float(&args[2])?;
    if !sum.is_finite() {
        return Err(failure("ERR increment would produce NaN or Infinity"));
    }
    let text = format_sum(sum);
    replace(context, &args[1], text.clone());
    // The result, not the sum: another machine might round differently.
    context.effect([
        Bytes::from_static(b"SET"),
        args[1].clone(),
        Bytes::from(text.clone()),
        Bytes::from_static(b"KEEPTTL"),
    ]);
    Ok(Reply::bulk(text))
}

/// Puts another text, the expiry stays.
fn replace(context: &mut Context, key: &Bytes, text: String) {
    let text = Value::Text(text.into_bytes());
    match context.db().get_mut(key) {
        Some(value) => *value = text,
        None => context.db().put(key.clone(), text, None),
    }
}
