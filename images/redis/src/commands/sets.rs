//! Sets.

use bytes::Bytes;
use indexmap::IndexSet;
use rand::Rng;

use super::{Context, Failure, Outcome, SYNTAX, WRONG_TYPE};
use crate::resp::Reply;
use crate::value::Value;

type Set = IndexSet<Bytes>;

fn set<'a>(context: &'a mut Context, key: &[u8]) -> Result<Option<&'a Set>, Failure> {
    match context.db().get(key) {
        Some(Value::Set(set)) => Ok(Some(set)),
        Some(_) => Err(WRONG_TYPE),
        None => Ok(None),
    }
}

fn set_to_change<'a>(context: &'a mut Context, key: &[u8]) -> Result<Option<&'a mut Set>, Failure> {
    if set(context, key)?.is_none() {
        return Ok(None);
    }
    match context.db().get_mut(key) {
        Some(Value::Set(set)) => Ok(Some(set)),
        _ => Err(WRONG_TYPE),
    }
}

pub(super) fn sadd(context: &mut Context, args: &[Bytes]) -> Outcome {
    if set(context, &args[1])?.is_none() {
        context
            .db()
            .put(args[1].clone(), Value::Set(Set::new()), None);
    }
    let set = set_to_change(context, &args[1])?.ok_or(WRONG_TYPE)?;
    let added = args[2..]
        .iter()
        .filter(|member| set.insert((*member).clone()))
        .count();
    if added > 0 {
        context.changed(args);
    }
    Ok(Reply::count(added))
}

pub(super) fn srem(context: &mut Context, args: &[Bytes]) -> Outcome {
    let Some(set) = set_to_change(context, &args[1])? else {
        return Ok(Reply::Int(0));
    };
    let removed = args[2..]
        .iter()
        .filter(|member| set.swap_remove(*member))
        .count();
    context.db().remove_if_empty(&args[1]);
    if removed > 0 {
        context.changed(args);
    }
    Ok(Reply::count(removed))
}

pub(super) fn smembers(context: &mut Context, args: &[Bytes]) -> Outcome {
    let members = set(context, &args[1])?.into_iter().flatten();
    Ok(Reply::Set(members.cloned().map(Reply::Bulk).collect()))
}

pub(super) fn sismember(context: &mut Context, args: &[Bytes]) -> Outcome {
    let found = set(context, &args[1])?.is_some_and(|set| set.contains(&args[2]));
    Ok(Reply::flag(found))
}

pub(super) fn smismember(context: &mut Context, args: &[Bytes]) -> Outcome {
    let set = set(context, &args[1])?;
    let found = |member| set.is_some_and(|set| set.contains(member));
    Ok(Reply::Array(
        args[2..]
            .iter()
            .map(|member| Reply::flag(found(member)))
            .collect(),
    ))
}

pub(super) fn scard(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::count(set(context, &args[1])?.map_or(0, Set::len)))
}

pub(super) fn spop(context: &mut Context, args: &[Bytes]) -> Outcome {
    if args.len() > 3 {
        return Err(SYNTAX);
    }
    let count = args
        .get(2)
        .map(|arg| super::strings::count(arg))
        .transpose()?;
    let Some(length) = set(context, &args[1])?.map(Set::len) else {
        return Ok(if count.is_some() {
            Reply::Set(Vec::new())
        } else {
            Reply::Null
        });
    };
    let mut taken = Vec::new();
    for left in (0..length).rev().take(count.unwrap_or(1)) {
        let index = context.store.random.random_range(0..=left);
        if let Some(set) = set_to_change(context, &args[1])?
            && let Some(member) = set.swap_remove_index(index)
        {
            taken.push(member);
        }
    }
    context.db().remove_if_empty(&args[1]);
    if !taken.is_empty() {
        // Chance chose: written down is what it chose.
        let request = [Bytes::from_static(b"SREM"), args[1].clone()];
        context.effect(request.into_iter().chain(taken.iter().cloned()));
    }
    let mut taken: Vec<Reply> = taken.into_iter().map(Reply::Bulk).collect();
    Ok(match count {
        Some(_) => Reply::Set(taken),
        None => taken.pop().unwrap_or(Reply::Null),
    })
}
