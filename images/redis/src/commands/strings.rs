//! Strings.

use bytes::Bytes;

use super::{
    Context, Failure, NOT_POSITIVE, Outcome, SYNTAX, TOO_LONG, WRONG_TYPE, integer, is, wrong_count,
};
use crate::commands::expiry::{Unit, deadline};
use crate::resp::Reply;
use crate::value::Value;

pub(super) fn get(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::bulk_or_null(context.text(&args[1])?))
}

pub(super) fn strlen(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::count(context.text(&args[1])?.map_or(0, Vec::len)))
}

pub(super) fn mget(context: &mut Context, args: &[Bytes]) -> Outcome {
    let values = args[1..]
        .iter()
        // A key of another kind is as good as none here.
        .map(|key| Reply::bulk_or_null(context.text(key).unwrap_or(None)))
        .collect();
    Ok(Reply::Array(values))
}

/// What becomes of a key's expiry.
#[derive(Clone, Copy, PartialEq)]
enum Expiry {
    Remove,
    Keep,
    At(i64),
}

#[derive(Default)]
struct SetOptions {
    only_new: bool,
    only_existing: bool,
    give_old: bool,
    keep: bool,
    at: Option<i64>,
}

fn set_options(context: &Context, words: &[Bytes]) -> Result<SetOptions, Failure> {
    let mut options = SetOptions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "NX") && !options.only_existing {
            options.only_new = true;
        } else if is(word, "XX") && !options.only_new {
            options.only_existing = true;
        } else if is(word, "GET") {
            options.give_old = true;
        } else if is(word, "KEEPTTL") && options.at.is_none() {
            options.keep = true;
        } else if let Some(unit) = Unit::of(word)
            && options.at.is_none()
            && !options.keep
        {
            let amount = words.next().ok_or(SYNTAX)?;
            options.at = Some(deadline(amount, unit, context.now_ms, "set")?);
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(options)
}

fn store(context: &mut Context, key: &Bytes, value: &Bytes, expiry: Expiry) {
    let expires_ms = match expiry {
        Expiry::Remove => None,
        Expiry::At(at) => Some(at),
        Expiry::Keep => context.db().entry(key).and_then(|entry| entry.expires_ms),
    };
    context
        .db()
        .put(key.clone(), Value::Text(value.to_vec()), expires_ms);
    let mut effect = vec![Bytes::from_static(b"SET"), key.clone(), value.clone()];
    match expiry {
        Expiry::Remove => {}
        Expiry::Keep => effect.push(Bytes::from_static(b"KEEPTTL")),
        Expiry::At(at) => {
            effect.push(Bytes::from_static(b"PXAT"));
            effect.push(at.to_string().into());
        }
    }
    context.effect(effect);
}

pub(super) fn set(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (key, value) = (&args[1], &args[2]);
    let options = set_options(context, &args[3..])?;
    let old = if options.give_old {
        Some(Reply::bulk_or_null(context.text(key)?))
    } else {
        None
    };
    let exists = context.db().entry(key).is_some();
    if (options.only_new && exists) || (options.only_existing && !exists) {
        return Ok(old.unwrap_or(Reply::Null));
    }
    let expiry = match options.at {
        Some(at) => Expiry::At(at),
        None if options.keep => Expiry::Keep,
        None => Expiry::Remove,
    };
    store(context, key, value, expiry);
    Ok(old.unwrap_or(Reply::ok()))
}

pub(super) fn setnx(context: &mut Context, args: &[Bytes]) -> Outcome {
    if context.db().entry(&args[1]).is_some() {
        return Ok(Reply::Int(0));
    }
    store(context, &args[1], &args[2], Expiry::Remove);
    Ok(Reply::Int(1))
}

pub(super) fn setex(context: &mut Context, args: &[Bytes]) -> Outcome {
    let at = deadline(&args[2], Unit::Seconds, context.now_ms, "setex")?;
    store(context, &args[1], &args[3], Expiry::At(at));
    Ok(Reply::ok())
}

pub(super) fn psetex(context: &mut Context, args: &[Bytes]) -> Outcome {
    let at = deadline(&args[2], Unit::Milliseconds, context.now_ms, "psetex")?;
    store(context, &args[1], &args[3], Expiry::At(at));
    Ok(Reply::ok())
}

pub(super) fn getset(context: &mut Context, args: &[Bytes]) -> Outcome {
    let old = Reply::bulk_or_null(context.text(&args[1])?);
    store(context, &args[1], &args[2], Expiry::Remove);
    Ok(old)
}

pub(super) fn getdel(context: &mut Context, args: &[Bytes]) -> Outcome {
    let old = Reply::bulk_or_null(context.text(&args[1])?);
    if context.db().remove(&args[1]).is_some() {
        context.effect([Bytes::from_static(b"DEL"), args[1].clone()]);
    }
    Ok(old)
}

pub(super) fn getex(context: &mut Context, args: &[Bytes]) -> Outcome {
    let expiry = match &args[2..] {
        [] => None,
        [word] if is(word, "PERSIST") => Some(None),
        [word, amount] => {
            let unit = Unit::of(word).ok_or(SYNTAX)?;
            Some(Some(deadline(amount, unit, context.now_ms, "getex")?))
        }
        _ => return Err(SYNTAX),
    };
    let value = Reply::bulk_or_null(context.text(&args[1])?);
    let Some(before) = context.db().entry(&args[1]).map(|entry| entry.expires_ms) else {
        return Ok(value);
    };
    match expiry {
        Some(Some(at)) => {
            context.db().set_expiry(&args[1], Some(at));
            context.effect([
                Bytes::from_static(b"PEXPIREAT"),
                args[1].clone(),
                at.to_string().into(),
            ]);
        }
        Some(None) if before.is_some() => {
            context.db().set_expiry(&args[1], None);
            context.effect([Bytes::from_static(b"PERSIST"), args[1].clone()]);
        }
        _ => {}
    }
    Ok(value)
}

fn pairs<'a>(args: &'a [Bytes], name: &str) -> Result<&'a [Bytes], Failure> {
    let pairs = &args[1..];
    if pairs.len().is_multiple_of(2) {
        Ok(pairs)
    } else {
        Err(wrong_count(name))
    }
}

fn put_pairs(context: &mut Context, args: &[Bytes]) {
    for pair in args[1..].chunks_exact(2) {
        context
            .db()
            .put(pair[0].clone(), Value::Text(pair[1].to_vec()), None);
    }
    let request = [Bytes::from_static(b"MSET")]
        .into_iter()
        .chain(args[1..].iter().cloned());
    context.effect(request);
}

pub(super) fn mset(context: &mut Context, args: &[Bytes]) -> Outcome {
    pairs(args, "mset")?;
    put_pairs(context, args);
    Ok(Reply::ok())
}

pub(super) fn msetnx(context: &mut Context, args: &[Bytes]) -> Outcome {
    let taken = pairs(args, "msetnx")?
        .chunks_exact(2)
        .any(|pair| context.db().entry(&pair[0]).is_some());
    if taken {
        return Ok(Reply::Int(0));
    }
    put_pairs(context, args);
    Ok(Reply::Int(1))
}

pub(super) fn append(context: &mut Context, args: &[Bytes]) -> Outcome {
    let length = context.text(&args[1])?.map_or(0, Vec::len);
    if length.saturating_add(args[2].len()) > context.store.config.bulk_limit {
        return Err(TOO_LONG);
    }
    match context.db().get_mut(&args[1]) {
        Some(Value::Text(text)) => text.extend_from_slice(&args[2]),
        Some(_) => return Err(WRONG_TYPE),
        None => context
            .db()
            .put(args[1].clone(), Value::Text(args[2].to_vec()), None),
    }
    context.changed(args);
    Ok(Reply::count(length + args[2].len()))
}

pub(super) fn getrange(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let empty = Reply::Bulk(Bytes::new());
    let Some(text) = context.text(&args[1])? else {
        return Ok(empty);
    };
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    if length == 0 || (start < 0 && end < 0 && start > end) {
        return Ok(empty);
    }
    // Unlike in lists, an end before the beginning means the first byte.
    let place = |index: i64| {
        if index < 0 {
            index.saturating_add(length).max(0)
        } else {
            index
        }
    };
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end {
        return Ok(empty);
    }
    Ok(Reply::bulk(&text[start as usize..=end as usize]))
}

pub(super) fn setrange(context: &mut Context, args: &[Bytes]) -> Outcome {
    let offset = integer(&args[2])?;
    let offset =
        usize::try_from(offset).map_err(|_| super::failure("ERR offset is out of range"))?;
    let length = context.text(&args[1])?.map_or(0, Vec::len);
    if args[3].is_empty() {
        return Ok(Reply::count(length));
    }
    let end = offset.saturating_add(args[3].len());
    if end > context.store.config.bulk_limit {
        return Err(TOO_LONG);
    }
    if context.db().entry(&args[1]).is_none() {
        context
            .db()
            .put(args[1].clone(), Value::Text(Vec::new()), None);
    }
    let Some(Value::Text(text)) = context.db().get_mut(&args[1]) else {
        return Err(WRONG_TYPE);
    };
    if text.len() < end {
        text.resize(end, 0);
    }
    text[offset..end].copy_from_slice(&args[3]);
    let length = text.len();
    context.changed(args);
    Ok(Reply::count(length))
}

/// A count that may not be negative.
pub(super) fn count(arg: &[u8]) -> Result<usize, Failure> {
    crate::number::parse_int(arg)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(NOT_POSITIVE)
}
