//! Cluster DNS: an authoritative server for the cluster's zone.
//!
//! [`answer`] is pure: a [`Table`] of services and a question in, a message out. [`serve`] puts it
//! on UDP and TCP. The record layout is the one of the "Kubernetes DNS-Based Service Discovery"
//! specification. Everything outside the zone does not exist unless a forwarder is set.

mod answer;
mod server;
mod table;

pub use answer::{answer, parse_question};
pub use server::{Forward, SharedTable, bind, serve};
pub use table::{Endpoint, Port, Service, ServiceKind, Table};

/// How long an answer may be cached, in seconds.
pub const TTL: u32 = 5;

/// Content of a pod's `/etc/resolv.conf` under `dnsPolicy: ClusterFirst`.
pub fn resolv_conf(nameserver: std::net::Ipv4Addr, namespace: &str, zone: &str) -> String {
    format!(
        "search {namespace}.svc.{zone} svc.{zone} {zone}\nnameserver {nameserver}\noptions ndots:5\n"
    )
}

#[cfg(test)]
mod tests;
