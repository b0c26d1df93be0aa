//! The application without any mesh: the real services as processes, a real redis-server, a real browser.

mod harness;

mod api;
mod booking;
mod clusters;
mod gateway;
mod lifecycle;
mod page;
mod store;
