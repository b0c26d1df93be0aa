//! HTTP from the first header to the access log line.

pub mod callout;
pub mod connect;
pub mod connection;
pub mod cors;
pub mod date;
pub mod filters;
pub mod internal_redirect;
pub mod istio;
pub mod limits;
pub mod local_replies;
pub mod message;
pub mod mirror;
pub mod record;
pub mod respond;
pub mod router;
