//! The server as a whole.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;

use super::connection::VERSION;
use super::{
    COMMANDS, Command, Context, Effects, Failure, Outcome, SYNTAX, failure, is, unknown_subcommand,
    wrong_count,
};
use crate::glob;
use crate::resp::Reply;
use crate::store::Order;

pub(super) fn scripts(_context: &mut Context, args: &[Bytes]) -> Outcome {
    Err(Failure(Cow::Owned(format!(
        "ERR {} is not supported: this server runs no scripts; use MULTI/EXEC with WATCH, or a real Redis",
        String::from_utf8_lossy(&args[0]).to_ascii_uppercase()
    ))))
}

pub(super) fn dbsize(context: &mut Context, _args: &[Bytes]) -> Outcome {
    Ok(Reply::count(context.db().len()))
}

pub(super) fn time(context: &mut Context, _args: &[Bytes]) -> Outcome {
    let (seconds, ms) = (
        context.now_ms.div_euclid(1000),
        context.now_ms.rem_euclid(1000),
    );
    Ok(Reply::Array(vec![
        Reply::bulk(seconds.to_string()),
        Reply::bulk((ms * 1000).to_string()),
    ]))
}

/// Both ways of freeing memory are the same here.
fn flush_mode(args: &[Bytes]) -> Result<(), Failure> {
    match &args[1..] {
        [] => Ok(()),
        [mode] if is(mode, "ASYNC") || is(mode, "SYNC") => Ok(()),
        _ => Err(SYNTAX),
    }
}

pub(super) fn flushdb(context: &mut Context, args: &[Bytes]) -> Outcome {
    flush_mode(args)?;
    if context.db().clear() > 0 {
        context.effect([Bytes::from_static(b"FLUSHDB")]);
    }
    Ok(Reply::ok())
}

pub(super) fn flushall(context: &mut Context, args: &[Bytes]) -> Outcome {
    flush_mode(args)?;
    let mut cleared = 0;
    for database in &mut context.store.databases {
        cleared += database.clear();
    }
    if cleared > 0 {
        context.effect([Bytes::from_static(b"FLUSHALL")]);
    }
    Ok(Reply::ok())
}

/// There are no snapshots: what is on disk is the append-only file, and these force it there.
fn sync(context: &mut Context) -> Result<(), Failure> {
    if !context.store.config.append_only {
        return Err(failure(
            "ERR this server writes no snapshots; start it with --appendonly yes to keep data on disk",
        ));
    }
    context.store.orders.push(Order::Sync);
    Ok(())
}

pub(super) fn save(context: &mut Context, _args: &[Bytes]) -> Outcome {
    sync(context)?;
    Ok(Reply::ok())
}

pub(super) fn bgsave(context: &mut Context, args: &[Bytes]) -> Outcome {
    match &args[1..] {
        [] => {}
        [word] if is(word, "SCHEDULE") => {}
        _ => return Err(SYNTAX),
    }
    sync(context)?;
    Ok(Reply::Status(Cow::Borrowed("Background saving started")))
}

pub(super) fn bgrewriteaof(context: &mut Context, _args: &[Bytes]) -> Outcome {
    if !context.store.config.append_only {
        return Err(failure(
            "ERR there is no append-only file; start the server with --appendonly yes",
        ));
    }
    context.store.orders.push(Order::Rewrite);
    Ok(Reply::Status(Cow::Borrowed(
        "Background append only file rewriting started",
    )))
}

pub(super) fn lastsave(context: &mut Context, _args: &[Bytes]) -> Outcome {
    Ok(Reply::Int(context.store.figures.saved_s))
}

pub(super) fn shutdown(context: &mut Context, args: &[Bytes]) -> Outcome {
    const WORDS: [&str; 4] = ["NOSAVE", "SAVE", "NOW", "FORCE"];
    if !args[1..]
        .iter()
        .all(|arg| WORDS.iter().any(|word| is(arg, word)))
    {
        return Err(SYNTAX);
    }
    context.store.orders.push(Order::Shutdown);
    context.session.closing = true;
    Ok(Reply::Many(Vec::new()))
}

pub(super) fn config(context: &mut Context, args: &[Bytes]) -> Outcome {
    let sub = &args[1];
    if is(sub, "GET") {
        if args.len() < 3 {
            return Err(wrong_count("config|get"));
        }
        let found = context.store.config.list().into_iter().filter(|(name, _)| {
            args[2..]
                .iter()
                .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        });
        return Ok(Reply::Map(
            found
                .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)))
                .collect(),
        ));
    }
    if is(sub, "SET") {
        if args.len() < 4 || !args.len().is_multiple_of(2) {
            return Err(wrong_count("config|set"));
        }
        return config_set(context, &args[2..]);
    }
    if is(sub, "RESETSTAT") {
        let figures = &mut context.store.figures;
        (figures.commands, figures.connections, figures.expired) = (0, 0, 0);
        (figures.hits, figures.misses) = (0, 0);
        return Ok(Reply::ok());
    }
    if is(sub, "REWRITE") {
        return Err(failure("ERR The server is running without a config file"));
    }
    Err(unknown_subcommand("config", sub))
}

fn config_set(context: &mut Context, pairs: &[Bytes]) -> Outcome {
    const CHANGEABLE: [&str; 7] = [
        "appendfsync",
        "auto-aof-rewrite-min-size",
        "auto-aof-rewrite-percentage",
        "client-query-buffer-limit",
        "maxclients",
        "proto-max-bulk-len",
        "save",
    ];
    // All or nothing.
    let mut config = context.store.config.clone();
    for pair in pairs.chunks_exact(2) {
        let name = String::from_utf8_lossy(&pair[0]).to_ascii_lowercase();
        let value = String::from_utf8_lossy(&pair[1]);
        if !config.list().iter().any(|(known, _)| *known == name) {
            return Err(Failure(Cow::Owned(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            ))));
        }
        let refused = |reason: &str| {
            Failure(Cow::Owned(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
            )))
        };
        if !CHANGEABLE.contains(&name.as_str()) {
            return Err(refused("can't set immutable config"));
        }
        config.set(&name, &value).map_err(|error| match error {
            crate::config::Error::Value { reason, .. } => refused(&reason),
            other => refused(&other.to_string()),
        })?;
    }
    context.store.config = config;
    Ok(Reply::ok())
}

pub(super) fn command(_context: &mut Context, args: &[Bytes]) -> Outcome {
    let Some(sub) = args.get(1) else {
        return Ok(Reply::Array(COMMANDS.iter().map(described).collect()));
    };
    if is(sub, "COUNT") {
        return Ok(Reply::count(COMMANDS.len()));
    }
    if is(sub, "LIST") {
        return Ok(Reply::Array(
            COMMANDS
                .iter()
                .map(|command| Reply::bulk(command.name))
                .collect(),
        ));
    }
    if is(sub, "INFO") {
        let infos = if args.len() == 2 {
            COMMANDS.iter().map(described).collect()
        } else {
            args[2..]
                .iter()
                .map(|name| super::find(name).map_or(Reply::NullArray, described))
                .collect()
        };
        return Ok(Reply::Array(infos));
    }
    if is(sub, "DOCS") {
        // The server carries no manual; clients do without.
        return Ok(Reply::Map(Vec::new()));
    }
    Err(unknown_subcommand("command", sub))
}

fn described(command: &Command) -> Reply {
    let flag = match command.effects {
        Effects::Writes => "write",
        Effects::Reads => "readonly",
        Effects::Nothing => "noscript",
    };
    let number = |number: i32| Reply::Int(i64::from(number));
    let none = || Reply::Array(Vec::new());
    Reply::Array(vec![
        Reply::bulk(command.name),
        number(command.arity),
        Reply::Set(vec![Reply::Status(Cow::Borrowed(flag))]),
        number(command.keys.0),
        number(command.keys.1),
        number(command.keys.2),
        none(),
        none(),
        none(),
        none(),
    ])
}

pub(super) fn info(context: &mut Context, args: &[Bytes]) -> Outcome {
    let wanted = |section: &str| {
        args.len() == 1
            || args[1..].iter().any(|arg| {
                is(arg, section) || is(arg, "all") || is(arg, "everything") || is(arg, "default")
            })
    };
    let store = &*context.store;
    let figures = &store.figures;
    let mut text = String::new();
    let mut section = |title: &str, lines: &[(&str, String)]| {
        if !wanted(title) {
            return;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _ = write!(text, "# {title}\r\n");
        for (name, value) in lines {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    };
    let uptime = (context.now_ms - figures.started_ms).max(0) / 1000;
    section(
        "Server",
        &[
            ("redis_version", VERSION.to_owned()),
            ("redis_mode", "standalone".to_owned()),
            ("os", std::env::consts::OS.to_owned()),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("tcp_port", store.config.port.to_string()),
            ("uptime_in_seconds", uptime.to_string()),
            ("uptime_in_days", (uptime / 86400).to_string()),
        ],
    );
    let subscribers = store
        .peers
        .values()
        .filter(|peer| peer.subscriptions != (0, 0))
        .count();
    section(
        "Clients",
        &[
            ("connected_clients", store.peers.len().to_string()),
            ("maxclients", store.config.max_clients.to_string()),
            ("blocked_clients", "0".to_owned()),
            ("pubsub_clients", subscribers.to_string()),
        ],
    );
    section(
        "Memory",
        &[
            ("used_memory", figures.resident.to_string()),
            ("used_memory_rss", figures.resident.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory_policy", "noeviction".to_owned()),
        ],
    );
    let status = if store.write_refusal.is_some() {
        "err"
    } else {
        "ok"
    };
    section(
        "Persistence",
        &[
            ("loading", "0".to_owned()),
            ("rdb_changes_since_last_save", figures.unsaved.to_string()),
            ("rdb_last_save_time", figures.saved_s.to_string()),
            (
                "aof_enabled",
                u8::from(store.config.append_only).to_string(),
            ),
            ("aof_rewrite_in_progress", "0".to_owned()),
            ("aof_last_write_status", status.to_owned()),
        ],
    );
    section(
        "Stats",
        &[
            (
                "total_connections_received",
                figures.connections.to_string(),
            ),
            ("total_commands_processed", figures.commands.to_string()),
            ("expired_keys", figures.expired.to_string()),
            ("evicted_keys", "0".to_owned()),
            ("keyspace_hits", figures.hits.to_string()),
            ("keyspace_misses", figures.misses.to_string()),
            ("pubsub_channels", store.channels.len().to_string()),
            ("pubsub_patterns", store.patterns.len().to_string()),
        ],
    );
    section(
        "Replication",
        &[
            ("role", "master".to_owned()),
            ("connected_slaves", "0".to_owned()),
        ],
    );
    let mut spaces = Vec::new();
    for (index, database) in store.databases.iter().enumerate() {
        if !database.is_empty() {
            let line = format!(
                "keys={},expires={},avg_ttl=0",
                database.len(),
                database.expiring()
            );
            spaces.push((format!("db{index}"), line));
        }
    }
    let spaces: Vec<(&str, String)> = spaces
        .iter()
        .map(|(name, line)| (name.as_str(), line.clone()))
        .collect();
    section("Keyspace", &spaces);
    Ok(Reply::Verbatim(text))
}
