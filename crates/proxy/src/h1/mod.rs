//! HTTP/1: an own codec, because what a proxy answers to broken input, what it forwards as is and when it gives a
//! connection up are part of its behaviour.
//!
//! A downstream connection is one task that parses, calls the handler and writes ([`server`]). An upstream connection
//! is a value that the request owns while it uses it ([`client`]): no task of its own, no channel in between.

pub mod client;
pub mod decode;
pub mod head;
pub mod server;

#[cfg(test)]
mod mutation;
