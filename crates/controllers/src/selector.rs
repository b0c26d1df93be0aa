//! Label selectors: `metav1.LabelSelector` and the plain maps of Services.

use serde_json::Value;

/// Whether labels fit a `metav1.LabelSelector`. An absent selector fits nothing, an empty one
/// everything.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    map_matches(&selector["matchLabels"], labels)
        && selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|requirement| requirement_matches(requirement, labels))
}

/// Whether labels hold every pair of a map, as the selector of a Service asks.
pub fn map_matches(wanted: &Value, labels: &Value) -> bool {
    api::meta::pairs(wanted).all(|(key, value)| labels[key] == value)
}

/// Whether a selector has no requirement at all.
pub fn is_empty(selector: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    empty(&selector["matchLabels"]) && empty(&selector["matchExpressions"])
}

fn requirement_matches(requirement: &Value, labels: &Value) -> bool {
    let label = labels[requirement["key"].as_str().unwrap_or_default()].as_str();
    let listed = || {
        let values = requirement["values"].as_array();
        label.is_some_and(|label| {
            values.is_some_and(|values| values.iter().any(|value| value == label))
        })
    };
    match requirement["operator"].as_str() {
        Some("In") => listed(),
        Some("NotIn") => !listed(),
        Some("Exists") => label.is_some(),
        Some("DoesNotExist") => label.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors() {
        let labels = json!({"app": "web", "tier": "front"});
        let table = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["x"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
                false,
            ),
            (
                json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "none", "operator": "Exists"}]}),
                false,
            ),
        ];
        for (selector, expected) in table {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
        assert!(!matches(
            &json!({"matchLabels": {"app": "web"}}),
            &json!(null)
        ));
    }
}
