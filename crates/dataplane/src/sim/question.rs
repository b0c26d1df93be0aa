//! What a simulation is asked.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};

/// Where the connection meets the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A connection of the application, redirected to the outbound listener.
    Outbound,
    /// A connection to the application, redirected to the inbound listener.
    Inbound,
    /// A connection to an address the proxy listens on itself (gateways).
    Direct,
}

/// What is spoken on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 (in plain text: with prior knowledge).
    Http2,
    /// Anything else.
    Raw,
}

/// TLS as the client begins it.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The server name it asks for.
    pub server_name: String,
    /// What it offers as ALPN.
    pub alpn: Vec<String>,
    /// The URI SAN of its certificate (`spiffe://...`).
    pub identity: Option<String>,
}

/// A question: this connection, and this request on it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where it meets the proxy.
    pub entry: Entry,
    /// Where the client wanted to go.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// Its TLS, if it speaks TLS.
    pub tls: Option<ClientTls>,
    /// What it speaks.
    pub speech: Speech,
    /// The method.
    pub method: Method,
    /// The authority.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// All other headers.
    pub headers: HeaderMap,
    /// When.
    pub now: SystemTime,
}

impl Question {
    /// A GET in plain HTTP/1.1 to this address and host.
    pub fn get(entry: Entry, destination: SocketAddr, authority: &str, path: &str) -> Self {
        Self {
            entry,
            destination,
            source: SocketAddr::from(([192, 0, 2, 1], 40_000)),
            tls: None,
            speech: Speech::Http1,
            method: Method::GET,
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            now: UNIX_EPOCH,
        }
    }
}
