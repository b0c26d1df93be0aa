//! From the JSON of an object to its message, with the words of Go's JSON decoder for what does not fit.
//!
//! The fields and their types are those of the CRDs. Unknown fields are skipped, numbers may be written as texts, null is
//! the same as absent, and a null in a list or map is an empty value. Of several fields that exclude each other the last one counts, in
//! the order of the message.

use crate::messages;
use api::field::quote;
use api::go::{self, time::parse_duration};
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

/// The schemas of the specs by kind.
static SCHEMAS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    api::istio::crds()
        .into_iter()
        .filter_map(|mut crd| {
            let kind = crd["spec"]["names"]["kind"].as_str()?.to_string();
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            Some((kind, schema["properties"]["spec"].take()))
        })
        .collect()
});

/// What is done about fields that a message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// They are skipped: a webhook gets what the API server has pruned.
    Skipped,
    /// They are an error: a file has not been seen by anybody.
    Refused,
}

/// Decodes the spec of a kind.
///
/// # Errors
/// What does not fit, in the words of istiod: `json: cannot unmarshal number into Go value of type string`.
pub(crate) fn decode(kind: &str, spec: &Value, unknown: Unknown) -> Result<Value, String> {
    match SCHEMAS.get(kind) {
        Some(_) if spec.is_null() => Ok(Value::Object(Map::new())),
        Some(schema) => value(
            schema,
            spec,
            Place {
                message: "",
                field: kind,
                unknown,
            },
        ),
        None => Ok(spec.clone()),
    }
}

/// Whether the status of an object can be decoded; all kinds have the same, and what it has besides is skipped. Times are not looked into.
///
/// # Errors
/// As [`decode`], of the field that is first in the message.
pub(crate) fn status(status: &Value) -> Result<(), String> {
    let members = |value: &Value| match value {
        Value::Null => Ok(Map::new()),
        Value::Object(members) => Ok(members.clone()),
        other => Err(mismatch(other, MESSAGE)),
    };
    let entries = |value: &Value| match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(entries) => Ok(entries.clone()),
        other => Err(mismatch(other, LIST)),
    };
    let generation = |of: &Map<String, Value>| match of.get("observedGeneration") {
        None | Some(Value::Null) => Ok(()),
        Some(number) => whole(number, "int64", i64::MIN.into(), i64::MAX.into()).map(drop),
    };
    let texts = |of: &Map<String, Value>, names: &[&str]| {
        let wrong = names.iter().find_map(|name| {
            let value = of.get(*name)?;
            (!value.is_string() && !value.is_null()).then_some(value)
        });
        wrong.map_or(Ok(()), |value| Err(mismatch(value, "string")))
    };
    let of = members(status)?;
    let field = |of: &Map<String, Value>, name: &str| of.get(name).cloned().unwrap_or_default();
    for condition in entries(&field(&of, "conditions"))? {
        let condition = members(&condition)?;
        texts(&condition, &["type", "status", "reason", "message"])?;
        generation(&condition)?;
    }
    for message in entries(&field(&of, "validationMessages"))? {
        let message = members(&message)?;
        texts(&members(&field(&message, "type"))?, &["name", "code"])?;
        texts(&message, &["documentationUrl"])?;
    }
    generation(&of)
}

/// Where a value is.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The message that has the field.
    message: &'a str,
    field: &'a str,
    unknown: Unknown,
}

/// The Go name of a JSON type, as its decoder prints it.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The error of a value of the wrong type.
pub(crate) fn mismatch(value: &Value, expected: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go value of type {expected}",
        go_type(value)
    )
}

const MESSAGE: &str = "map[string]json.RawMessage";
const LIST: &str = "[]json.RawMessage";

fn value(schema: &Value, value: &Value, place: Place<'_>) -> Result<Value, String> {
    if value.is_null() {
        return Ok(empty(schema));
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, value, place),
        Some("array") => {
            let items = value.as_array().ok_or_else(|| mismatch(value, LIST))?;
            items
                .iter()
                .map(|item| self::value(&schema["items"], item, place))
                .collect()
        }
        Some("string") => text(schema, value, place.field),
        Some("integer") => integer(schema, value),
        Some("number") => float(value, "float64"),
        Some("boolean") if !value.is_boolean() => Err(mismatch(value, "bool")),
        _ => Ok(value.clone()),
    }
}

/// The value of a field that is not set.
fn empty(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => Value::Object(Map::new()),
        Some("array") => Value::Array(Vec::new()),
        Some("string") => match schema["enum"].get(0) {
            Some(first) => first.clone(),
            None => "".into(),
        },
        Some("integer" | "number") => 0.into(),
        Some("boolean") => false.into(),
        _ => Value::Null,
    }
}

/// Maps whose keys are numbers.
const NUMBERED: &[&str] = &["portLevelMtls"];

fn object(schema: &Value, value: &Value, place: Place<'_>) -> Result<Value, String> {
    let entries = value.as_object();
    if let Some(inner) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        let entries = entries.ok_or_else(|| mismatch(value, MESSAGE))?;
        return entries
            .iter()
            .map(|(key, entry)| {
                if NUMBERED.contains(&place.field) {
                    whole(&Value::String(key.clone()), "uint32", 0, u32::MAX.into())?;
                }
                Ok((key.clone(), self::value(inner, entry, place)?))
            })
            .collect::<Result<Map<_, _>, String>>()
            .map(Value::Object);
    }
    let Some(properties) = schema["properties"].as_object() else {
        // A struct of any members.
        return match entries {
            Some(_) => Ok(value.clone()),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {
                Err(format!("bad StructValue: {}", mismatch(value, MESSAGE)))
            }
            None => Err(mismatch(value, MESSAGE)),
        };
    };
    let entries = entries.ok_or_else(|| mismatch(value, MESSAGE))?;
    let message = messages::name(place.message, place.field);
    let mut out = Map::new();
    for (name, inner) in properties {
        if properties.contains_key(&camel(name)) && camel(name) != *name {
            continue;
        }
        // The proto's own spelling of a name is as good.
        let field = entries.get(name).or_else(|| entries.get(&snake(name)));
        if let Some(field) = field.filter(|v| !v.is_null()) {
            let inside = Place {
                message,
                field: name,
                ..place
            };
            out.insert(camel(name), self::value(inner, field, inside)?);
        }
    }
    let known = |name: &String| {
        properties.contains_key(name) || properties.keys().any(|known| snake(known) == *name)
    };
    if place.unknown == Unknown::Refused
        && let Some(unknown) = entries.keys().find(|name| !known(name))
    {
        return Err(format!("unknown field {} in {message}", quote(unknown)));
    }
    for group in exclusive(schema) {
        let mut set = group.iter().filter(|name| out.contains_key(*name));
        if let Some(last) = set.next_back() {
            let last = last.clone();
            out.retain(|name, _| *name == last || !group.contains(name));
        }
    }
    Ok(Value::Object(out))
}

/// Groups of fields of which a message has one: in its schema each is an alternative of a `oneOf`.
fn exclusive(schema: &Value) -> Vec<Vec<String>> {
    let all = schema["allOf"].as_array().into_iter().flatten();
    std::iter::once(schema)
        .chain(all)
        .filter_map(|schema| schema["oneOf"].as_array())
        .map(|alternatives| {
            alternatives
                .iter()
                .filter_map(|alternative| alternative["required"][0].as_str())
                .map(camel)
                .collect()
        })
        .collect()
}

/// `jwks_uri` as `jwksUri`.
fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.extend(c.to_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// `jwksUri` as `jwks_uri`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Fields that are durations although their CRDs have no rule for it: zero is allowed there.
const DURATIONS: &[&str] = &["idleTimeout", "ttl", "budgetInterval"];

fn text(schema: &Value, value: &Value, name: &str) -> Result<Value, String> {
    if let Some(names) = schema["enum"].as_array() {
        return enumeration(names, value, name);
    }
    let Some(text) = value.as_str() else {
        return Err(mismatch(value, "string"));
    };
    let rules = schema["x-kubernetes-validations"].as_array();
    let is_duration = DURATIONS.contains(&name)
        || rules.is_some_and(|rules| {
            let rule = |r: &Value| {
                r["rule"]
                    .as_str()
                    .is_some_and(|r| r.starts_with("duration("))
            };
            rules.iter().any(rule)
        });
    if is_duration {
        parse_duration(text).map_err(|why| format!("bad Duration: {why}"))?;
    }
    if schema["format"] == "byte" {
        go::base64::check(text)?;
    }
    Ok(value.clone())
}

fn enumeration(names: &[Value], value: &Value, field: &str) -> Result<Value, String> {
    if value.is_string() {
        if names.contains(value) {
            return Ok(value.clone());
        }
        let name = full_name(names, field);
        return Err(format!(
            "unknown value {} for enum {name}",
            quote(&value.to_string())
        ));
    }
    let go = "protoreflect.EnumNumber";
    let number = whole(value, go, i32::MIN.into(), i32::MAX.into())?;
    let name = number
        .as_u64()
        .and_then(|number| names.get(usize::try_from(number).ok()?));
    Ok(name.cloned().unwrap_or(Value::Null))
}

/// The full names of Istio's enums, by their first two values.
const ENUMS: &[(&str, &str, &str)] = &[
    ("UNDEFINED", "CLIENT", "type.v1beta1.WorkloadMode"),
    (
        "UNSPECIFIED_PHASE",
        "AUTHN",
        "extensions.v1alpha1.PluginPhase",
    ),
    (
        "UNSPECIFIED",
        "AUTHN",
        "networking.v1alpha3.EnvoyFilter.Patch.FilterClass",
    ),
    (
        "FAIL_CLOSE",
        "FAIL_OPEN",
        "extensions.v1alpha1.FailStrategy",
    ),
    (
        "UNSPECIFIED_POLICY",
        "IfNotPresent",
        "extensions.v1alpha1.PullPolicy",
    ),
    (
        "UNSPECIFIED_PLUGIN_TYPE",
        "HTTP",
        "extensions.v1alpha1.PluginType",
    ),
    ("INLINE", "HOST", "extensions.v1alpha1.EnvValueSource"),
    (
        "DEFAULT",
        "DO_NOT_UPGRADE",
        "networking.v1alpha3.ConnectionPoolSettings.HTTPSettings.H2UpgradePolicy",
    ),
    (
        "UNSPECIFIED",
        "LEAST_CONN",
        "networking.v1alpha3.LoadBalancerSettings.SimpleLB",
    ),
    (
        "DISABLE",
        "SIMPLE",
        "networking.v1alpha3.ClientTLSSettings.TLSmode",
    ),
    (
        "V1",
        "V2",
        "networking.v1alpha3.TrafficPolicy.ProxyProtocol.VERSION",
    ),
    (
        "INVALID",
        "LISTENER",
        "networking.v1alpha3.EnvoyFilter.ApplyTo",
    ),
    (
        "ANY",
        "SIDECAR_INBOUND",
        "networking.v1alpha3.EnvoyFilter.PatchContext",
    ),
    (
        "ANY",
        "ROUTE",
        "networking.v1alpha3.EnvoyFilter.RouteConfigurationMatch.RouteMatch.Action",
    ),
    (
        "INVALID",
        "MERGE",
        "networking.v1alpha3.EnvoyFilter.Patch.Operation",
    ),
    (
        "TLS_AUTO",
        "TLSV1_0",
        "networking.v1alpha3.ServerTLSSettings.TLSProtocol",
    ),
    (
        "PASSTHROUGH",
        "SIMPLE",
        "networking.v1alpha3.ServerTLSSettings.TLSmode",
    ),
    (
        "MESH_EXTERNAL",
        "MESH_INTERNAL",
        "networking.v1alpha3.ServiceEntry.Location",
    ),
    (
        "NONE",
        "STATIC",
        "networking.v1alpha3.ServiceEntry.Resolution",
    ),
    ("DEFAULT", "IPTABLES", "networking.v1alpha3.CaptureMode"),
    (
        "REGISTRY_ONLY",
        "ALLOW_ANY",
        "networking.v1alpha3.OutboundTrafficPolicy.Mode",
    ),
    (
        "UNSPECIFIED",
        "FORWARD",
        "networking.v1alpha3.CorsPolicy.UnmatchedPreflights",
    ),
    (
        "FROM_PROTOCOL_DEFAULT",
        "FROM_REQUEST_PORT",
        "networking.v1alpha3.HTTPRedirect.RedirectPortSelection",
    ),
    (
        "ALLOW",
        "DENY",
        "security.v1beta1.AuthorizationPolicy.Action",
    ),
    (
        "UNSET",
        "DISABLE",
        "security.v1beta1.PeerAuthentication.MutualTLS.Mode",
    ),
    (
        "CLIENT_AND_SERVER",
        "CLIENT",
        "telemetry.v1alpha1.WorkloadMode",
    ),
    (
        "ALL_METRICS",
        "REQUEST_COUNT",
        "telemetry.v1alpha1.MetricSelector.IstioMetric",
    ),
    (
        "UPSERT",
        "REMOVE",
        "telemetry.v1alpha1.MetricsOverrides.TagOverride.Operation",
    ),
];

/// The name of an enum; two have the same values, and only the field tells which it is.
fn full_name(names: &[Value], field: &str) -> String {
    if field == "phase" && names.first().is_some_and(|first| first == "UNSPECIFIED") {
        return "istio.extensions.v1alpha1.TrafficExtension.ExecutionPhase".into();
    }
    let name = |i: usize| names.get(i).and_then(Value::as_str).unwrap_or("");
    ENUMS
        .iter()
        .find(|(first, second, _)| *first == name(0) && *second == name(1))
        .map_or_else(|| "istio".into(), |(_, _, full)| format!("istio.{full}"))
}

fn integer(schema: &Value, value: &Value) -> Result<Value, String> {
    let unsigned = schema["minimum"].is_number() && schema["format"].is_null();
    let (go, low, high) = match (unsigned, schema["maximum"].is_number()) {
        (true, true) => ("uint32", 0, i128::from(u32::MAX)),
        (true, false) => ("uint64", 0, i128::from(u64::MAX)),
        _ if schema["format"] == "int64" => ("int64", i128::from(i64::MIN), i128::from(i64::MAX)),
        _ => ("int32", i128::from(i32::MIN), i128::from(i32::MAX)),
    };
    whole(value, go, low, high)
}

/// A whole number within bounds, also written as a text.
pub(crate) fn whole(value: &Value, go: &str, low: i128, high: i128) -> Result<Value, String> {
    let parsed;
    let number = match value {
        Value::Number(_) => value,
        Value::String(text) => {
            parsed = unquoted(text)?;
            &parsed
        }
        other => return Err(mismatch(other, go)),
    };
    let Value::Number(n) = number else {
        return Err(mismatch(number, go));
    };
    let exact = n
        .as_i64()
        .map(i128::from)
        .or_else(|| n.as_u64().map(i128::from));
    match exact {
        Some(exact) if (low..=high).contains(&exact) => Ok(number.clone()),
        // YAML's 1e3 arrives as 1000.0 and is printed by Kubernetes as 1000.
        None if n
            .as_f64()
            .is_some_and(|f| f.fract() == 0.0 && f.abs() < 9e15) =>
        {
            let exact = n.as_f64().unwrap_or_default() as i128;
            if (low..=high).contains(&exact) {
                Ok(Value::Number(Number::from(exact as i64)))
            } else {
                Err(format!(
                    "json: cannot unmarshal number {exact} into Go value of type {go}"
                ))
            }
        }
        _ => Err(format!(
            "json: cannot unmarshal number {n} into Go value of type {go}"
        )),
    }
}

fn unquoted(text: &str) -> Result<Value, String> {
    let text = go::json::value(text, go::json::Extent::Whole)?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// A number, also written as a text.
pub(crate) fn float(value: &Value, go: &str) -> Result<Value, String> {
    match value {
        Value::Number(_) => Ok(value.clone()),
        Value::String(text) if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") => {
            Ok(value.clone())
        }
        Value::String(text) => match unquoted(text)? {
            number @ Value::Number(_) => Ok(number),
            other => Err(mismatch(&other, go)),
        },
        other => Err(mismatch(other, go)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // As the real program says it.
    #[test]
    fn a_status_that_does_not_fit_is_told_by_its_first_wrong_field() {
        for (value, expected) in [
            (
                json!({"conditions": [{"type": "A", "other": 1}], "other": 1}),
                Ok(()),
            ),
            (
                json!("ok"),
                Err(
                    "json: cannot unmarshal string into Go value of type map[string]json.RawMessage",
                ),
            ),
            (
                json!({"observedGeneration": "x", "conditions": {"type": "A"}}),
                Err("json: cannot unmarshal object into Go value of type []json.RawMessage"),
            ),
            (
                json!({"conditions": [{"observedGeneration": 1.5}, {"type": 5}]}),
                Err("json: cannot unmarshal number 1.5 into Go value of type int64"),
            ),
            (
                json!({"conditions": [{"type": "A", "status": false}]}),
                Err("json: cannot unmarshal bool into Go value of type string"),
            ),
            (
                json!({"observedGeneration": "x"}),
                Err("invalid character 'x' looking for beginning of value"),
            ),
        ] {
            assert_eq!(status(&value), expected.map_err(str::to_owned), "{value}");
        }
    }

    #[test]
    fn every_enum_of_the_crds_has_a_name() {
        fn walk(schema: &Value, into: &mut Vec<Value>) {
            if let Some(names) = schema.get("enum") {
                into.push(names.clone());
            }
            for inner in schema["properties"].as_object().into_iter().flatten() {
                walk(inner.1, into);
            }
            for key in ["items", "additionalProperties"] {
                if schema[key].is_object() {
                    walk(&schema[key], into);
                }
            }
        }
        let mut all = Vec::new();
        for schema in SCHEMAS.values() {
            walk(schema, &mut all);
        }
        assert!(all.len() > 20);
        for names in all {
            assert_ne!(full_name(names.as_array().unwrap(), ""), "istio", "{names}");
        }
    }

    #[test]
    fn numbers_may_be_texts_and_nulls_are_absent() {
        let spec = json!({"hosts": null, "http": [null, {"route": [{"weight": "50"}]}]});
        assert_eq!(
            decode("VirtualService", &spec, Unknown::Skipped).unwrap(),
            json!({"http": [{}, {"route": [{"weight": 50}]}]})
        );
    }

    #[test]
    fn of_fields_that_exclude_each_other_the_last_counts() {
        let spec = json!({"template": {}, "probe": {"exec": {}, "httpGet": {}}});
        assert_eq!(
            decode("WorkloadGroup", &spec, Unknown::Skipped).unwrap(),
            json!({"template": {}, "probe": {"exec": {}}})
        );
    }

    #[test]
    fn keys_of_ports_are_numbers() {
        let spec = json!({"portLevelMtls": {"http": {"mode": "STRICT"}}});
        assert_eq!(
            decode("PeerAuthentication", &spec, Unknown::Skipped).unwrap_err(),
            "invalid character 'h' looking for beginning of value"
        );
    }

    #[test]
    fn a_file_is_told_its_unknown_fields_with_their_message() {
        let spec = json!({"http": [{"timeuot": "1s", "route": [{"destination": {"host": "a"}}]}]});
        assert_eq!(
            decode("VirtualService", &spec, Unknown::Refused).unwrap_err(),
            "unknown field \"timeuot\" in istio.networking.v1alpha3.HTTPRoute"
        );
        assert!(decode("VirtualService", &spec, Unknown::Skipped).is_ok());
        let spelled = json!({"http": [{"direct_response": {"status": 200}}]});
        assert!(decode("VirtualService", &spelled, Unknown::Refused).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_said_in_the_words_of_go() {
        for (spec, want) in [
            (
                json!({"http": [{"timeout": "10"}]}),
                "bad Duration: time: missing unit in duration \"10\"",
            ),
            (
                json!({"http": {}}),
                "json: cannot unmarshal object into Go value of type []json.RawMessage",
            ),
            (
                json!({"http": [1]}),
                "json: cannot unmarshal number into Go value of type map[string]json.RawMessage",
            ),
            (
                json!({"hosts": [true]}),
                "json: cannot unmarshal bool into Go value of type string",
            ),
            (
                json!({"http": [{"route": [{"weight": 3_000_000_000u64}]}]}),
                "json: cannot unmarshal number 3000000000 into Go value of type int32",
            ),
            (
                json!({"http": [{"redirect": {"derivePort": "X"}}]}),
                "unknown value \"\\\"X\\\"\" for enum istio.networking.v1alpha3.HTTPRedirect.RedirectPortSelection",
            ),
        ] {
            assert_eq!(
                decode("VirtualService", &spec, Unknown::Skipped).unwrap_err(),
                want
            );
        }
    }
}
