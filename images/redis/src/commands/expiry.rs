//! When keys go.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Context, Failure, Outcome, failure, integer};
use crate::resp::Reply;

/// How a time is given.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    AtSeconds,
    AtMilliseconds,
}

impl Unit {
    /// The word of `SET` and `GETEX`.
    pub(super) fn of(word: &[u8]) -> Option<Unit> {
        Some(match word.to_ascii_uppercase().as_slice() {
            b"EX" => Unit::Seconds,
            b"PX" => Unit::Milliseconds,
            b"EXAT" => Unit::AtSeconds,
            b"PXAT" => Unit::AtMilliseconds,
            _ => return None,
        })
    }

    fn absolute(self, amount: i64, now_ms: i64) -> Option<i64> {
        let ms = match self {
            Unit::Seconds | Unit::AtSeconds => amount.checked_mul(1000)?,
            Unit::Milliseconds | Unit::AtMilliseconds => amount,
        };
        match self {
            Unit::Seconds | Unit::Milliseconds => ms.checked_add(now_ms),
            Unit::AtSeconds | Unit::AtMilliseconds => Some(ms),
        }
    }
}

fn invalid(command: &str) -> Failure {
    Failure(Cow::Owned(format!(
        "ERR invalid expire time in '{command}' command"
    )))
}

/// The moment an argument means; it must be positive.
pub(super) fn deadline(arg: &[u8], unit: Unit, now_ms: i64, command: &str) -> Result<i64, Failure> {
    let amount = integer(arg)?;
    if amount <= 0 {
        return Err(invalid(command));
    }
    unit.absolute(amount, now_ms)
        .ok_or_else(|| invalid(command))
}

pub(super) fn expire(context: &mut Context, args: &[Bytes]) -> Outcome {
    set(context, args, Unit::Seconds, "expire")
}

pub(super) fn pexpire(context: &mut Context, args: &[Bytes]) -> Outcome {
    set(context, args, Unit::Milliseconds, "pexpire")
}

pub(super) fn expireat(context: &mut Context, args: &[Bytes]) -> Outcome {
    set(context, args, Unit::AtSeconds, "expireat")
}

pub(super) fn pexpireat(context: &mut Context, args: &[Bytes]) -> Outcome {
    set(context, args, Unit::AtMilliseconds, "pexpireat")
}

#[derive(Default)]
struct Conditions {
    none_before: bool,
    some_before: bool,
    later: bool,
    sooner: bool,
}

impl Conditions {
    fn of(words: &[Bytes]) -> Result<Self, Failure> {
        let mut conditions = Conditions::default();
        for word in words {
            let flag = match word.to_ascii_uppercase().as_slice() {
                b"NX" => &mut conditions.none_before,
                b"XX" => &mut conditions.some_before,
                b"GT" => &mut conditions.later,
                b"LT" => &mut conditions.sooner,
                _ => {
                    return Err(Failure(Cow::Owned(format!(
                        "ERR Unsupported option {}",
                        String::from_utf8_lossy(word)
                    ))));
                }
            };
            *flag = true;
        }
        let Conditions {
            none_before,
            some_before,
            later,
            sooner,
        } = conditions;
        if none_before && (some_before || later || sooner) {
            return Err(failure(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && sooner {
            return Err(failure(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// A key without an expiry counts as one that goes never.
    fn allow(&self, before: Option<i64>, at: i64) -> bool {
        !(self.none_before && before.is_some()
            || self.some_before && before.is_none()
            || self.later && before.is_none_or(|before| at <= before)
            || self.sooner && before.is_some_and(|before| at >= before))
    }
}

fn set(context: &mut Context, args: &[Bytes], unit: Unit, command: &str) -> Outcome {
    let conditions = Conditions::of(&args[3..])?;
    let at = unit
        .absolute(integer(&args[2])?, context.now_ms)
        .ok_or_else(|| invalid(command))?;
    let Some(before) = context.db().entry(&args[1]).map(|entry| entry.expires_ms) else {
        return Ok(Reply::Int(0));
    };
    if !conditions.allow(before, at) {
        return Ok(Reply::Int(0));
    }
    if at <= context.now_ms {
        context.db().remove(&args[1]);
        context.effect([Bytes::from_static(b"DEL"), args[1].clone()]);
    } else {
        context.db().set_expiry(&args[1], Some(at));
        context.effect([
            Bytes::from_static(b"PEXPIREAT"),
            args[1].clone(),
            at.to_string().into(),
        ]);
    }
    Ok(Reply::Int(1))
}

pub(super) fn persist(context: &mut Context, args: &[Bytes]) -> Outcome {
    let had = context
        .db()
        .entry(&args[1])
        .is_some_and(|entry| entry.expires_ms.is_some());
    if had {
        context.db().set_expiry(&args[1], None);
        context.changed(args);
    }
    Ok(Reply::flag(had))
}

/// -2: no such key; -1: it does not go.
fn remaining(context: &mut Context, key: &[u8], answer: impl Fn(i64) -> i64) -> Outcome {
    Ok(Reply::Int(
        match context.db().entry(key).map(|entry| entry.expires_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => answer(at),
        },
    ))
}

pub(super) fn ttl(context: &mut Context, args: &[Bytes]) -> Outcome {
    let now = context.now_ms;
    remaining(context, &args[1], |at| (at - now + 500) / 1000)
}

pub(super) fn pttl(context: &mut Context, args: &[Bytes]) -> Outcome {
    let now = context.now_ms;
    remaining(context, &args[1], |at| at - now)
}

pub(super) fn expiretime(context: &mut Context, args: &[Bytes]) -> Outcome {
    remaining(context, &args[1], |at| (at + 500) / 1000)
}

pub(super) fn pexpiretime(context: &mut Context, args: &[Bytes]) -> Outcome {
    remaining(context, &args[1], |at| at)
}
