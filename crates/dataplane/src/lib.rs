//! The decisions of the data plane: Envoy API messages in, decisions out.
//!
//! Configuration is compiled once ([`listener`], [`route`], [`cluster`], [`http_conn`], ...) and then
//! answers questions about one connection or one request. Nothing here opens a socket, reads a clock
//! or rolls a die: time and randomness are arguments. What happens is what Envoy 1.40 does with the
//! same messages.

pub mod address;
pub mod circuit;
pub mod cluster;
pub mod descriptors;
pub mod drain;
pub mod error;
pub mod fault;
pub mod flags;
pub mod formatter;
pub mod header_mutation;
pub mod headers;
pub mod http_conn;
pub mod jwt;
pub mod lb;
pub mod listener;
pub mod lists;
pub mod local_ratelimit;
pub mod local_reply;
pub mod matching;
pub mod metadata_rules;
pub mod outlier;
pub mod rbac;
pub mod re2;
pub mod request;
pub mod retry;
pub mod route;
pub mod sim;
pub mod stream;
pub mod tracing;
pub mod typed;
pub mod unread;

pub use error::ConfigError;
pub use flags::ResponseFlags;
pub use request::{RequestHead, RequestHeadMut};
pub use stream::{Connection, StreamInfo};
