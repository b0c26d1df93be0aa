//! The same requests to the built-in server and to a real one: the same replies, byte for byte.

mod common;

use common::{Kind, Server, kinds};

/// One connection, in this order. Words are separated by one blank; `''` is an empty one.
const REQUESTS: &str = r"
PING
PING hello
PING a b
ECHO hi
ECHO
NOSUCH
nosuch a b c
GET
GET a b
SET a 1
GET a
SET a 2 NX
SET b 2 NX
SET c 3 XX
SET a 3 GET
SET new 3 GET
SET a 4 XX GET
SET a 5 NX XX
SET a 5 EX
SET a 5 EX abc
SET a 5 EX 0
SET a 5 EX -1
SET a 5 PX 100 EX 100
SET a 5 EX 100 KEEPTTL
SET a 5 NONSENSE
SET a 5 EX 9223372036854775807
SET a 5 EX 100
TTL a
SET a 6 KEEPTTL
TTL a
SET a 7
TTL a
SET a 7 EXAT 99999999999
EXPIRETIME a
PEXPIRETIME a
PERSIST a
PERSIST a
TTL nokey
PTTL nokey
EXPIRETIME nokey
EXPIRE nokey 10
EXPIRE a 100
EXPIRE a 50 GT
EXPIRE a 200 GT
EXPIRE a 300 LT
EXPIRE a 100 NX
EXPIRE a 100 XX
EXPIRE a 100 NX XX
EXPIRE a 100 GT LT
EXPIRE a 100 FOO
EXPIRE a abc
EXPIRE a 9223372036854775807
EXPIREAT a 1
EXISTS a
PEXPIREAT b 1
EXISTS b
SETNX n 1
SETNX n 2
SETEX e 100 v
SETEX e 0 v
SETEX e x v
PSETEX e -5 v
GETSET n 9
GETSET fresh 1
GETDEL fresh
GETDEL fresh
GETEX e
GETEX e PERSIST
TTL e
GETEX e EX 10
GETEX e EX 0
GETEX e NONSENSE
GETEX nokey EX 10
MSET k1 v1 k2 v2
MSET k1
MSET k1 v1 k2
MGET k1 k2 nokey
MSETNX k2 x k3 y
MSETNX k3 x k4 y
MSETNX k3
INCR n
INCRBY n 10
INCRBY n x
DECR n
DECRBY n 3
DECRBY n -9223372036854775808
INCR k1
SET big 9223372036854775807
INCR big
SET sp \s1
INCR sp
INCRBYFLOAT n 0.5
INCRBYFLOAT n 0.1
INCRBYFLOAT n 1e2
INCRBYFLOAT n abc
INCRBYFLOAT k1 1
INCRBYFLOAT n inf
SET f 10.50
INCRBYFLOAT f 0.1
APPEND ap hello
APPEND ap world
STRLEN ap
STRLEN nokey
GETRANGE ap 0 4
GETRANGE ap -5 -1
GETRANGE ap 0 -100
GETRANGE ap -1 -5
GETRANGE ap 5 100
GETRANGE ap x 1
GETRANGE nokey 0 1
SETRANGE ap 5 W
SETRANGE ap -1 x
SETRANGE pad 3 x
SETRANGE nokey 5 ''
SETRANGE ap 600000000 x
GET ap
GET pad
EXISTS ap ap nokey
TYPE ap
TYPE nokey
DEL ap pad nokey
UNLINK f nokey
RENAME k1 k9
RENAME nokey x
RENAME k9 k9
RENAMENX k9 k2
RENAMENX k9 k8
RENAMENX nokey x
HSET h a 1 b 2
HSET h a 3 c 4
HSET h a
HGET h a
HGET h nofield
HGET nokey a
HMGET h a nofield c
HGETALL h
HGETALL nokey
HKEYS h
HVALS h
HLEN h
HEXISTS h a
HEXISTS h z
HDEL h a z
HINCRBY h b 5
HINCRBY h new 1
HSET h t text
HINCRBY h t 1
HINCRBY h b x
HSETNX h b 1
HSETNX h q 1
HMSET h m 1
HMSET h m
HDEL h b c new t q m
EXISTS h
LPUSH l a b c
RPUSH l d
LRANGE l 0 -1
LRANGE l 1 2
LRANGE l -100 100
LRANGE l 5 10
LRANGE l 0 -100
LRANGE l x 1
LRANGE nokey 0 -1
LLEN l
LLEN nokey
LINDEX l 0
LINDEX l -1
LINDEX l 99
LINDEX l x
LSET l 0 z
LSET l 99 z
LSET nokey 0 z
LREM l 0 a
RPUSH l x y x y x
LREM l 2 x
LREM l -1 y
LREM nokey 1 x
LRANGE l 0 -1
LPOP l
RPOP l
LPOP l 2
LPOP l 0
LPOP nokey
LPOP nokey 1
LPOP l -1
LPOP l 1 2
RPUSH t 1 2 3 4 5
LTRIM t 1 3
LRANGE t 0 -1
LTRIM t 5 1
EXISTS t
SADD s 1 2 3 2
SADD s 3
SMEMBERS s
SISMEMBER s 1
SISMEMBER s 9
SMISMEMBER s 1 9
SCARD s
SREM s 1 9
SCARD nokey
SMEMBERS nokey
SPOP nokey
SPOP nokey 2
SPOP s 0
SPOP s -1
SREM s 2
SPOP s 10
EXISTS s
ZADD z 1 a 2 b 3 c
ZADD z 1.5 a
ZADD z CH 1 a 5 d
ZADD z NX 9 a
ZADD z XX 9 nokey
ZADD z GT 0.5 a
ZADD z LT 0.5 a
ZADD z INCR 2 a
ZADD z NX INCR 2 a
ZADD z NX XX 1 a
ZADD z GT NX 1 a
ZADD z INCR 1 a 2 b
ZADD z x a
ZADD z 1
ZADD z inf top -inf bottom
ZINCRBY z -inf top
ZSCORE z a
ZSCORE z top
ZSCORE z nokey
ZCARD z
ZINCRBY z 2.5 a
ZINCRBY z x a
ZRANK z a
ZRANK z nokey
ZREVRANK z a
ZRANGE z 0 -1
ZRANGE z 0 -1 WITHSCORES
ZRANGE z 0 1 REV
ZRANGE z 1 3 BYSCORE
ZRANGE z (2 5 BYSCORE WITHSCORES
ZRANGE z +inf -inf BYSCORE REV LIMIT 0 2
ZRANGE z -inf +inf BYSCORE LIMIT 1 -1
ZRANGE z 0 1 LIMIT 0 1
ZRANGE z a b BYSCORE
ZRANGE z a b
ZRANGE z 0 1 NONSENSE
ZREM z a nokey
ZREM z b c d top bottom
EXISTS z
LPUSH n x
HSET n a 1
SADD n x
ZADD n 1 x
RPUSH lst 1
GET lst
INCR lst
APPEND lst x
SET lst now
GETSET n x
HGET n x
LRANGE n 0 1
SMEMBERS n
ZRANGE n 0 1
MGET n lst
RPUSH lst2 1
GETDEL lst2
SET lst2 1 GET
MGET lst2
MULTI
SET m 1
INCR m
GET m
EXEC
MULTI
MULTI
DISCARD
EXEC
DISCARD
MULTI
NOSUCH
SET m 5
EXEC
MULTI
GET
EXEC
MULTI
LPUSH m x
SET m 9
EXEC
MULTI
EXEC
WATCH m
SET m 2
MULTI
GET m
EXEC
WATCH m
UNWATCH
SET m 3
MULTI
GET m
EXEC
WATCH
MULTI
WATCH m
EXEC
SELECT 1
DBSIZE
SET only 1
KEYS *
RANDOMKEY
FLUSHDB
RANDOMKEY
SELECT 16
SELECT x
SELECT -1
SELECT 0
FLUSHDB NOW
FLUSHALL ASYNC
DBSIZE
SET user:1 a
KEYS user:*
KEYS nothing*
SCAN 0
SCAN 0 MATCH user:* COUNT 100
SCAN 0 TYPE list
SCAN x
SCAN 0 COUNT 0
SCAN 0 COUNT x
SCAN 0 NONSENSE
SCAN 0 MATCH
HSET h f v
HSCAN h 0
HSCAN nokey 0
HSCAN h 0 MATCH x*
SADD s 1
SSCAN s 0
SSCAN user:1 0
ZADD z 1 a
ZSCAN z 0
PUBLISH ch hi
CLIENT GETNAME
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME
CLIENT NONSENSE
CLIENT NO-EVICT on
CLIENT NO-EVICT maybe
AUTH pw
AUTH default pw
AUTH nobody pw
AUTH a b c
HELLO x
HELLO 4
HELLO 2 NONSENSE
CONFIG GET appendonly
CONFIG GET nosuchthing
CONFIG SET nosuchthing 1
CONFIG SET appendfsync maybe
CONFIG SET
CONFIG NONSENSE
COMMAND NONSENSE
SUBSCRIBE one two
GET a
PING
PSUBSCRIBE p*
UNSUBSCRIBE one
UNSUBSCRIBE nothing
UNSUBSCRIBE
PUNSUBSCRIBE
UNSUBSCRIBE
GET user:1
RESET
CLIENT GETNAME
HELLO 3
GET nokey
HGETALL h
SMEMBERS s
ZSCORE z a
ZRANGE z 0 -1 WITHSCORES
ZADD z INCR 1.5 a
LPOP nokey 1
MULTI
GET nokey
EXEC
WATCH h
HSET h f w
MULTI
EXEC
SUBSCRIBE x
GET user:1
PING
UNSUBSCRIBE x
HELLO 2
GET nokey
QUIT
";

fn words(line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| {
            if word == "''" {
                String::new()
            } else {
                word.replace("\\s", " ")
            }
        })
        .collect()
}

/// What two servers may differ in.
fn comparable(words: &[String], reply: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(reply).into_owned();
    if words[0] == "HELLO"
        && let Some((before, after)) = text.split_once("$2\r\nid\r\n:")
    {
        let rest = after.split_once("\r\n").map_or("", |(_, rest)| rest);
        text = format!("{before}$2\r\nid\r\n:ID\r\n{rest}");
    }
    text
}

fn replies(kind: Kind) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        kind,
        dir.path(),
        &["--appendonly", "yes", "--appendfsync", "no"],
    );
    let mut wire = server.connect();
    let mut replies = Vec::new();
    for line in REQUESTS.lines().filter(|line| !line.is_empty()) {
        let words = words(line);
        let reply = wire.request(&words);
        replies.push((line.to_owned(), comparable(&words, &reply)));
        // One reply for each channel.
        let more = match words[0].as_str() {
            "SUBSCRIBE" if words.len() > 2 => words.len() - 2,
            // Unsubscribing from everything: there is one channel left at that point.
            _ => 0,
        };
        for _ in 0..more {
            let reply = wire.reply();
            replies.push((line.to_owned(), comparable(&words, &reply)));
        }
    }
    replies
}

#[test]
fn replies_are_the_same() {
    let built_in = replies(Kind::BuiltIn);
    assert!(built_in.len() > 150);
    if kinds() == [Kind::BuiltIn] {
        eprintln!("there is no real redis-server here to compare with");
        return;
    }
    let real = replies(Kind::Real);
    let differences: Vec<String> = built_in
        .iter()
        .zip(&real)
        .filter(|(built_in, real)| built_in != real)
        .map(|(built_in, real)| {
            format!(
                "{}\n  real     {:?}\n  built-in {:?}",
                real.0, real.1, built_in.1
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn bytes_that_are_no_requests() {
    for input in [
        &b"*1\r\n:1\r\n"[..],
        b"*abc\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$600000000\r\n",
        b"*3000000000\r\n",
        b"GET \"unbalanced\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\nPING\r\n*0\r\nPING\r\nQUIT\r\n",
        b"SET a \"x\\x41 y\"\r\nGET a\r\nQUIT\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\nQUIT\r\n",
    ] {
        let all: Vec<String> = kinds()
            .into_iter()
            .map(|kind| {
                let dir = tempfile::tempdir().unwrap();
                let server = Server::start(kind, dir.path(), &[]);
                let mut wire = server.connect();
                wire.send(input);
                let mut all = Vec::new();
                loop {
                    let reply = wire.reply();
                    if reply.is_empty() {
                        break;
                    }
                    all.extend(reply);
                }
                String::from_utf8_lossy(&all).into_owned()
            })
            .collect();
        assert!(
            all.windows(2).all(|pair| pair[0] == pair[1]),
            "{:?}: {all:?}",
            String::from_utf8_lossy(input)
        );
    }
}
