//! Sorted sets.

use std::ops::Bound;

use bytes::Bytes;

use super::{
    Context, Failure, NOT_FLOAT, Outcome, SYNTAX, WRONG_TYPE, failure, integer, is, window,
};
use crate::number::{format_double, parse_float};
use crate::resp::{Protocol, Reply};
use crate::value::{Sorted, Value};

fn sorted<'a>(context: &'a mut Context, key: &[u8]) -> Result<Option<&'a Sorted>, Failure> {
    match context.db().get(key) {
        Some(Value::Sorted(sorted)) => Ok(Some(sorted)),
        Some(_) => Err(WRONG_TYPE),
        None => Ok(None),
    }
}

fn sorted_to_fill<'a>(context: &'a mut Context, key: &Bytes) -> Result<&'a mut Sorted, Failure> {
    if sorted(context, key)?.is_none() {
        context
            .db()
            .put(key.clone(), Value::Sorted(Sorted::default()), None);
    }
    match context.db().get_mut(key) {
        Some(Value::Sorted(sorted)) => Ok(sorted),
        _ => Err(WRONG_TYPE),
    }
}

#[derive(Clone, Copy, Default)]
struct AddOptions {
    only_new: bool,
    only_existing: bool,
    greater: bool,
    less: bool,
    count_changes: bool,
    increment: bool,
}

impl AddOptions {
    /// The options and where the pairs begin.
    fn of(args: &[Bytes]) -> Result<(Self, usize), Failure> {
        let mut options = AddOptions::default();
        let mut at = 2;
        while let Some(word) = args.get(at) {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" => options.only_new = true,
                b"XX" => options.only_existing = true,
                b"GT" => options.greater = true,
                b"LT" => options.less = true,
                b"CH" => options.count_changes = true,
                b"INCR" => options.increment = true,
                _ => break,
            }
            at += 1;
        }
        let pairs = args.len() - at;
        if pairs == 0 || !pairs.is_multiple_of(2) {
            return Err(SYNTAX);
        }
        if options.only_new && options.only_existing {
            return Err(failure(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if (options.greater && (options.only_new || options.less))
            || (options.less && options.only_new)
        {
            return Err(failure(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if options.increment && pairs > 2 {
            return Err(failure(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok((options, at))
    }

    fn allow(self, before: Option<f64>, score: f64) -> bool {
        match before {
            None => !self.only_existing,
            Some(before) => {
                !self.only_new
                    && (!self.greater || score > before)
                    && (!self.less || score < before)
            }
        }
    }
}

struct Added {
    new: usize,
    changed: usize,
    /// The last member's score, when it may have it.
    score: Option<f64>,
}

fn add(
    context: &mut Context,
    key: &Bytes,
    pairs: &[(f64, &Bytes)],
    options: AddOptions,
) -> Result<Added, Failure> {
    let mut added = Added {
        new: 0,
        changed: 0,
        score: None,
    };
    if sorted(context, key)?.is_none() && options.only_existing {
        return Ok(added);
    }
    let mut effect = vec![Bytes::from_static(b"ZADD"), key.clone()];
    let sorted = sorted_to_fill(context, key)?;
    let mut problem = None;
    for (score, member) in pairs {
        let before = sorted.score(member);
        let score = if options.increment {
            before.unwrap_or(0.0) + score
        } else {
            *score
        };
        if score.is_nan() {
            problem = Some(failure("ERR resulting score is not a number (NaN)"));
            break;
        }
        if !options.allow(before, score) {
            continue;
        }
        added.score = Some(score);
        if before == Some(score) {
            continue;
        }
        sorted.insert((*member).clone(), score);
        added.new += usize::from(before.is_none());
        added.changed += 1;
        effect.push(format_double(score).into());
        effect.push((*member).clone());
    }
    context.db().remove_if_empty(key);
    if added.changed > 0 {
        context.effect(effect);
    }
    problem.map_or(Ok(added), Err)
}

pub(super) fn zadd(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (options, at) = AddOptions::of(args)?;
    let pairs = args[at..]
        .chunks_exact(2)
        .map(|pair| Ok((parse_float(&pair[0]).ok_or(NOT_FLOAT)?, &pair[1])))
        .collect::<Result<Vec<_>, Failure>>()?;
    let added = add(context, &args[1], &pairs, options)?;
    Ok(if options.increment {
        added.score.map_or(Reply::Null, Reply::Double)
    } else if options.count_changes {
        Reply::count(added.changed)
    } else {
        Reply::count(added.new)
    })
}

pub(super) fn zincrby(context: &mut Context, args: &[Bytes]) -> Outcome {
    let amount = parse_float(&args[2]).ok_or(NOT_FLOAT)?;
    let options = AddOptions {
        increment: true,
        ..AddOptions::default()
    };
    let added = add(context, &args[1], &[(amount, &args[3])], options)?;
    Ok(added.score.map_or(Reply::Null, Reply::Double))
}

pub(super) fn zrem(context: &mut Context, args: &[Bytes]) -> Outcome {
    if sorted(context, &args[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let sorted = sorted_to_fill(context, &args[1])?;
    let removed = args[2..]
        .iter()
        .filter(|member| sorted.remove(member))
        .count();
    context.db().remove_if_empty(&args[1]);
    if removed > 0 {
        context.changed(args);
    }
    Ok(Reply::count(removed))
}

pub(super) fn zscore(context: &mut Context, args: &[Bytes]) -> Outcome {
    let score = sorted(context, &args[1])?.and_then(|sorted| sorted.score(&args[2]));
    Ok(score.map_or(Reply::Null, Reply::Double))
}

pub(super) fn zcard(context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::count(
        sorted(context, &args[1])?.map_or(0, Sorted::len),
    ))
}

pub(super) fn zrank(context: &mut Context, args: &[Bytes]) -> Outcome {
    let rank = sorted(context, &args[1])?.and_then(|sorted| sorted.rank(&args[2]));
    Ok(rank.map_or(Reply::Null, Reply::count))
}

pub(super) fn zrevrank(context: &mut Context, args: &[Bytes]) -> Outcome {
    let sorted = sorted(context, &args[1])?;
    let rank = sorted.and_then(|sorted| Some(sorted.len() - 1 - sorted.rank(&args[2])?));
    Ok(rank.map_or(Reply::Null, Reply::count))
}

/// An end of a range of scores: `5`, `(5` without it, `-inf`.
fn bound(arg: &[u8]) -> Result<Bound<f64>, Failure> {
    let (text, open) = match arg.strip_prefix(b"(") {
        Some(text) => (text, true),
        None => (arg, false),
    };
    let score = parse_float(text).ok_or(failure("ERR min or max is not a float"))?;
    Ok(if open {
        Bound::Excluded(score)
    } else {
        Bound::Included(score)
    })
}

pub(super) fn zrange(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (mut by_score, mut reverse, mut with_scores, mut limit) = (false, false, false, None);
    let mut words = args[4..].iter();
    while let Some(word) = words.next() {
        if is(word, "BYSCORE") {
            by_score = true;
        } else if is(word, "REV") {
            reverse = true;
        } else if is(word, "WITHSCORES") {
            with_scores = true;
        } else if is(word, "LIMIT") {
            let (Some(offset), Some(count)) = (words.next(), words.next()) else {
                return Err(SYNTAX);
            };
            limit = Some((integer(offset)?, integer(count)?));
        } else if is(word, "BYLEX") {
            return Err(failure("ERR BYLEX is not supported by this server"));
        } else {
            return Err(SYNTAX);
        }
    }
    if limit.is_some() && !by_score {
        return Err(failure(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    let protocol = context.session.protocol;
    let chosen: Vec<(f64, Bytes)> = if by_score {
        let (low, high) = if reverse {
            (&args[3], &args[2])
        } else {
            (&args[2], &args[3])
        };
        let range = (bound(low)?, bound(high)?);
        let sorted = sorted(context, &args[1])?;
        let mut inside: Vec<_> = sorted
            .into_iter()
            .flat_map(Sorted::iter)
            .filter(|(score, _)| std::ops::RangeBounds::contains(&range, score))
            .map(|(score, member)| (score, member.clone()))
            .collect();
        if reverse {
            inside.reverse();
        }
        let (offset, count) = limit.unwrap_or((0, -1));
        match usize::try_from(offset) {
            Ok(offset) => inside
                .into_iter()
                .skip(offset)
                .take(usize::try_from(count).unwrap_or(usize::MAX))
                .collect(),
            Err(_) => Vec::new(),
        }
    } else {
        let (start, end) = (integer(&args[2])?, integer(&args[3])?);
        let sorted = sorted(context, &args[1])?;
        let range = window(start, end, sorted.map_or(0, Sorted::len));
        let owned = |(score, member): (f64, &Bytes)| (score, member.clone());
        let members = sorted.into_iter().flat_map(Sorted::iter);
        let (skip, take) = (range.start, range.len());
        if reverse {
            members.rev().skip(skip).take(take).map(owned).collect()
        } else {
            members.skip(skip).take(take).map(owned).collect()
        }
    };
    Ok(Reply::Array(listed(chosen, with_scores, protocol)))
}

fn listed(chosen: Vec<(f64, Bytes)>, with_scores: bool, protocol: Protocol) -> Vec<Reply> {
    chosen
        .into_iter()
        .flat_map(|(score, member)| {
            let (member, score) = (Reply::Bulk(member), Reply::Double(score));
            match (with_scores, protocol) {
                (false, _) => vec![member],
                (true, Protocol::Resp2) => vec![member, score],
                (true, Protocol::Resp3) => vec![Reply::Array(vec![member, score])],
            }
        })
        .collect()
}
