//! `virtualservice.DestinationRuleAnalyzer`: subsets that no DestinationRule defines (IST0101).

use std::collections::BTreeSet;

use super::destinations;
use crate::context::Context;
use crate::fields::Fields;
use crate::hosts::service_of_host;
use crate::kind::Kind;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut defined = BTreeSet::new();
    for rule in context.each(Kind::DestinationRule) {
        let host = service_of_host(rule.namespace(), rule.spec.text("host"));
        for subset in rule.spec.items("subsets") {
            defined.insert((host, subset.text("name")));
        }
    }
    for service in context.each(Kind::VirtualService) {
        for destination in destinations::of(&service.spec) {
            let host = destination.value.text("host");
            let subset = destination.value.text("subset");
            let known = defined.contains(&(service_of_host(service.namespace(), host), subset));
            if subset.is_empty() || known {
                continue;
            }
            let what = if destination.mirror {
                "mirror+subset in destinationrule"
            } else {
                "host+subset in destinationrule"
            };
            context.report(
                messages::referenced_resource_not_found(service, what, &format!("{host}+{subset}"))
                    .at(&destination.line),
            );
        }
    }
}
