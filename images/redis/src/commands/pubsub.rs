//! Channels.

use bytes::Bytes;

use super::{Context, Outcome};
use crate::glob;
use crate::resp::Reply;
use crate::store::leave;

pub(super) fn publish(context: &mut Context, args: &[Bytes]) -> Outcome {
    let (channel, payload) = (&args[1], &args[2]);
    let store = &mut *context.store;
    let before = store.messages.len();
    for id in store.channels.get(channel).into_iter().flatten() {
        let message = Reply::Push(vec![
            Reply::bulk("message"),
            Reply::Bulk(channel.clone()),
            Reply::Bulk(payload.clone()),
        ]);
        store.messages.push((*id, message));
    }
    for (pattern, ids) in &store.patterns {
        if !glob::matches(pattern, channel) {
            continue;
        }
        for id in ids {
            let message = Reply::Push(vec![
                Reply::bulk("pmessage"),
                Reply::Bulk(pattern.clone()),
                Reply::Bulk(channel.clone()),
                Reply::Bulk(payload.clone()),
            ]);
            store.messages.push((*id, message));
        }
    }
    Ok(Reply::count(store.messages.len() - before))
}

fn confirmation(context: &Context, kind: &str, name: Option<&Bytes>) -> Reply {
    Reply::Push(vec![
        Reply::bulk(kind),
        name.map_or(Reply::Null, |name| Reply::Bulk(name.clone())),
        Reply::count(context.session.subscriptions()),
    ])
}

pub(super) fn subscribe(context: &mut Context, args: &[Bytes]) -> Outcome {
    let mut replies = Vec::new();
    for channel in &args[1..] {
        let id = context.session.id;
        context.session.channels.insert(channel.clone());
        context
            .store
            .channels
            .entry(channel.clone())
            .or_default()
            .insert(id);
        replies.push(confirmation(context, "subscribe", Some(channel)));
    }
    Ok(Reply::Many(replies))
}

pub(super) fn psubscribe(context: &mut Context, args: &[Bytes]) -> Outcome {
    let mut replies = Vec::new();
    for pattern in &args[1..] {
        let id = context.session.id;
        context.session.patterns.insert(pattern.clone());
        context
            .store
            .patterns
            .entry(pattern.clone())
            .or_default()
            .insert(id);
        replies.push(confirmation(context, "psubscribe", Some(pattern)));
    }
    Ok(Reply::Many(replies))
}

pub(super) fn unsubscribe(context: &mut Context, args: &[Bytes]) -> Outcome {
    let names: Vec<Bytes> = match &args[1..] {
        [] => context.session.channels.iter().cloned().collect(),
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Ok(confirmation(context, "unsubscribe", None));
    }
    let mut replies = Vec::new();
    for channel in &names {
        context.session.channels.shift_remove(channel);
        leave(&mut context.store.channels, channel, context.session.id);
        replies.push(confirmation(context, "unsubscribe", Some(channel)));
    }
    Ok(Reply::Many(replies))
}

pub(super) fn punsubscribe(context: &mut Context, args: &[Bytes]) -> Outcome {
    let names: Vec<Bytes> = match &args[1..] {
        [] => context.session.patterns.iter().cloned().collect(),
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Ok(confirmation(context, "punsubscribe", None));
    }
    let mut replies = Vec::new();
    for pattern in &names {
        context.session.patterns.shift_remove(pattern);
        if let Some(ids) = context.store.patterns.get_mut(pattern) {
            ids.shift_remove(&context.session.id);
            if ids.is_empty() {
                context.store.patterns.shift_remove(pattern);
            }
        }
        replies.push(confirmation(context, "punsubscribe", Some(pattern)));
    }
    Ok(Reply::Many(replies))
}
