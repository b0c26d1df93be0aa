//! Server-side printing: `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`.
//!
//! Columns are those of a real kube-apiserver 1.32 (`data/columns.json`); cells are tested against its answers
//! (`tests/data/tables.json`).

mod custom;
mod pod;
mod rows;

use crate::meta;
use crate::scheme::ResourceInfo;
use crate::time::Time;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What of each object goes along with its row (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata; the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; an unknown value is a 400.
    pub fn parse(value: Option<&str>) -> Result<Self, crate::status::StatusError> {
        match value {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(crate::status::StatusError::bad_request(format!(
                "unrecognized includeObject value: {}",
                crate::field::quote(other)
            ))),
        }
    }
}

static COLUMNS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/columns.json"))
        .expect("data/columns.json is well formed")
});

fn columns_of(resource: &ResourceInfo) -> Value {
    if resource.crd.is_some() {
        return custom::columns(resource);
    }
    COLUMNS.get(&format!("{}/{}", resource.api_version(), resource.kind)).cloned().unwrap_or_else(|| {
        json!([
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
        ])
    })
}

/// A `meta.k8s.io/v1` Table of objects of one resource. `list_metadata` is the `metadata` of the list (resourceVersion,
/// continue, remainingItemCount); for one object, its resourceVersion. Watch events carry such a table with one row;
/// the real server sends the column definitions in the first event only (`columns = false` afterwards).
pub fn table(
    resource: &ResourceInfo,
    objects: &[&Value],
    list_metadata: Value,
    include: IncludeObject,
    columns: bool,
    now: Time,
) -> Value {
    let printer = custom::Printer::new(resource);
    let rows: Vec<Value> = objects
        .iter()
        .map(|o| {
            let mut row = Map::new();
            let cells = match &printer {
                Some(p) => p.cells(o, now),
                None => rows::cells(resource, o, now),
            };
            row.insert("cells".into(), Value::Array(cells));
            if resource.kind == "Pod"
                && resource.group.is_empty()
                && let Some(c) = pod::conditions(o)
            {
                row.insert("conditions".into(), c);
            }
            row.insert(
                "object".into(),
                match include {
                    IncludeObject::None => Value::Null,
                    IncludeObject::Object => (*o).clone(),
                    IncludeObject::Metadata => json!({
                        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"],
                    }),
                },
            );
            Value::Object(row)
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": if columns { columns_of(resource) } else { Value::Null },
        // No rows are null, not an empty list.
        "rows": if rows.is_empty() { Value::Null } else { Value::Array(rows) },
    })
}

/// The age cell.
fn age(o: &Value, now: Time) -> Value {
    crate::time::age(meta::creation_timestamp(o), now).into()
}

/// A string member, or what stands for an absent one.
fn text_or<'a>(v: &'a Value, none: &'a str) -> &'a str {
    v.as_str().filter(|s| !s.is_empty()).unwrap_or(none)
}

/// The entries of a list.
fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}
