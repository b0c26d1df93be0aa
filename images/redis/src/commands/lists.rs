//! Lists.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Context, Failure, NO_SUCH_KEY, Outcome, WRONG_TYPE, failure, integer, window, wrong_count,
};
use crate::resp::Reply;
use crate::value::Value;

type List = VecDeque<Bytes>;

fn list<'a>(context: &'a mut Context, key: &[u8]) -> Result<Option<&'a List>, Failure> {
    match context.db().get(key) {
        Some(Value::List(list)) => Ok(Some(list)),
        Some(_) => Err(WRONG_TYPE),
        None => Ok(None),
    }
}

fn list_to_change<'a>(
    context: &'a mut Context,
    key: &[u8],
) -> Result<Option<&'a mut List>, Failure> {
    if list(context, key)?.is_none() {
        return Ok(None);
    }
    match context.db().get_mut(key) {
        Some(Value::List(list)) => Ok(Some(list)),
        _ => Err(WRONG_TYPE),
    }
}

fn push(context: &mut Context, args: &[Bytes], front: bool) -> Outcome {
    if list(context, &args[1])?.is_none() {
        context
            .db()
            .put(args[1].clone(), Value::List(List::new()), None);
    }
    let list = list_to_change(context, &args[1])?.ok_or(WRONG_TYPE)?;
    for item in &args[2..] {
        if front {
            list.push_front(item.clone());
        } else {
            list.push_back(item.clone());
        }
    }
    let length = list.len();
    context.changed(args);
    Ok(Reply::count(length))
}

pub(super) fn lpush(context: &mut Context, args: &[Bytes]) -> Outcome {
    push(context, args, true)
}

pub(super) fn rpush(context: &mut Context, args: &[Bytes]) -> Outcome {
    push(context, args, false)
}

fn pop(context: &mut Context, args: &[Bytes], front: bool, name: &str) -> Outcome {
    if args.len() > 3 {
        return Err(wrong_count(name));
    }
    let count = args
        .get(2)
        .map(|arg| super::strings::count(arg))
        .transpose()?;
    let Some(list) = list_to_change(context, &args[1])? else {
        return Ok(if count.is_some() {
            Reply::NullArray
        } else {
            Reply::Null
        });
    };
    let mut items = Vec::new();
    while items.len() < count.unwrap_or(1) {
        let item = if front {
            list.pop_front()
        } else {
            list.pop_back()
        };
        match item {
            Some(item) => items.push(Reply::Bulk(item)),
            None => break,
        }
    }
    context.db().remove_if_empty(&args[1]);
    if !items.is_empty() {
        context.changed(args);
    }
    Ok(match count {
        Some(_) => Reply::Array(items),
        None => items.pop().unwrap_or(Reply::Null),
    })
}

pub(super) fn lpop(context: &mut Context, args: &[Bytes]) -> Outcome {
    pop(context, args, true, "lpop")
}

pub(super) fn rpop(context: &mut Context, args: &[Bytes]) -> Outcome {
    pop(context, args, false, "rpop")
}

pub(super) fn llen(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::count(list(context, &args[1])?.map_or(0, List::len)))
}

pub(super) fn lrange(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let items = match list(context, &args[1])? {
        Some(list) => {
            let range = window(start, end, list.len());
            list.range(range).cloned().map(Reply::Bulk).collect()
        }
        None => Vec::new(),
    };
    Ok(Reply::Array(items))
}

fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 {
        index.checked_add(length)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|_| index < length)
}

pub(super) fn lindex(context: &mut Context, args: &[Bytes]) -> Outcome {
    let Some(list) = list(context, &args[1])? else {
        return Ok(Reply::Null);
    };
    let index = integer(&args[2])?;
    let item = place(index, list.len()).and_then(|index| list.get(index));
    Ok(Reply::bulk_or_null(item))
}

pub(super) fn lset(context: &mut Context, args: &[Bytes]) -> Outcome {
    let length = list(context, &args[1])?.ok_or(NO_SUCH_KEY)?.len();
    let index = place(integer(&args[2])?, length).ok_or(failure("ERR index out of range"))?;
    if let Some(list) = list_to_change(context, &args[1])? {
        list[index] = args[3].clone();
    }
    context.changed(args);
    Ok(Reply::ok())
}

pub(super) fn lrem(context: &mut Context, args: &[Bytes]) -> Outcome {
    let count = integer(&args[2])?;
    let Some(list) = list_to_change(context, &args[1])? else {
        return Ok(Reply::Int(0));
    };
    let limit = match usize::try_from(count.unsigned_abs()) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    let mut removed = 0;
    let mut keep = |item: &Bytes| {
        let goes = *item == args[3] && removed < limit;
        removed += usize::from(goes);
        !goes
    };
    if count < 0 {
        let mut kept: Vec<Bytes> = list.drain(..).rev().filter(|item| keep(item)).collect();
        kept.reverse();
        *list = kept.into();
    } else {
        list.retain(&mut keep);
    }
    context.db().remove_if_empty(&args[1]);
    if removed > 0 {
        context.changed(args);
    }
    Ok(Reply::count(removed))
}

pub(super) fn ltrim(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let Some(list) = list_to_change(context, &args[1])? else {
        return Ok(Reply::ok());
    };
    let range = window(start, end, list.len());
    list.truncate(range.end);
    list.drain(..range.start);
    context.db().remove_if_empty(&args[1]);
    context.changed(args);
    Ok(Reply::ok())
}
