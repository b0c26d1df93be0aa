//! The store: JSON documents in Redis, under keys like `user:1`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, cmd};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::outage::{Breaker, Memory, Read};
use crate::{Error, Result};

/// How long one command may take, with the connection it may need first, before the answer is 503.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

/// How long one connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A handle on the store. It connects on first use and again whenever the connection is lost.
pub struct Store {
    connection: ConnectionManager,
    seed: Vec<(String, String)>,
    seeded: OnceCell<()>,
    breaker: Mutex<Breaker>,
    memory: Mutex<Memory>,
}

impl Store {
    /// The store at `address`: `host:port` or a `redis://` URL. To be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("redis://{address}")
        };
        let unreadable =
            |error| anyhow::anyhow!("REDIS_URL {address:?} is not an address: {error}");
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(COMMAND_LIMIT))
            // The next command tries again; waiting here would only make clients wait.
            .set_number_of_retries(0);
        let client = Client::open(url.as_str()).map_err(unreadable)?;
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config)
                .map_err(unreadable)?,
            seed: Vec::new(),
            seeded: OnceCell::new(),
            breaker: Mutex::default(),
            memory: Mutex::default(),
        })
    }

    /// The same store, in which `pairs` exist from the start. They are written before the first other
    /// command, in one atomic step and only if none of them is there: exactly once in the life of
    /// a store, however many replicas start together.
    #[must_use]
    pub fn seeded_with(mut self, pairs: Vec<(String, String)>) -> Self {
        self.seed = pairs;
        self
    }

    /// Runs a command that changes something: once, since an answer that got lost does not tell
    /// whether it was carried out.
    async fn write<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        self.guarded(async {
            // The store may have been emptied since the last time: what is written first must
            // not take the place of the seed.
            self.plant_seed().await?;
            self.send(command).await
        })
        .await
    }

    /// Runs a command that only reads: once more if the connection turns out to have been lost, so
    /// that nobody notices a store that was restarted.
    async fn read<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        self.guarded(async {
            match self.seed_once().await {
                Err(error) if error.is_connection_dropped() => self.seed_once().await?,
                other => other?,
            }
            match self.send(command).await {
                Err(error) if error.is_connection_dropped() => self.send(command).await,
                other => other,
            }
        })
        .await
    }

    /// Waits for an exchange with the store as long as a client may have to wait, and not at all
    /// while the store is known to be away.
    async fn guarded<T>(&self, exchange: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
        lock(&self.breaker)
            .admit(Instant::now())
            .map_err(Error::StoreUnavailable)?;
        let (reason, away) = match tokio::time::timeout(COMMAND_LIMIT, exchange).await {
            Ok(Ok(answer)) => {
                lock(&self.breaker).succeeded();
                return Ok(answer);
            }
            // An error that the store itself answered is no reason to stay away from it.
            Ok(Err(error)) => (
                error.to_string(),
                error.is_io_error() || error.is_timeout() || error.is_connection_dropped(),
            ),
            Err(_) => (format!("no answer within {COMMAND_LIMIT:?}"), true),
        };
        if away {
            lock(&self.breaker).failed(Instant::now(), reason.clone());
        }
        Err(Error::StoreUnavailable(reason))
    }

    async fn seed_once(&self) -> redis::RedisResult<()> {
        self.seeded
            .get_or_try_init(|| self.plant_seed())
            .await
            .map(|_| ())
    }

    async fn plant_seed(&self) -> redis::RedisResult<()> {
        if !self.seed.is_empty() {
            self.send::<i64>(&set_all_if_none_exists(&self.seed))
                .await?;
        }
        Ok(())
    }

    async fn send<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// The document under `key`, if there is one; from memory while the store is away.
    ///
    /// # Errors
    /// When the store is unavailable and the document was in no list read before, or when it
    /// cannot be read.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Read<Option<T>>> {
        let (text, age) = match self.read(cmd("GET").arg(key)).await {
            Ok(text) => (text, None),
            Err(error) => {
                let known = lock(&self.memory).get(key, Instant::now()).ok_or(error)?;
                (Some(known.value), known.age)
            }
        };
        let text: Option<String> = text;
        let value = text.map(|text| parse(key, &text)).transpose()?;
        Ok(Read { value, age })
    }

    /// Replaces the document under `key`.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn set<T: Serialize>(&self, key: &str, document: &T) -> Result<()> {
        let text = write(document)?;
        self.write::<()>(cmd("SET").arg(key).arg(text)).await
    }

    /// All documents whose key is `<kind>:` and a name, by the number in the name; those of the last
    /// time while the store is away.
    ///
    /// # Errors
    /// When the store is unavailable and was never asked for this kind, or when a document cannot be read.
    pub async fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Read<Vec<T>>> {
        let documents = match self.documents(kind).await {
            Ok(documents) => {
                lock(&self.memory).keep(kind, documents.clone(), Instant::now());
                Read {
                    value: documents,
                    age: None,
                }
            }
            Err(error) => lock(&self.memory).list(kind, Instant::now()).ok_or(error)?,
        };
        let values = documents
            .value
            .iter()
            .map(|(key, text)| parse(key, text))
            .collect::<Result<_>>()?;
        Ok(Read {
            value: values,
            age: documents.age,
        })
    }

    async fn documents(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let mut keys = self.keys(kind).await?;
        // The store was emptied while the service ran: it begins anew, with its seed.
        if keys.is_empty() && !self.seed.is_empty() {
            self.create_all(&self.seed).await?;
            keys = self.keys(kind).await?;
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<Option<String>> = self.read(cmd("MGET").arg(&keys)).await?;
        Ok(keys
            .into_iter()
            .zip(texts)
            .filter_map(|(key, text)| text.map(|text| (key, text)))
            .collect())
    }

    async fn keys(&self, kind: &str) -> Result<Vec<String>> {
        let mut keys: Vec<String> = Vec::new();
        let mut cursor = String::from("0");
        loop {
            let (next, batch): (String, Vec<String>) = self
                .read(
                    cmd("SCAN")
                        .arg(&cursor)
                        .arg("MATCH")
                        .arg(format!("{kind}:*"))
                        .arg("COUNT")
                        .arg(500),
                )
                .await?;
            keys.extend(batch);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // SCAN may return a key twice and in any order; people expect neither.
        keys.sort_by_key(|key| (numeric_suffix(key), key.clone()));
        keys.dedup();
        Ok(keys)
    }

    /// Which of `keys` exist.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn existing(&self, keys: &[String]) -> Result<Vec<bool>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<Option<String>> = self.read(cmd("MGET").arg(keys)).await?;
        Ok(values.iter().map(Option::is_some).collect())
    }

    /// Writes all pairs, or none of them when one of the keys exists already: one atomic step for
    /// every client in every cluster (Redis `MSETNX`). Returns whether it wrote.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn create_all(&self, pairs: &[(String, String)]) -> Result<bool> {
        self.write::<i64>(&set_all_if_none_exists(pairs))
            .await
            .map(|written| written == 1)
    }

    /// The next number of a counter, never given twice.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn next_number(&self, counter: &str) -> Result<u64> {
        self.write(cmd("INCR").arg(counter)).await
    }
}

fn set_all_if_none_exists(pairs: &[(String, String)]) -> redis::Cmd {
    let mut command = cmd("MSETNX");
    for (key, value) in pairs {
        command.arg(key).arg(value);
    }
    command
}

/// Neither breaker nor memory can be left half changed, so a panic elsewhere does not matter to them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse<T: DeserializeOwned>(key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::Internal(format!("the document {key} cannot be read: {error}")))
}

/// A document as it is stored: JSON on one line.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn write<T: Serialize>(document: &T) -> Result<String> {
    serde_json::to_string(document).map_err(|error| Error::Internal(error.to_string()))
}

/// The number at the end of a key like `user:12`; keys without one come last.
fn numeric_suffix(key: &str) -> u64 {
    key.rsplit(':')
        .next()
        .and_then(|name| name.parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_their_number() {
        let mut keys = vec!["user:10", "user:x", "user:2"];
        keys.sort_by_key(|key| (numeric_suffix(key), *key));
        assert_eq!(keys, ["user:2", "user:10", "user:x"]);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let error = Store::new("redis://").err().unwrap().to_string();
        assert!(error.contains("REDIS_URL"), "seen {error}");
    }
}
