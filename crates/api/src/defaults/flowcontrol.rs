//! Flow control and aggregation.

use super::{set, some_mut};
use serde_json::{Value, json};

/// A FlowSchema.
pub fn schema(obj: &mut Value) {
    let spec = super::struct_mut(obj, "spec");
    // Zero is what an absent number is read as.
    if spec["matchingPrecedence"].as_i64().unwrap_or(0) == 0 {
        spec["matchingPrecedence"] = 1000.into();
    }
}

/// A PriorityLevelConfiguration.
pub fn level(obj: &mut Value) {
    let spec = super::struct_mut(obj, "spec");
    if spec["type"] == "Exempt" && spec["exempt"].is_null() {
        spec["exempt"] = json!({});
    }
    if let Some(exempt) = some_mut(spec, "exempt") {
        set(exempt, "nominalConcurrencyShares", 0);
        set(exempt, "lendablePercent", 0);
    }
    let Some(limited) = some_mut(spec, "limited") else {
        return;
    };
    set(limited, "nominalConcurrencyShares", 30);
    set(limited, "lendablePercent", 0);
    if let Some(queuing) = some_mut(&mut limited["limitResponse"], "queuing") {
        for (field, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            if queuing[field].as_i64().unwrap_or(0) == 0 {
                queuing[field] = default.into();
            }
        }
    }
}

/// An APIService.
pub fn api_service(obj: &mut Value) {
    if let Some(service) = some_mut(super::struct_mut(obj, "spec"), "service") {
        set(service, "port", 443);
    }
}
