//! Durations as Go writes them.
//!
//! People write `24h` or `1m30s` in patches, and istiod takes that; protobuf's own JSON has only seconds, such as `5400s`.

use api::istio::Duration;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// Rewrites all durations of a message's JSON in seconds; what is none stays for the error message.
pub(super) fn in_seconds(value: &mut Value, message: &MessageDescriptor) {
    match (message.full_name(), value) {
        ("google.protobuf.Duration", Value::String(text)) => {
            if let Ok(duration) = text.parse::<Duration>()
                && duration.seconds() >= 0
                && duration.subsec_nanos() >= 0
            {
                *text = format!("{}.{:09}s", duration.seconds(), duration.subsec_nanos());
            }
        }
        ("google.protobuf.Any", Value::Object(object)) => {
            let inner = object.get("@type").and_then(Value::as_str);
            if let Some(Ok(inner)) = inner.map(xds::json::descriptor) {
                fields(object, &inner);
            }
        }
        (_, Value::Object(object)) => fields(object, message),
        _ => {}
    }
}

fn fields(object: &mut Map<String, Value>, message: &MessageDescriptor) {
    for (key, value) in object {
        let field = message
            .get_field_by_name(key)
            .or_else(|| message.get_field_by_json_name(key));
        if let Some(field) = field {
            field_in_seconds(value, &field);
        }
    }
}

fn field_in_seconds(value: &mut Value, field: &FieldDescriptor) {
    let Kind::Message(message) = field.kind() else {
        return;
    };
    match value {
        Value::Object(entries) if field.is_map() => {
            if let Kind::Message(inner) = message.map_entry_value_field().kind() {
                entries
                    .values_mut()
                    .for_each(|value| in_seconds(value, &inner));
            }
        }
        Value::Array(items) if field.is_list() => {
            items
                .iter_mut()
                .for_each(|value| in_seconds(value, &message));
        }
        value => in_seconds(value, &message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_found_at_any_depth() {
        let cluster = xds::json::descriptor("envoy.config.cluster.v3.Cluster").unwrap();
        let mut value = serde_json::json!({
            "name": "1m",
            "connect_timeout": "1m30s",
            "cleanupInterval": "soon",
            "health_checks": [{"interval": "0.5s"}],
            "typed_extension_protocol_options": {"a": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "24h"},
            }},
        });
        in_seconds(&mut value, &cluster);
        assert_eq!(value["name"], "1m");
        assert_eq!(value["connect_timeout"], "90.000000000s");
        assert_eq!(value["cleanupInterval"], "soon");
        assert_eq!(value["health_checks"][0]["interval"], "0.500000000s");
        let options = &value["typed_extension_protocol_options"]["a"];
        assert_eq!(
            options["common_http_protocol_options"]["idle_timeout"],
            "86400.000000000s"
        );
    }
}
