//! Keys of any kind.

use std::borrow::Cow;

use bytes::Bytes;
use rand::Rng;

use super::{Context, NO_SUCH_KEY, Outcome};
use crate::resp::Reply;
use crate::value::Value;

pub(super) fn del(context: &mut Context, args: &[Bytes]) -> Outcome {
    let removed: Vec<Bytes> = args[1..]
        .iter()
        .filter(|key| context.db().remove(key).is_some())
        .cloned()
        .collect();
    let count = removed.len();
    if count > 0 {
        context.effect([Bytes::from_static(b"DEL")].into_iter().chain(removed));
    }
    Ok(Reply::count(count))
}

pub(super) fn exists(context: &mut Context, args: &[Bytes]) -> Outcome {
    let count = args[1..]
        .iter()
        .filter(|key| context.db().entry(key).is_some())
        .count();
    Ok(Reply::count(count))
}

pub(super) fn kind(context: &mut Context, args: &[Bytes]) -> Outcome {
    let kind = context.db().get(&args[1]).map_or("none", Value::kind);
    Ok(Reply::Status(Cow::Borrowed(kind)))
}

pub(super) fn randomkey(context: &mut Context, _args: &[Bytes]) -> Outcome {
    let count = context.db().len();
    if count == 0 {
        return Ok(Reply::Null);
    }
    let index = context.store.random.random_range(0..count);
    Ok(Reply::bulk_or_null(
        context.db().at(index).map(|(key, _)| key),
    ))
}

pub(super) fn rename(context: &mut Context, args: &[Bytes]) -> Outcome {
    moved(context, args)?;
    Ok(Reply::ok())
}

pub(super) fn renamenx(context: &mut Context, args: &[Bytes]) -> Outcome {
    if context.db().entry(&args[1]).is_none() {
        return Err(NO_SUCH_KEY);
    }
    if context.db().entry(&args[2]).is_some() {
        return Ok(Reply::Int(0));
    }
    moved(context, args)?;
    Ok(Reply::Int(1))
}

fn moved(context: &mut Context, args: &[Bytes]) -> Result<(), super::Failure> {
    if args[1] == args[2] {
        return context.db().entry(&args[1]).map(|_| ()).ok_or(NO_SUCH_KEY);
    }
    let entry = context.db().remove(&args[1]).ok_or(NO_SUCH_KEY)?;
    context
        .db()
        .put(args[2].clone(), entry.value, entry.expires_ms);
    context.effect([
        Bytes::from_static(b"RENAME"),
        args[1].clone(),
        args[2].clone(),
    ]);
    Ok(())
}
