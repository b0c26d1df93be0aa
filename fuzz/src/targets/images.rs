//! What reaches the programs of the images over the network.

use bytes::{Bytes, BytesMut};
use redis_image::config::Config;
use redis_image::request::Reader;
use redis_image::resp::Reply;
use redis_image::session::Session;
use redis_image::store::{Effect, Store};
use redis_image::value::Value;

use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "redis-requests",
        run: redis_requests,
        also: &[],
    },
    Target {
        name: "redis-commands",
        run: redis_commands,
        also: &[],
    },
];

/// Small: some commands make a value as long as a number says.
const BULK_LIMIT: usize = 1 << 16;

/// The requests before the first error, which ends the connection.
fn requests(input: &[u8], step: usize) -> (Vec<Vec<Bytes>>, Option<String>) {
    let mut reader = Reader::new(BULK_LIMIT, 4 * BULK_LIMIT);
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&mut buffer) {
                Ok(Some(args)) => requests.push(args),
                Ok(None) => break,
                Err(reason) => return (requests, Some(reason)),
            }
        }
    }
    (requests, None)
}

/// Requests do not depend on how their bytes arrive.
fn redis_requests(input: &[u8]) {
    let whole = requests(input, input.len());
    for step in [1, 3] {
        assert_eq!(requests(input, step), whole, "in pieces of {step} bytes");
    }
}

/// A store that was filled from the append-only file is the store that wrote it, before and after a rewrite of the file.
fn redis_commands(input: &[u8]) {
    const NOW: i64 = 1_700_000_000_000;
    let config = Config {
        append_only: true,
        bulk_limit: BULK_LIMIT,
        request_limit: 4 * BULK_LIMIT,
        ..Config::default()
    };
    let mut store = Store::new(config.clone(), 1);
    let mut session = Session::new(1, "127.0.0.1:1".to_owned(), NOW);
    let mut written = Vec::new();
    for (number, args) in requests(input, input.len()).0.into_iter().enumerate() {
        // Settings of the server change what other requests may do; that has its own tests.
        if args[0].eq_ignore_ascii_case(b"config") {
            continue;
        }
        let now = NOW + number as i64;
        store.execute(&mut session, now, &args);
        written.append(&mut store.effects);
        if session.closing {
            break;
        }
    }
    let data = contents(&store);
    assert_eq!(
        contents(&filled(&config, written)),
        data,
        "from the changes"
    );
    let rebuilt: Vec<Effect> = store.rebuild().collect();
    assert_eq!(contents(&filled(&config, rebuilt)), data, "from a rewrite");
}

fn filled(config: &Config, effects: Vec<Effect>) -> Store {
    let mut store = Store::new(config.clone(), 2);
    let mut session = Session::default();
    let mut execute = |request: &[Bytes]| {
        // At the beginning of time, as when the file is loaded.
        if let Reply::Error(reason) = store.execute(&mut session, 0, request) {
            panic!("{request:?} is refused: {reason}");
        }
    };
    let mut database = 0;
    for effect in effects {
        // As the file says it: within a transaction this waits for its end, too.
        if effect.database != database {
            database = effect.database;
            execute(&[
                Bytes::from_static(b"SELECT"),
                Bytes::from(database.to_string()),
            ]);
        }
        execute(&effect.request);
    }
    store
}

/// All keys with their values, in an order of their own.
fn contents(store: &Store) -> Vec<String> {
    let mut out: Vec<String> = store
        .databases
        .iter()
        .enumerate()
        .flat_map(|(number, keys)| {
            keys.iter().map(move |(key, entry)| {
                format!(
                    "{number} {key:?} {:?} {:?}",
                    entry.expires_ms,
                    sorted(key, &entry.value)
                )
            })
        })
        .collect();
    out.sort();
    out
}

/// A value in an order that does not depend on how it came about, where its kind has none.
fn sorted(key: &Bytes, value: &Value) -> Vec<Vec<u8>> {
    match value {
        Value::Text(text) => vec![text.clone()],
        Value::List(list) => list.iter().map(|item| item.to_vec()).collect(),
        Value::Hash(hash) => in_order(
            hash.iter()
                .map(|(field, value)| [&field[..], &value[..]].join(&b'=')),
        ),
        Value::Set(set) => in_order(set.iter().map(|item| item.to_vec())),
        // Sorted by itself.
        Value::Sorted(_) => value
            .rebuild(key)
            .concat()
            .iter()
            .map(|item| item.to_vec())
            .collect(),
    }
}

fn in_order(items: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut items: Vec<_> = items.collect();
    items.sort();
    items
}
