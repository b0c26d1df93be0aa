//! The destinations of a VirtualService, with the lines where their hosts are.

use serde_json::Value;

use crate::fields::Fields;

/// A destination.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The destination itself.
    pub value: &'a Value,
    /// Where its host is.
    pub line: String,
    /// Whether it only gets copies of requests.
    pub mirror: bool,
}

/// All destinations: of TCP, TLS and HTTP routes, then mirrors.
pub fn of(spec: &Value) -> Vec<Destination<'_>> {
    let mut destinations = Vec::new();
    for rule in ["tcp", "tls", "http"] {
        for (index, route) in spec.items(rule).iter().enumerate() {
            for (target, weighted) in route.items("route").iter().enumerate() {
                destinations.push(Destination {
                    value: weighted.field("destination"),
                    line: format!("spec.{rule}[{index}].route[{target}].destination.host"),
                    mirror: false,
                });
            }
        }
    }
    for (index, route) in spec.items("http").iter().enumerate() {
        if route.has("mirror") {
            destinations.push(Destination {
                value: route.field("mirror"),
                line: format!("spec.http[{index}].mirror.host"),
                mirror: true,
            });
        }
        for (target, mirror) in route.items("mirrors").iter().enumerate() {
            destinations.push(Destination {
                value: mirror.field("destination"),
                line: format!("spec.http[{index}].mirrors[{target}].host"),
                mirror: true,
            });
        }
    }
    destinations
}
