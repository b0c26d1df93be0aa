//! Hashes.

use bytes::Bytes;
use indexmap::IndexMap;

use super::{Context, Failure, Outcome, WRONG_TYPE, failure, integer, wrong_count};
use crate::number::parse_int;
use crate::resp::Reply;
use crate::value::Value;

type Hash = IndexMap<Bytes, Bytes>;

fn hash<'a>(context: &'a mut Context, key: &[u8]) -> Result<Option<&'a Hash>, Failure> {
    match context.db().get(key) {
        Some(Value::Hash(hash)) => Ok(Some(hash)),
        Some(_) => Err(WRONG_TYPE),
        None => Ok(None),
    }
}

fn hash_to_fill<'a>(context: &'a mut Context, key: &Bytes) -> Result<&'a mut Hash, Failure> {
    if hash(context, key)?.is_none() {
        context
            .db()
            .put(key.clone(), Value::Hash(Hash::new()), None);
    }
    match context.db().get_mut(key) {
        Some(Value::Hash(hash)) => Ok(hash),
        _ => Err(WRONG_TYPE),
    }
}

fn fill(context: &mut Context, args: &[Bytes], name: &str) -> Result<usize, Failure> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_count(name));
    }
    let hash = hash_to_fill(context, &args[1])?;
    let mut added = 0;
    for pair in args[2..].chunks_exact(2) {
        added += usize::from(hash.insert(pair[0].clone(), pair[1].clone()).is_none());
    }
    context.changed(args);
    Ok(added)
}

pub(super) fn hset(context: &mut Context, args: &[Bytes]) -> Outcome {
    fill(context, args, "hset").map(Reply::count)
}

pub(super) fn hmset(context: &mut Context, args: &[Bytes]) -> Outcome {
    fill(context, args, "hmset").map(|_| Reply::ok())
}

pub(super) fn hsetnx(context: &mut Context, args: &[Bytes]) -> Outcome {
    if hash(context, &args[1])?.is_some_and(|hash| hash.contains_key(&args[2])) {
        return Ok(Reply::Int(0));
    }
    hash_to_fill(context, &args[1])?.insert(args[2].clone(), args[3].clone());
    context.changed(args);
    Ok(Reply::Int(1))
}

pub(super) fn hget(context: &mut Context, args: &[Bytes]) -> Outcome {
    let hash = hash(context, &args[1])?;
    Ok(Reply::bulk_or_null(
        hash.and_then(|hash| hash.get(&args[2])),
    ))
}

pub(super) fn hmget(context: &mut Context, args: &[Bytes]) -> Outcome {
    let hash = hash(context, &args[1])?;
    let values = args[2..]
        .iter()
        .map(|field| Reply::bulk_or_null(hash.and_then(|hash| hash.get(field))))
        .collect();
    Ok(Reply::Array(values))
}

pub(super) fn hgetall(context: &mut Context, args: &[Bytes]) -> Outcome {
    let hash = hash(context, &args[1])?;
    let pairs = hash.into_iter().flatten();
    Ok(Reply::Map(
        pairs
            .map(|(field, value)| (Reply::Bulk(field.clone()), Reply::Bulk(value.clone())))
            .collect(),
    ))
}

pub(super) fn hkeys(context: &mut Context, args: &[Bytes]) -> Outcome {
    let hash = hash(context, &args[1])?;
    let fields = hash.into_iter().flat_map(IndexMap::keys);
    Ok(Reply::Array(fields.cloned().map(Reply::Bulk).collect()))
}

pub(super) fn hvals(context: &mut Context, args: &[Bytes]) -> Outcome {
    let hash = hash(context, &args[1])?;
    let values = hash.into_iter().flat_map(IndexMap::values);
    Ok(Reply::Array(values.cloned().map(Reply::Bulk).collect()))
}

pub(super) fn hlen(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::count(
        hash(context, &args[1])?.map_or(0, IndexMap::len),
    ))
}

pub(super) fn hexists(context: &mut Context, args: &[Bytes]) -> Outcome {
    let found = hash(context, &args[1])?.is_some_and(|hash| hash.contains_key(&args[2]));
    Ok(Reply::flag(found))
}

pub(super) fn hdel(context: &mut Context, args: &[Bytes]) -> Outcome {
    if hash(context, &args[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let hash = hash_to_fill(context, &args[1])?;
    let removed = args[2..]
        .iter()
        .filter(|field| hash.shift_remove(*field).is_some())
        .count();
    context.db().remove_if_empty(&args[1]);
    if removed > 0 {
        context.changed(args);
    }
    Ok(Reply::count(removed))
}

pub(super) fn hincrby(context: &mut Context, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[3])?;
    let before = match hash(context, &args[1])?.and_then(|hash| hash.get(&args[2])) {
        Some(text) => parse_int(text).ok_or(failure("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = before
        .checked_add(amount)
        .ok_or(failure("ERR increment or decrement would overflow"))?;
    hash_to_fill(context, &args[1])?.insert(args[2].clone(), sum.to_string().into());
    context.changed(args);
    Ok(Reply::Int(sum))
}
