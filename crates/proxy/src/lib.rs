//! The data plane: a proxy that does what Envoy does with the same configuration.
//!
//! Traffic is served by workers ([`worker`]): threads that share nothing but immutable configuration ([`config`]),
//! atomic statistics ([`stats`]) and the state of clusters ([`upstream`]). What to do is decided by the `dataplane`
//! crate; here are the sockets ([`listener`]), TLS ([`tls`]), HTTP ([`h1`], [`h2`], [`http`]), TCP ([`tcp_proxy`]),
//! the xDS client ([`xds_client`]) and the admin interface ([`admin`]).

pub mod access_log;
pub mod admin;
pub mod body;
pub mod bootstrap;
pub mod command;
pub mod config;
pub mod h1;
pub mod h2;
pub mod http;
pub mod io;
pub mod listener;
mod memory;
pub mod network_filters;
pub mod server;
pub mod stats;
pub mod tcp_proxy;
pub mod tls;
pub mod tracer;
pub mod upstream;
pub mod web;
pub mod worker;
pub mod xds_client;
