//! Listeners.

pub(crate) mod filter_chain;
pub(crate) mod gateway;
pub(crate) mod inbound;
pub(crate) mod inspectors;
pub(crate) mod outbound;
pub(crate) mod tcp_routes;
pub(crate) mod virtual_outbound;
