//! `deprecation.DeprecationAnalyzer`: kinds and fields that are going away (IST0002).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// Kinds that Istio once had.
const REMOVED: [(&str, &str); 4] = [
    ("rbac.istio.io", "ClusterRbacConfig"),
    ("rbac.istio.io", "RbacConfig"),
    ("rbac.istio.io", "ServiceRole"),
    ("rbac.istio.io", "ServiceRoleBinding"),
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for object in context.each(Kind::VirtualService) {
        for route in object.spec.items("http") {
            if route.field("fault").field("delay").number("percent") > 0 {
                context.report(messages::deprecated(
                    object,
                    "HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage",
                ));
            }
        }
    }
    for object in context.each(Kind::Sidecar) {
        if object
            .spec
            .field("outboundTrafficPolicy")
            .has("egressProxy")
        {
            context.report(messages::deprecated(
                object,
                "OutboundTrafficPolicy.EgressProxy ignored",
            ));
        }
    }
    for object in context.each(Kind::CustomResourceDefinition) {
        // Istio reads the names of CRDs of clusters only.
        if object.origin.place.is_some() {
            continue;
        }
        let group = object.spec.text("group");
        let kind = object.spec.field("names").text("kind");
        if REMOVED.contains(&(group, kind)) {
            context.report(messages::deprecated(
                object,
                &format!("Custom resource type {group} {kind} is removed"),
            ));
        }
    }
}
