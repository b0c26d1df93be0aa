//! The commands: their table, and what is common to all.

mod connection;
mod expiry;
mod hashes;
mod keys;
mod lists;
mod numbers;
mod pubsub;
mod scan;
mod server;
mod sets;
mod sorted;
mod strings;
mod transactions;

use std::borrow::Cow;

use bytes::Bytes;

use crate::number::{parse_float, parse_int};
use crate::resp::{Protocol, Reply};
use crate::session::Session;
use crate::store::{Database, Effect, Store};
use crate::value::Value;

/// What a command works with.
pub struct Context<'a> {
    /// The data.
    pub store: &'a mut Store,
    /// The connection.
    pub session: &'a mut Session,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

/// An error reply.
#[derive(Debug)]
pub struct Failure(pub Cow<'static, str>);

/// What a command answers.
pub type Outcome = Result<Reply, Failure>;

pub(crate) const fn failure(text: &'static str) -> Failure {
    Failure(Cow::Borrowed(text))
}

const WRONG_TYPE: Failure =
    failure("WRONGTYPE Operation against a key holding the wrong kind of value");
const NOT_INTEGER: Failure = failure("ERR value is not an integer or out of range");
const NOT_FLOAT: Failure = failure("ERR value is not a valid float");
const SYNTAX: Failure = failure("ERR syntax error");
const NO_SUCH_KEY: Failure = failure("ERR no such key");
const NOT_POSITIVE: Failure = failure("ERR value is out of range, must be positive");
const TOO_LONG: Failure = failure("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// What a command does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effects {
    /// Changes keys.
    Writes,
    /// Reads keys.
    Reads,
    /// Neither.
    Nothing,
}

pub(crate) struct Command {
    pub name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub arity: i32,
    pub effects: Effects,
    /// Position of the first key, of the last (negative: from the end), and the step.
    pub keys: (i32, i32, i32),
    run: fn(&mut Context, &[Bytes]) -> Outcome,
}

const fn command(
    name: &'static str,
    arity: i32,
    effects: Effects,
    keys: (i32, i32, i32),
    run: fn(&mut Context, &[Bytes]) -> Outcome,
) -> Command {
    Command {
        name,
        arity,
        effects,
        keys,
        run,
    }
}

const NONE: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);

use Effects::{Nothing, Reads, Writes};

#[rustfmt::skip]
pub(crate) static COMMANDS: &[Command] = &[
    command("append", 3, Writes, ONE, strings::append),
    command("auth", -2, Nothing, NONE, connection::auth),
    command("bgrewriteaof", 1, Nothing, NONE, server::bgrewriteaof),
    command("bgsave", -1, Nothing, NONE, server::bgsave),
    command("client", -2, Nothing, NONE, connection::client),
    command("command", -1, Nothing, NONE, server::command),
    command("config", -2, Nothing, NONE, server::config),
    command("dbsize", 1, Reads, NONE, server::dbsize),
    command("decr", 2, Writes, ONE, numbers::decr),
    command("decrby", 3, Writes, ONE, numbers::decrby),
    command("del", -2, Writes, ALL, keys::del),
    command("discard", 1, Nothing, NONE, transactions::discard),
    command("echo", 2, Nothing, NONE, connection::echo),
    command("eval", -3, Nothing, NONE, server::scripts),
    command("evalsha", -3, Nothing, NONE, server::scripts),
    command("exec", 1, Nothing, NONE, transactions::exec),
    command("exists", -2, Reads, ALL, keys::exists),
    command("expire", -3, Writes, ONE, expiry::expire),
    command("expireat", -3, Writes, ONE, expiry::expireat),
    command("expiretime", 2, Reads, ONE, expiry::expiretime),
    command("fcall", -3, Nothing, NONE, server::scripts),
    command("flushall", -1, Writes, NONE, server::flushall),
    command("flushdb", -1, Writes, NONE, server::flushdb),
    command("function", -2, Nothing, NONE, server::scripts),
    command("get", 2, Reads, ONE, strings::get),
    command("getdel", 2, Writes, ONE, strings::getdel),
    command("getex", -2, Writes, ONE, strings::getex),
    command("getrange", 4, Reads, ONE, strings::getrange),
    command("getset", 3, Writes, ONE, strings::getset),
    command("hdel", -3, Writes, ONE, hashes::hdel),
    command("hello", -1, Nothing, NONE, connection::hello),
    command("hexists", 3, Reads, ONE, hashes::hexists),
    command("hget", 3, Reads, ONE, hashes::hget),
    command("hgetall", 2, Reads, ONE, hashes::hgetall),
    command("hincrby", 4, Writes, ONE, hashes::hincrby),
    command("hkeys", 2, Reads, ONE, hashes::hkeys),
    command("hlen", 2, Reads, ONE, hashes::hlen),
    command("hmget", -3, Reads, ONE, hashes::hmget),
    command("hmset", -4, Writes, ONE, hashes::hmset),
    command("hscan", -3, Reads, ONE, scan::hscan),
    command("hset", -4, Writes, ONE, hashes::hset),
    command("hsetnx", 4, Writes, ONE, hashes::hsetnx),
    command("hvals", 2, Reads, ONE, hashes::hvals),
    command("incr", 2, Writes, ONE, numbers::incr),
    command("incrby", 3, Writes, ONE, numbers::incrby),
    command("incrbyfloat", 3, Writes, ONE, numbers::incrbyfloat),
    command("info", -1, Nothing, NONE, server::info),
    command("keys", 2, Reads, NONE, scan::keys),
    command("lastsave", 1, Nothing, NONE, server::lastsave),
    command("lindex", 3, Reads, ONE, lists::lindex),
    command("llen", 2, Reads, ONE, lists::llen),
    command("lpop", -2, Writes, ONE, lists::lpop),
    command("lpush", -3, Writes, ONE, lists::lpush),
    command("lrange", 4, Reads, ONE, lists::lrange),
    command("lrem", 4, Writes, ONE, lists::lrem),
    command("lset", 4, Writes, ONE, lists::lset),
    command("ltrim", 4, Writes, ONE, lists::ltrim),
    command("mget", -2, Reads, ALL, strings::mget),
    command("mset", -3, Writes, (1, -1, 2), strings::mset),
    command("msetnx", -3, Writes, (1, -1, 2), strings::msetnx),
    command("multi", 1, Nothing, NONE, transactions::multi),
    command("persist", 2, Writes, ONE, expiry::persist),
    command("pexpire", -3, Writes, ONE, expiry::pexpire),
    command("pexpireat", -3, Writes, ONE, expiry::pexpireat),
    command("pexpiretime", 2, Reads, ONE, expiry::pexpiretime),
    command("ping", -1, Nothing, NONE, connection::ping),
    command("psetex", 4, Writes, ONE, strings::psetex),
    command("psubscribe", -2, Nothing, NONE, pubsub::psubscribe),
    command("pttl", 2, Reads, ONE, expiry::pttl),
    command("publish", 3, Nothing, NONE, pubsub::publish),
    command("punsubscribe", -1, Nothing, NONE, pubsub::punsubscribe),
    command("quit", -1, Nothing, NONE, connection::quit),
    command("randomkey", 1, Reads, NONE, keys::randomkey),
    command("rename", 3, Writes, (1, 2, 1), keys::rename),
    command("renamenx", 3, Writes, (1, 2, 1), keys::renamenx),
    command("reset", 1, Nothing, NONE, connection::reset),
    command("rpop", -2, Writes, ONE, lists::rpop),
    command("rpush", -3, Writes, ONE, lists::rpush),
    command("sadd", -3, Writes, ONE, sets::sadd),
    command("save", 1, Nothing, NONE, server::save),
    command("scan", -2, Reads, NONE, scan::scan),
    command("scard", 2, Reads, ONE, sets::scard),
    command("script", -2, Nothing, NONE, server::scripts),
    command("select", 2, Nothing, NONE, connection::select),
    command("set", -3, Writes, ONE, strings::set),
    command("setex", 4, Writes, ONE, strings::setex),
    command("setnx", 3, Writes, ONE, strings::setnx),
    command("setrange", 4, Writes, ONE, strings::setrange),
    command("shutdown", -1, Nothing, NONE, server::shutdown),
    command("sismember", 3, Reads, ONE, sets::sismember),
    command("smembers", 2, Reads, ONE, sets::smembers),
    command("smismember", -3, Reads, ONE, sets::smismember),
    command("spop", -2, Writes, ONE, sets::spop),
    command("srem", -3, Writes, ONE, sets::srem),
    command("sscan", -3, Reads, ONE, scan::sscan),
    command("strlen", 2, Reads, ONE, strings::strlen),
    command("subscribe", -2, Nothing, NONE, pubsub::subscribe),
    command("time", 1, Nothing, NONE, server::time),
    command("touch", -2, Reads, ALL, keys::exists),
    command("ttl", 2, Reads, ONE, expiry::ttl),
    command("type", 2, Reads, ONE, keys::kind),
    command("unlink", -2, Writes, ALL, keys::del),
    command("unsubscribe", -1, Nothing, NONE, pubsub::unsubscribe),
    command("unwatch", 1, Nothing, NONE, transactions::unwatch),
    command("watch", -2, Nothing, ALL, transactions::watch),
    command("zadd", -4, Writes, ONE, sorted::zadd),
    command("zcard", 2, Reads, ONE, sorted::zcard),
    command("zincrby", 4, Writes, ONE, sorted::zincrby),
    command("zrange", -4, Reads, ONE, sorted::zrange),
    command("zrank", 3, Reads, ONE, sorted::zrank),
    command("zrem", -3, Writes, ONE, sorted::zrem),
    command("zrevrank", 3, Reads, ONE, sorted::zrevrank),
    command("zscan", -3, Reads, ONE, scan::zscan),
    command("zscore", 3, Reads, ONE, sorted::zscore),
];

/// Commands that cannot be part of a transaction.
const ALONE: [&str; 2] = ["save", "shutdown"];

/// The command of a name in any case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    let lower = name.to_ascii_lowercase();
    COMMANDS
        .binary_search_by(|command| command.name.as_bytes().cmp(&lower))
        .ok()
        .map(|index| &COMMANDS[index])
}

/// Executes a request: finds the command, refuses what may not be now, queues within a
/// transaction, runs.
pub(crate) fn dispatch(context: &mut Context, args: &[Bytes]) -> Reply {
    let checked = check(context, args);
    let command = match checked {
        Ok(command) => command,
        Err(Failure(text)) => {
            if let Some(transaction) = &mut context.session.transaction {
                transaction.refused = true;
            }
            return Reply::Error(text);
        }
    };
    context.note(command);
    let direct = ["exec", "discard", "multi", "watch", "quit", "reset"].contains(&command.name);
    if !direct && let Some(transaction) = &mut context.session.transaction {
        transaction.queue.push(args.to_vec());
        return Reply::Status(Cow::Borrowed("QUEUED"));
    }
    run(context, command, args)
}

/// Runs a command that may run, and writes down what it changed.
pub(crate) fn run(context: &mut Context, command: &Command, args: &[Bytes]) -> Reply {
    (command.run)(context, args).unwrap_or_else(|Failure(text)| Reply::Error(text))
}

fn check(context: &Context, args: &[Bytes]) -> Result<&'static Command, Failure> {
    let Some(name) = args.first() else {
        return Err(SYNTAX);
    };
    let command = find(name).ok_or_else(|| unknown(args))?;
    if !arity_fits(command.arity, args.len()) {
        return Err(wrong_count(command.name));
    }
    if context.session.protocol == Protocol::Resp2 && context.session.subscriptions() > 0 {
        const ALLOWED: [&str; 7] = [
            "ping",
            "subscribe",
            "unsubscribe",
            "psubscribe",
            "punsubscribe",
            "quit",
            "reset",
        ];
        if !ALLOWED.contains(&command.name) {
            return Err(Failure(Cow::Owned(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.name
            ))));
        }
    }
    if context.session.transaction.is_some() && ALONE.contains(&command.name) {
        return Err(failure("ERR Command not allowed inside a transaction"));
    }
    if command.effects == Effects::Writes
        && let Some(reason) = &context.store.write_refusal
    {
        return Err(Failure(Cow::Owned(format!(
            "MISCONF Errors writing to the AOF file: {reason}"
        ))));
    }
    Ok(command)
}

fn arity_fits(arity: i32, count: usize) -> bool {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if arity < 0 {
        count >= -arity
    } else {
        count == arity
    }
}

fn unknown(args: &[Bytes]) -> Failure {
    let name = String::from_utf8_lossy(&args[0][..args[0].len().min(128)]).into_owned();
    let mut shown = String::new();
    for arg in &args[1..] {
        if shown.len() >= 128 {
            break;
        }
        let length = arg.len().min(128 - shown.len());
        shown.push_str(&format!("'{}' ", String::from_utf8_lossy(&arg[..length])));
    }
    Failure(Cow::Owned(format!(
        "ERR unknown command '{name}', with args beginning with: {shown}"
    )))
}

/// The error about too few or too many arguments.
pub(crate) fn wrong_count(name: &str) -> Failure {
    Failure(Cow::Owned(format!(
        "ERR wrong number of arguments for '{name}' command"
    )))
}

pub(crate) fn unknown_subcommand(name: &str, sub: &[u8]) -> Failure {
    Failure(Cow::Owned(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        String::from_utf8_lossy(&sub[..sub.len().min(128)]),
        name.to_ascii_uppercase()
    )))
}

fn integer(text: &[u8]) -> Result<i64, Failure> {
    parse_int(text).ok_or(NOT_INTEGER)
}

fn float(text: &[u8]) -> Result<f64, Failure> {
    parse_float(text).ok_or(NOT_FLOAT)
}

/// Whether an argument is this word, in any case.
fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// A range of positions as Redis counts them: negative ones from the end, both ends
/// included, cut to what exists.
fn window(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let place = |index: i64| {
        if index < 0 {
            index.saturating_add(length)
        } else {
            index
        }
    };
    let start = place(start).max(0);
    let end = place(end).min(length - 1);
    if start > end {
        return 0..0;
    }
    start as usize..end as usize + 1
}

impl Context<'_> {
    /// The selected database.
    fn db(&mut self) -> &mut Database {
        &mut self.store.databases[self.session.database]
    }

    /// Writes a change down, in words that do not depend on the time or on chance.
    fn effect<T: Into<Bytes>>(&mut self, request: impl IntoIterator<Item = T>) {
        self.store.figures.unsaved += 1;
        self.store.effects.push(Effect {
            database: self.session.database,
            request: request.into_iter().map(Into::into).collect(),
        });
    }

    /// The request itself is the change.
    fn changed(&mut self, args: &[Bytes]) {
        self.effect(args.iter().cloned());
    }

    fn text(&mut self, key: &[u8]) -> Result<Option<&Vec<u8>>, Failure> {
        let database = &self.store.databases[self.session.database];
        match database.get(key) {
            Some(Value::Text(text)) => {
                self.store.figures.hits += 1;
                Ok(Some(text))
            }
            Some(_) => Err(WRONG_TYPE),
            None => {
                self.store.figures.misses += 1;
                Ok(None)
            }
        }
    }

    fn note(&mut self, command: &'static Command) {
        let session = &self.session;
        if let Some(peer) = self.store.peers.get_mut(&session.id) {
            peer.last_ms = self.now_ms;
            peer.command = command.name;
            peer.database = session.database;
            peer.subscriptions = (session.channels.len(), session.patterns.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        for pair in COMMANDS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
        }
    }

    #[test]
    fn windows() {
        assert_eq!(window(0, -1, 3), 0..3);
        assert_eq!(window(-2, 10, 3), 1..3);
        assert_eq!(window(2, 1, 3), 0..0);
        assert_eq!(window(0, -1, 0), 0..0);
        assert_eq!(window(i64::MIN, i64::MAX, 2), 0..2);
    }
}
