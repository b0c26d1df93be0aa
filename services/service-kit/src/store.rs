//! The store: JSON documents in Redis, under keys like `user:1`.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, cmd};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::{Error, Result};

/// How long one command may take before the answer is 503.
const COMMAND_LIMIT: Duration = Duration::from_secs(3);

/// How long one connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A handle on the store. It connects on first use and again whenever the connection is lost.
pub struct Store {
    client: Client,
    connection: OnceCell<ConnectionManager>,
    seed: Vec<(String, String)>,
    seeded: OnceCell<()>,
}

impl Store {
    /// The store at `address`: `host:port` or a `redis://` URL.
    ///
    /// # Errors
    /// When the address cannot be read.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("redis://{address}")
        };
        let client = Client::open(url.as_str())
            .map_err(|error| anyhow::anyhow!("REDIS_URL {address:?} is not an address: {error}"))?;
        Ok(Self {
            client,
            connection: OnceCell::new(),
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

    async fn connection(&self) -> Result<ConnectionManager> {
        self.connection
            .get_or_try_init(|| async {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT_LIMIT))
                    .set_response_timeout(Some(COMMAND_LIMIT))
                    .set_number_of_retries(1);
                ConnectionManager::new_with_config(self.client.clone(), config).await
            })
            .await
            .cloned()
            .map_err(unavailable)
    }

    async fn run<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        self.seeded
            .get_or_try_init(|| async {
                if !self.seed.is_empty() {
                    self.send::<i64>(&set_all_if_none_exists(&self.seed))
                        .await?;
                }
                Ok(())
            })
            .await?;
        self.send(command).await
    }

    async fn send<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        let mut connection = self.connection().await?;
        tokio::time::timeout(COMMAND_LIMIT, command.query_async(&mut connection))
            .await
            .map_err(|_| Error::StoreUnavailable(format!("no answer within {COMMAND_LIMIT:?}")))?
            .map_err(unavailable)
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        self.run::<String>(&cmd("PING")).await.map(|_| ())
    }

    /// The document under `key`, if there is one.
    ///
    /// # Errors
    /// When the store is unavailable or holds something else there.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let text: Option<String> = self.run(cmd("GET").arg(key)).await?;
        text.map(|text| parse(key, &text)).transpose()
    }

    /// Replaces the document under `key`.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn set<T: Serialize>(&self, key: &str, document: &T) -> Result<()> {
        let text = write(document)?;
        self.run::<()>(cmd("SET").arg(key).arg(text)).await
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
        let texts: Vec<Option<String>> = self.run(cmd("MGET").arg(&keys)).await?;
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
                .run(
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
        let values: Vec<Option<String>> = self.run(cmd("MGET").arg(keys)).await?;
        Ok(values.iter().map(Option::is_some).collect())
    }

    /// Writes all pairs, or none of them when one of the keys exists already: one atomic step for
    /// every client in every cluster (Redis `MSETNX`). Returns whether it wrote.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn create_all(&self, pairs: &[(String, String)]) -> Result<bool> {
        self.run::<i64>(&set_all_if_none_exists(pairs))
            .await
            .map(|written| written == 1)
    }

    /// The next number of a counter, never given twice.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub async fn next_number(&self, counter: &str) -> Result<u64> {
        self.run(cmd("INCR").arg(counter)).await
    }
}

fn set_all_if_none_exists(pairs: &[(String, String)]) -> redis::Cmd {
    let mut command = cmd("MSETNX");
    for (key, value) in pairs {
        command.arg(key).arg(value);
    }
    command
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
