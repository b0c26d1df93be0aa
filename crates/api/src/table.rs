//! Server-side printing: `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`.
//!
//! Columns are those of a real kube-apiserver 1.32 (`data/columns.json`); cells are tested against its answers
//! (`tests/data/tables.json`).

mod autoscaling;
mod custom;
mod pod;
mod rows;
mod storage;

use crate::meta;
use crate::meta::list;
use crate::scheme::ResourceInfo;
use crate::time::Time;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

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

fn columns_of(resource: &ResourceInfo) -> Cow<'static, Value> {
    if resource.crd.is_some() {
        return Cow::Owned(custom::columns(resource));
    }
    let known = COLUMNS.get(&format!("{}/{}", resource.api_version(), resource.kind));
    known.map_or_else(
        || {
            Cow::Owned(json!([
                {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
                {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
            ]))
        },
        Cow::Borrowed,
    )
}

/// An object that becomes a row.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The object.
    pub object: Arc<Value>,
    /// The object as JSON.
    pub text: &'a [u8],
    /// Its `metadata` as JSON.
    pub metadata: &'a [u8],
}

/// A `meta.k8s.io/v1` Table of objects of one resource, as JSON: the rows of a long list are never values. `list_metadata` is the
/// `metadata` of the list (resourceVersion, continue, remainingItemCount); for one object, its resourceVersion. Watch events carry such a
/// table with one row; the real server sends the column definitions in the first event only (`columns = false` afterwards).
pub fn table<'a>(
    resource: &ResourceInfo,
    rows: impl ExactSizeIterator<Item = Row<'a>>,
    list_metadata: &Value,
    include: IncludeObject,
    columns: bool,
    now: Time,
) -> Vec<u8> {
    let printer = custom::Printer::new(resource);
    let is_pod = resource.kind == "Pod" && resource.group.is_empty();
    let mut out = Vec::with_capacity(2048 + 1024 * rows.len());
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
    put(&mut out, list_metadata);
    out.extend_from_slice(br#","columnDefinitions":"#);
    if columns {
        put(&mut out, &columns_of(resource));
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(br#","rows":"#);
    // No rows are null, not an empty list.
    if rows.len() == 0 {
        out.extend_from_slice(b"null}");
        return out;
    }
    for (i, row) in rows.enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        let cells = match &printer {
            Some(p) => p.cells(&row.object, now),
            None => rows::cells(resource, &row.object, now),
        };
        out.extend_from_slice(br#"{"cells":"#);
        put(&mut out, &Value::Array(cells));
        if is_pod && let Some(conditions) = pod::conditions(&row.object) {
            out.extend_from_slice(br#","conditions":"#);
            put(&mut out, &conditions);
        }
        out.extend_from_slice(br#","object":"#);
        match include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Object => out.extend_from_slice(row.text),
            IncludeObject::Metadata => {
                out.extend_from_slice(
                    br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
                );
                out.extend_from_slice(row.metadata);
                out.push(b'}');
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    // Writing into memory does not fail, and a value has no keys that are no texts.
    serde_json::to_writer(out, value).expect("a value is serialisable");
}

/// The age cell.
fn age(o: &Value, now: Time) -> Value {
    crate::time::age(meta::creation_timestamp(o), now).into()
}

/// A string member, or what stands for an absent one.
fn text_or<'a>(v: &'a Value, none: &'a str) -> &'a str {
    v.as_str().filter(|s| !s.is_empty()).unwrap_or(none)
}
