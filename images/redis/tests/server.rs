//! What the services rely on, proved for the built-in server and for a real one.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Kind, PROGRAM, Server, kinds};
use redis::{AsyncCommands, Commands};

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

#[test]
fn data_survives_kill_9() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(kind, dir.path(), &DURABLE);
        for round in 0..3 {
            let mut wire = server.connect();
            for number in 0..200 {
                let key = format!("booking:{round}:{number}");
                assert_eq!(wire.request(&["SET", &key, "{}"]), b"+OK\r\n");
            }
            wire.request(&["HSET", "h", &round.to_string(), "x"]);
            wire.request(&["SET", "short", "x", "PX", "1"]);
            wire.request(&["SET", "long", "x", "EX", "1000"]);
            // What was acknowledged is with the kernel: only the process dies here.
            server = server.kill_and_restart();
            let mut wire = server.connect();
            let keys = (round + 1) * 200 + 2;
            assert_eq!(
                wire.request(&["DBSIZE"]),
                format!(":{keys}\r\n").as_bytes(),
                "{kind:?}"
            );
            let left = String::from_utf8(wire.request(&["TTL", "long"])).unwrap();
            let left: i64 = left.trim().trim_start_matches(':').parse().unwrap();
            assert!((900..=1000).contains(&left), "{left}");
        }
    }
}

#[test]
fn each_server_goes_on_with_what_the_built_in_one_has_written() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Kind::BuiltIn, dir.path(), &DURABLE);
        let mut wire = server.connect();
        for request in [
            "SET a 1 EX 1000",
            "SELECT 3",
            "RPUSH l a b c",
            "SADD s 1 2 3",
            "HSET h f v",
            "ZADD z 1.25 m",
            "SPOP s",
            "INCRBYFLOAT f 1.5",
            "MULTI",
            "SET t 1",
            "INCR t",
            "EXEC",
            "BGREWRITEAOF",
            "APPEND after x",
        ] {
            let reply = wire.request(&request.split(' ').collect::<Vec<_>>());
            assert_ne!(reply[0], b'-', "{request}");
        }
        drop(server);
        let server = Server::start(kind, dir.path(), &DURABLE);
        let mut wire = server.connect();
        assert_eq!(wire.request(&["GET", "a"]), b"$1\r\n1\r\n");
        assert_ne!(wire.request(&["TTL", "a"]), b":-1\r\n");
        wire.request(&["SELECT", "3"]);
        for (request, reply) in [
            ("LRANGE l 0 -1", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
            ("SCARD s", ":2\r\n"),
            ("HGET h f", "$1\r\nv\r\n"),
            ("ZSCORE z m", "$4\r\n1.25\r\n"),
            ("GET f", "$3\r\n1.5\r\n"),
            ("GET t", "$1\r\n2\r\n"),
            ("GET after", "$1\r\nx\r\n"),
        ] {
            let got = wire.request(&request.split(' ').collect::<Vec<_>>());
            assert_eq!(String::from_utf8_lossy(&got), reply, "{kind:?} {request}");
        }
    }
}

#[test]
fn sigterm_ends_it_with_status_0() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(kind, dir.path(), &DURABLE);
        assert_eq!(server.connect().request(&["SET", "a", "1"]), b"+OK\r\n");
        let pid = server.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = server.child.wait().unwrap();
        assert_eq!(
            (status.code(), status.signal()),
            (Some(0), None),
            "{kind:?}"
        );
        let server = Server::start(kind, dir.path(), &DURABLE);
        assert_eq!(server.connect().request(&["GET", "a"]), b"$1\r\n1\r\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_who_want_a_seat_one_gets_it() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(kind, dir.path(), &DURABLE);
        let client = redis::Client::open(server.url()).unwrap();
        for round in 0..5 {
            let mut tasks = Vec::new();
            for number in 0..50 {
                let client = client.clone();
                tasks.push(tokio::spawn(async move {
                    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                    let seats = [
                        (format!("seat:{round}:A1"), number),
                        (format!("seat:{round}:own{number}"), number),
                    ];
                    connection.mset_nx::<_, _, bool>(&seats).await.unwrap()
                }));
            }
            let mut winners = 0;
            for task in tasks {
                winners += u32::from(task.await.unwrap());
            }
            assert_eq!(winners, 1, "{kind:?}");
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let keys: Vec<String> = connection.keys(format!("seat:{round}:*")).await.unwrap();
            assert_eq!(keys.len(), 2, "the losers took nothing: {keys:?}");
        }
    }
}

#[tokio::test]
async fn a_client_library_is_at_home() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(kind, dir.path(), &DURABLE);
        for protocol in ["", "?protocol=resp3"] {
            let client = redis::Client::open(format!("{}{protocol}", server.url())).unwrap();
            let config = redis::aio::ConnectionManagerConfig::new();
            let mut connection =
                redis::aio::ConnectionManager::new_with_config(client.clone(), config)
                    .await
                    .unwrap();
            let _: () = connection.set("user:1", r#"{"name":"김"}"#).await.unwrap();
            let text: String = connection.get("user:1").await.unwrap();
            assert_eq!(text, r#"{"name":"김"}"#);
            let none: Option<String> = connection.get("nobody").await.unwrap();
            assert_eq!(none, None);
            let map: std::collections::HashMap<String, i64> = {
                let _: () = connection
                    .hset_multiple("h", &[("a", 1), ("b", 2)])
                    .await
                    .unwrap();
                connection.hgetall("h").await.unwrap()
            };
            assert_eq!(map["b"], 2);
            let (first, second): (i64, Vec<String>) = redis::pipe()
                .atomic()
                .incr(format!("n{protocol}"), 5)
                .mget(&["user:1"])
                .query_async(&mut connection)
                .await
                .unwrap();
            assert_eq!((first, second.len()), (5, 1));
            let error = connection.incr::<_, _, i64>("user:1", 1).await.unwrap_err();
            assert!(error.to_string().contains("not an integer"), "{error}");
        }
        // Everything that is there is found by a scan, whatever goes meanwhile.
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut other = client.get_connection().unwrap();
        for number in 0..500 {
            let _: () = connection.set(format!("keep:{number}"), 1).unwrap();
            let _: () = connection.set(format!("go:{number}"), 1).unwrap();
        }
        let mut found = std::collections::HashSet::new();
        for (number, key) in connection
            .scan_match::<_, String>("*:*")
            .unwrap()
            .enumerate()
        {
            found.insert(key.unwrap());
            let _: () = other.del(format!("go:{}", number % 500)).unwrap();
        }
        let kept = found.iter().filter(|key| key.starts_with("keep:")).count();
        assert_eq!(kept, 500, "{kind:?}");
    }
}

#[test]
fn messages_reach_subscribers() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(kind, dir.path(), &[]);
        let client = redis::Client::open(server.url()).unwrap();
        let mut listening = client.get_connection().unwrap();
        listening
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut subscription = listening.as_pubsub();
        subscription.subscribe("news").unwrap();
        subscription.psubscribe("ne*").unwrap();
        let mut speaking = client.get_connection().unwrap();
        let heard: i64 = speaking.publish("news", "hello").unwrap();
        assert_eq!(heard, 2);
        for _ in 0..2 {
            let message = subscription.get_message().unwrap();
            assert_eq!(message.get_payload::<String>().unwrap(), "hello");
        }
    }
}

#[test]
fn expired_keys_go() {
    for kind in kinds() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(kind, dir.path(), &DURABLE);
        let mut wire = server.connect();
        wire.request(&["SET", "a", "1", "PX", "50"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while wire.request(&["EXISTS", "a"]) != b":0\r\n" {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(wire.request(&["INCR", "a"]), b":1\r\n");
        let server = server.kill_and_restart();
        assert_eq!(
            server.connect().request(&["GET", "a"]),
            b"$1\r\n1\r\n",
            "{kind:?}"
        );
    }
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(Kind::BuiltIn, dir.path(), &DURABLE);
    let output = Command::new(PROGRAM)
        .args([
            "redis-server",
            "--port",
            "0",
            "--dir",
            dir.path().to_str().unwrap(),
        ])
        .args(DURABLE)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another server"), "{text}");
}

#[test]
fn scripts_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::BuiltIn, dir.path(), &[]);
    let reply = server.connect().request(&["EVAL", "return 1", "0"]);
    assert!(String::from_utf8_lossy(&reply).starts_with("-ERR EVAL is not supported"));
}

fn cli(program: &[&str], port: u16, args: &[&str], input: &str) -> (String, Option<i32>) {
    use std::io::Write;
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .args(["-p", &port.to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code(),
    )
}

#[test]
fn the_command_line_client_shows_what_the_real_one_shows() {
    // One server for each client: both find the same data.
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::BuiltIn, dir.path(), &[]);
    let other = Server::start(Kind::BuiltIn, dir.path(), &[]);
    let ours = [PROGRAM, "redis-cli"];
    let real = ["/usr/bin/redis-cli"];
    let compare = std::path::Path::new(real[0]).exists();
    for (args, input) in [
        (&["--no-raw", "SET", "a", "x y\"\n\x07é"][..], ""),
        (&["--no-raw", "GET", "a"], ""),
        (&["GET", "a"], ""),
        (&["--no-raw", "GET", "nokey"], ""),
        (&["GET", "nokey"], ""),
        (&["--no-raw", "NOSUCH", "x"], ""),
        (&["NOSUCH", "x"], ""),
        (&["-e", "NOSUCH", "x"], ""),
        (&["--no-raw", "DEL", "l"], ""),
        (
            &[
                "--no-raw", "RPUSH", "l", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
            ],
            "",
        ),
        (&["--no-raw", "LRANGE", "l", "0", "-1"], ""),
        (&["LRANGE", "l", "0", "2"], ""),
        (&["--no-raw", "LRANGE", "none", "0", "-1"], ""),
        (&["LRANGE", "none", "0", "-1"], ""),
        (&["--no-raw", "HSCAN", "nokey", "0"], ""),
        (&["-n", "3", "DBSIZE"], ""),
        (&["-r", "3", "PING"], ""),
        (&["-x", "SET", "in"], "from input"),
        (&["GET", "in"], ""),
        (&[], "SET k v\nGET k\n\nNOSUCH\nLRANGE l 0 1\n"),
        (&["--no-raw"], "GET k\nGET \"k\"\nGET 'k\n"),
        (&["PING"], ""),
    ] {
        let got = cli(&ours, server.port, args, input);
        assert!(got.1.is_some());
        if compare {
            assert_eq!(got, cli(&real, other.port, args, input), "{args:?}");
        }
    }
    let refused = cli(&ours, 1, &["PING"], "");
    assert_eq!(refused.1, Some(1));
}
