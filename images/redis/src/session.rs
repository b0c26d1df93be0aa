//! What the server remembers of one connection.

use bytes::Bytes;
use indexmap::IndexSet;

use crate::resp::Protocol;

/// One connection.
#[derive(Debug, Default)]
pub struct Session {
    /// `CLIENT ID`.
    pub id: u64,
    /// The client's address, as `CLIENT LIST` shows it.
    pub address: String,
    /// The selected database.
    pub database: usize,
    /// RESP2 or RESP3.
    pub protocol: Protocol,
    /// `CLIENT SETNAME`.
    pub name: Bytes,
    /// `CLIENT SETINFO lib-name` and `lib-ver`.
    pub library: (Bytes, Bytes),
    /// Requests between `MULTI` and `EXEC`.
    pub transaction: Option<Transaction>,
    /// Keys of `WATCH`, with the version they had.
    pub watched: Vec<Watched>,
    /// Channels of `SUBSCRIBE`.
    pub channels: IndexSet<Bytes>,
    /// Patterns of `PSUBSCRIBE`.
    pub patterns: IndexSet<Bytes>,
    /// The connection ends after this reply.
    pub closing: bool,
    /// When it began, in milliseconds.
    pub since_ms: i64,
}

/// A transaction that is being written down.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Requests to execute.
    pub queue: Vec<Vec<Bytes>>,
    /// One of them was refused: `EXEC` will do nothing.
    pub refused: bool,
}

/// A key whose change makes `EXEC` do nothing.
#[derive(Debug)]
pub struct Watched {
    /// Its database.
    pub database: usize,
    /// Its name.
    pub key: Bytes,
    /// Its version then; nothing when it did not exist.
    pub version: Option<u64>,
}

impl Session {
    /// A new connection.
    #[must_use]
    pub fn new(id: u64, address: String, now_ms: i64) -> Self {
        Session {
            id,
            address,
            since_ms: now_ms,
            ..Session::default()
        }
    }

    /// Channels and patterns together.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }
}
