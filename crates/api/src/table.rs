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
use std::sync::{Arc, LazyLock, OnceLock};

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
pub trait Source {
    /// The object.
    fn object(&self) -> Arc<Value>;
    /// The object as JSON.
    fn text(&self) -> &[u8];
    /// Its `metadata` as JSON.
    fn metadata(&self) -> &[u8];
    /// Where its [`Cells`] are kept from one table to the next; `None` in it where they cannot be.
    fn kept(&self) -> &OnceLock<Option<Arc<Cells>>>;
}

/// The cells of an object as JSON, with gaps where its age goes: nearly always all that another moment changes of a row.
#[derive(Debug)]
pub struct Cells {
    /// Whose columns they are.
    resource: Arc<ResourceInfo>,
    created: Option<Time>,
    /// What is before, between and behind the gaps.
    parts: Vec<Box<[u8]>>,
    /// The conditions of the row with the name of the member; empty where it has none.
    conditions: Box<[u8]>,
}

/// Cells and conditions of an object, now.
struct Printed {
    cells: Vec<Value>,
    conditions: Option<Value>,
}

fn print(
    resource: &ResourceInfo,
    printer: Option<&custom::Printer>,
    object: &Value,
    now: Time,
) -> Printed {
    let is_pod = resource.kind == "Pod" && resource.group.is_empty();
    Printed {
        cells: match printer {
            Some(p) => p.cells(object, now),
            None => rows::cells(resource, object, now),
        },
        conditions: if is_pod {
            pod::conditions(object)
        } else {
            None
        },
    }
}

fn put_conditions(out: &mut Vec<u8>, conditions: Option<&Value>) {
    if let Some(conditions) = conditions {
        out.extend_from_slice(br#","conditions":"#);
        put(out, conditions);
    }
}

impl Cells {
    /// Takes cells apart where those of another moment are others. `None`: more than the age depends on the moment.
    fn of(
        resource: &Arc<ResourceInfo>,
        object: &Value,
        (now, printed): (Time, &Printed),
        (later, then): (Time, &Printed),
    ) -> Option<Self> {
        let created = meta::creation_timestamp(object).and_then(crate::time::parse);
        let mut parts = Vec::new();
        let mut part = Vec::new();
        for (i, (cell, other)) in printed.cells.iter().zip(&then.cells).enumerate() {
            part.push(if i == 0 { b'[' } else { b',' });
            if cell == other {
                put(&mut part, cell);
                continue;
            }
            let age_at = |at: Time| created.map(|t| crate::time::human_duration(at - t));
            if age_at(now).as_deref() != cell.as_str() || age_at(later).as_deref() != other.as_str()
            {
                return None;
            }
            parts.push(std::mem::take(&mut part).into());
        }
        part.push(b']');
        parts.push(part.into());
        let mut conditions = Vec::new();
        put_conditions(&mut conditions, printed.conditions.as_ref());
        Some(Self {
            resource: resource.clone(),
            created,
            parts,
            conditions: conditions.into(),
        })
    }

    fn write(&self, out: &mut Vec<u8>, now: Time) {
        let age = self.created.map(|t| crate::time::human_duration(now - t));
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                put(out, &age.as_deref().into());
            }
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&self.conditions);
    }
}

/// Writes cells and conditions of a row, and keeps them if that is possible.
fn put_cells(
    out: &mut Vec<u8>,
    resource: &Arc<ResourceInfo>,
    printer: Option<&custom::Printer>,
    row: &dyn Source,
    now: Time,
) {
    // Far enough away for every age to be another.
    const FAR: ::time::Duration = ::time::Duration::days(10_000);
    let known = row.kept().get();
    if let Some(Some(cells)) = known
        && Arc::ptr_eq(&cells.resource, resource)
    {
        return cells.write(out, now);
    }
    let object = row.object();
    let printed = print(resource, printer, &object, now);
    put(out, &Value::Array(printed.cells.clone()));
    put_conditions(out, printed.conditions.as_ref());
    if known.is_none() {
        let then = print(resource, printer, &object, now + FAR);
        let cells = Cells::of(resource, &object, (now, &printed), (now + FAR, &then));
        // Somebody else may have been quicker, with the same.
        let _ = row.kept().set(cells.map(Arc::new));
    }
}

/// A `meta.k8s.io/v1` Table of objects of one resource, as JSON: the rows of a long list are never values. `list_metadata` is the
/// `metadata` of the list (resourceVersion, continue, remainingItemCount); for one object, its resourceVersion. Watch events carry such a
/// table with one row; the real server sends the column definitions in the first event only (`columns = false` afterwards).
pub fn table(
    resource: &Arc<ResourceInfo>,
    rows: &[&dyn Source],
    list_metadata: &Value,
    include: IncludeObject,
    columns: bool,
    now: Time,
) -> Vec<u8> {
    let printer = custom::Printer::new(resource);
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
    if rows.is_empty() {
        out.extend_from_slice(b"null}");
        return out;
    }
    for (i, row) in rows.iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        out.extend_from_slice(br#"{"cells":"#);
        put_cells(&mut out, resource, printer.as_ref(), *row, now);
        out.extend_from_slice(br#","object":"#);
        match include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Object => out.extend_from_slice(row.text()),
            IncludeObject::Metadata => {
                out.extend_from_slice(
                    br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
                );
                out.extend_from_slice(row.metadata());
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
