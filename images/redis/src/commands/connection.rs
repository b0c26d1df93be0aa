//! The connection itself.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Context, Failure, NOT_INTEGER, Outcome, SYNTAX, failure, is, unknown_subcommand, wrong_count,
};
use crate::number::parse_int;
use crate::resp::{Protocol, Reply};
use crate::session::Session;
use crate::store::Peer;

/// The version of Redis whose answers these are.
pub(super) const VERSION: &str = "7.0.15";

pub(super) fn ping(context: &mut Context, args: &[Bytes]) -> Outcome {
    if args.len() > 2 {
        return Err(wrong_count("ping"));
    }
    let message = args.get(1).cloned();
    if context.session.protocol == Protocol::Resp2 && context.session.subscriptions() > 0 {
        let message = message.unwrap_or_default();
        return Ok(Reply::Array(vec![
            Reply::bulk("pong"),
            Reply::Bulk(message),
        ]));
    }
    Ok(message.map_or(Reply::Status(Cow::Borrowed("PONG")), Reply::Bulk))
}

pub(super) fn echo(_context: &mut Context, args: &[Bytes]) -> Outcome {
    Ok(Reply::Bulk(args[1].clone()))
}

pub(super) fn quit(context: &mut Context, _args: &[Bytes]) -> Outcome {
    context.session.closing = true;
    Ok(Reply::ok())
}

pub(super) fn reset(context: &mut Context, _args: &[Bytes]) -> Outcome {
    context.store.disconnect_channels(context.session);
    let fresh = Session::new(
        context.session.id,
        context.session.address.clone(),
        context.session.since_ms,
    );
    *context.session = fresh;
    if let Some(peer) = context.store.peers.get_mut(&context.session.id) {
        peer.name = Bytes::new();
        peer.protocol = 2;
    }
    Ok(Reply::Status(Cow::Borrowed("RESET")))
}

pub(super) fn select(context: &mut Context, args: &[Bytes]) -> Outcome {
    let index = parse_int(&args[1]).ok_or(NOT_INTEGER)?;
    context.session.database = usize::try_from(index)
        .ok()
        .filter(|index| *index < context.store.databases.len())
        .ok_or(failure("ERR DB index is out of range"))?;
    Ok(Reply::ok())
}

/// There are no passwords here: the default user comes in with any.
fn authenticate(user: &[u8]) -> Result<(), Failure> {
    if user == b"default" {
        Ok(())
    } else {
        Err(failure(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ))
    }
}

pub(super) fn auth(_context: &mut Context, args: &[Bytes]) -> Outcome {
    match &args[1..] {
        [_] => Err(failure(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        )),
        [user, _] => authenticate(user).map(|()| Reply::ok()),
        _ => Err(SYNTAX),
    }
}

pub(super) fn hello(context: &mut Context, args: &[Bytes]) -> Outcome {
    let mut protocol = context.session.protocol;
    if let Some(version) = args.get(1) {
        let version = parse_int(version).ok_or(failure(
            "ERR Protocol version is not an integer or out of range",
        ))?;
        protocol = match version {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(failure("NOPROTO unsupported protocol version")),
        };
    }
    let mut name = None;
    let mut words = args.get(2..).unwrap_or_default();
    loop {
        match words {
            [] => break,
            [word, user, _password, rest @ ..] if is(word, "AUTH") => {
                authenticate(user)?;
                words = rest;
            }
            [word, given, rest @ ..] if is(word, "SETNAME") => {
                name = Some(valid_name(given)?);
                words = rest;
            }
            [word, ..] => {
                return Err(Failure(Cow::Owned(format!(
                    "ERR Syntax error in HELLO option '{}'",
                    String::from_utf8_lossy(word)
                ))));
            }
        }
    }
    context.session.protocol = protocol;
    let id = context.session.id;
    if let Some(name) = name {
        set_name(context, name);
    }
    let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
    if let Some(peer) = context.store.peers.get_mut(&id) {
        peer.protocol = version;
    }
    let pair = |key: &str, value: Reply| (Reply::bulk(key), value);
    Ok(Reply::Map(vec![
        pair("server", Reply::bulk("redis")),
        pair("version", Reply::bulk(VERSION)),
        pair("proto", Reply::Int(i64::from(version))),
        pair("id", Reply::Int(i64::try_from(id).unwrap_or(i64::MAX))),
        pair("mode", Reply::bulk("standalone")),
        pair("role", Reply::bulk("master")),
        pair("modules", Reply::Array(Vec::new())),
    ]))
}

fn valid_name(name: &Bytes) -> Result<Bytes, Failure> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(name.clone())
    } else {
        Err(failure(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

fn set_name(context: &mut Context, name: Bytes) {
    context.session.name = name.clone();
    if let Some(peer) = context.store.peers.get_mut(&context.session.id) {
        peer.name = name;
    }
}

pub(super) fn client(context: &mut Context, args: &[Bytes]) -> Outcome {
    let sub = args[1].to_ascii_lowercase();
    let exactly = |count: usize| {
        if args.len() == count {
            Ok(())
        } else {
            Err(wrong_count(&format!(
                "client|{}",
                String::from_utf8_lossy(&sub)
            )))
        }
    };
    match sub.as_slice() {
        b"id" => {
            exactly(2)?;
            Ok(Reply::Int(
                i64::try_from(context.session.id).unwrap_or(i64::MAX),
            ))
        }
        b"getname" => {
            exactly(2)?;
            let name = &context.session.name;
            Ok(if name.is_empty() {
                Reply::Null
            } else {
                Reply::Bulk(name.clone())
            })
        }
        b"setname" => {
            exactly(3)?;
            set_name(context, valid_name(&args[2])?);
            Ok(Reply::ok())
        }
        b"setinfo" => {
            exactly(4)?;
            let value = valid_name(&args[3])?;
            if is(&args[2], "lib-name") {
                context.session.library.0 = value;
            } else if is(&args[2], "lib-ver") {
                context.session.library.1 = value;
            } else {
                return Err(Failure(Cow::Owned(format!(
                    "ERR Unrecognized option '{}'",
                    String::from_utf8_lossy(&args[2])
                ))));
            }
            if let Some(peer) = context.store.peers.get_mut(&context.session.id) {
                peer.library = context.session.library.clone();
            }
            Ok(Reply::ok())
        }
        b"list" => {
            exactly(2)?;
            let lines = context
                .store
                .peers
                .iter()
                .map(|(id, peer)| line(*id, peer, context.now_ms));
            Ok(Reply::Verbatim(lines.collect()))
        }
        b"info" => {
            exactly(2)?;
            let id = context.session.id;
            let line = context
                .store
                .peers
                .get(&id)
                .map(|peer| line(id, peer, context.now_ms));
            Ok(Reply::Verbatim(line.unwrap_or_default()))
        }
        b"no-evict" | b"no-touch" => {
            exactly(3)?;
            // Nothing is ever evicted, and no key has a time of last use.
            if is(&args[2], "on") || is(&args[2], "off") {
                Ok(Reply::ok())
            } else {
                Err(SYNTAX)
            }
        }
        _ => Err(unknown_subcommand("client", &args[1])),
    }
}

fn line(id: u64, peer: &Peer, now_ms: i64) -> String {
    format!(
        "id={id} addr={} name={} age={} idle={} flags=N db={} sub={} psub={} cmd={} user=default lib-name={} lib-ver={} resp={}\n",
        peer.address,
        String::from_utf8_lossy(&peer.name),
        (now_ms - peer.since_ms).max(0) / 1000,
        (now_ms - peer.last_ms).max(0) / 1000,
        peer.database,
        peer.subscriptions.0,
        peer.subscriptions.1,
        peer.command,
        String::from_utf8_lossy(&peer.library.0),
        String::from_utf8_lossy(&peer.library.1),
        peer.protocol,
    )
}
