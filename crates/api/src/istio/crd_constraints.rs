//! What Istio's CRDs demand beyond the types of the fields: bounds, required fields, protobuf's oneofs, CEL rules. The table
//! is `crd_constraints.txt`, which explains its own form.

use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static TABLE: LazyLock<Vec<Line>> = LazyLock::new(|| {
    include_str!("crd_constraints.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Line::parse)
        .collect()
});

#[derive(Debug, PartialEq)]
enum Action {
    /// Sets members of the schema; null removes one.
    Merge(Map<String, Value>),
    /// Adds a field with this schema to the one at the path.
    Add(String, Value),
    /// Takes a field away from the schema at the path.
    Remove(String),
}

#[derive(Debug)]
struct Line {
    kind: Option<&'static str>,
    /// The end of the path, in steps.
    path: Vec<String>,
    action: Action,
}

impl Line {
    fn parse(line: &'static str) -> Self {
        let (target, json) = line.split_once(' ').unwrap_or((line, "{}"));
        let json: Value = serde_json::from_str(json).expect("the table is JSON; a test reads it");
        let (sign, target) = match target.as_bytes().first() {
            Some(b'+' | b'-') => target.split_at(1),
            _ => ("", target),
        };
        let (kind, path) = match target.split_once(':') {
            Some((kind, path)) => (Some(kind), path),
            None => (None, target),
        };
        let mut path = steps(path);
        let action = match sign {
            "+" => Action::Add(path.pop().unwrap_or_default(), expand(json)),
            "-" => Action::Remove(path.pop().unwrap_or_default()),
            _ => match expand(json) {
                Value::Object(members) => Action::Merge(members),
                _ => Action::Merge(Map::new()),
            },
        };
        Self { kind, path, action }
    }

    fn concerns(&self, kind: &str, path: &[String]) -> bool {
        if let Some(own) = self.kind {
            return own == kind && self.path == path;
        }
        path.ends_with(&self.path)
    }
}

/// `a.b[].c` as `a`, `b`, `[]`, `c`.
fn steps(path: &str) -> Vec<String> {
    path.replace("[]", ".[]")
        .replace("{}", ".{}")
        .split('.')
        .map(String::from)
        .collect()
}

/// Writes `oneof` groups as JSON schema: either none of the fields is there, or exactly one.
fn expand(schema: Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                if key == "oneof" {
                    let mut groups: Vec<Value> =
                        value.as_array().into_iter().flatten().map(one_of).collect();
                    if groups.len() == 1 {
                        out.insert("oneOf".into(), groups[0]["oneOf"].take());
                    } else {
                        out.insert("allOf".into(), groups.into());
                    }
                } else {
                    out.insert(key, expand(value));
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => list.into_iter().map(expand).collect(),
        other => other,
    }
}

fn one_of(names: &Value) -> Value {
    let each: Vec<Value> = names
        .as_array()
        .into_iter()
        .flatten()
        .map(|name| json!({"required": [name]}))
        .collect();
    let mut all = vec![json!({"not": {"anyOf": each}})];
    all.extend(each);
    json!({"oneOf": all})
}

/// Puts the constraints of a kind into the schema of its spec.
pub(super) fn apply(kind: &str, spec: &mut Value) {
    walk(kind, spec, &mut vec!["spec".to_string()]);
}

fn walk(kind: &str, schema: &mut Value, path: &mut Vec<String>) {
    for line in TABLE.iter().filter(|line| line.concerns(kind, path)) {
        change(schema, &line.action);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, inner) in properties {
            path.push(name.clone());
            walk(kind, inner, path);
            path.pop();
        }
    }
    for (key, step) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get_mut(key).filter(|inner| inner.is_object()) {
            path.push(step.into());
            walk(kind, inner, path);
            path.pop();
        }
    }
}

fn change(schema: &mut Value, action: &Action) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    match action {
        Action::Merge(members) => {
            for (key, value) in members {
                if value.is_null() {
                    object.remove(key);
                } else {
                    object.insert(key.clone(), value.clone());
                }
            }
        }
        Action::Add(name, inner) => match name.as_str() {
            "[]" => {
                object.insert("items".into(), inner.clone());
            }
            "{}" => {
                object.insert("additionalProperties".into(), inner.clone());
            }
            name => {
                let properties = object.entry("properties").or_insert_with(|| json!({}));
                // A struct that has the field knows it better.
                if properties.get(name).is_none() {
                    properties[name] = inner.clone();
                }
            }
        },
        Action::Remove(name) => match name.as_str() {
            "[]" => {
                object.remove("items");
            }
            "{}" => {
                object.remove("additionalProperties");
            }
            name => {
                if let Some(Value::Object(properties)) = object.get_mut("properties") {
                    properties.shift_remove(name);
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::crd::crds;
    use super::*;

    #[test]
    fn every_line_meets_a_field() {
        let mut paths = Vec::new();
        fn collect(
            kind: &str,
            schema: &Value,
            path: &mut Vec<String>,
            into: &mut Vec<(String, Vec<String>)>,
        ) {
            into.push((kind.into(), path.clone()));
            let properties = schema["properties"].as_object().into_iter().flatten();
            let nested = [("items", "[]"), ("additionalProperties", "{}")];
            let nested = nested.iter().filter_map(|(key, step)| {
                Some((*step, schema.get(*key).filter(|s| s.is_object())?))
            });
            for (step, inner) in properties.map(|(k, v)| (k.as_str(), v)).chain(nested) {
                path.push(step.into());
                collect(kind, inner, path, into);
                path.pop();
            }
        }
        for crd in crds() {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            collect(
                kind,
                &schema["properties"]["spec"],
                &mut vec!["spec".into()],
                &mut paths,
            );
        }
        for line in TABLE.iter() {
            assert!(
                paths.iter().any(|(kind, path)| line.concerns(kind, path)),
                "no field of any kind is meant by {line:?}"
            );
        }
    }

    #[test]
    fn a_oneof_allows_none_or_one() {
        let schema = expand(json!({"oneof": [["a", "b"]]}));
        assert_eq!(
            schema,
            json!({"oneOf": [{"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, {"required": ["a"]}, {"required": ["b"]}]})
        );
    }
}
