//! The store: JSON documents in Redis, under keys like `user:1`.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, cmd};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

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
        tokio::time::timeout(COMMAND_LIMIT, async {
            // The store may have been emptied since the last time: what is written first must
            // not take the place of the seed.
            self.plant_seed().await?;
            self.send(command).await
        })
        .await
        .map_err(|_| no_answer())?
        .map_err(unavailable)
    }

    /// Runs a command that only reads: once more if the connection turns out to have been lost, so
    /// that nobody notices a store that was restarted.
    async fn read<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        tokio::time::timeout(COMMAND_LIMIT, async {
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
        .map_err(|_| no_answer())?
        .map_err(unavailable)
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

    /// The document under `key`, if there is one.
    ///
    /// # Errors
    /// When the store is unavailable or holds something else there.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let text: Option<String> = self.read(cmd("GET").arg(key)).await?;
        text.map(|text| parse(key, &text)).transpose()
    }

    /// Replaces the document under `key`.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn set<T: Serialize>(&self, key: &str, document: &T) -> Result<()> {
        let text = write(document)?;
        self.write::<()>(cmd("SET").arg(key).arg(text)).await
    }

    /// All documents whose key is `<kind>:` and a name, by the number in the name.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
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
        keys.iter()
            .zip(texts)
            .filter_map(|(key, text)| text.map(|text| parse(key, &text)))
            .collect()
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

fn no_answer() -> Error {
    Error::StoreUnavailable(format!("no answer within {COMMAND_LIMIT:?}"))
}

fn unavailable(error: redis::RedisError) -> Error {
    Error::StoreUnavailable(error.to_string())
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
