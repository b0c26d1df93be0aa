//! `gateway.ConflictingGatewayAnalyzer`: gateways with the same workloads, port and host (IST0145).

use std::collections::BTreeMap;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::messages;
use crate::object::Object;

/// The servers of one port: hosts with the address they listen on, by gateway.
type Servers = BTreeMap<String, BTreeMap<String, String>>;

/// Servers by selector (with its text) and port.
type Known = BTreeMap<(String, i64), (Labels, Servers)>;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut known = Known::new();
    for gateway in context.each(Kind::Gateway) {
        let selector = gateway.spec.texts_by_key("selector");
        for server in gateway.spec.items("servers") {
            let port = server.field("port").number("number");
            let bind = server.text("bind");
            let hosts = server
                .texts("hosts")
                .into_iter()
                .map(|host| (host.to_owned(), bind.to_owned()))
                .collect();
            // Of several servers of one gateway with one port the last counts.
            known
                .entry((labels::text(&selector), port))
                .or_insert_with(|| (selector.clone(), Servers::new()))
                .1
                .insert(gateway.full_name(), hosts);
        }
    }
    for gateway in context.each(Kind::Gateway) {
        conflicts(context, gateway, &known);
    }
}

fn conflicts(context: &mut Context<'_>, gateway: &Object, known: &Known) {
    let selector = gateway.spec.texts_by_key("selector");
    let text = labels::text(&selector);
    let same_workloads: Vec<_> = known
        .iter()
        .filter(|((other_text, _), (other, _))| {
            if *other_text == text {
                return true;
            }
            (other_text.contains(&text) || text.contains(other_text.as_str()))
                && context.each(Kind::Pod).any(|pod| {
                    labels::selects(&selector, &pod.labels) && labels::selects(other, &pod.labels)
                })
        })
        .collect();
    if !text.is_empty() && same_workloads.is_empty() {
        context.report(
            messages::referenced_resource_not_found(gateway, "selector", &text)
                .at(&format!("spec.selector.{}", labels::first(&selector))),
        );
        return;
    }
    for server in gateway.spec.items("servers") {
        let port = server.field("port").number("number");
        let bind = server.text("bind");
        let hosts = server.texts("hosts");
        let mut others: Vec<&str> = Vec::new();
        for ((_, other_port), (_, servers)) in &same_workloads {
            if *other_port != port {
                continue;
            }
            for (name, known_hosts) in servers {
                let conflict = hosts
                    .iter()
                    .any(|host| known_hosts.get(*host).is_some_and(|known| known == bind));
                if *name != gateway.full_name() && conflict {
                    others.push(name);
                }
            }
        }
        if !others.is_empty() {
            others.sort_unstable();
            context.report(messages::conflicting_gateways(
                gateway,
                &others.join(","),
                &text,
                &port.to_string(),
                &hosts.join(","),
            ));
        }
    }
}
