//! Rows of custom resources: `additionalPrinterColumns`, or the age.

use crate::jsonpath::JsonPath;
use crate::meta;
use crate::scheme::ResourceInfo;
use crate::time::{self, Time};
use serde_json::{Map, Value, json};

fn definitions(resource: &ResourceInfo) -> Vec<Value> {
    let defined = resource
        .crd
        .as_ref()
        .and_then(|crd| {
            crd["spec"]["versions"]
                .as_array()?
                .iter()
                .find(|v| v["name"] == resource.version.as_str())
                .cloned()
        })
        .and_then(|v| v["additionalPrinterColumns"].as_array().cloned())
        .unwrap_or_default();
    if defined.is_empty() {
        return vec![
            json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        ];
    }
    defined
}

/// Column definitions.
pub fn columns(resource: &ResourceInfo) -> Value {
    let mut out = vec![
        json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}),
    ];
    for d in definitions(resource) {
        let mut m = Map::new();
        for key in ["name", "type", "format", "description"] {
            m.insert(key.into(), d[key].as_str().unwrap_or("").into());
        }
        m.insert(
            "priority".into(),
            d["priority"].as_i64().unwrap_or(0).into(),
        );
        out.push(Value::Object(m));
    }
    Value::Array(out)
}

/// Compiled columns of one resource.
pub struct Printer {
    columns: Vec<(String, Option<JsonPath>)>,
}

impl Printer {
    /// `None` for a built-in kind.
    pub fn new(resource: &ResourceInfo) -> Option<Self> {
        resource.crd.as_ref()?;
        let columns = definitions(resource)
            .iter()
            .map(|d| {
                let path = d["jsonPath"].as_str().and_then(|p| JsonPath::parse(p).ok());
                (d["type"].as_str().unwrap_or("").to_string(), path)
            })
            .collect();
        Some(Self { columns })
    }

    /// The cells; null where a path leads nowhere or the value is of another type.
    pub fn cells(&self, o: &Value, now: Time) -> Vec<Value> {
        let mut out = vec![meta::name(o).into()];
        for (ty, path) in &self.columns {
            let value = path
                .as_ref()
                .and_then(|p| p.find(o).into_iter().next().cloned());
            out.push(value.map_or(Value::Null, |v| cell(ty, v, now)));
        }
        out
    }
}

fn cell(ty: &str, v: Value, now: Time) -> Value {
    match (ty, &v) {
        ("string", Value::String(_)) => v,
        ("string", Value::Null) => "<nil>".into(),
        ("string", _) => v.to_string().into(),
        ("integer", Value::Number(n)) => n
            .as_i64()
            .or_else(|| n.as_f64().map(|f| f as i64))
            .map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => v,
        ("date", Value::String(s)) => match time::parse(s) {
            Some(t) => time::human_duration(now - t).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
