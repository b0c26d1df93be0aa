//! HorizontalPodAutoscalers.

use super::{list_mut, set, some_mut, struct_mut};
use crate::autoscaling::{DEFAULT_UTILIZATION, METRICS};
use crate::schema::ObjectSchema;
use serde_json::{Value, json};

/// Defaults of an autoscaler of either version.
pub(super) fn apply(schema: &ObjectSchema, obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set(spec, "minReplicas", 1);
    if schema.version == "v1" {
        // Other metrics than the one that v1 has a field for are in an annotation.
        let others = crate::meta::annotation(obj, METRICS).is_some();
        let spec = struct_mut(obj, "spec");
        if !others {
            set(spec, "targetCPUUtilizationPercentage", DEFAULT_UTILIZATION);
        }
        return;
    }
    if list_mut(spec, "metrics").next().is_none() {
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION}}}]);
    }
    let Some(behavior) = some_mut(spec, "behavior") else {
        return;
    };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let up = struct_mut(behavior, "scaleUp");
    set(up, "stabilizationWindowSeconds", 0);
    set(up, "selectPolicy", "Max");
    set(up, "policies", json!([pods, percent]));
    // How long a scale-down waits is the controller's own setting when nothing is said.
    let down = struct_mut(behavior, "scaleDown");
    set(down, "selectPolicy", "Max");
    set(down, "policies", json!([percent]));
}
