//! `virtualservice.DestinationHostAnalyzer`: destinations that are no service, or not with that port (IST0101, IST0112, IST0140).

use super::destinations::{self, Destination};
use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;
use crate::services::{Host, Hosts};

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let hosts = Hosts::of(context);
    for service in context.each(Kind::VirtualService) {
        let export_to = service.spec.texts("exportTo");
        for destination in destinations::of(&service.spec) {
            let host = destination.value.text("host");
            match hosts.find(service.namespace(), &export_to, host) {
                Some(target) => port(context, service, &destination, target),
                None => {
                    let what = if destination.mirror {
                        "mirror host"
                    } else {
                        "host"
                    };
                    context.report(
                        messages::referenced_resource_not_found(service, what, host)
                            .at(&destination.line),
                    );
                }
            }
        }
        subsets(context, service);
    }
}

fn port(context: &mut Context<'_>, service: &Object, destination: &Destination<'_>, target: &Host) {
    let host = destination.value.text("host");
    let message = if !destination.value.has("port") {
        if target.ports.len() < 2 {
            return;
        }
        messages::virtual_service_destination_port_selector_required(service, host, &target.ports)
    } else {
        let number = destination.value.field("port").number("number");
        if target.ports.contains(&number) {
            return;
        }
        messages::referenced_resource_not_found(service, "host:port", &format!("{host}:{number}"))
    };
    context.report(message.at(&destination.line));
}

/// Routes at a gateway to a host whose subsets are chosen by a VirtualService of the mesh, which the gateway does not use.
fn subsets(context: &mut Context<'_>, service: &Object) {
    if service.spec.items("gateways").is_empty() {
        return;
    }
    for (index, route) in service.spec.items("http").iter().enumerate() {
        for (target, weighted) in route.items("route").iter().enumerate() {
            let destination = weighted.field("destination");
            if !destination.text("subset").is_empty() {
                continue;
            }
            let host = destination.text("host");
            for other in context.each(Kind::VirtualService) {
                if chooses_subset(other, host) {
                    // Istio looks for the line under the name of the route.
                    context.report(
                        messages::ingress_route_rules_not_affected(
                            service,
                            &other.full_name(),
                            &service.full_name(),
                        )
                        .at(&format!(
                            "spec.{}[{index}].route[{target}].destination.host",
                            route.text("name")
                        )),
                    );
                }
            }
        }
    }
}

/// Whether a VirtualService is for `host`, as it is written, and routes to subsets of it.
fn chooses_subset(service: &Object, host: &str) -> bool {
    service.spec.texts("hosts").contains(&host)
        && service.spec.items("http").iter().any(|route| {
            route.items("route").iter().any(|weighted| {
                let destination = weighted.field("destination");
                destination.text("host") == host && !destination.text("subset").is_empty()
            })
        })
}
