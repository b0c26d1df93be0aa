//! `gateway.IngressGatewayPortAnalyzer`: ports that the service of the gateway does not have (IST0162).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for gateway in context.each(Kind::Gateway) {
        ports(context, gateway);
    }
}

fn ports(context: &mut Context<'_>, gateway: &Object) {
    let selector = gateway.spec.texts_by_key("selector");
    let line = format!("spec.selector.{}", labels::first(&selector));
    let mut open = BTreeSet::new();
    let mut workloads = 0;
    for pod in context.each(Kind::Pod) {
        if !labels::selects(&selector, &pod.labels) {
            continue;
        }
        workloads += 1;
        for service in context.each(Kind::Service) {
            let selects = labels::selects(&service.spec.texts_by_key("selector"), &pod.labels);
            if service.namespace() != pod.namespace() || !selects {
                continue;
            }
            for port in service.spec.items("ports") {
                if port.text("protocol") != "TCP" {
                    continue;
                }
                // A gateway listens on the target port; the port of the service is let pass too.
                open.insert(port.number("port"));
                let target = numeric_target(port.field("targetPort"));
                if target != 0 {
                    open.insert(target);
                }
            }
        }
    }
    if workloads == 0 {
        context.report(
            messages::referenced_resource_not_found(gateway, "selector", &labels::text(&selector))
                .at(&line),
        );
        return;
    }
    for server in gateway.spec.items("servers") {
        if !server.has("port") {
            continue;
        }
        let number = server.field("port").number("number");
        if !open.contains(&number) {
            context.report(
                messages::gateway_port_not_defined_on_service(
                    gateway,
                    number,
                    &labels::text(&selector),
                )
                .at(&line),
            );
        }
    }
}

/// The target port, where it is no name.
fn numeric_target(target: &Value) -> i64 {
    match target {
        Value::String(text) => text.parse().unwrap_or_default(),
        other => other.as_i64().unwrap_or_default(),
    }
}
