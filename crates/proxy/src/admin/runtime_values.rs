//! Runtime values, as the bootstrap's layers set them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use xds::envoy::config::bootstrap::v3::LayeredRuntime;
use xds::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;

/// The layers and, by key, what each of them says; the last one that says something counts.
pub fn entries(runtime: Option<&LayeredRuntime>) -> Value {
    let layers: Vec<_> = runtime.iter().flat_map(|runtime| &runtime.layers).collect();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let Some(LayerSpecifier::StaticLayer(fields)) = &layer.layer_specifier else {
            continue;
        };
        let mut flat = Vec::new();
        flatten("", &dataplane::matching::struct_to_json(fields), &mut flat);
        for (key, value) in flat {
            values
                .entry(key)
                .or_insert_with(|| vec![String::new(); layers.len()])[index] = value;
        }
    }
    let entries: Map<String, Value> = values
        .into_iter()
        .map(|(key, by_layer)| {
            let last = by_layer.iter().rev().find(|value| !value.is_empty());
            let last = last.cloned().unwrap_or_default();
            (key, json!({"layer_values": by_layer, "final_value": last}))
        })
        .collect();
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    json!({"layers": names, "entries": entries})
}

/// Nested values under names with dots.
fn flatten(prefix: &str, fields: &Map<String, Value>, out: &mut Vec<(String, String)>) {
    for (name, value) in fields {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Object(inner) => flatten(&key, inner, out),
            Value::String(text) => out.push((key, text.clone())),
            Value::Number(number) if number.as_f64().is_some_and(|n| n.fract() == 0.0) => {
                out.push((key, format!("{}", number.as_f64().unwrap_or_default())));
            }
            other => out.push((key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_counts() {
        let runtime = xds::json::from_value(
            json!({"layers": [
                {"name": "low", "static_layer": {"re2": {"max": 100}, "on": true}},
                {"name": "high", "static_layer": {"re2.max": "200"}},
                {"name": "admin", "admin_layer": {}},
            ]}),
            true,
        )
        .expect("a message");
        assert_eq!(
            entries(Some(&runtime)),
            json!({"layers": ["low", "high", "admin"], "entries": {
                "on": {"layer_values": ["true", "", ""], "final_value": "true"},
                "re2.max": {"layer_values": ["100", "200", ""], "final_value": "200"}}})
        );
    }
}
