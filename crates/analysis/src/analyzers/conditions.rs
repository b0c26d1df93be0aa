//! `conditions.ConditionAnalyzer`: conditions in the status that say that something failed (IST0171).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

const WAYPOINT: &[&str] = &["istio.io/WaypointBound"];
const POLICY: &[&str] = &["ZtunnelAccepted", "WaypointAccepted"];
const GATEWAY: &[&str] = &["Accepted", "Programmed", "ResolvedRefs"];

/// The kinds and those of their conditions that must not be `False`.
const CONDITIONS: [(Kind, &[&str]); 7] = [
    (Kind::Service, WAYPOINT),
    (Kind::ServiceEntry, WAYPOINT),
    (Kind::WorkloadEntry, WAYPOINT),
    (Kind::AuthorizationPolicy, POLICY),
    (Kind::KubernetesGateway, GATEWAY),
    (Kind::HttpRoute, GATEWAY),
    (Kind::GrpcRoute, GATEWAY),
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for (kind, types) in CONDITIONS {
        for object in context.each(kind) {
            for condition in conditions(kind, &object.status) {
                let failed =
                    types.contains(&condition.text("type")) && condition.text("status") == "False";
                // Accepted in part is told as accepted.
                let in_part = kind == Kind::AuthorizationPolicy
                    && condition.text("type") == "WaypointAccepted"
                    && condition.text("reason") == "PartiallyInvalid";
                if failed || in_part {
                    context.report(messages::negative_condition_status(
                        object,
                        condition.text("type"),
                        condition.text("reason"),
                        condition.text("message"),
                    ));
                }
            }
        }
    }
}

/// The conditions of an object; routes have them by parent.
fn conditions(kind: Kind, status: &Value) -> Vec<&Value> {
    if matches!(kind, Kind::HttpRoute | Kind::GrpcRoute) {
        return status
            .items("parents")
            .iter()
            .flat_map(|parent| parent.items("conditions"))
            .collect();
    }
    status.items("conditions").iter().collect()
}
