//! Labels and the selectors over them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fields::Fields;

/// Labels, or the labels that a selector asks for.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` has everything that `selector` asks for. An empty selector asks for nothing.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// A selector as text: `app=basket,version=v1`.
#[must_use]
pub fn text(selector: &Labels) -> String {
    let pairs: Vec<_> = selector
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

/// The first label that a selector asks for: messages about selectors are placed there.
#[must_use]
pub fn first(selector: &Labels) -> &str {
    selector.keys().next().map_or("", String::as_str)
}

/// The labels of a workload selector (`matchLabels`), if the field is there.
#[must_use]
pub fn match_labels(spec: &Value) -> Option<Labels> {
    spec.has("selector")
        .then(|| spec.field("selector").texts_by_key("matchLabels"))
}

/// Whether a selector of Kubernetes with `matchLabels` and `matchExpressions` selects `labels`; a missing one selects everything.
#[must_use]
pub fn kubernetes_selects(selector: &Value, labels: &Labels) -> bool {
    if !selects(&selector.texts_by_key("matchLabels"), labels) {
        return false;
    }
    selector.items("matchExpressions").iter().all(|expression| {
        let value = labels.get(expression.text("key"));
        let values = expression.texts("values");
        let among = value.is_some_and(|value| values.contains(&value.as_str()));
        match expression.text("operator") {
            "In" => among,
            "NotIn" => !among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_select_as_in_kubernetes() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["x"]}]});
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert!(kubernetes_selects(&selector, &labels(&[("a", "1")])));
        assert!(!kubernetes_selects(
            &selector,
            &labels(&[("a", "1"), ("b", "x")])
        ));
        assert!(!kubernetes_selects(&selector, &labels(&[("b", "y")])));
        assert!(kubernetes_selects(&Value::Null, &labels(&[])));
    }
}
