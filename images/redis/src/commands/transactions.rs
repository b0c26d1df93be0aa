//! `MULTI`, `EXEC` and `WATCH`.

use bytes::Bytes;

use super::{Context, Outcome, failure, find, run};
use crate::resp::Reply;
use crate::session::{Transaction, Watched};
use crate::store::Effect;

pub(super) fn multi(context: &mut Context, _args: &[Bytes]) -> Outcome {
    if context.session.transaction.is_some() {
        return Err(failure("ERR MULTI calls can not be nested"));
    }
    context.session.transaction = Some(Transaction::default());
    Ok(Reply::ok())
}

pub(super) fn discard(context: &mut Context, _args: &[Bytes]) -> Outcome {
    if context.session.transaction.take().is_none() {
        return Err(failure("ERR DISCARD without MULTI"));
    }
    context.session.watched.clear();
    Ok(Reply::ok())
}

pub(super) fn exec(context: &mut Context, _args: &[Bytes]) -> Outcome {
    let transaction = context
        .session
        .transaction
        .take()
        .ok_or(failure("ERR EXEC without MULTI"))?;
    let watched = std::mem::take(&mut context.session.watched);
    if transaction.refused {
        return Err(failure(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    let unchanged = watched
        .iter()
        .all(|watched| version(context, watched.database, &watched.key) == watched.version);
    if !unchanged {
        return Ok(Reply::NullArray);
    }
    let first = context.store.effects.len();
    let database = context.session.database;
    let mut replies = Vec::new();
    for request in transaction.queue {
        if let Some(command) = request.first().and_then(|name| find(name)) {
            replies.push(run(context, command, &request));
        }
    }
    // Together on disk as well: a file cut off in the middle has none of it.
    let effects = &mut context.store.effects;
    if effects.len() > first + 1 {
        let mark = |name: &'static [u8]| Effect {
            database,
            request: vec![Bytes::from_static(name)],
        };
        effects.insert(first, mark(b"MULTI"));
        let database = effects.last().map_or(database, |effect| effect.database);
        effects.push(Effect {
            database,
            ..mark(b"EXEC")
        });
    }
    Ok(Reply::Array(replies))
}

pub(super) fn watch(context: &mut Context, args: &[Bytes]) -> Outcome {
    if context.session.transaction.is_some() {
        return Err(failure("ERR WATCH inside MULTI is not allowed"));
    }
    let database = context.session.database;
    for key in &args[1..] {
        let version = version(context, database, key);
        context.session.watched.push(Watched {
            database,
            key: key.clone(),
            version,
        });
    }
    Ok(Reply::ok())
}

pub(super) fn unwatch(context: &mut Context, _args: &[Bytes]) -> Outcome {
    context.session.watched.clear();
    Ok(Reply::ok())
}

fn version(context: &Context, database: usize, key: &[u8]) -> Option<u64> {
    context.store.databases[database]
        .entry(key)
        .map(|entry| entry.version)
}
