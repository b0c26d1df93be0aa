//! Which filter chain of a listener serves a connection, and which listener filters look at it.

use std::net::{IpAddr, SocketAddr};

use xds::envoy::config::listener::v3::{
    FilterChain, ListenerFilterChainMatchPredicate as PredicateConfig,
};

use crate::address::Cidr;
use crate::error::ConfigError;

/// What is known of a connection when its filter chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// The address the client wanted (the original destination where connections are redirected).
    pub destination: SocketAddr,
    /// The client; through the PROXY protocol where that is used.
    pub source: SocketAddr,
    /// The peer of the TCP connection itself.
    pub direct_source: IpAddr,
    /// The server name of the client hello; empty when there is none.
    pub server_name: &'a str,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: &'a str,
    /// ALPN of the client hello, or what the HTTP inspector found (`http/1.0`, `http/1.1`, `h2c`).
    pub application_protocols: &'a [&'a str],
}

/// The chain that serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// The chain with this index in `filter_chains`.
    Index(usize),
    /// `default_filter_chain`.
    Default,
}

/// The filter chain matches of one listener, compiled.
#[derive(Debug)]
pub struct FilterChainMatcher {}

impl FilterChainMatcher {
    /// Compiles the matches. Two chains with the same match are an error, as in Envoy.
    pub fn new(
        chains: &[FilterChain],
        default: Option<&FilterChain>,
    ) -> Result<Self, Vec<ConfigError>> {
        unimplemented!("{} {}", chains.len(), default.is_some())
    }

    /// The chain for a connection; `None`: close it (`NR`, `filter_chain_not_found`).
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<Chain> {
        unimplemented!("{facts:?}")
    }
}

/// `filter_disabled` of a listener filter, compiled.
#[derive(Debug, Clone)]
pub enum FilterPredicate {}

impl FilterPredicate {
    /// Compiles a predicate.
    pub fn compile(config: &PredicateConfig) -> Result<Self, ConfigError> {
        let _ = (config, Cidr::new);
        unimplemented!()
    }

    /// Whether the filter is disabled for this destination port.
    pub fn disabled(&self, destination_port: u16) -> bool {
        unimplemented!("{destination_port}")
    }
}
